"""
What can go wrong in the sidecar.

    MonitoringError
    ├── BadSettings      an environment variable is wrong or unknown: do not start
    ├── LogUnavailable   the event log is missing, locked or damaged: wait and look again
    ├── StateInUse       another sidecar works on this state: do not start
    ├── BadFailureTree   the failure tree names what is not there, or cannot be walked: do not start
    ├── BadHook          an action of the tree has nothing that does it, or a hook cannot work: do not start
    ├── HookFailed       an action could not be done now: the outbox tries again
    ├── CannotReport     a report was asked for that cannot be made: its message names the argument
    └── BadState         the state file is not one that this version can go on from: do not start
"""


class MonitoringError(Exception):
    """Root of the tree; the message names the file and the reason."""


class BadSettings(MonitoringError):
    """A setting is wrong or unknown; the message names each variable."""


class LogUnavailable(MonitoringError):
    """The event log cannot be read now. Nothing was counted; reading goes on where it was once it can."""


class StateInUse(MonitoringError):
    """Another sidecar holds this state; two would count every event twice."""


class BadState(MonitoringError):
    """The state file is damaged, or was written by another version of its schema."""


class BadFailureTree(MonitoringError):
    """The tree cannot be walked: the message names the part, what it says and what is allowed."""


class BadHook(MonitoringError):
    """Nothing does an action that the tree names, or a hook lacks what it needs; the message names both."""


class HookFailed(MonitoringError):
    """An action could not be done now. Raised to be tried again; what is final is a result instead."""

    def __init__(self, words: str, retry_after_s: float | None = None) -> None:
        super().__init__(words)
        self.retry_after_s = retry_after_s
        """Seconds that the other side asked to wait; None when it did not say."""


class CannotReport(MonitoringError):
    """A report cannot be made of what was asked for; the message names the argument and what is allowed."""
