"""Presets: TOML files under ``model_repo/presets``, read into frozen values; unknown keys are refused."""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from model_repo.pipeline.losses import LossWeights

PRESETS = Path(__file__).parents[1] / "presets"
T = TypeVar("T")


class BadPreset(ValueError):
    """A preset lacks a key or has one that nothing reads."""


@dataclass(frozen=True)
class TrainSettings:
    """How the network is trained; the reasons stand beside the values in the preset."""

    base: str
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]
    head_learning_rate: float
    encoder_learning_rate: float
    layer_decay: float
    warmup: float
    weight_decay: float
    dropout: float
    japanese_word_pieces: bool


@dataclass(frozen=True)
class QuantiseSettings:
    """How a network is trained on in 8 bits, in place of the settings of these names; for 0 epochs only rounded."""

    epochs: int
    head_learning_rate: float
    encoder_learning_rate: float
    min_decisions_equal: float
    """Share of decisions that the artefact must have in common with the network; an fp32 one must have 0.995."""

    def replaced_in(self, preset: "Preset") -> "Preset":
        """``preset`` with these settings in the places of its own."""
        train = replace(
            preset.train,
            epochs=self.epochs,
            head_learning_rate=self.head_learning_rate,
            encoder_learning_rate=self.encoder_learning_rate,
        )
        return replace(preset, train=train)


@dataclass(frozen=True)
class MembershipSettings:
    """How the membership head is trained; the reasons stand beside the values in the preset."""

    units: int
    """Hidden units of one head."""
    seeds: tuple[int, ...]
    """One head each; their mean is one head with the hidden units of all."""
    epochs: int
    learning_rate: float
    weight_decay: float
    dropout: float
    """Of the embedding and of the hidden units."""
    reserve: float
    """See ``contract.membership.MembershipHead``."""


@dataclass(frozen=True)
class Preset:
    """One preset file."""

    name: str
    train: TrainSettings
    loss: LossWeights
    quantise: QuantiseSettings | None
    """Without it the version computes in fp32."""
    membership: MembershipSettings | None
    """Without it the network's own softmax decides, which suits utterances of one intent each."""


def read_preset(name: str) -> Preset:
    """Read ``presets/<name>.toml``, or a file by path; raises BadPreset naming the key."""
    file = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not file.is_file():
        known = sorted(p.stem for p in PRESETS.glob("*.toml"))
        raise BadPreset(f"no preset {name!r}; known: {', '.join(known)}")
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    return Preset(
        name=file.stem,
        train=_read(TrainSettings, data.get("train", {}), f"{file.stem}: [train]"),
        loss=_read(LossWeights, data.get("loss", {}), f"{file.stem}: [loss]"),
        quantise=_read_if_there(QuantiseSettings, data, "quantise", file.stem),
        membership=_read_if_there(MembershipSettings, data, "membership", file.stem),
    )


def _read_if_there(kind: type[T], data: dict[str, Any], table: str, preset: str) -> T | None:
    return _read(kind, data[table], f"{preset}: [{table}]") if table in data else None


def _read(kind: type[T], table: dict[str, Any], where: str) -> T:
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if set(table) != names:
        odd = sorted(set(table) ^ names)
        raise BadPreset(f"{where} must have exactly the keys {', '.join(sorted(names))}; differing: {', '.join(odd)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
