"""Dashboards: the files are what the code gives, and hold what Grafana needs to show them."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from monitoring.grafana.build import FOLDER, rendered
from monitoring.grafana.panels import COLUMNS
from tests.deploy.programs import ROOT

PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"
FILES = sorted(FOLDER.glob("*.json"))
UNITS = {"s", "ms", "percentunit", "reqps", "short", "bytes"}


def panels(path: Path) -> list[dict[str, Any]]:
    """Rows included."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return found


def test_files_are_what_the_code_gives() -> None:
    """After a change: ``python -m monitoring.grafana.build``."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FILES} == rendered()


def test_dashboards_are_told_apart() -> None:
    """By uid and by title."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in FILES]
    assert len({one["uid"] for one in documents}) == len({one["title"] for one in documents}) == len(FILES) == 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryDashboard:
    def test_panels_are_told_apart(self, path: Path) -> None:
        """By id; titles repeat in no dashboard either."""
        for key in ("id", "title"):
            values = [panel[key] for panel in panels(path)]
            assert len(set(values)) == len(values)

    def test_panels_lie_beside_each_other(self, path: Path) -> None:
        """Inside the grid, none over another."""
        positions = [panel["gridPos"] for panel in panels(path)]
        assert all(p["x"] >= 0 and p["x"] + p["w"] <= COLUMNS and p["w"] > 0 < p["h"] for p in positions)
        assert [pair for pair in combinations(positions, 2) if _overlap(*pair)] == []

    def test_panels_ask_the_chosen_data_source(self, path: Path) -> None:
        """Nothing is bound to the Prometheus of one installation."""
        document = json.loads(path.read_text(encoding="utf-8"))
        chosen = {"type": "prometheus", "uid": "${datasource}"}
        assert document["templating"]["list"][0]["type"] == "datasource"
        asking = [panel for panel in panels(path) if panel["type"] != "row"]
        assert all(panel["datasource"] == chosen for panel in asking)
        assert all(target["datasource"] == chosen for panel in asking for target in panel["targets"])

    def test_panels_have_units_queries_and_legends(self, path: Path) -> None:
        """A number without its unit is a riddle."""
        for panel in panels(path):
            if panel["type"] == "row":
                continue
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert references == [chr(ord("A") + index) for index in range(len(references))]
            assert references
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]

    def test_variables_that_are_used_are_there(self, path: Path) -> None:
        """And the other way round."""
        document = json.loads(path.read_text(encoding="utf-8"))
        defined = {variable["name"] for variable in document["templating"]["list"]}
        text = json.dumps(document["panels"])
        used = {name for name in ("datasource", "policy", "version", "role", "instance") if f"${name}" in text}
        used |= {"datasource"} if "${datasource}" in text else set()
        assert used == defined


def test_provisioning_finds_data_source_and_dashboards() -> None:
    """The folder named there is the one that compose mounts; see test_compose.py."""
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"], source["url"]) == ("prometheus", True, "http://prometheus:9090")
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "router.yml").read_text())["providers"]
    assert provider["type"] == "file"


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )
