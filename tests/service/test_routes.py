"""Every endpoint over ASGI, with a fake engine: good input, bad input, overload, deadlines, departures."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import PROBLEMS
from service.schemas import BatchAnswer, ModelAnswer, ProblemAnswer, ReadyAnswer, RouteAnswer
from tests.doubles import FakeBackend
from tests.service.running import MULTI_TEXT, OOD_TEXT, SINGLE_TEXT, TAXONOMY, Running, running

JSON = {"Content-Type": "application/json"}
STATUS = {problem.error_type: problem.status for problem in PROBLEMS.values()}

ABSENT = object()

BAD_BODIES: list[tuple[str, bytes, str, str | None]] = [
    ("empty body", b"", "malformed_body", None),
    ("not JSON", b"text=hello", "malformed_body", None),
    ("invalid UTF-8", b'{"text": "caf\xff"}', "malformed_body", None),
    ("lone surrogate", b'{"text": "a \\ud800 b"}', "malformed_body", None),
    ("deeply nested", b'{"text": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "malformed_body", None),
    ("deeply nested unknown field", b'{"text": "a", "x": ' + b'{"y":' * 10_000 + b"1", "malformed_body", None),
    ("not an object", b'["hello"]', "invalid_field", "body"),
    ("no text", b"{}", "invalid_field", "text"),
    ("null text", b'{"text": null}', "invalid_field", "text"),
    ("number for text", b'{"text": 7}', "invalid_field", "text"),
    ("list for text", b'{"text": ["hello"]}', "invalid_field", "text"),
    ("empty text", b'{"text": ""}', "invalid_field", "text"),
    ("blank text", b'{"text": " \\t\\n\\u3000"}', "invalid_field", "text"),
    ("spaces only", b'{"text": "' + b" " * 60_000 + b'"}', "invalid_field", "text"),
    ("2,001 characters", b'{"text": "' + b"a" * 2001 + b'"}', "invalid_field", "text"),
    ("NUL", b'{"text": "a\\u0000b"}', "invalid_field", "text"),
    ("unknown field", b'{"text": "hello", "colour": "red"}', "invalid_field", "colour"),
    ("request id too long", b'{"text": "hello", "request_id": "' + b"i" * 65 + b'"}', "invalid_field", "request_id"),
    ("empty request id", b'{"text": "hello", "request_id": ""}', "invalid_field", "request_id"),
    ("session id too long", b'{"text": "hello", "session_id": "' + b"s" * 129 + b'"}', "invalid_field", "session_id"),
    ("number for session id", b'{"text": "hello", "session_id": 3}', "invalid_field", "session_id"),
    ("100,000 spaces", b'{"text": "' + b" " * 100_000 + b'"}', "body_too_large", None),
    ("one megabyte", b'{"text": "' + b"a" * 1_000_000 + b'"}', "body_too_large", None),
]

GOOD_TEXTS = {
    "2,000 characters": "a" * 2000,
    "2,000 characters between spaces": "  " + "a" * 2000 + "\n",
    "right-to-left": "أين طلبي؟ \u202eabc\u202c",
    "emoji only": "😭😭👨‍👩‍👧‍👦",
    "a pair of surrogates": "\U0001f600",
    "quotes and newlines": 'he said "where"\n\tis it\\',
    "one character": "?",
    "combining marks": "Z̸̧̲͔̼a̷l̶g̵o̴",
}


def assert_is_problem(response: httpx.Response, error_type: str) -> dict[str, Any]:
    """The answer is the problem document of this error type, with its status and headers."""
    assert response.status_code == STATUS[error_type], response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    ProblemAnswer.model_validate(document)
    assert document["error_type"] == error_type
    assert document["type"] == f"urn:manga-router:problem:{error_type}"
    assert document["status"] == response.status_code
    assert ("retry-after" in response.headers) == (response.status_code == 503)
    assert "Traceback" not in response.text
    return dict(document)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "error_type", "field"), [row[1:] for row in BAD_BODIES], ids=[r[0] for r in BAD_BODIES]
)
async def test_bad_body_gets_a_problem_that_names_the_field(
    tmp_path: Path, body: bytes, error_type: str, field: str | None
) -> None:
    """Never a 500, and the text itself is not repeated."""
    async with running(tmp_path) as service:
        document = assert_is_problem(await service.client.post("/route", content=body, headers=JSON), error_type)
        assert (await service.route("hello")).status_code == 200
    if field is not None:
        assert [fault["field"] for fault in document["errors"]] == [field]
        assert field in document["detail"]


@pytest.mark.asyncio
async def test_limits_stand_in_the_message(tmp_path: Path) -> None:
    """What is too long is told with the limit and what was got."""
    async with running(tmp_path) as service:
        long_text = (await service.route("a" * 2001)).json()
        long_id = (await service.route("a", request_id="i" * 65)).json()
        large = (await service.client.post("/route", content=b" " * 70_000, headers=JSON)).json()
    assert "2000" in long_text["detail"]
    assert "2001" in long_text["detail"]
    assert "64" in long_id["detail"]
    assert "65536" in large["detail"]


@pytest.mark.asyncio
@pytest.mark.parametrize("text", GOOD_TEXTS.values(), ids=GOOD_TEXTS.keys())
async def test_odd_but_honest_text_is_answered(tmp_path: Path, text: str) -> None:
    """Whatever a customer can type is decided on."""
    async with running(tmp_path) as service:
        response = await service.route(text)
    assert response.status_code == 200
    RouteAnswer.model_validate(response.json())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "decision", "intents"),
    [(SINGLE_TEXT, "single", 1), (MULTI_TEXT, "multi", 2), (OOD_TEXT, "ood", 0)],
)
async def test_answer_has_the_documented_shape(tmp_path: Path, text: str, decision: str, intents: int) -> None:
    """The plain dictionary that is sent is what the model of the OpenAPI document says."""
    async with running(tmp_path) as service:
        response = await service.route(text, request_id="r-1", session_id="s-1")
    body = response.json()
    answer = RouteAnswer.model_validate(body)
    assert set(body) == set(RouteAnswer.model_fields)
    assert response.headers["content-type"] == "application/json"
    assert (answer.request_id, answer.decision, len(answer.intents)) == ("r-1", decision, intents)
    assert answer.intents == sorted(answer.intents, key=lambda entry: -entry.probability)
    assert answer.top.probability == max(answer.probabilities.values())
    assert list(answer.probabilities) == list(TAXONOMY.intents)
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert answer.ood.is_ood == (answer.ood.energy > answer.ood.cut) == (decision == "ood")
    assert answer.high_risk == bool(answer.high_risk_reasons)
    assert answer.model.policy == "1.1"
    assert 0 <= answer.timings_ms.tokenize + answer.timings_ms.inference <= answer.timings_ms.total


@pytest.mark.asyncio
async def test_a_request_id_is_made_up_when_none_is_given(tmp_path: Path) -> None:
    """Each its own."""
    async with running(tmp_path) as service:
        first, second = (await service.route("hello")).json(), (await service.route("hello")).json()
    assert first["request_id"] != second["request_id"]


@pytest.mark.asyncio
async def test_every_answer_reaches_the_caller_who_asked(tmp_path: Path) -> None:
    """Distinct texts at once: the probabilities of each are those it gets alone."""
    texts = [f"{chr(ord('a') + number % 26) * (1 + number % 7)} {number}" for number in range(120)]
    async with running(tmp_path, max_in_flight=200) as service:
        alone = [(await service.route(text)).json() for text in texts]
        together = await asyncio.gather(
            *(service.route(text, request_id=str(number)) for number, text in enumerate(texts))
        )
        assert max(service.backend.batch_sizes) > 1
    for number, response in enumerate(together):
        assert response.json()["request_id"] == str(number)
        assert response.json()["probabilities"] == alone[number]["probabilities"]


@pytest.mark.asyncio
async def test_batch_answers_in_order(tmp_path: Path) -> None:
    """64 utterances, each with the answer it gets alone."""
    texts = [f"{chr(ord('a') + number % 26)} {number}" for number in range(64)]
    async with running(tmp_path) as service:
        body = {"utterances": [{"text": text, "request_id": str(n)} for n, text in enumerate(texts)]}
        response = await service.client.post("/route/batch", json=body)
        alone = [(await service.route(text)).json()["top"] for text in texts]
    answers = BatchAnswer.model_validate(response.json()).answers
    assert [answer.request_id for answer in answers] == [str(number) for number in range(64)]
    assert [answer.top.model_dump() for answer in answers] == alone


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"utterances": []}, "utterances"),
        ({"utterances": [{"text": "a"}] * 65}, "utterances"),
        ({"utterances": [{"text": "a"}, {"text": ""}]}, "utterances.1.text"),
        ({"utterances": [{"text": "a", "colour": 1}]}, "utterances.0.colour"),
        ({"texts": ["a"]}, "utterances"),
    ],
)
async def test_bad_batch_names_the_utterance(tmp_path: Path, body: dict[str, Any], field: str) -> None:
    """The path into the body says which one."""
    async with running(tmp_path) as service:
        document = assert_is_problem(await service.client.post("/route/batch", json=body), "invalid_field")
    assert field in [fault["field"] for fault in document["errors"]]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('Application/JSON;charset="UTF-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        (None, 415),
    ],
)
async def test_only_json_in_utf8_is_taken(tmp_path: Path, content_type: str | None, status: int) -> None:
    """Anything else is told so, not guessed at."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with running(tmp_path) as service:
        response = await service.client.post("/route", content=b'{"text": "hello"}', headers=headers)
    assert response.status_code == status
    if status == 415:
        assert_is_problem(response, "unsupported_media_type")


@pytest.mark.asyncio
async def test_unknown_path_and_method_are_problems_too(tmp_path: Path) -> None:
    """405 names what is allowed."""
    async with running(tmp_path) as service:
        for path in ("/", "/routes", "/route/", "/ROUTE", "/%00", "/../etc/passwd"):
            assert_is_problem(await service.client.get(path), "unknown_path")
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response = await service.client.request(method, "/route")
            assert_is_problem(response, "method_not_allowed")
            assert response.headers["allow"] == "POST"


@pytest.mark.asyncio
async def test_the_same_label_twice_counts_once(tmp_path: Path) -> None:
    """Both are taken; the second says that it was there. Order and repetition of the intents do not matter."""
    label = {"request_id": "r-1", "intents": ["refund", "greeting"], "source": "agent"}
    same = {"request_id": "r-1", "intents": ["greeting", "refund", "refund"], "source": "agent"}
    other = {"request_id": "r-1", "ood": True, "source": "review"}
    async with running(tmp_path) as service:
        responses = [await service.client.post("/feedback", json=body) for body in (label, same, other)]
    assert [response.status_code for response in responses] == [202, 202, 202]
    assert [response.json()["stored"] for response in responses] == [True, False, True]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"intents": ABSENT}, "body"),
        ({"intents": None}, "intents"),
        ({"ood": True}, "body"),
        ({"ood": False, "intents": ABSENT}, "body"),
        ({"intents": []}, "intents"),
        ({"intents": "refund"}, "intents"),
        ({"source": "guess"}, "source"),
        ({"source": ABSENT}, "source"),
        ({"request_id": ABSENT}, "request_id"),
        ({"ood": 1, "intents": ABSENT}, "ood"),
        ({"weight": 2}, "weight"),
    ],
)
async def test_bad_label_names_the_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    """Nothing is stored of it."""
    label = {"request_id": "r-1", "intents": ["refund"], "source": "agent", **change}
    label = {name: value for name, value in label.items() if value is not ABSENT}
    async with running(tmp_path) as service:
        document = assert_is_problem(await service.client.post("/feedback", json=label), "invalid_field")
    assert field in [fault["field"] for fault in document["errors"]]


@pytest.mark.asyncio
async def test_label_with_an_unknown_intent_is_told_the_known_ones(tmp_path: Path) -> None:
    """They are those of the version, not of the code."""
    label = {"request_id": "r-1", "intents": ["refund", "telepathy"], "source": "agent"}
    async with running(tmp_path) as service:
        document = assert_is_problem(await service.client.post("/feedback", json=label), "unknown_intent")
    assert all(intent in document["detail"] for intent in TAXONOMY.intents)


@pytest.mark.asyncio
async def test_model_says_what_serves(tmp_path: Path) -> None:
    """Version, policy, taxonomy and engine."""
    async with running(tmp_path) as service:
        model = ModelAnswer.model_validate((await service.client.get("/model")).json())
    assert (model.version, model.policy, model.backend) == ("1", "1.1", "fake")
    assert tuple(model.intents) == TAXONOMY.intents


@pytest.mark.asyncio
async def test_health_and_readiness(tmp_path: Path) -> None:
    """Alive throughout; ready until the end is announced."""
    async with running(tmp_path) as service:
        assert (await service.client.get("/health/live")).json() == {"status": "live"}
        ready = await service.client.get("/health/ready")
        service.service.is_shutting_down = True
        ending = await service.client.get("/health/ready")
        last = await service.route("hello")
    assert ReadyAnswer.model_validate(ready.json()).status == "ready"
    assert (ending.status_code, ending.json()["status"]) == (503, "shutting_down")
    assert last.status_code == 200
    assert last.headers["connection"] == "close"


@pytest.mark.asyncio
async def test_without_a_version_requests_get_503(tmp_path: Path) -> None:
    """As before the first version is loaded."""
    async with running(tmp_path) as service:
        await service.service.stop()
        assert_is_problem(await service.route("hello"), "model_not_ready")
        assert_is_problem(await service.client.get("/model"), "model_not_ready")
        assert (await service.client.get("/health/ready")).status_code == 503


@pytest.mark.asyncio
async def test_beyond_the_bound_requests_are_refused_at_once(tmp_path: Path) -> None:
    """Those inside are answered; the others do not wait."""
    backend = FakeBackend()
    backend.open_gate.clear()
    async with running(tmp_path, backend, min_in_flight=1, max_in_flight=4) as service:
        inside = [asyncio.create_task(service.route(f"hello {number}")) for number in range(4)]
        await asyncio.to_thread(backend.has_entered.wait, 30)
        refused = await service.route("one too many")
        batch = await service.client.post("/route/batch", json={"utterances": [{"text": "a"}]})
        backend.open_gate.set()
        answered = await asyncio.gather(*inside)
        after = await service.route("hello again")
    assert_is_problem(refused, "overloaded")
    assert_is_problem(batch, "overloaded")
    assert [response.status_code for response in [*answered, after]] == [200] * 5


@pytest.mark.asyncio
async def test_past_the_deadline_the_answer_is_504(tmp_path: Path) -> None:
    """With the request id, so that the event can be found should it come yet."""
    backend = FakeBackend()
    backend.open_gate.clear()
    async with running(tmp_path, backend, deadline_ms=20) as service:
        document = assert_is_problem(await service.route("hello", request_id="late"), "deadline_passed")
        backend.open_gate.set()
        assert (await service.route("hello")).status_code in (200, 504)
    assert document["request_id"] == "late"


@pytest.mark.asyncio
async def test_a_failing_engine_is_503_and_the_service_goes_on(tmp_path: Path) -> None:
    """One micro-batch is lost, not the worker."""
    backend = FakeBackend()
    async with running(tmp_path, backend) as service:
        backend.fails = True
        document = assert_is_problem(await service.route("hello", request_id="r-1"), "backend_failed")
        backend.fails = False
        assert (await service.route("hello")).status_code == 200
    assert document["request_id"] == "r-1"


@pytest.mark.asyncio
async def test_a_departed_client_takes_no_slot(tmp_path: Path) -> None:
    """It is cancelled while it waits: its utterance never reaches the engine, and its place is free again."""
    backend = FakeBackend()
    backend.open_gate.clear()
    async with running(tmp_path, backend, min_in_flight=1, max_in_flight=2) as service:
        first = asyncio.create_task(service.route("hello"))
        await asyncio.to_thread(backend.has_entered.wait, 30)
        scope, sent = await _depart_while_waiting(service)
        backend.open_gate.set()
        assert (await first).status_code == 200
        assert (await service.route("hello")).status_code == 200
        metrics = (await service.client.get("/metrics")).text
    assert scope["router.departed"]
    assert sent == []
    assert sum(backend.batch_sizes) == 2
    assert "router_departed_total 1.0" in metrics


async def _depart_while_waiting(service: Running) -> tuple[dict[str, Any], list[Any]]:
    """Post as a server would, then end the connection before there is an answer."""
    body = json.dumps({"text": "goodbye"}).encode()
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/route",
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(service.app(scope, receive, send))
    while "router.on_departure" not in scope:  # noqa: ASYNC110 - a server looks there too
        await asyncio.sleep(0)
    scope["router.on_departure"]()
    await task
    return scope, sent


@pytest.mark.asyncio
async def test_a_body_in_pieces_is_bounded_while_it_is_read(tmp_path: Path) -> None:
    """Without a Content-Length the limit holds as well; a small one in pieces is answered."""

    async def pieces(count: int) -> Any:
        yield b'{"text": "'
        for _ in range(count):
            yield b"a" * 1000
        yield b'"}'

    async with running(tmp_path) as service:
        good = await service.client.post("/route", content=pieces(2), headers=JSON)
        large = await service.client.post("/route", content=pieces(100), headers=JSON)
    assert good.status_code == 200
    assert_is_problem(large, "body_too_large")


@pytest.mark.asyncio
async def test_keys_are_needed_when_there_are_any(tmp_path: Path) -> None:
    """Health, metrics and the document stay open."""
    keys = ("first-key-of-16-characters", "second-key-of-16-characters")
    async with running(tmp_path, api_keys=keys) as service:
        client = service.client
        for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"X-API-Key": keys[0][:-1]}):
            assert_is_problem(await client.post("/route", json={"text": "a"}, headers=headers), "unauthorized")
            assert_is_problem(await client.get("/model", headers=headers), "unauthorized")
        for key in keys:
            response = await client.post("/route", json={"text": "a"}, headers={"X-API-Key": key})
            assert response.status_code == 200
        for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
