"""
The model card of a version, in the sections of Mitchell et al. 2019, "Model Cards for Model Reporting".

Written from the manifest and the report of ``evaluate`` alone, so that it says nothing that was not measured or
recorded; it knows no intent and no data set by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_repo.contract.bootstrap import Figure
from model_repo.contract.errors import CannotMeasure
from model_repo.contract.manifest import Manifest


@dataclass(frozen=True)
class DataSource:
    """One set of utterances that a version was trained or judged on."""

    name: str
    licence: str
    origin: str
    """Who wrote it, as in labels.ORIGINS."""
    url: str
    """Where it is published, or ``this repository``."""
    rows: int
    use: str
    """As in ``train``, ``train as ood``, ``calibration`` or ``test``."""


@dataclass(frozen=True)
class Purpose:
    """What only a person can say of a version."""

    intended_use: str
    out_of_scope_use: str
    limits: tuple[str, ...]
    """What it is known to get wrong, beside what the figures show."""
    ethics: tuple[str, ...]
    contact: str
    """Where questions and comments go."""


HEADLINES = {
    "intents.accuracy": "top intent is one of those carried, in-scope",
    "intents.macro_f1": "macro-F1 of the top intent, in-scope",
    "intents.micro_f1": "micro-F1 of all accepted intents, in-scope",
    "intents.exact_match": "accepted intents are exactly those carried, in-scope",
    "intents.exact_match_of_several": "the same, of utterances with several intents",
    "intents.ece": "calibration error of the top probability, 15 equal-width bins, in-scope",
    "intents.ece_equal_mass": "the same, equal-mass bins",
    "intents.ece_debiased": "the same, equal-width, debiased",
    "intents.class_wise_ece": "class-wise calibration error, in-scope",
    "intents.brier": "Brier score (0 to 2), in-scope",
    "intents.nll": "negative log-likelihood in nats, in-scope",
    "ood.auroc": "ood told from in-scope by energy: AUROC",
    "ood.fpr95": "ood let through when 95% of in-scope is kept",
    "ood.aupr": "average precision, ood as the positive",
    "ood.recall": "ood utterances that were rejected",
    "ood.precision": "rejected utterances that are ood",
    "ood.in_scope_kept": "in-scope utterances that were kept",
    "served.accuracy": "right verdict and, in-scope, a right top intent",
    "served.micro_f1": "micro-F1 after the ood verdict, all utterances",
    "served.exact_match": "exactly the right intents after the verdict, all utterances",
    "served.ece": "calibration error of what was not rejected",
    "served.business_error": "mean business cost of a decision",
    "age.recall": "age-sensitive requests that were flagged",
    "age.precision": "flagged requests that are age-sensitive",
}
"""What each figure of the report says in words; figures without words are listed by name."""
SLICED = ("intents.accuracy", "intents.micro_f1", "intents.ece", "ood.auroc", "served.accuracy")
"""Figures shown for each language and origin."""
ABSENT = "not recorded"


def model_card(
    manifest: Manifest,
    report: Mapping[str, Any],
    sources: Sequence[DataSource],
    purpose: Purpose,
    commands: Sequence[str],
    pictures: Sequence[str] = (),
) -> str:
    """
    The card as Markdown. ``report`` is the metrics.json of ``evaluate``, ``commands`` make the version again.

    Raises CannotMeasure when the report has no overall figures, or a source has no licence.
    """
    unlicensed = [source.name for source in sources if not source.licence.strip()]
    if unlicensed:
        raise CannotMeasure(f"a model card names the licence of every source; none given for {', '.join(unlicensed)}")
    overall = report.get("overall")
    if not overall:
        raise CannotMeasure("a model card needs the report's overall figures, got none")
    sections = [
        ("Model details", _details(manifest, purpose)),
        ("Intended use", f"{purpose.intended_use}\n\nOut of scope: {purpose.out_of_scope_use}"),
        ("Factors", _factors(report)),
        ("Metrics", _metrics(overall)),
        ("Evaluation data", _sources([s for s in sources if "train" not in s.use])),
        ("Training data", _sources([s for s in sources if "train" in s.use])),
        ("Quantitative analyses", _analyses(report, pictures)),
        ("Ethical considerations", _bullets(purpose.ethics)),
        ("Caveats and limits", _bullets((*purpose.limits, *_wide_intervals(overall)))),
        ("How to reproduce", _reproduce(manifest, commands)),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"# Model card: version {manifest.version}\n\n{body}\n"


def _details(manifest: Manifest, purpose: Purpose) -> str:
    training, taxonomy = manifest.training, manifest.taxonomy
    lines = [
        f"Version {manifest.version}, made {manifest.created} (UTC), {_seeds(manifest)}",
        f"Base checkpoint: {training.get('base', ABSENT)}",
        f"Engine: {manifest.backend}, {manifest.precision}; at most {manifest.max_tokens} tokens an utterance",
        *_membership(training.get("membership")),
        f"Intents ({len(taxonomy.intents)}): {_names(taxonomy.intents)}",
        f"High-risk intents: {_names(sorted(taxonomy.high_risk))}",
        f"Questions and comments: {purpose.contact}",
    ]
    return _bullets(lines)


def _seeds(manifest: Manifest) -> str:
    averaged = manifest.training.get("averaged_seeds")
    seeds = f"seed {manifest.seed}"
    if averaged:
        seeds = f"mean of the weights of seeds {_names([str(seed) for seed in averaged])}"
    quantised = manifest.training.get("quantised")
    if quantised is None:
        return seeds
    return seeds + (", trained on in 8 bits" if quantised["epochs"] else ", rounded to 8 bits")


def _membership(settings: Mapping[str, Any] | None) -> list[str]:
    if settings is None:
        return []
    return [
        f"Which intents are carried is asked of each by itself, by a head on the embedding ({len(settings['seeds'])} x "
        f"{settings['units']} hidden units): probabilities of intents that were not accepted do not rank them"
    ]


def _factors(report: Mapping[str, Any]) -> str:
    factors = [
        f"{title}: {', '.join(report[key])}"
        for title, key in (("Languages", "by_language"), ("Origins of the text", "by_origin"))
        if report.get(key)
    ]
    return _bullets(["Figures are given for each intent", *factors])


def _metrics(overall: Mapping[str, Any]) -> str:
    words = [f"`{name}`: {HEADLINES[name]}" for name in HEADLINES if name in overall]
    return (
        "Every figure stands with its 95% bootstrap interval over the utterances (10,000 resamples by default), "
        "the number of rows it is about, and its data. Intervals of calibration errors are corrected for the "
        "upward bias of the plug-in estimate. They say nothing of the spread over training seeds.\n\n" + _bullets(words)
    )


def _sources(sources: Sequence[DataSource]) -> str:
    rows = [(s.name, s.use, f"{s.rows:,}", s.origin, s.licence, s.url) for s in sources]
    return _table(("set", "use", "utterances", "written by", "licence", "published at"), rows)


def _analyses(report: Mapping[str, Any], pictures: Sequence[str]) -> str:
    overall = report["overall"]
    headlines = [_row(name, overall[name]) for name in HEADLINES if name in overall]
    others = [_row(name, overall[name]) for name in sorted(set(overall) - set(HEADLINES))]
    slices = [
        _row(f"{part}, `{name}`", figures[name], is_code=False)
        for key in ("by_language", "by_origin")
        for part, figures in report.get(key, {}).items()
        for name in SLICED
        if name in figures
    ]
    gaps = [
        _row(f"accuracy, {lang} minus en", gap, is_code=False) for lang, gap in report.get("minus_english", {}).items()
    ]
    head = ("figure", "value", "95% interval", "n", "data")
    parts = [_table(head, headlines)]
    if slices or gaps:
        parts.append("By language and origin:\n\n" + _table(head, [*slices, *gaps]))
    if others:
        parts.append("Further figures, by name:\n\n" + _table(head, others))
    parts.extend(f"![{picture}]({picture})" for picture in pictures)
    return "\n\n".join(parts)


def _wide_intervals(overall: Mapping[str, Any]) -> list[str]:
    """Recalls that the evaluation data hardly pins down."""
    return [
        f"`{name}` is known to within {100 * (f.high - f.low) / 2:.0f} percentage points only (n = {f.n:,})"
        for name, f in ((name, Figure.from_json(data)) for name, data in overall.items())
        if ".recall." in name and name.startswith("intents.") and f.high - f.low > 0.2
    ]


def _reproduce(manifest: Manifest, commands: Sequence[str]) -> str:
    digests = manifest.training.get("data_sha256", {})
    pins = manifest.training.get("libraries", {})
    lines = [f"`{name}`: SHA-256 `{digest}`" for name, digest in sorted(digests.items())]
    lines += [f"{name} {version}" for name, version in sorted(pins.items())]
    shell = "\n".join(commands)
    return f"```sh\n{shell}\n```\n\n" + (_bullets(lines) if lines else f"Data digests and libraries: {ABSENT}.")


def _row(name: str, data: Mapping[str, Any], is_code: bool = True) -> tuple[str, ...]:
    figure = Figure.from_json(data)
    title = f"`{name}`" if is_code else name
    return (title, f"{figure.value:.4f}", f"{figure.low:.4f} to {figure.high:.4f}", f"{figure.n:,}", figure.data)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "None recorded."
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) if lines else "None recorded."


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "none"
