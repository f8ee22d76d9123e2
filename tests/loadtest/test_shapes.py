"""Load shapes as data."""

from pathlib import Path

import pytest

from loadtest.shapes import BadShape, Shape, Stage, read_shapes


def test_the_three_shapes_ship() -> None:
    """Steady does not move, step only climbs, spike climbs and comes back."""
    shapes = read_shapes()
    users = {name: [stage.users for stage in shape.stages] for name, shape in shapes.items()}
    assert set(users) == {"steady", "step", "spike"}
    assert len(set(users["steady"])) == 1
    assert users["step"] == sorted(set(users["step"]))
    assert max(users["spike"]) not in (users["spike"][0], users["spike"][-1])
    assert all(shape.seconds <= 120 for shape in shapes.values())


def test_a_run_ends_with_its_last_stage() -> None:
    """Each moment has the stage it falls into; the end has none."""
    shape = Shape("two", (Stage(2.0, 1), Stage(3.0, 4)))
    found = [shape.stage_at(moment) for moment in (0.0, 1.99, 2.0, 4.99, 5.0)]
    assert [stage.users if stage else None for stage in found] == [1, 1, 4, 4, None]


@pytest.mark.parametrize(
    "text",
    [
        "[odd]\nstages = []",
        "[odd]\nstages = [{ seconds = 1 }]",
        "[odd]\nstages = [{ seconds = 1, users = 1, color = 2 }]",
        "[odd]\nstages = [{ seconds = 0, users = 1 }]",
        "[odd]\nstages = [{ seconds = 1, users = 0 }]",
        "[odd]\nstages = [{ seconds = 1, users = 1 }]\nspeed = 3",
        "odd = 3",
    ],
)
def test_a_wrong_shape_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """Unknown keys, missing keys and empty stages."""
    path = tmp_path / "shapes.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadShape, match="odd"):
        read_shapes(path)


@pytest.mark.parametrize("factors", [(0.0, 1.0), (1.0, -1.0)])
def test_a_shape_is_not_scaled_away(factors: tuple[float, float]) -> None:
    """Nobody and no time are no load test."""
    with pytest.raises(BadShape, match="positive"):
        Shape("steady", (Stage(1.0, 1),)).scaled(*factors)
