"""All of a transaction or nothing; one process a state; no going on from a file that is not ours."""

import os
import sqlite3
from pathlib import Path

import pytest

from monitoring.errors import BadState, StateInUse
from monitoring.state_file import StateFile


def test_what_was_saved_is_there_after_opening_it_again(tmp_path: Path) -> None:
    """The last body of a name stays; a name that was never saved has none."""
    first = StateFile(tmp_path / "deep" / "state.sqlite")
    first.put("cursor", b"1")
    first.put("cursor", b"2")
    first.close()
    second = StateFile(tmp_path / "deep" / "state.sqlite")
    assert (second.get("cursor"), second.get("other")) == (b"2", None)
    second.close()


def test_failed_transaction_leaves_nothing(state: StateFile) -> None:
    """Also of what was written before the failure; the next transaction works."""

    def fail() -> None:
        with state.transaction():
            state.put("cursor", b"1")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert state.get("cursor") is None
    with state.transaction():
        state.put("cursor", b"2")
    assert state.get("cursor") == b"2"


def test_second_sidecar_on_one_state_refuses_to_start(tmp_path: Path) -> None:
    """It says who holds the state, and may start once that one is gone."""
    path = tmp_path / "state.sqlite"
    first = StateFile(path)
    with pytest.raises(StateInUse, match=f"process {os.getpid()}"):
        StateFile(path)
    first.put("cursor", b"1")
    first.close()
    StateFile(path).close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look like one" * 30, None])
def test_file_that_is_not_ours_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A damaged file or a schema of another release: the message names the file, and nothing is overwritten."""
    path = tmp_path / "state.sqlite"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version=99")
        other.close()
    else:
        path.write_bytes(content)
    for _ in range(2):
        # Twice: a refusal holds no lock.
        with pytest.raises(BadState, match=r"state\.sqlite"):
            StateFile(path)
