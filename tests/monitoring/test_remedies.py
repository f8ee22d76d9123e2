"""Requests and results go to JSON and come back equal; what JSON cannot carry is refused where it is put in."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.observations import StreamKey
from monitoring.remedies import ActionRequest, ActionResult, Awaited, SignalRecord, json_able
from monitoring.signals import Signal, Verdict

NAN = float("nan")
STREAM = StreamKey("3", "3.1", "champion")


def through_json(body: Any) -> Any:
    """As written to a file by strict JSON and read from it."""
    return json.loads(json.dumps(body, allow_nan=False))


def test_signal_comes_back_as_it_was() -> None:
    """Every field, the verdict as a verdict."""
    signal = Signal("ece", 0.031, 0.02, 0.05, 900, Verdict.BREACHED, 0.01, 0.01)
    assert SignalRecord.from_json(through_json(SignalRecord.of_signal(signal).to_json())).to_signal() == signal


def test_numbers_that_are_not_finite_are_null_in_json_and_nan_in_a_signal() -> None:
    """A signal of no rows; and an interval that is open at one end."""
    record = SignalRecord.of_signal(Signal("ece", NAN, NAN, math.inf, 0, Verdict.INCONCLUSIVE, NAN, 0.01))
    body = through_json(record.to_json())
    assert [body[name] for name in ("value", "low", "high", "reference")] == [None] * 4
    assert SignalRecord.from_json(body) == record
    assert math.isnan(record.to_signal().high)


def test_numbers_of_numpy_become_plain_ones() -> None:
    """Signals are measured with numpy; JSON does not know its integers."""
    signal = Signal("ece", np.float64(0.5), 0.4, 0.6, np.int64(7), Verdict.OK, 0.1, 0.1)  # type: ignore[arg-type]
    assert through_json(SignalRecord.of_signal(signal).to_json())["n"] == 7


def test_request_comes_back_as_it_was() -> None:
    """Also in what a webhook reads: the stream by its parts, the path as a list."""
    evidence = (SignalRecord("ece", 0.03, None, 0.05, 900, "breached", 0.01, 0.01),)
    request = ActionRequest("i/1-retrain", "i", "retrain", STREAM, 17.5, ("down", "broad"), evidence, "lang=日本")
    body = through_json(request.to_json())
    assert ActionRequest.from_json(body) == request
    assert body["stream"] == {"version": "3", "policy": "3.1", "role": "champion"}
    assert body["path"] == ["down", "broad"]


def test_request_says_what_was_waited_for() -> None:
    """One that an older sidecar left in its state says nothing of it."""
    awaited = Awaited("discover_intents", 80, 81, since=12.0, until=3612.0, precision=0.7)
    request = ActionRequest("i/1-discover_intents", "i", "discover_intents", STREAM, 17.5, (), (), None, awaited)
    body = through_json(request.to_json())
    assert ActionRequest.from_json(body) == request
    del body["awaited"]["signal"]
    assert ActionRequest.from_json(body) == request
    del body["awaited"]
    assert ActionRequest.from_json(body) == replace(request, awaited=None)


def test_result_comes_back_as_it_was() -> None:
    """Whatever its detail was made of: tuples are lists at once, NaN is None at once."""
    record = SignalRecord("ece_after_refit", 0.01, 0.0, 0.02, 400, "ok", 0.01, 0.01)
    result = ActionResult(
        "done", "Re-fitted.", {"interval": (0.1, NAN), "file": "a.jsonl", "inner": {"n": 3}}, (record,)
    )
    assert result.detail == {"interval": [0.1, None], "file": "a.jsonl", "inner": {"n": 3}}
    assert ActionResult.from_json(through_json(result.to_json())) == result


@pytest.mark.parametrize("detail", [{"at": object()}, {1: "a"}, {"rows": np.zeros(2)}, {"names": {"a"}}])
def test_detail_that_json_cannot_carry_is_refused_at_once(detail: Any) -> None:
    """Not later, by the thread that writes the state."""
    with pytest.raises(ValueError, match="not for JSON"):
        ActionResult("done", "words", detail)


def test_outcome_is_one_of_three() -> None:
    """A typing error is no outcome."""
    with pytest.raises(ValueError, match="one of done, failed, nothing_to_do"):
        ActionResult("succeeded", "words")  # type: ignore[arg-type]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_what_is_json_able_comes_back_equal(value: Any) -> None:
    """For anything, once it went through."""
    able = json_able(value)
    assert through_json(able) == able
    assert json_able(able) == able
