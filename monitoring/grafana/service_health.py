"""How fast the service answers, where the time goes, what it refuses and what it loses."""

from monitoring.grafana.panels import Dashboard, Panel, Query, Row

BUDGET_S = 0.015
LATE_SHARE = 0.05
RATE = "[$__rate_interval]"

_NOW = Row(
    "Now",
    (
        Panel(
            "Instances up",
            "short",
            (Query('sum(up{job="router"})', "up"), Query('count(up{job="router"})', "known")),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Requests",
            "reqps",
            (Query(f'sum(rate(router_requests_total{{endpoint=~"/route|/route/batch"}}{RATE}))', "all"),),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "P95 of /route",
            "s",
            (Query('router:request_seconds:p95_5m{endpoint="/route"}', "P95"),),
            "From the first byte of the body to the answer handed to the socket; the caller sees the network on top.",
            kind="stat",
            width=4,
            height=4,
            limit=BUDGET_S,
        ),
        Panel(
            "Late",
            "percentunit",
            (Query("router:request_over_budget:ratio_rate5m", "over 15 ms"),),
            "Of the answered requests; refusals are not counted.",
            kind="stat",
            width=4,
            height=4,
            limit=LATE_SHARE,
        ),
        Panel(
            "Failed",
            "percentunit",
            (Query("router:request_errors:ratio_rate5m", "5xx"),),
            "Shedding included.",
            kind="stat",
            width=4,
            height=4,
            limit=0.001,
        ),
        Panel(
            "Serving",
            "short",
            (
                Query(
                    "count by (version, policy, backend, precision) (router_model_info == 1)",
                    "{{version}}, policy {{policy}}, {{backend}} {{precision}}",
                ),
            ),
            "Instances by what they serve. Two entries for longer than a promotion takes: somebody did not follow.",
            kind="stat",
            width=4,
            height=4,
        ),
    ),
)

_LATENCY = Row(
    "Latency",
    (
        Panel(
            "Latency of /route",
            "s",
            tuple(Query(f'router:request_seconds:p{q}_5m{{endpoint="/route"}}', f"P{q}") for q in (50, 95, 99)),
            "Interpolated inside a bucket; exact at 15 ms.",
            limit=BUDGET_S,
            low=0,
        ),
        Panel(
            "P95 by stage",
            "s",
            (Query("router:stage_seconds:p95_5m", "{{stage}}"),),
            "parse, tokenize, queue, serialize of requests; inference, decide, log of micro-batches.",
            low=0,
        ),
        Panel(
            "Where the time goes, mean by stage",
            "s",
            (Query("router:stage_seconds:mean_5m", "{{stage}}"),),
            low=0,
        ),
        Panel(
            "Share over 15 ms, by window",
            "percentunit",
            tuple(Query(f"router:request_over_budget:ratio_rate{w}", w) for w in ("5m", "1h", "6h", "3d")),
            "5% is the budget. RouterLatencyBudgetBurn fires at 30% over an hour, 15% over six, 5% over three days.",
            limit=LATE_SHARE,
            low=0,
        ),
        Panel(
            "Failed requests, by window",
            "percentunit",
            tuple(Query(f"router:request_errors:ratio_rate{w}", w) for w in ("5m", "1h", "6h", "3d")),
            "0.1% is the budget.",
            limit=0.001,
            low=0,
        ),
        Panel(
            "P95 by instance",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (instance, le) "
                    f'(rate(router_request_seconds_bucket{{endpoint="/route"}}{RATE})))',
                    "{{instance}}",
                ),
            ),
            limit=BUDGET_S,
            low=0,
        ),
    ),
)

_LOAD = Row(
    "Load",
    (
        Panel(
            "Requests by endpoint and status",
            "reqps",
            (Query(f"sum by (endpoint, status) (rate(router_requests_total{RATE}))", "{{endpoint}} {{status}}"),),
            low=0,
        ),
        Panel(
            "Refused, by error type",
            "reqps",
            (Query(f"sum by (error_type) (rate(router_refused_total{RATE})) or on () vector(0)", "{{error_type}}"),),
            "overloaded: shed at the door, so that those admitted stay inside the budget.",
            low=0,
        ),
        Panel(
            "Utterances inside, and how many are admitted",
            "short",
            (
                Query("sum(router_in_flight_utterances)", "inside"),
                Query("sum(router_admission_limit_utterances)", "limit"),
            ),
            "The limit moves with the 95th percentile of the time inside.",
            low=0,
        ),
        Panel(
            "Utterances in a micro-batch, mean",
            "short",
            (
                Query(
                    f"sum(rate(router_batch_utterances_sum{RATE})) "
                    f"/ (sum(rate(router_batch_utterances_count{RATE})) > 0)",
                    "mean",
                ),
            ),
            low=0,
        ),
        Panel(
            "Decisions",
            "percentunit",
            (
                Query(
                    f"sum by (decision) (rate(router_decisions_total{RATE})) "
                    f"/ on () group_left () (sum(rate(router_decisions_total{RATE})) > 0)",
                    "{{decision}}",
                ),
            ),
            low=0,
        ),
        Panel(
            "Accepted intents",
            "reqps",
            (Query(f"sum by (intent) (rate(router_intents_total{RATE}))", "{{intent}}"),),
            low=0,
        ),
    ),
)

_LOG = Row(
    "Event log",
    (
        Panel(
            "Events",
            "short",
            (
                Query(f"sum(rate(router_events_written_total{RATE}))", "written / s"),
                Query(f"sum(rate(router_events_deleted_total{RATE}))", "deleted by retention / s"),
                Query("sum(increase(router_events_lost_total[1h]))", "lost in the last hour"),
                Query("sum(router_events_waiting)", "waiting in memory"),
            ),
            low=0,
        ),
        Panel("Size of the log", "bytes", (Query("max(router_event_log_bytes)", "with its write-ahead log"),), low=0),
        Panel(
            "Labels received, by source",
            "reqps",
            (Query(f"sum by (source) (rate(router_labels_total{RATE})) or on () vector(0)", "{{source}}"),),
            low=0,
        ),
    ),
)

SERVICE_HEALTH = Dashboard(
    "router-service-health",
    "Router: service health and latency",
    "How fast the service answers, where the time goes, what it refuses and loses.",
    (_NOW, _LATENCY, _LOAD, _LOG),
)
