"""
Queries, panels and rows as values, and the JSON that Grafana reads (schema 39, Grafana 11). Pure.

Panels are laid out in the order given, from left to right, in Grafana's grid of 24 columns; nobody counts coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """A PromQL expression and how its series are called; ``{{label}}`` stands for a label."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One chart or number."""

    title: str
    unit: str
    """A unit of Grafana: s, percentunit, reqps, short, bytes."""
    queries: tuple[Query, ...]
    words: str = ""
    """What one should know to read it."""
    kind: Literal["timeseries", "stat", "bargauge", "state-timeline"] = "timeseries"
    width: int = 8
    height: int = 8
    limit: float | None = None
    """Drawn as a line; above it, red."""
    low: float | None = None
    """Where the axis begins; open when None."""


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What is chosen at the top: the values of a label."""

    name: str
    metric: str


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    words: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.words,
        "tags": ["manga-assist"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Router", "tags": ["manga-assist"], "asDropdown": True}],
        "annotations": {"list": [_incident_marks()]},
        "templating": {"list": [_datasource_variable(), *map(_variable_json, dashboard.variables)]},
        "panels": _laid_out(dashboard.rows),
    }


def _laid_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows below each other; a panel that does not fit beside the one before goes below it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        panels.append(_row_json(row, len(panels) + 1, top))
        top, left, tallest = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            position = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append(_panel_json(panel, len(panels) + 1, position))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return panels


def _row_json(row: Row, number: int, top: int) -> dict[str, Any]:
    position = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "panels": [],
        "gridPos": position,
    }


def _panel_json(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.words,
        "datasource": DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": _field_json(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [_target_json(panel, index, query) for index, query in enumerate(panel.queries)],
    }


def _field_json(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    field: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.low is not None:
        field["min"] = panel.low
    if panel.kind == "timeseries":
        style = "off" if panel.limit is None else "line"
        field["custom"] = {"fillOpacity": 8, "showPoints": "never", "thresholdsStyle": {"mode": style}}
    if panel.kind == "state-timeline":
        shown = {"0": {"text": "ok", "color": "green"}, "1": {"text": "breached", "color": "red"}}
        field["mappings"] = [{"type": "value", "options": shown}]
    return field


def _target_json(panel: Panel, index: int, query: Query) -> dict[str, Any]:
    is_instant = panel.kind in ("stat", "bargauge")
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": is_instant,
        "range": not is_instant,
    }


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "none", "textMode": "value_and_name"},
    "bargauge": {"reduceOptions": _LAST, "orientation": "vertical", "displayMode": "basic"},
    "state-timeline": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "rowHeight": 0.9},
}


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable_json(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.metric}, {variable.name})"
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "A"},
        "refresh": 2,
        "sort": 4,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _incident_marks() -> dict[str, Any]:
    """A mark on every chart while an incident is open."""
    return {
        "name": "Incidents",
        "datasource": DATASOURCE,
        "enable": True,
        "expr": "sum by (branch, diagnosis) (monitor_incidents_open) > 0",
        "titleFormat": "{{branch}}",
        "textFormat": "{{diagnosis}}",
        "iconColor": "orange",
        "step": "60s",
    }
