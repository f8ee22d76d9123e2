"""What is in a data set: counts by split, and the card that travels with a version."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from model_repo.contract.labels import OOD, LabelledUtterance
from model_repo.pipeline.sources import Source
from model_repo.pipeline.splits import JACCARD

BASELINE = {"multi_share": 0.18, "ood_share": 0.05, "mixed_share": 0.09}
"""Priors of the traffic that the router is meant for, as the taxonomy states them."""


@dataclass(frozen=True)
class Counts:
    """One split, counted. A message with two intents counts under both in ``by_label``."""

    total: int
    by_label: dict[str, int]
    by_origin: dict[str, int]
    by_source: dict[str, int]
    by_lang: dict[str, int]
    multi_share: float
    ood_share: float
    mixed_share: float
    """English and Japanese in one message."""
    age_sensitive_share: float
    """Among the messages where it is known."""


@dataclass(frozen=True)
class DataReport:
    """What the data stage made of which settings."""

    preset: str
    seed: int
    ships: bool
    """Whether a version trained on this may ship, by the licences of its sources."""
    splits: dict[str, Counts]
    left_out: list[str]
    dropped: dict[str, int]
    corrected: int
    """Training labels set right by hand."""
    near_duplicates_crossing_splits: int
    """Audited over everything that was written; must be 0."""
    sha256: dict[str, str]
    production: dict[str, int] = field(default_factory=dict)
    """Labels of production: read, added, and left out by reason; empty when there were none."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``data_report.json``."""
        return asdict(self) | {"priors_of_the_traffic": BASELINE}

    def summary(self) -> str:
        """One line for the terminal."""
        sizes = ", ".join(f"{counts.total:,} {name}" for name, counts in self.splits.items())
        train = self.splits["train"]
        shares = ", ".join(
            f"{getattr(train, share):.1%} {share.removesuffix('_share')} (traffic {prior:.0%})"
            for share, prior in BASELINE.items()
        )
        return f"{sizes}; training {shares}; near-duplicates crossing splits: {self.near_duplicates_crossing_splits}"


def count(utterances: Sequence[LabelledUtterance]) -> Counts:
    """Count one split; every share of an empty split is 0."""
    total = len(utterances)
    known = [u.age_sensitive for u in utterances if u.age_sensitive is not None]
    return Counts(
        total=total,
        by_label=_counted([label for u in utterances for label in (u.intents or (OOD,))]),
        by_origin=_counted([u.origin for u in utterances]),
        by_source=_counted([u.source for u in utterances]),
        by_lang=_counted([u.lang for u in utterances]),
        multi_share=_share(sum(len(u.intents) > 1 for u in utterances), total),
        ood_share=_share(sum(u.is_ood for u in utterances), total),
        mixed_share=_share(sum(u.lang == "mix" for u in utterances), total),
        age_sensitive_share=_share(sum(known), len(known)),
    )


def render_card(report: DataReport, sources: Mapping[str, Source]) -> str:
    """The card, in Markdown."""
    splits = report.splits
    sections = [
        f"# Data card: mixture `{report.preset}`, seed {report.seed}",
        _opening(report),
        "## Sizes\n\n" + _sizes(splits),
        *(f"## By {title}\n\n" + _table(splits, field) for title, field in _BREAKDOWNS.items()),
        "## Sources and licences\n\n" + _licences(report, sources),
        "## Left out\n\n" + _bullets(report.left_out or ["nothing that the mixture names"]),
        "## Cleaning\n\n" + _bullets(_cleaning(report)),
        "## Files\n\n" + _bullets([f"`{name}`: sha256 `{digest}`" for name, digest in report.sha256.items()]),
    ]
    return "\n\n".join(sections) + "\n"


_BREAKDOWNS = {"label": "by_label", "origin": "by_origin", "language": "by_lang", "source": "by_source"}


def _opening(report: DataReport) -> str:
    if report.production:
        rights = "must not ship: it holds messages of customers"
    else:
        rights = "may ship" if report.ships else "must not ship: this mixture is for measuring only"
    return (
        "A message with two intents counts under both. Origin: `live` typed by customers of a running service,"
        " `authored` crowd, editorial or composed for this project, `generated` machine-expanded by its publisher,"
        " `synthetic` made by this project's generator or composed of two authored messages."
        " Shares are those of the set, not of traffic."
        f" By the licences of its sources, a version trained on it {rights}."
    )


def _sizes(splits: Mapping[str, Counts]) -> str:
    rows = [["messages", *(f"{c.total:,}" for c in splits.values()), ""]]
    titles = {"multi_share": "two or more intents", "ood_share": "ood", "mixed_share": "English and Japanese mixed"}
    for share, title in titles.items():
        rows.append([title, *(f"{getattr(c, share):.1%}" for c in splits.values()), f"{BASELINE[share]:.0%}"])
    rows.append(["age-sensitive", *(f"{c.age_sensitive_share:.1%}" for c in splits.values()), ""])
    return _markdown(["", *splits, "traffic"], rows)


def _table(splits: Mapping[str, Counts], field: str) -> str:
    counts: dict[str, dict[str, int]] = {name: getattr(c, field) for name, c in splits.items()}
    totals: Counter[str] = Counter()
    for part in counts.values():
        totals.update(part)
    keys = sorted(totals, key=lambda key: (-totals[key], key))
    return _markdown(["", *splits], [[key, *(f"{c.get(key, 0):,}" for c in counts.values())] for key in keys])


def _licences(report: DataReport, sources: Mapping[str, Source]) -> str:
    used = sorted({name for c in report.splits.values() for name in c.by_source if name in sources})
    ours = "The authored messages and the generator's are this project's own."
    if report.production:
        ours += " Those of `production` are customers', redacted where they were stored; they are not for publication."
    if not used:
        return ours + " No public set is in this one."
    known = [sources[name] for name in used]
    rows = [[s.name, s.repository, s.licence, "yes" if s.ships else "no", s.reason] for s in known]
    return ours + "\n\n" + _markdown(["set", "repository", "licence", "ships", "why"], rows)


def _cleaning(report: DataReport) -> list[str]:
    lines = [f"{name.replace('_', ' ')} dropped: {n:,}" for name, n in report.dropped.items()]
    fates = ", ".join(f"{n:,} {fate.replace('_', ' ')}" for fate, n in report.production.items())
    return [
        *lines,
        *([f"labels of production, for the training split alone: {fates}"] if fates else []),
        f"training labels corrected by hand: {report.corrected}",
        f"near-duplicates crossing splits, audited (character 4-grams, Jaccard {JACCARD}):"
        f" {report.near_duplicates_crossing_splits}",
    ]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _counted(keys: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(keys).items(), key=lambda item: (-item[1], item[0])))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
