"""Print dashboards/transferlib.json: the panels of panels.py, laid out and spelled as Grafana wants them.

    python cluster/grafana/generate_dashboard.py > cluster/grafana/dashboards/transferlib.json

Standard library only. A test holds the file to what this prints.
"""

from __future__ import annotations

import json
from typing import Any

from panels import ROWS, RUN, Panel

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GRID_COLUMNS = 24
PANEL_HEIGHT = 8


def grafana_panel(panel: Panel, panel_id: int, x: int, y: int) -> dict[str, Any]:
    """Return a panel as Grafana's JSON, at a place of its grid."""
    is_now = panel.kind != "timeseries"
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": {}}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "spanNulls": False, "showPoints": "auto"}
        if panel.is_stacked:
            defaults["custom"] |= {"fillOpacity": 40, "stacking": {"mode": "normal"}}
    if panel.alert_above is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.alert_above}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    if panel.title == "Jobs":
        defaults["links"] = [
            {"title": "This run's curves", "url": "/d/transferlib?var-run=${__data.fields.run}"},
            {"title": "In Ray's dashboard", "url": "${ray_dashboard}/#/jobs/${__data.fields.run}", "targetBlank": True},
        ]
    made: dict[str, Any] = {
        "id": panel_id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": PANEL_HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": is_now,
                "range": not is_now,
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "table":
        hidden = {"Time": True, "Value": True, "Value #A": True}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def _options(kind: str) -> dict[str, Any]:
    newest = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    options: dict[str, dict[str, Any]] = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "bargauge": {"orientation": "horizontal", "displayMode": "basic", "reduceOptions": newest},
        "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": newest},
        "table": {"showHeader": True},
    }
    return options[kind]


def grafana_panels() -> list[dict[str, Any]]:
    """Return rows and panels from left to right and from top to bottom."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": GRID_COLUMNS, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "collapsed": False, "panels": []}
        )
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > GRID_COLUMNS:
                x, y = 0, y + PANEL_HEIGHT
            panels.append(grafana_panel(panel, len(panels) + 1, x, y))
            x += panel.width
        y += PANEL_HEIGHT
    return panels


def query_variable(name: str, query: str, **more: Any) -> dict[str, Any]:
    """Return a variable whose values are a label's."""
    asked = {"query": query, "refId": name}
    return {"type": "query", "name": name, "datasource": SOURCE, "query": asked, "definition": query, **more}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON."""
    variables = [
        {"type": "datasource", "name": "datasource", "query": "prometheus", "hide": 2},
        # Runs sort by time: the newest is first, and chosen where nothing is.
        query_variable("run", "label_values(transferlib_job_info, run)", refresh=2, sort=2, label="Run"),
        query_variable(
            "arm",
            f"label_values(transferlib_arm_info{{{RUN}}}, arm)",
            refresh=2,
            sort=1,
            label="Arm",
            multi=True,
            includeAll=True,
            allValue=".+",
            current={"text": ["All"], "value": ["$__all"]},
        ),
        {
            "type": "textbox",
            "name": "ray_dashboard",
            "label": "Ray's dashboard",
            "query": "http://127.0.0.1:8265",
            "current": {"text": "http://127.0.0.1:8265", "value": "http://127.0.0.1:8265"},
        },
    ]
    to_ray = {"type": "link", "icon": "external link", "targetBlank": True, "includeVars": False, "tags": []}
    kept = {"type": "link", "icon": "dashboard", "keepTime": True, "includeVars": False, "tags": []}
    return {
        "uid": "transferlib",
        "title": "transferlib",
        "description": "Comparisons of transfer-learning strategies that run now. Made by generate_dashboard.py.",
        "tags": ["transferlib"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "annotations": {"list": []},
        "links": [
            {**to_ray, "title": "Ray: this job", "url": "${ray_dashboard}/#/jobs/${run}"},
            {**to_ray, "title": "Ray: nodes", "url": "${ray_dashboard}/#/cluster"},
            {**kept, "title": "Ray: core metrics", "url": "/d/rayDefaultDashboard"},
            {**kept, "title": "Ray: data metrics", "url": "/d/rayDataDashboard"},
        ],
        "panels": grafana_panels(),
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
