"""What has changed against the reference: out of distribution, and signals that need no label."""

from monitoring.grafana.panels import Dashboard, Panel, Query, Row, Variable
from monitoring.grafana.quality import CHOSEN, STREAM, signal_panel, undecided_panel, verdict_panel

UNLABELLED = (
    "expected_accuracy",
    "ood_rate",
    "prior_shift",
    "energy_ks",
    "confidence_ks",
    "length_ks",
    "language_shift",
    "embedding_mmd",
)

_OOD = Row(
    "Out of distribution",
    (
        signal_panel("ood_rate", "Share called ood", "No label needed."),
        signal_panel("ood_precision", "Precision of the ood verdict", "Falls when a new intent appears."),
        signal_panel("ood_recall", "Recall of the ood verdict", "Falls when a new intent is taken for one of ours."),
        Panel(
            "Share called ood, of everything in an hour",
            "percentunit",
            (Query(f"monitor:ood_predictions:ratio1h{CHOSEN}", STREAM),),
            low=0,
        ),
    ),
)

_DISTANCES = Row(
    "Distances from the reference, without labels",
    (
        signal_panel("expected_accuracy", "Expected accuracy", "From the calibrated confidence alone."),
        signal_panel("prior_shift", "Shift of what is asked for", "Largest change of an intent's share."),
        signal_panel("energy_ks", "Energy, KS distance", unit="short"),
        signal_panel("confidence_ks", "Confidence, KS distance", unit="short"),
        signal_panel("length_ks", "Length, KS distance", unit="short"),
        signal_panel("language_shift", "Shift of languages", unit="short"),
        signal_panel("embedding_mmd", "Embeddings, MMD", "Of the sampled ones.", "short"),
    ),
)

_LATENCY = Row(
    "Latency, as the failure tree sees it",
    (
        signal_panel("total_p95_ms", "P95", unit="ms"),
        signal_panel("over_15_ms_share", "Share over 15 ms"),
        Panel(
            "P95 by stage",
            "ms",
            (
                Query(
                    'monitor_signal_value{signal=~"(tokenize|queue|inference)_p95_ms", policy=~"$policy"}',
                    f"{{{{signal}}}} {STREAM}",
                ),
            ),
            low=0,
        ),
    ),
)

_VERDICTS = Row("Signals without labels", (verdict_panel(UNLABELLED), undecided_panel(UNLABELLED)))

DRIFT = Dashboard(
    "router-drift",
    "Router: drift and out of distribution",
    "What has changed against the reference: out of distribution, and signals that need no label.",
    (_VERDICTS, _OOD, _DISTANCES, _LATENCY),
    (Variable("policy", "monitor_predictions_total"),),
)
