"""The cost page is what the script computes, and every input says where it comes from."""

from pathlib import Path

import numpy as np
import pytest

from deploy.cost import (
    Instance,
    Load,
    break_even_engine_ms,
    measured_host_ms,
    rate_of,
    read_inputs,
    sources,
    tables,
)
from deploy.host_cost import AnswersAtOnce
from service.backends.onnx import OnnxBackend
from tests.tiny_artefact import tiny_artefact

ROOT = Path(__file__).resolve().parents[2]
LOAD = Load(host_ms=0.5, engine_ms=1.5, calls=0.25, tokens=28.0, call_ms=0.25, token_ms=0.0026)
CPU = Instance("cpu", "on demand", 4, 0, 0.20, "-")
INF = Instance("inf", "on demand", 4, 2, 0.40, "-")


def test_page_holds_the_computed_tables() -> None:
    """Word for word."""
    assert tables() in (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")


def test_every_input_names_its_source() -> None:
    """And the page repeats each."""
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    named = sources()
    loads, instances, _ = read_inputs()
    assert set(named) == {"utilisation", "device", "packing", "host"} | set(loads) | {i.name for i in instances}
    assert [text for text in named.values() if not text or text not in page] == []


def test_measured_host_time_is_marked_in_every_table() -> None:
    """The other rows are what-ifs."""
    assert tables().count(f"| **{measured_host_ms():.2f}, measured** |") == len(read_inputs()[0])


def test_measured_host_time_must_be_a_row(tmp_path: Path) -> None:
    """Or the page would rest on another."""
    file = tmp_path / "inputs.toml"
    file.write_text("[host]\nmeasured_ms = 0.9\ncpu_ms = [0.5, 1.0]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"0\.9 is none of"):
        measured_host_ms(file)


def test_engine_that_costs_nothing_answers_every_utterance_alike() -> None:
    """With what the real one says of a first one, in its shapes."""
    real = OnnxBackend(tiny_artefact()[1], 1)
    wanted = real.infer([[101, 102]])
    got = AnswersAtOnce(real).infer([[5, 6, 7]] * 3)
    assert len(got) == 3
    assert np.array_equal(got.logits, np.repeat(wanted.logits, 3, axis=0))
    assert got.embeddings.shape == (3, wanted.embeddings.shape[1])


def test_inputs_are_in_range() -> None:
    """Positive times and prices, a share between 0 and 1, host times in order."""
    loads, instances, utilisation = read_inputs()
    for by_host in loads.values():
        times = [load.host_ms for load in by_host]
        assert times == sorted(set(times))
        assert all(load.host_ms > 0 and load.engine_ms > 0 and load.core_ms > 0 for load in by_host)
    assert all(instance.dollars_per_hour > 0 for instance in instances)
    assert 0 < utilisation < 1


def test_the_smaller_limit_binds() -> None:
    """The host's CPUs as a rule; the device for a program that is slow enough."""
    assert rate_of(INF, LOAD, 1.0).bound == "host"
    slow = Load(host_ms=0.5, engine_ms=1.5, calls=1.0, tokens=128.0, call_ms=0.25, token_ms=0.01)
    rate = rate_of(INF, slow, 1.0)
    assert rate.bound == "device"
    assert rate.per_s == pytest.approx(2 / 1.53e-3)


def test_at_break_even_both_cost_the_same() -> None:
    """The formula, put back into the rates."""
    inferentia = rate_of(INF, LOAD, 0.6)
    engine_ms = break_even_engine_ms(inferentia, CPU, LOAD)
    even = Load(LOAD.host_ms, engine_ms, LOAD.calls, LOAD.tokens, LOAD.call_ms, LOAD.token_ms)
    assert rate_of(CPU, even, 0.6).dollars_per_million == pytest.approx(inferentia.dollars_per_million)


def test_rate_price_and_cost_fit_together() -> None:
    """A dollar buys the rate for as long as the price lasts."""
    rate = rate_of(CPU, LOAD, 0.5)
    assert rate.per_s == pytest.approx(4 / 2e-3 * 0.5)
    assert rate.requests_per_dollar == pytest.approx(1000 * 3600 / 0.20)
    assert rate.dollars_per_million * rate.requests_per_dollar == pytest.approx(1e6)
