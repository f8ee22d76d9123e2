"""Accuracy and calibration, from labels."""

from monitoring.grafana.panels import Dashboard, Panel, Query, Row, Variable

GATE_ECE = 0.04
BY = "version, policy, role"
CHOSEN = '{policy=~"$policy"}'
STREAM = "{{version}} {{policy}} {{role}}"


def signal_panel(signal: str, title: str, words: str = "", unit: str = "percentunit") -> Panel:
    """A signal with its interval and what it is compared with."""
    chosen = f'{{signal="{signal}", policy=~"$policy"}}'
    return Panel(
        title,
        unit,
        (
            Query(f"monitor_signal_value{chosen}", STREAM),
            Query(f"monitor_signal_low{chosen}", f"{STREAM}, low"),
            Query(f"monitor_signal_high{chosen}", f"{STREAM}, high"),
            Query(f"monitor_signal_reference{chosen} or monitor_signal_value{chosen}", f"{STREAM}, reference"),
        ),
        f"{words} With its interval; the reference is the value itself until there is one.".strip(),
    )


def verdict_panel(signals: tuple[str, ...]) -> Panel:
    """Breached or not, over time."""
    named = "|".join(signals)
    chosen = f'{{signal=~"{named}", policy=~"$policy"}}'
    return Panel(
        "Verdicts",
        "short",
        (Query(f"monitor_signal_breached{chosen}", f"{{{{signal}}}} {STREAM}"),),
        "Breached, or not: ok, or too few rows to tell.",
        kind="state-timeline",
        width=16,
        height=9,
    )


def undecided_panel(signals: tuple[str, ...]) -> Panel:
    """What cannot be told yet."""
    named = "|".join(signals)
    chosen = f'{{signal=~"{named}", policy=~"$policy"}}'
    return Panel(
        "Too few rows to tell",
        "short",
        (
            Query(f"sum by ({BY}) (monitor_signal_inconclusive{chosen})", f"{STREAM}, signals"),
            Query(f"max by ({BY}) (monitor_signal_rows{chosen})", f"{STREAM}, rows of the fullest"),
        ),
        "Signals that are inconclusive: they hold, and never fire.",
        height=9,
        low=0,
    )


LABELLED = (
    "accuracy",
    "macro_f1",
    "ece",
    "ece_equal_mass",
    "ece_class_wise",
    "brier",
    "nll",
    "business_error",
)

_SIGNALS = Row(
    "Signals of the latest labelled window",
    (
        signal_panel("accuracy", "Accuracy", "Top intent is in the label, in-scope messages."),
        signal_panel("ece", "ECE, debiased", "15 bins of equal width.", "short"),
        signal_panel("business_error", "Business-weighted error", "By the costs of the presets.", "short"),
        signal_panel("macro_f1", "Macro-F1"),
        signal_panel("brier", "Brier score", unit="short"),
        signal_panel("nll", "Negative log-likelihood", unit="short"),
        verdict_panel(LABELLED),
        undecided_panel(LABELLED),
    ),
)

_COUNTED = Row(
    "Counted since the beginning, exact over a fleet",
    (
        Panel(
            "ECE, by window",
            "short",
            (
                *(Query(f"monitor:ece:ratio{w}{CHOSEN}", f"{STREAM}, {w}") for w in ("1h", "1d", "7d")),
                Query(f"monitor:ece:ratio{CHOSEN}", f"{STREAM}, all"),
            ),
            "Plug-in, not debiased: with some hundred labels a perfect model shows 0.04 too. The line is the gate's.",
            limit=GATE_ECE,
            low=0,
        ),
        Panel(
            "Reliability: accuracy by bin of confidence",
            "percentunit",
            (
                Query(
                    f"sum by (bin) (monitor_calibration_bin_correct_total{CHOSEN}) "
                    f"/ (sum by (bin) (monitor_calibration_bin_labelled_total{CHOSEN}) > 0)",
                    "{{bin}} accuracy",
                ),
                Query(
                    f"sum by (bin) (monitor_calibration_bin_confidence_total{CHOSEN}) "
                    f"/ (sum by (bin) (monitor_calibration_bin_labelled_total{CHOSEN}) > 0)",
                    "{{bin}} confidence",
                ),
            ),
            "Calibrated: the two bars of a bin are as high. Bins without labels are left out.",
            kind="bargauge",
            low=0,
        ),
        Panel(
            "Labels by bin of confidence",
            "short",
            (Query(f"sum by (bin) (monitor_calibration_bin_labelled_total{CHOSEN})", "{{bin}}"),),
            "What the bars beside it rest on.",
            kind="bargauge",
            low=0,
        ),
        Panel(
            "Accuracy, by window",
            "percentunit",
            tuple(
                Query(f"monitor:accuracy:ratio{w}{CHOSEN}", f"{STREAM}, {w or 'all'}") for w in ("1h", "1d", "7d", "")
            ),
        ),
        Panel(
            "Accuracy of segments",
            "percentunit",
            (
                Query(
                    f"monitor_segment_accuracy_ratio{CHOSEN} or on () monitor:accuracy:ratio1d{CHOSEN}",
                    f"{{{{segment}}}} {STREAM}",
                ),
            ),
            "While the accuracy is breached; otherwise that of everything over a day.",
        ),
        Panel(
            "Rows of segments",
            "short",
            (Query(f"monitor_segment_rows{CHOSEN} or on () vector(0)", f"{{{{segment}}}} {STREAM}"),),
            low=0,
        ),
    ),
)

_LABELS = Row(
    "Labels",
    (
        Panel(
            "Labels, by what became of them",
            "short",
            (Query("sum by (fate) (increase(monitor_labels_total[1h]))", "{{fate}}"),),
            "In an hour.",
            low=0,
        ),
        Panel(
            "Predictions that got a label",
            "percentunit",
            (
                Query("monitor:labelled_per_prediction:ratio1d", "of a day's"),
                Query("monitor:labelled_per_prediction:ratio7d", "of a week's"),
                Query(
                    f"monitor_label_join_ratio{CHOSEN} or on () monitor:labelled_per_prediction:ratio7d",
                    f"{STREAM}, time for a label is up",
                ),
            ),
            "The last stands for the week's until the time for the first label is up.",
            low=0,
        ),
        Panel(
            "Delay of labels",
            "s",
            tuple(
                Query(
                    f"histogram_quantile(0.{q}, "
                    f"sum by (le) (increase(monitor_label_delay_seconds_bucket{CHOSEN}[1d])))",
                    f"P{q}",
                )
                for q in (50, 95)
            ),
            low=0,
        ),
        Panel(
            "Compared with",
            "short",
            (Query("monitor_reference_info", "{{version}}: {{origin}}"),),
            "none: the reference of this version is not pinned yet, and nothing is judged.",
            kind="stat",
            height=4,
        ),
    ),
)

QUALITY = Dashboard(
    "router-quality",
    "Router: calibration and quality",
    "Accuracy and calibration, from labels.",
    (_SIGNALS, _COUNTED, _LABELS),
    (Variable("policy", "monitor_predictions_total"),),
)
