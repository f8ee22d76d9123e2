"""
Long computing in a process of its own, at low priority: in a thread it would hold up the loop, which shares the
interpreter's lock with it.
"""

import os
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from monitoring.errors import HookFailed

NICENESS = 10
"""Below the service and the loop: on two cores it must not be customers who wait."""
T = TypeVar("T")


def in_own_process(work: Callable[..., T], *arguments: Any) -> T:
    """
    What ``work`` gives or raises; a function of a module, with arguments that can be pickled. Blocks until it is done.

    The process ends with this one. Raises HookFailed when it was killed.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, work, arguments), daemon=True)
    process.start()
    # Held by the process alone from here on: when it is killed, the end is seen.
    sender.close()
    try:
        value, error = receiver.recv()
    except EOFError:
        process.join()
        raise HookFailed(f"the process that computed was ended with status {process.exitcode}") from None
    finally:
        receiver.close()
    process.join()
    if error is not None:
        raise error
    result: T = value
    return result


def _work(sender: Connection, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.nice(NICENESS)
    try:
        outcome = work(*arguments), None
    except Exception as error:
        sender.send((None, error))
    else:
        sender.send(outcome)
