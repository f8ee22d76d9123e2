"""Load shapes: how many people are there at each second of a run. Data in ``presets/shapes.toml``, read here."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_SHAPES = Path(__file__).resolve().parent / "presets" / "shapes.toml"


class BadShape(ValueError):
    """A load shape that cannot be run; the message names it."""


@dataclass(frozen=True)
class Stage:
    """A number of people for a while."""

    seconds: float
    users: int
    spawn_rate: float = 50.0
    """People who arrive (or leave) a second, until ``users`` are there."""


@dataclass(frozen=True)
class Shape:
    """Stages one after the other."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        """Length of the run."""
        return sum(stage.seconds for stage in self.stages)

    def stage_at(self, elapsed_s: float) -> Stage | None:
        """
        The stage of a moment; None once the run is over.

        >>> shape = Shape("step", (Stage(10, 5), Stage(10, 9)))
        >>> [stage and stage.users for stage in map(shape.stage_at, (0, 9.9, 10, 20))]
        [5, 5, 9, None]
        """
        begins = 0.0
        for stage in self.stages:
            if elapsed_s < begins + stage.seconds:
                return stage
            begins += stage.seconds
        return None

    def scaled(self, users: float, seconds: float) -> "Shape":
        """
        The same shape with people and time multiplied; a stage keeps at least one person.

        >>> Shape("steady", (Stage(60, 5),)).scaled(0.1, 0.5).stages
        (Stage(seconds=30.0, users=1, spawn_rate=50.0),)
        """
        if users <= 0 or seconds <= 0:
            raise BadShape(f"{self.name}: people and time are scaled by positive factors, got {users} and {seconds}")
        stages = (
            Stage(stage.seconds * seconds, max(1, round(stage.users * users)), stage.spawn_rate)
            for stage in self.stages
        )
        return Shape(self.name, tuple(stages))


def read_shapes(path: Path = DEFAULT_SHAPES) -> dict[str, Shape]:
    """Every shape of a TOML file by name; raises BadShape naming the shape that is wrong."""
    shapes = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: Shape(name, _stages(name, table)) for name, table in shapes.items()}


def _stages(name: str, table: object) -> tuple[Stage, ...]:
    listed = table.get("stages") if isinstance(table, dict) and set(table) == {"stages"} else None
    if not isinstance(listed, Sequence) or not listed:
        raise BadShape(f"{name}: a shape is a table with a list of stages and nothing else")
    try:
        stages = tuple(Stage(**stage) for stage in listed)
    except TypeError as error:
        raise BadShape(f"{name}: {error}") from error
    for stage in stages:
        if stage.seconds <= 0 or stage.users < 1 or stage.spawn_rate <= 0:
            raise BadShape(f"{name}: a stage needs seconds > 0, users >= 1 and spawn_rate > 0, got {stage}")
    return stages
