"""
Ways out of the process: a command, a signed webhook, a SageMaker pipeline. Each is bounded by its timeout.

What may pass (a timeout, an overload, a lost connection) is raised as HookFailed and tried again under the same key;
what will not pass by itself is a failed result.
"""

import asyncio
import hashlib
import hmac
import importlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import IO, Any, Protocol

import httpx

from monitoring.errors import BadHook, HookFailed
from monitoring.remedies import ActionRequest, ActionResult
from monitoring.settings import variable

SHORTEST_SECRET = 16
"""Characters; a shorter one can be guessed from one signed request."""
FINAL_STATUSES = frozenset({2, 64, 65, 66, 78, 126, 127})
"""Exit statuses that trying again does not change: wrong usage, input or settings, and no such command."""
RETRIED_STATUSES = frozenset({408, 425, 429})
"""HTTP statuses that pass, besides 5xx."""
MOST_OUTPUT_BYTES = 64 * 2**20
"""A command that writes more is ended: its output lies on disk until then."""
_MOST_ANSWER_BYTES = 64 * 1024
_LOOK_EVERY_S = 0.2
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_RETRIED_CODES = re.compile("Throttl|TooManyRequests|LimitExceeded|Conflict|Unavailable|InternalFailure")


class CommandHook:
    """
    Runs a command in a process group of its own, without a shell.

    It reads the request as JSON from its input. When the last line of its output is a JSON object, that is the detail
    of the result. Exit status 0 is done, one of FINAL_STATUSES is a failure, anything else is tried again.
    """

    def __init__(self, argv: Sequence[str], timeout_s: float, most_output_bytes: int = MOST_OUTPUT_BYTES) -> None:
        """
        In ``argv``, ``{key}``, ``{incident}``, ``{action}``, ``{version}``, ``{policy}``, ``{role}``, ``{segment}`` and
        the names that the action prepares are replaced; other braces stay. Raises BadHook.
        """
        if not argv or not argv[0]:
            raise BadHook("a command hook needs a command")
        self._argv = tuple(argv)
        self._timeout_s = _seconds(timeout_s)
        self._most_output_bytes = most_output_bytes
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def send(self, request: ActionRequest, parameters: Mapping[str, str]) -> ActionResult:
        """See ``remedies.Hook``; waits for the end of the command."""
        try:
            argv = _filled(self._argv, request, parameters)
        except KeyError as missing:
            return ActionResult("failed", f"the command asks for {{{missing.args[0]}}}, which {request.action} has not")
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            asked.write(_body(request, parameters))
            asked.seek(0)
            try:
                process = self._start(argv, asked, output, errors)
            except (FileNotFoundError, PermissionError) as error:
                return ActionResult("failed", f"the command cannot be run: {error}")
            except OSError as error:
                raise HookFailed(f"the command cannot be run: {error}") from error
            ended_for = self._wait(process, (output, errors))
            return self._result(process.returncode, ended_for, _tail(output), _tail(errors))

    def close(self) -> None:
        """End what runs, with everything in its process group; nothing runs from now on."""
        with self._lock:
            self._is_closed = True
            for process in self._running:
                if process.poll() is None:
                    _end_group(process)

    def _start(
        self, argv: list[str], asked: IO[bytes], output: IO[bytes], errors: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise HookFailed("the sidecar stops")
            # Files, not pipes: what the command leaves behind can hold no reader here, and no full pipe holds it.
            process = subprocess.Popen(argv, stdin=asked, stdout=output, stderr=errors, start_new_session=True)  # noqa: S603 - no shell, from the settings
            self._running.add(process)
            return process

    def _wait(self, process: subprocess.Popen[bytes], written: tuple[IO[bytes], ...]) -> str | None:
        """Until it has ended; why it was ended from here, or None."""
        deadline = time.monotonic() + self._timeout_s
        ended_for = None
        try:
            while ended_for is None:
                left_s = deadline - time.monotonic()
                try:
                    process.wait(max(0.0, min(_LOOK_EVERY_S, left_s)))
                    break
                except subprocess.TimeoutExpired:
                    if left_s <= 0.0:
                        ended_for = f"took longer than {self._timeout_s:g} s"
                    elif sum(os.fstat(file.fileno()).st_size for file in written) > self._most_output_bytes:
                        ended_for = f"wrote more than {self._most_output_bytes} bytes"
        finally:
            if process.returncode is None:
                _end_group(process)
            process.wait()
            with self._lock:
                self._running.discard(process)
        return ended_for

    def _result(self, status: int, ended_for: str | None, output: str, errors: str) -> ActionResult:
        said = (errors.strip() or output.strip())[-2000:]
        if ended_for is not None:
            raise HookFailed(f"the command {ended_for} and was ended; it said: {said}")
        if status == 0:
            told = _last_object(output)
            return ActionResult("done", "The command has ended well.", {"output_tail": output[-2000:], **told})
        if status in FINAL_STATUSES:
            return ActionResult("failed", f"The command ended with status {status}.", {"output_tail": said})
        if self._is_closed:
            raise HookFailed("the sidecar stops")
        how = f"status {status}" if status > 0 else signal.Signals(-status).name
        raise HookFailed(f"the command ended with {how}; it said: {said}")


class WebhookHook:
    """
    Posts the request as JSON, signed.

    ``X-Monitor-Signature`` is ``sha256=`` and the hex HMAC-SHA256 of ``{X-Monitor-Timestamp}.{body}``. A receiver
    compares it, refuses an old timestamp, and does an ``Idempotency-Key`` once. 2xx is done; 408, 425, 429, 5xx and
    what the network does are tried again; any other status is a failure, also a redirect, which is not followed.
    """

    def __init__(self, url: str, secret: str, timeout_s: float, clock: Callable[[], float] = time.time) -> None:
        """``timeout_s`` is for the whole exchange. Raises BadHook."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise BadHook(f"{variable('hook_url')} is not a URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            # Not the URL itself: a password or a token may stand in it.
            raise BadHook(f"{variable('hook_url')} needs http or https and a host, got scheme {parsed.scheme!r}")
        if len(secret) < SHORTEST_SECRET:
            raise BadHook(f"the secret of a webhook has at least {SHORTEST_SECRET} characters, got {len(secret)}")
        self._url = parsed
        self._secret = secret
        self._timeout_s = _seconds(timeout_s)
        self._clock = clock
        # Reading the certificates takes a while, which is not to count against the answer.
        self._tls = httpx.create_ssl_context()

    def send(self, request: ActionRequest, parameters: Mapping[str, str]) -> ActionResult:
        """See ``remedies.Hook``; waits for the answer."""
        body, timestamp = _body(request, parameters), str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Idempotency-Key": request.key,
            "X-Monitor-Timestamp": timestamp,
            "X-Monitor-Signature": signature(self._secret, timestamp, body),
        }
        answer = asyncio.run(self._exchange(headers, body))
        detail = {"status": answer.status, **_last_object(answer.body.decode("utf-8", "replace"))}
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return ActionResult("done", f"The webhook answered {answer.status}.", detail)
        if answer.status in RETRIED_STATUSES or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise HookFailed(f"the webhook answered {answer.status}", retry_after_s(answer.retry_after, self._clock()))
        return ActionResult("failed", f"The webhook answered {answer.status}.", detail)

    async def _exchange(self, headers: Mapping[str, str], body: bytes) -> "_Answer":
        answer = None
        try:
            # Timeouts of httpx are of one read each: a byte now and then would hold it for ever.
            async with (
                asyncio.timeout(self._timeout_s),
                httpx.AsyncClient(verify=self._tls, timeout=None, follow_redirects=False) as client,  # noqa: S113 - above
                client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                answer = _Answer(response.status_code, response.headers.get("retry-after"))
                async for chunk in response.aiter_raw():
                    answer = replace(answer, body=(answer.body + chunk)[:_MOST_ANSWER_BYTES])
                    if len(answer.body) == _MOST_ANSWER_BYTES:
                        break
        except TimeoutError as error:
            if answer is None:
                raise HookFailed(f"the webhook did not answer within {self._timeout_s:g} s") from error
        except httpx.TransportError as error:
            if answer is None:
                raise HookFailed(f"the webhook was not reached: {type(error).__name__} {error}") from error
        # With the status the answer is there, however its body ended.
        return answer


class SageMakerClient(Protocol):
    """The one call of boto3's SageMaker client that is made."""

    def start_pipeline_execution(
        self,
        *,
        PipelineName: str,  # noqa: N803 - AWS's names
        PipelineExecutionDisplayName: str,  # noqa: N803
        PipelineExecutionDescription: str,  # noqa: N803
        PipelineParameters: list[dict[str, str]],  # noqa: N803
        ClientRequestToken: str,  # noqa: N803
    ) -> Mapping[str, Any]:
        """Start a pipeline; a token that was used before starts nothing."""


class SageMakerHook:
    """Starts a SageMaker pipeline, which goes on by itself: done means started."""

    def __init__(
        self,
        pipeline: str,
        region: str,
        timeout_s: float = 30.0,
        parameters: Mapping[str, str] | None = None,
        client: SageMakerClient | None = None,
    ) -> None:
        """
        ``parameters``: those that the pipeline declares, with what they are given; placeholders as in CommandHook.
        Without a client boto3's is made; raises BadHook where boto3 is not installed or refuses what it is told.
        """
        if not pipeline or not region:
            raise BadHook("a SageMaker hook needs a pipeline and a region")
        self._pipeline = pipeline
        self._parameters = dict(parameters or {})
        self._client = client or _boto3_client(region, _seconds(timeout_s))

    def send(self, request: ActionRequest, parameters: Mapping[str, str]) -> ActionResult:
        """See ``remedies.Hook``."""
        try:
            values = _filled(self._parameters.values(), request, parameters)
        except KeyError as missing:
            return ActionResult(
                "failed", f"the pipeline asks for {{{missing.args[0]}}}, which {request.action} has not"
            )
        try:
            started = self._client.start_pipeline_execution(
                PipelineName=self._pipeline,
                PipelineExecutionDisplayName=_display_name(request),
                PipelineExecutionDescription=_description(request),
                PipelineParameters=[
                    {"Name": name, "Value": value} for name, value in zip(self._parameters, values, strict=True)
                ],
                # AWS wants 32 to 128 characters; the same key gives the same token.
                ClientRequestToken=hashlib.sha256(request.key.encode()).hexdigest(),
            )
        except Exception as error:
            return _refused(error)
        arn = started["PipelineExecutionArn"]
        return ActionResult("done", f"Started {arn}.", {"pipeline_execution_arn": arn})


@dataclass(frozen=True)
class _Answer:
    status: int
    retry_after: str | None
    body: bytes = b""


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """
    What signs a webhook, as its header has it.

    >>> signature("0123456789abcdef", "1767268800", b"{}")[:15]
    'sha256=82330ea5'
    """
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def retry_after_s(header: str | None, now: float) -> float | None:
    """
    Seconds that a Retry-After asks for, as a number or as a date; None without one that can be read.

    >>> retry_after_s("120", 0.0), retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), retry_after_s("soon", 0.0)
    (120.0, 10.0, None)
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)


def _filled(parts: Sequence[str] | Any, request: ActionRequest, parameters: Mapping[str, str]) -> list[str]:
    fields = {
        "key": request.key,
        "incident": request.incident,
        "action": request.action,
        "version": request.stream.version,
        "policy": request.stream.policy,
        "role": request.stream.role,
        "segment": request.segment or "",
        **parameters,
    }
    return [_PLACEHOLDER.sub(lambda found: fields[found.group(1)], part) for part in parts]


def _body(request: ActionRequest, parameters: Mapping[str, str]) -> bytes:
    asked = {**request.to_json(), "parameters": dict(parameters)}
    return json.dumps(asked, ensure_ascii=False, allow_nan=False).encode()


def _seconds(timeout_s: float) -> float:
    if not 0.0 < timeout_s < threading.TIMEOUT_MAX:
        raise BadHook(f"a timeout is above 0 s, got {timeout_s}")
    return timeout_s


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Gone already: only its exit status is left to be read.
        process.kill()


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_ANSWER_BYTES))
    return file.read(_MOST_ANSWER_BYTES).decode("utf-8", "replace")


def _last_object(text: str) -> dict[str, Any]:
    """The JSON object that the last line is, or nothing."""
    lines = text.strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _boto3_client(region: str, timeout_s: float) -> SageMakerClient:
    try:
        # By name: only this hook needs them, so they are not among what the sidecar installs.
        boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    except ImportError as missing:
        raise BadHook(f"a SageMaker hook needs the package boto3: {missing}") from missing
    # One try within the timeout: the outbox tries again.
    limits = config.Config(connect_timeout=timeout_s / 2, read_timeout=timeout_s / 2, retries={"total_max_attempts": 1})
    try:
        client: SageMakerClient = boto3.client("sagemaker", region_name=region, config=limits)
    except Exception as wrong:
        # Whatever AWS_* and its files name wrongly; botocore has no one class for that.
        raise BadHook(f"no SageMaker client with {variable('sagemaker_region')} {region!r}: {wrong}") from wrong
    return client


def _refused(error: Exception) -> ActionResult:
    """A failure when AWS answered that it will not; raises HookFailed when it may pass."""
    response = getattr(error, "response", None)
    words = f"SageMaker: {type(error).__name__} {error}"
    if not isinstance(response, Mapping):
        raise HookFailed(words) from error
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status in RETRIED_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR or _RETRIED_CODES.search(code):
        raise HookFailed(words) from error
    return ActionResult("failed", words, {"code": code, "status": status})


def _display_name(request: ActionRequest) -> str:
    return re.sub("[^A-Za-z0-9]+", "-", request.incident)[:82].strip("-")


def _description(request: ActionRequest) -> str:
    of_segment = f", segment {request.segment}" if request.segment else ""
    return f"{request.key}: {' > '.join(request.path)}{of_segment}"[:3072].replace("\n", " ")
