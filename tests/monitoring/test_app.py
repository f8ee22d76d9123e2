"""The composition root: everything the tree asks for is there, and what cannot work refuses to start."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from model_repo.__main__ import main as pipeline
from model_repo.store import Store
from monitoring import hooks
from monitoring.app import actions_of, build, check_actions, default_command, hook_of
from monitoring.errors import BadHook
from monitoring.failure_tree import load
from monitoring.hooks import CommandHook, WebhookHook
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.settings import MonitorSettings
from monitoring.snapshot import Snapshot
from monitoring.state_file import StateFile
from monitoring.telemetry import Telemetry
from tests.monitoring.event_logs import KEY
from tests.monitoring.labelled_windows import request_of


def settings(folder: Path, **changes: object) -> MonitorSettings:
    """Everything in one folder."""
    paths = {"event_log_path": folder / "events.sqlite", "model_repo": folder / "repo", "work_folder": folder / "work"}
    return MonitorSettings(**{**paths, **changes})  # type: ignore[arg-type]


def test_every_action_of_the_tree_has_something_that_does_it(tmp_path: Path) -> None:
    """And nothing is there that no leaf leads to."""
    given, tree = settings(tmp_path), load()
    assert set(actions_of(given, Store(tmp_path / "repo"), tree, hook_of(given))) == set(tree.actions)


def test_an_action_that_nothing_does_refuses_to_start(tmp_path: Path) -> None:
    """By its name."""
    given, tree = settings(tmp_path), load()
    actions = actions_of(given, Store(tmp_path / "repo"), tree, hook_of(given))
    del actions["roll_back"]
    with pytest.raises(BadHook, match="roll_back"):
        check_actions(tree, actions)


def test_it_starts_without_a_log_or_a_version(tmp_path: Path, state: StateFile) -> None:
    """Both may come later."""
    sidecar = build(settings(tmp_path), state, Telemetry(lambda: Snapshot(at=0.0)))
    assert not sidecar.monitor.assess(1.0)
    sidecar.monitor.deliver(1.0)
    sidecar.close()


def test_hooks_are_what_the_settings_name(tmp_path: Path) -> None:
    """A SageMaker pipeline needs boto3, and says so at start."""
    assert isinstance(hook_of(settings(tmp_path)), CommandHook)
    url = {"hook_url": "http://127.0.0.1:9/hook", "hook_secret": "s" * 16}
    assert isinstance(hook_of(settings(tmp_path, hook="webhook", **url)), WebhookHook)
    if importlib.util.find_spec("boto3") is None:
        with pytest.raises(BadHook, match="boto3"):
            hook_of(settings(tmp_path, hook="sagemaker", sagemaker_pipeline="router", sagemaker_region="eu-west-1"))


def test_sagemaker_pipeline_is_given_what_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the variable to the call of boto3's client, which alone is a double."""
    calls: list[dict[str, Any]] = []

    class Client:
        def start_pipeline_execution(self, **call: Any) -> dict[str, str]:
            calls.append(call)
            return {"PipelineExecutionArn": "arn:aws:sagemaker:eu-west-1:1:pipeline/router/execution/1"}

    monkeypatch.setattr(hooks, "_boto3_client", lambda region, timeout_s: Client())
    parameters = '{"Labels": "{production_labels}", "Reason": "accuracy"}'
    where = {"sagemaker_pipeline": "router", "sagemaker_region": "eu-west-1", "sagemaker_parameters": parameters}
    hook = hook_of(settings(tmp_path, hook="sagemaker", **where))
    assert hook.send(request_of("retrain"), {"production_labels": "labels.jsonl"}).outcome == "done"
    [call] = calls
    wanted = [{"Name": "Labels", "Value": "labels.jsonl"}, {"Name": "Reason", "Value": "accuracy"}]
    assert (call["PipelineName"], call["PipelineParameters"]) == ("router", wanted)


def test_the_default_command_is_one_that_the_pipeline_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With every placeholder one that a retrain prepares."""
    command = default_command()
    assert command[1:4] == ["-m", "model_repo", "run"]
    with pytest.raises(SystemExit) as told:
        pipeline([*command[3:], "--help"])
    assert told.value.code == 0
    assert "--production-labels" in capsys.readouterr().out
    placeholders = {part for part in command if part.startswith("{")}
    assert placeholders == {"{production_labels}", "{out}"}


def test_a_command_of_the_settings_is_run_with_what_the_action_prepared(tmp_path: Path) -> None:
    """Split as a shell would, and run without one."""
    hook = hook_of(settings(tmp_path, retrain_command='sh -c \'echo "$0" > "$1"\' {production_labels} {out}'))
    request = ActionRequest("ece_up-1/1-retrain", "ece_up-1", "retrain", KEY, 1.0, (), (), None)
    out = tmp_path / "out"
    result = hook.send(request, {"production_labels": "a; rm b.jsonl", "out": str(out)})
    assert isinstance(result, ActionResult)
    assert (result.outcome, out.read_text()) == ("done", "a; rm b.jsonl\n")
