"""
Writes the dashboards.

    python -m monitoring.grafana.build    writes monitoring/grafana/json/*.json
"""

import json
from pathlib import Path

from monitoring.grafana.drift import DRIFT
from monitoring.grafana.incidents import INCIDENTS
from monitoring.grafana.panels import Dashboard, dashboard_json
from monitoring.grafana.quality import QUALITY
from monitoring.grafana.service_health import SERVICE_HEALTH

FOLDER = Path(__file__).parent / "json"
DASHBOARDS: tuple[Dashboard, ...] = (SERVICE_HEALTH, QUALITY, DRIFT, INCIDENTS)


def rendered() -> dict[str, str]:
    """File name to content."""
    return {
        f"{dashboard.uid}.json": json.dumps(dashboard_json(dashboard), indent=1, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


def main() -> None:
    """See the module."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
