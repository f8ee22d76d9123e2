"""The verdict."""

import pytest

from loadtest.slo import Slo, judge


def test_kept_promises_pass_with_exit_code_0() -> None:
    """Five slow ones in a hundred are what a 95th percentile allows."""
    verdict = judge([5.0] * 95 + [500.0] * 5, errors=0, slo=Slo())
    assert (verdict.exit_code, verdict.breaches) == (0, ())
    assert verdict.line().startswith("PASSED: 100 answered, 0 errors")


def test_the_sixth_slow_one_in_a_hundred_fails() -> None:
    """And the line says by how much."""
    verdict = judge([5.0] * 94 + [500.0] * 6, errors=0, slo=Slo())
    assert verdict.exit_code == 1
    assert "P95 500.0 ms" in verdict.line()


@pytest.mark.parametrize(("errors", "code"), [(1, 0), (2, 1)])
def test_error_share_is_of_all_requests(errors: int, code: int) -> None:
    """One in a thousand is promised."""
    assert judge([5.0] * (1000 - errors), errors, Slo(error_share=0.001)).exit_code == code


@pytest.mark.parametrize(("answered", "errors"), [(0, 0), (0, 500), (99, 0)])
def test_too_few_or_none_answered_never_pass(answered: int, errors: int) -> None:
    """An empty run proves nothing."""
    assert judge([1.0] * answered, errors, Slo(error_share=0.5)).exit_code == 1
