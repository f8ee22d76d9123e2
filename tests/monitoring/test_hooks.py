"""Commands, webhooks and pipelines are bounded, say what may be tried again, and never do one key twice knowingly."""

import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monitoring.errors import BadHook, HookFailed
from monitoring.hooks import CommandHook, SageMakerHook, WebhookHook, retry_after_s
from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult, SignalRecord
from tests.monitoring.webhook_receiver import NOW, SECRET, Clock, Receiver, WebhookServer

LONG_S = 60.0
"""A timeout that no test reaches."""
REQUEST = ActionRequest(
    "accuracy_down-20260101T120000/1-retrain",
    "accuracy_down-20260101T120000",
    "retrain",
    StreamKey("3", "3.1", "champion"),
    NOW,
    ("accuracy down", "broad"),
    (SignalRecord("accuracy", 0.9, 0.88, None, 900, "breached", 0.93, 0.01),),
    "lang=ja; touch x",
)


def python(script: str, *arguments: str) -> list[str]:
    """A command line that runs a script, without what site packages bring."""
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


def command(script: str, *arguments: str, timeout_s: float = LONG_S) -> CommandHook:
    return CommandHook(python(script, *arguments), timeout_s)


class TestCommand:
    def test_it_reads_the_request_and_its_last_line_is_the_detail(self) -> None:
        """Whatever it printed before; the parameters that the action prepared are in what it reads."""
        script = (
            "import json, sys\n"
            "asked = json.load(sys.stdin)\n"
            "print('training'); print('{not json')\n"
            "print(json.dumps({'key': asked['key'], 'labels': asked['parameters']['labels'], 'ece': float('nan')}))\n"
        )
        result = command(script).send(REQUEST, {"labels": "labels.jsonl"})
        assert result.outcome == "done"
        told = {name: result.detail[name] for name in ("key", "labels", "ece")}
        assert told == {"key": REQUEST.key, "labels": "labels.jsonl", "ece": None}
        assert result.detail["output_tail"].startswith("training\n")

    @pytest.mark.parametrize("said", ["", "fine", "[1, 2]", "[" * 100_000, "{}"])
    def test_output_without_an_object_is_no_failure(self, said: str) -> None:
        """Nothing, text, a list, nonsense."""
        result = command(f"print({said!r})").send(REQUEST, {})
        assert (result.outcome, set(result.detail)) == ("done", {"output_tail"})

    def test_placeholders_are_filled_and_no_shell_reads_them(self) -> None:
        """A segment is made of what customers send; braces that name nothing stay."""
        hook = command(
            "import sys, json; print(json.dumps({'got': sys.argv[1:]}))", "{key}", "{segment}", '{"a": {labels}}'
        )
        got = hook.send(REQUEST, {"labels": "l.jsonl"}).detail["got"]
        assert got == [REQUEST.key, "lang=ja; touch x", '{"a": l.jsonl}']
        assert command("", "{segment}").send(replace(REQUEST, segment=None), {}).outcome == "done"

    def test_placeholder_that_nothing_fills_is_a_failure_for_good(self) -> None:
        """It is named."""
        result = command("", "{labels}").send(REQUEST, {})
        assert (result.outcome, "{labels}" in result.words) == ("failed", True)

    @pytest.mark.parametrize("status", [2, 64, 126])
    def test_wrong_usage_is_a_failure_for_good(self, status: int) -> None:
        """With what the command said of it."""
        script = f"import sys; print('no such option', file=sys.stderr); sys.exit({status})"
        result = command(script).send(REQUEST, {})
        assert (result.outcome, result.detail["output_tail"]) == ("failed", "no such option")

    def test_other_ends_are_tried_again_and_say_why(self) -> None:
        """A status, or a signal from elsewhere; the end of what was said is kept."""
        with pytest.raises(HookFailed, match="status 1; it said: disk full"):
            command("import sys; sys.exit('disk full')").send(REQUEST, {})
        with pytest.raises(HookFailed, match="SIGTERM"):
            command("import os; os.kill(os.getpid(), 15)").send(REQUEST, {})

    def test_only_the_tail_of_the_output_is_kept(self) -> None:
        """The last line is read even behind megabytes."""
        result = command("print('x' * 3_000_000); print('{\"n\": 1}')").send(REQUEST, {})
        assert result.detail["n"] == 1
        assert len(result.detail["output_tail"]) == 2000

    def test_command_that_is_not_there(self, tmp_path: Path) -> None:
        """Or may not be run: for good, with its name."""
        for path in (tmp_path / "none", tmp_path):
            result = CommandHook([str(path)], LONG_S).send(REQUEST, {})
            assert (result.outcome, str(path) in result.words) == ("failed", True)

    def test_command_that_hangs_is_ended_with_its_children(self, tmp_path: Path) -> None:
        """The whole process group, so that nothing goes on beside the next try."""
        pids = tmp_path / "pids"
        script = (
            "import subprocess, sys, os, time\n"
            "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'])\n"
            "print('waiting', flush=True)\n"
            f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
            "time.sleep(600)\n"
        )
        timeout_s = 0.5
        while not pids.exists() or not pids.read_text():
            # On a busy machine a try may be over before the command has begun.
            with pytest.raises(HookFailed, match=rf"took longer than {timeout_s:g} s"):
                command(script, timeout_s=timeout_s).send(REQUEST, {})
            timeout_s *= 2
        parent, child = (int(pid) for pid in pids.read_text().split())
        assert not is_alive(parent)
        # The child is killed with its parent; whoever inherits it may take a moment to notice.
        assert wait_until(lambda: not is_alive(child))

    def test_command_that_fills_the_disk_is_ended(self) -> None:
        """At a bound, long before its timeout."""
        hook = CommandHook(python("while True: print('x' * 100_000)"), LONG_S, most_output_bytes=1_000_000)
        with pytest.raises(HookFailed, match="wrote more than 1000000 bytes"):
            hook.send(REQUEST, {})

    def test_what_a_command_leaves_behind_holds_nobody(self) -> None:
        """A background child that keeps the output open: the command itself has ended, and that counts."""
        script = (
            "import subprocess, sys, json\n"
            "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'])\n"
            "print(json.dumps({'child': child.pid}))\n"
        )
        child = command(script).send(REQUEST, {}).detail["child"]
        assert is_alive(child)
        os.kill(child, signal.SIGKILL)

    def test_close_ends_what_runs(self, tmp_path: Path) -> None:
        """It is tried again after a start; nothing is started from then on."""
        started = tmp_path / "started"
        hook = command(f"import time; open({str(started)!r}, 'w').close(); time.sleep(600)")
        got: list[object] = []
        thread = threading.Thread(target=lambda: got.append(outcome_of(hook)))
        thread.start()
        assert wait_until(started.exists)
        hook.close()
        thread.join(LONG_S)
        assert [str(one) for one in got] == ["the sidecar stops"]
        with pytest.raises(HookFailed, match="the sidecar stops"):
            hook.send(REQUEST, {})

    @pytest.mark.parametrize(("argv", "timeout_s"), [([], 1.0), ([""], 1.0), (["true"], 0.0), (["true"], float("nan"))])
    def test_command_that_cannot_be_is_refused_at_start(self, argv: list[str], timeout_s: float) -> None:
        """Not at the first incident."""
        with pytest.raises(BadHook):
            CommandHook(argv, timeout_s)


def webhook(url: str, timeout_s: float = LONG_S, clock: Callable[[], float] = lambda: NOW) -> WebhookHook:
    return WebhookHook(url, SECRET, timeout_s, clock)


@contextmanager
def slow_server(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that reads a request and then does what it is told, until the end of the test."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    answer(connection, is_over)
                except OSError:
                    # The hook has gone, as it should.
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            is_over.set()
            thread.join()


class TestWebhook:
    def test_it_posts_the_request_and_keeps_the_answer(self) -> None:
        """The body is the request and what the action prepared; an object that is answered is the detail."""
        with WebhookServer((202, {}, b'{"run": "r-7", "score": NaN}')) as server:
            result = webhook(server.url).send(REQUEST, {"labels": "l.jsonl"})
        assert (result.outcome, result.detail) == ("done", {"status": 202, "run": "r-7", "score": None})
        ((headers, body),) = server.got
        sent = json.loads(body)
        assert ActionRequest.from_json({name: sent[name] for name in REQUEST.to_json()}) == REQUEST
        assert sent["parameters"] == {"labels": "l.jsonl"}
        assert (headers["Idempotency-Key"], headers["Content-Type"]) == (REQUEST.key, "application/json")

    def test_receiver_verifies_it_and_does_a_key_once(self) -> None:
        """Delivered twice, as after a kill: another timestamp, another signature, the same key."""
        clock = Clock()
        receiver = Receiver(clock)
        with WebhookServer(receiver=receiver) as server:
            for clock.now in (NOW, NOW + 60.0):
                assert webhook(server.url, clock=clock).send(REQUEST, {}).outcome == "done"
        assert receiver.done == [REQUEST.key]
        assert server.got[0][0]["X-Monitor-Signature"] != server.got[1][0]["X-Monitor-Signature"]

    def test_receiver_refuses_what_was_changed_or_is_old(self) -> None:
        """A replay of yesterday, a changed body, a changed timestamp, another secret."""
        clock = Clock()
        receiver = Receiver(clock)
        with WebhookServer() as server:
            webhook(server.url).send(REQUEST, {})
            WebhookHook(server.url, "another secret of theirs", LONG_S, lambda: NOW).send(REQUEST, {})
        (headers, body), (stranger, same_body) = server.got
        later = {**headers, "X-Monitor-Timestamp": str(int(NOW) + 86_400)}
        assert receiver.take(headers, body.replace(b"retrain", b"rollout")) == 401
        assert receiver.take(stranger, same_body) == 401
        assert receiver.take(headers, body) == 200
        clock.now = NOW + 86_400
        assert receiver.take(headers, body) == 401
        assert receiver.take(later, body) == 401
        assert receiver.done == [REQUEST.key]

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_what_passes_is_tried_again(self, status: int) -> None:
        """Without a word on when, the outbox decides."""
        with WebhookServer((status, {}, b"busy")) as server, pytest.raises(HookFailed, match=str(status)) as failure:
            webhook(server.url).send(REQUEST, {})
        assert failure.value.retry_after_s is None

    def test_retry_after_is_handed_on(self) -> None:
        """The outbox waits so long, up to its cap."""
        with WebhookServer((503, {"Retry-After": "120"}, b"")) as server, pytest.raises(HookFailed) as failure:
            webhook(server.url).send(REQUEST, {})
        assert failure.value.retry_after_s == 120.0

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
    def test_refusal_is_a_failure_for_good(self, status: int) -> None:
        """With what was said."""
        with WebhookServer((status, {}, b'{"error": "no"}')) as server:
            result = webhook(server.url).send(REQUEST, {})
        assert (result.outcome, result.detail) == ("failed", {"status": status, "error": "no"})

    def test_redirect_is_not_followed(self) -> None:
        """The signed request would go to whom nobody named."""
        with WebhookServer() as elsewhere, WebhookServer((307, {"Location": elsewhere.url}, b"")) as server:
            result = webhook(server.url).send(REQUEST, {})
        assert (result.outcome, result.detail["status"], elsewhere.got) == ("failed", 307, [])

    def test_nobody_there_is_tried_again(self) -> None:
        """A port that nobody listens on."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(HookFailed, match="not reached: ConnectError"):
            webhook(url).send(REQUEST, {})

    def test_server_that_hangs_up_is_tried_again(self) -> None:
        """Without an answer nobody knows whether it was done."""
        with (
            slow_server(lambda connection, _: connection.close()) as url,
            pytest.raises(HookFailed, match="not reached"),
        ):
            webhook(url).send(REQUEST, {})

    def test_silent_server_is_bounded(self) -> None:
        """It takes the request and says nothing."""
        with (
            slow_server(lambda _, is_over: wait_for(is_over)) as url,
            pytest.raises(HookFailed, match=r"within 0\.3 s"),
        ):
            webhook(url, timeout_s=0.3).send(REQUEST, {})

    def test_server_that_dribbles_is_bounded_too(self) -> None:
        """A byte of a header now and then: no single read takes long, the answer never comes."""

        def dribble(connection: socket.socket, is_over: threading.Event) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not is_over.wait(0.02):
                connection.sendall(b"x")

        with slow_server(dribble) as url, pytest.raises(HookFailed, match=r"within 0\.4 s"):
            webhook(url, timeout_s=0.4).send(REQUEST, {})

    def test_status_counts_even_when_its_body_never_ends(self) -> None:
        """Done is done; an endless body is cut at a bound."""

        def flood(connection: socket.socket, is_over: threading.Event) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
            while not is_over.is_set():
                connection.sendall(b"x" * 65536)

        def stop_after_status(connection: socket.socket, is_over: threading.Event) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            wait_for(is_over)

        with slow_server(flood) as url:
            assert webhook(url).send(REQUEST, {}).detail == {"status": 200}
        with slow_server(stop_after_status) as url:
            assert webhook(url, timeout_s=3.0).send(REQUEST, {}).outcome == "done"

    @pytest.mark.parametrize(
        ("url", "secret"),
        [
            ("ftp://example.org/", SECRET),
            ("https://", SECRET),
            ("not a url", SECRET),
            ("http://[::1", SECRET),
            ("ftp://user:pass-word@example.org/", SECRET),
            ("https://example.org/", "short"),
        ],
    )
    def test_webhook_that_cannot_be_is_refused_at_start(self, url: str, secret: str) -> None:
        """Not at the first incident, without what is secret in the message; a URL by the name of its variable."""
        with pytest.raises(BadHook) as refused:
            WebhookHook(url, secret, LONG_S)
        words = str(refused.value)
        assert secret not in words
        assert "pass-word" not in words
        assert ("MONITOR_HOOK_URL" in words) == (secret == SECRET)

    def test_retry_after_in_the_past_is_now(self) -> None:
        """And a date without a zone is UTC."""
        assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT", 50.0) == 0.0
        assert retry_after_s("Thu, 01 Jan 1970 00:01:00 -0000", 50.0) == 10.0


class AwsError(Exception):
    """Shaped as botocore's ClientError."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class StrictSageMaker:
    """Takes what AWS documents of StartPipelineExecution and refuses everything else."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started: dict[str, str] = {}
        self.calls: list[dict[str, Any]] = []
        self._error = error

    def start_pipeline_execution(
        self,
        *,
        PipelineName: str,  # noqa: N803 - AWS's names
        PipelineExecutionDisplayName: str,  # noqa: N803 - AWS's names
        PipelineExecutionDescription: str,  # noqa: N803 - AWS's names
        PipelineParameters: list[dict[str, str]],  # noqa: N803 - AWS's names
        ClientRequestToken: str,  # noqa: N803 - AWS's names
    ) -> Mapping[str, Any]:
        """See hooks.SageMakerClient."""
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,81}", PipelineExecutionDisplayName)
        assert re.fullmatch(r".{0,3072}", PipelineExecutionDescription)
        assert 32 <= len(ClientRequestToken) <= 128
        assert len(PipelineParameters) <= 50
        assert all(set(one) == {"Name", "Value"} and len(one["Value"]) <= 1024 for one in PipelineParameters)
        if self._error is not None:
            raise self._error
        arn = f"arn:aws:sagemaker:eu-west-1:123456789012:pipeline/{PipelineName}/execution/{len(self.started)}"
        self.calls.append({one["Name"]: one["Value"] for one in PipelineParameters})
        return {"PipelineExecutionArn": self.started.setdefault(ClientRequestToken, arn)}


def pipeline(client: StrictSageMaker, parameters: Mapping[str, str] | None = None) -> SageMakerHook:
    return SageMakerHook("retrain-router", "eu-west-1", LONG_S, parameters, client)


class TestSageMaker:
    def test_same_key_starts_one_pipeline(self) -> None:
        """Delivered twice, the second try is told the first one's execution; another key starts another."""
        aws = StrictSageMaker()
        first, again = (pipeline(aws).send(REQUEST, {}) for _ in range(2))
        assert first == again
        assert first.detail["pipeline_execution_arn"].endswith(":pipeline/retrain-router/execution/0")
        pipeline(aws).send(replace(REQUEST, key="other/1-retrain"), {})
        assert len(aws.started) == 2

    def test_declared_parameters_are_filled(self) -> None:
        """A pipeline refuses parameters that it does not declare, so only named ones are sent."""
        aws = StrictSageMaker()
        named = {"Labels": "s3://bucket/{labels}", "Segment": "{segment}"}
        pipeline(aws, named).send(REQUEST, {"labels": "l.jsonl"})
        pipeline(aws).send(REQUEST, {"labels": "l.jsonl"})
        assert aws.calls == [{"Labels": "s3://bucket/l.jsonl", "Segment": "lang=ja; touch x"}, {}]
        assert pipeline(aws, named).send(REQUEST, {}).outcome == "failed"

    def test_long_paths_and_odd_names_stay_within_what_aws_takes(self) -> None:
        """The double refuses what AWS would."""
        odd = replace(REQUEST, incident="ece_up-" + "x" * 200, path=("a\nb" * 2000,))
        assert pipeline(StrictSageMaker()).send(odd, {}).outcome == "done"

    @pytest.mark.parametrize(
        "error",
        [
            AwsError("ThrottlingException", 400),
            AwsError("ResourceLimitExceeded", 400),
            AwsError("InternalFailure", 500),
            AwsError("ServiceUnavailable", 503),
            ConnectionError("no route"),
        ],
    )
    def test_what_passes_is_tried_again(self, error: Exception) -> None:
        """A throttle, a quota, AWS's own trouble, the network."""
        with pytest.raises(HookFailed, match=str(error)[:8]):
            pipeline(StrictSageMaker(error)).send(REQUEST, {})

    @pytest.mark.parametrize("code", ["ValidationException", "ResourceNotFound", "AccessDeniedException"])
    def test_refusal_is_a_failure_for_good(self, code: str) -> None:
        """The code is kept."""
        result = pipeline(StrictSageMaker(AwsError(code, 400))).send(REQUEST, {})
        assert (result.outcome, result.detail) == ("failed", {"code": code, "status": 400})

    def test_without_boto3_it_is_refused_at_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In words that say what to install; the sidecar itself does not bring it."""
        monkeypatch.setitem(sys.modules, "boto3", None)
        with pytest.raises(BadHook, match="needs the package boto3"):
            SageMakerHook("retrain-router", "eu-west-1")

    def test_client_that_boto3_refuses_to_make_is_refused_at_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A region or a profile that cannot be: botocore raises classes of its own, or a bare ValueError."""

        def refuse(*_: object, **__: object) -> None:
            raise ValueError("Invalid endpoint: nonsense")

        monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(client=refuse))
        monkeypatch.setitem(sys.modules, "botocore.config", SimpleNamespace(Config=dict))
        with pytest.raises(BadHook, match=r"MONITOR_SAGEMAKER_REGION 'eu-west-1': Invalid endpoint: nonsense"):
            SageMakerHook("retrain-router", "eu-west-1")

    def test_pipeline_without_a_name_is_refused(self) -> None:
        """Or without a region."""
        for name, region in (("", "eu-west-1"), ("retrain-router", "")):
            with pytest.raises(BadHook, match="needs a pipeline and a region"):
                SageMakerHook(name, region, client=StrictSageMaker())


def outcome_of(hook: CommandHook) -> ActionResult | HookFailed:
    try:
        return hook.send(REQUEST, {})
    except HookFailed as failed:
        return failed


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(holds: Callable[[], bool]) -> bool:
    """Whether it holds within what no test takes."""
    pause = threading.Event()
    return any(holds() or pause.wait(0.01) for _ in range(int(LONG_S * 100)))


def wait_for(event: threading.Event) -> None:
    event.wait(LONG_S)
