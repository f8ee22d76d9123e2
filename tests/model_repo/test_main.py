"""The commands that move what serves."""

import json
from pathlib import Path

import pytest

from model_repo.__main__ import main
from model_repo.contract.tuning import NO_TUNING, Tuning
from model_repo.store import Store
from tests.service.running import add_version, make_repository


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    store = make_repository(tmp_path / "versions")
    add_version(store, "2")
    return store


def test_promote_tune_reload_and_rollback(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Each prints what serves from then on."""
    repository = ("--repository", str(store.root))
    main(["promote", "2", "--reason", "better", *repository])
    main(["tune", "--batch-tokens", "48", "--max-tokens", "40", "--reason", "slow", *repository])
    assert store.deployment().tuning == Tuning(batch_tokens=48, max_tokens=40)
    main(["tune", "--reload", "--reason", "well again", *repository])
    main(["reload", "--reason", "slow again", *repository])
    assert (store.deployment().tuning, store.deployment().reload) == (NO_TUNING, 2)
    capsys.readouterr()
    main(["rollback", "--reason", "still slow", *repository])
    printed = json.loads(capsys.readouterr().out)
    assert (printed["number"], printed["champion"]["version"], printed["reason"]) == (6, "1", "still slow")
    assert store.deployment().to_json() == printed


def test_what_cannot_be_done_ends_the_command_with_its_reason(store: Store) -> None:
    """Nothing to go back to; a limit of zero."""
    with pytest.raises(SystemExit, match="go back to"):
        main(["rollback", "--reason", "slow", "--repository", str(store.root)])
    with pytest.raises(SystemExit, match="batch_tokens must be a whole number >= 1, got 0"):
        main(["tune", "--batch-tokens", "0", "--reason", "slow", "--repository", str(store.root)])
    assert store.deployment().number == 1
