"""What the sidecar diagnosed and did, how it is doing itself, and which version serves whom."""

from monitoring.grafana.panels import Dashboard, Panel, Query, Row
from monitoring.grafana.quality import GATE_ECE, STREAM
from monitoring.grafana.service_health import LATE_SHARE

RATE = "[$__rate_interval]"

_INCIDENTS = Row(
    "Incidents",
    (
        Panel(
            "Open",
            "short",
            (Query("sum(monitor_incidents_open) or on () vector(0)", "incidents"),),
            "Path, evidence and outcome: /incidents of the sidecar.",
            kind="stat",
            width=4,
            height=4,
            limit=1,
        ),
        Panel(
            "Left to people",
            "short",
            (Query('sum(monitor_incidents_total{event="needs_people"}) or on () vector(0)', "incidents"),),
            "Since the sidecar started.",
            kind="stat",
            width=4,
            height=4,
            limit=1,
        ),
        Panel(
            "Alerts firing",
            "short",
            (
                Query(
                    'sum by (alertname, severity) (ALERTS{alertstate="firing"}) or on () vector(0)',
                    "{{alertname}} {{severity}}",
                ),
            ),
            width=16,
            low=0,
        ),
        Panel(
            "Open, by diagnosis",
            "short",
            (
                Query(
                    "sum by (branch, diagnosis) (monitor_incidents_open) or on () vector(0)",
                    "{{branch}} {{diagnosis}}",
                ),
            ),
            low=0,
        ),
        Panel(
            "What became of incidents, since the sidecar started",
            "short",
            (
                Query(
                    "sum by (branch, event) (monitor_incidents_total) or on () vector(0)",
                    "{{branch}} {{event}}",
                ),
            ),
            low=0,
        ),
        Panel(
            "Remedies, since the sidecar started",
            "short",
            (
                Query(
                    "sum by (action, outcome) (monitor_remedies_total) or on () vector(0)",
                    "{{action}} {{outcome}}",
                ),
            ),
            low=0,
        ),
        Panel(
            "Remedies without an outcome",
            "short",
            (
                Query("sum(monitor_outbox_waiting)", "waiting"),
                Query("sum(monitor_outbox_dead)", "given up"),
            ),
            low=0,
        ),
        Panel(
            "Oldest remedy without an outcome",
            "s",
            (Query("max(monitor_outbox_oldest_seconds)", "age"),),
            limit=8 * 3600,
            low=0,
        ),
    ),
)

_ROLLOUT = Row(
    "Rollout",
    (
        Panel(
            "Share of predictions, by version, policy and role",
            "percentunit",
            (
                Query(
                    f"sum by (version, policy, role) (rate(monitor_predictions_total{RATE})) "
                    f"/ on () group_left () (sum(rate(monitor_predictions_total{RATE})) > 0)",
                    STREAM,
                ),
            ),
            low=0,
        ),
        Panel(
            "Accuracy, by version, policy and role",
            "percentunit",
            (Query("monitor:accuracy:ratio1d", STREAM),),
            "Over a day.",
        ),
        Panel(
            "ECE, by version, policy and role",
            "short",
            (Query("monitor:ece:ratio1d", STREAM),),
            "Over a day; the line is the gate's.",
            limit=GATE_ECE,
            low=0,
        ),
        Panel(
            "Over 15 ms, by version, policy and role",
            "percentunit",
            (Query("monitor:over_budget_predictions:ratio1h", STREAM),),
            "Over an hour.",
            limit=LATE_SHARE,
            low=0,
        ),
        Panel(
            "What instances serve",
            "short",
            (Query("count by (version, policy) (router_model_info == 1)", "{{version}} {{policy}}"),),
            low=0,
        ),
        Panel(
            "Deployments noticed, since the service started",
            "short",
            (Query("sum by (outcome) (router_model_swaps_total) or on () vector(0)", "{{outcome}}"),),
            low=0,
        ),
    ),
)

_MONITOR = Row(
    "The sidecar itself",
    (
        Panel(
            "Up, and the log can be read",
            "short",
            (Query('sum(up{job="monitor"})', "up"), Query("min(monitor_log_available)", "log")),
            low=0,
        ),
        Panel(
            "Behind the log",
            "s",
            (
                Query("max(monitor_behind_seconds)", "age of what is read"),
                Query("max(time() - monitor_last_step_timestamp_seconds)", "since the last look"),
                Query("max(time() - monitor_last_assessment_timestamp_seconds)", "since the last assessment"),
            ),
            "Without new rows nothing is assessed.",
            low=0,
        ),
        Panel(
            "Events read",
            "short",
            (
                Query(f"sum by (kind) (rate(monitor_events_total{RATE}))", "{{kind}} / s"),
                Query("sum by (reason) (increase(monitor_events_skipped_total[1h]))", "skipped in an hour: {{reason}}"),
                Query("sum by (kind) (increase(monitor_events_missing_total[1h]))", "missing in an hour: {{kind}}"),
            ),
            low=0,
        ),
        Panel(
            "Step and assessment, mean",
            "s",
            (
                Query(
                    f"sum(rate(monitor_step_seconds_sum{RATE})) / (sum(rate(monitor_step_seconds_count{RATE})) > 0)",
                    "step",
                ),
                Query(
                    "sum(rate(monitor_assessment_seconds_sum[1h])) "
                    "/ (sum(rate(monitor_assessment_seconds_count[1h])) > 0)",
                    "assessment",
                ),
            ),
            low=0,
        ),
    ),
)

INCIDENTS = Dashboard(
    "router-incidents",
    "Router: incidents and rollout",
    "What the sidecar diagnosed and did, how it is doing itself, and which version serves whom.",
    (_INCIDENTS, _ROLLOUT, _MONITOR),
)
