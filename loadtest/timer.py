"""A timer that a poll can wait for: Linux's timerfd, which Python 3.11 does not wrap."""

import ctypes
import os
import struct


class DueTimer:
    """A timerfd: wakes the poll at an absolute time, without rounding to milliseconds."""

    _CLOCK_MONOTONIC, _NONBLOCK, _ABSOLUTE = 1, 0o4000, 1

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._spec = ctypes.create_string_buffer(32)
        self.fd: int = self._libc.timerfd_create(self._CLOCK_MONOTONIC, self._NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def wake_at(self, when: float) -> None:
        """Set it to ``when``, in seconds of ``time.monotonic``; a time gone by wakes at once."""
        seconds = int(max(when, 1e-9))
        struct.pack_into("qqqq", self._spec, 0, 0, 0, seconds, max(1, int((when - seconds) * 1e9)))
        self._libc.timerfd_settime(self.fd, self._ABSOLUTE, self._spec, None)

    def clear(self) -> None:
        """Take note that it woke, so that the poll can sleep again."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:  # set anew between the wake-up and this read
            return

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
