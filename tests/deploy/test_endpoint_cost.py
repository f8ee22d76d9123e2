"""The cost of an endpoint: every way that is timed really answers, and the table holds them all."""

import asyncio

import orjson
import pytest

from deploy.endpoint_cost import ANSWER, applications, call, main


@pytest.mark.parametrize("name", list(applications()))
def test_every_way_gives_the_answer(name: str) -> None:
    """A way that fails fast would look cheap."""
    start, body = asyncio.run(call(applications()[name]))
    assert start["status"] == 200
    assert orjson.loads(body["body"]) == ANSWER


def test_every_way_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A few calls are enough for that."""
    main(["--calls", "2", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert [name for name in applications() if f"| {name} |" not in printed] == []
