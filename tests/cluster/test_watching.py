"""Rules, dashboard and provisioning speak of what is exported, and of each other; no Prometheus needed."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import promql
from transferlib.telemetry.catalogue import CATALOGUE, JOB_STATES, PHASES, TRIAL_STATES

PROMETHEUS_OWN = {"up", "ALERTS"}
RAY_LABELS = {"ip"}
PROMETHEUS_LABELS = {"instance", "job", "alertname", "alertstate", "severity"}
BY_NAME = {series.name: series for series in CATALOGUE}
STATES = {"transferlib_trials": TRIAL_STATES, "transferlib_job_state": JOB_STATES}


def ray_file(name: str) -> Path:
    """Return a file of the installed Ray, without importing Ray."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / name


@pytest.mark.parametrize("where", promql.expressions())
def test_every_metric_is_exported_or_recorded_or_known_to_ray(where: str) -> None:
    reporter = ray_file("dashboard/modules/reporter/reporter_agent.py").read_text()
    of_ray = {f"ray_{name}" for name in re.findall(r'^    "(node_\w+)": Gauge\(', reporter, re.MULTILINE)}
    known = {*BY_NAME, *promql.rules("record"), *of_ray}
    names = promql.metric_names(promql.expressions()[where])
    assert names - known == set()
    assert names or any(name in promql.expressions()[where] for name in PROMETHEUS_OWN)


def test_every_exported_series_is_looked_at() -> None:
    asked = set().union(*(promql.metric_names(expression) for expression in promql.expressions().values()))
    assert {series.name for series in CATALOGUE} - asked == set()


OUR_MATCHERS = {
    where: [matcher for matcher in promql.matchers(expression) if matcher[0] in BY_NAME]
    for where, expression in promql.expressions().items()
}
"""What each expression asks of our own metrics' labels; an expression over recorded or Ray's series asks nothing."""


@pytest.mark.parametrize("where", [where for where, matchers in OUR_MATCHERS.items() if matchers])
def test_every_matcher_can_match(where: str) -> None:
    for metric, label, values in OUR_MATCHERS[where]:
        assert label in BY_NAME[metric].labels
        if label == "state":
            assert set(values) <= set(STATES[metric])
        if label == "phase":
            assert set(values) <= set(PHASES)


def test_every_brace_after_one_of_our_metrics_is_read_as_matchers() -> None:
    braces = {
        where: len([name for name in re.findall(r"(\w+)\{", expression) if name in BY_NAME])
        for where, expression in promql.expressions().items()
    }
    assert {where for where, number in braces.items() if number} == {
        where for where in OUR_MATCHERS if OUR_MATCHERS[where]
    }
    assert {label for matchers in OUR_MATCHERS.values() for _, label, _ in matchers} >= {"run", "arm", "state", "phase"}


GROUPINGS = {
    where: re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression) for where, expression in promql.expressions().items()
}


@pytest.mark.parametrize("where", [where for where, groupings in GROUPINGS.items() if groupings])
def test_every_grouping_label_exists(where: str) -> None:
    ours = {label for series in CATALOGUE for label in series.labels}
    labels = {label.strip() for grouping in GROUPINGS[where] for label in grouping.split(",")}
    assert labels != {""}
    assert labels <= ours | RAY_LABELS | PROMETHEUS_LABELS


def test_every_grouping_word_is_followed_by_labels_that_are_read() -> None:
    bare = {where: re.sub(r'"[^"]*"', "", expression) for where, expression in promql.expressions().items()}
    words = {where: len(re.findall(r"\b(?:by|on|without|ignoring|group_left)\b", text)) for where, text in bare.items()}
    assert words == {where: len(groupings) for where, groupings in GROUPINGS.items()}


def test_every_state_of_a_job_is_over_or_watched_for_silence() -> None:
    silent = promql.rules("record")["transferlib:seconds_since_progress:run"]["expr"]
    watched = {value for _, label, values in promql.matchers(silent) if label == "state" for value in values}
    assert watched == set(JOB_STATES) - {"done", "failed", "stopped"}


@pytest.mark.parametrize("name", promql.rules("alert"))
def test_every_alert_says_what_it_is_and_where_to_read_on(name: str) -> None:
    alert = promql.rules("alert")[name]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


@pytest.mark.parametrize("name", promql.rules("alert"))
def test_every_alert_has_a_section_in_the_operations_manual(name: str) -> None:
    manual = "\n".join(path.read_text() for path in (promql.ROOT / "docs").glob("operations*.md"))
    section = re.search(rf"^### {name}\n(.+?)(?=^##|\Z)", manual, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert len(section.group(1).split()) > 30


def test_every_option_that_the_manual_recommends_exists() -> None:
    manual = "\n".join(path.read_text() for path in (promql.ROOT / "docs").glob("operations*.md"))
    known = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", (promql.ROOT / "docs/cli.md").read_text(), re.MULTILINE))
    alerts = manual[manual.index("## Alerts") :]
    assert set(re.findall(r"`[^`\n]*?(--[\w-]+)", alerts)) - known == set()


@pytest.mark.parametrize("name", [*promql.rules("record"), *promql.rules("alert")])
def test_every_rule_is_named_in_a_unit_test(name: str) -> None:
    tests = "\n".join(path.read_text() for path in (promql.CLUSTER / "rules/tests").glob("*.yml"))
    kind = "transferlib:(" if ":" in name else ""
    assert name in tests or (kind in tests and name.split(":")[1] in tests)


def test_the_dashboard_is_what_the_generator_prints() -> None:
    script = promql.CLUSTER / "grafana/generate_dashboard.py"
    printed = subprocess.run([sys.executable, "-B", str(script)], check=True, capture_output=True, text=True).stdout
    assert printed == promql.DASHBOARD.read_text()


def test_panels_lie_side_by_side_on_grafanas_grid() -> None:
    places = [panel["gridPos"] for panel in promql.dashboard()["panels"]]
    cells = [
        cell
        for place in places
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in promql.dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_rows_tell_the_story_in_order() -> None:
    rows = [panel["title"] for panel in promql.dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["The comparison at a glance", "Throughput", "What starves", "Health"]


def test_lines_in_panels_stand_where_alerts_fire() -> None:
    lines = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        for panel in promql.panels()
        if "thresholds" in panel["fieldConfig"]["defaults"]
    }
    alerts = {
        "Time spent waiting for data": "TransferlibDataStarved",
        "Silence": "TransferlibNoProgress",
        "Images skipped": "TransferlibImagesSkipped",
    }
    at = {title: float(promql.rules("alert")[name]["expr"].split(">")[-1]) for title, name in alerts.items()}
    assert lines == at


def test_every_legend_is_made_of_labels_that_its_series_has() -> None:
    asked = 0
    for panel in promql.panels():
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            level = {"arm": {"run", "arm"}, "trial": {"run", "arm", "seed", "candidate"}, "run": {"run"}}
            for recorded in re.findall(r"transferlib:\w+:(\w+)", target["expr"]):
                grouped |= level[recorded]
            assert wanted <= grouped, panel["title"]
            asked += len(wanted)
    assert asked


def provisioned(name: str) -> dict[str, Any]:
    """Return a provisioning file of Grafana's."""
    loaded: dict[str, Any] = yaml.safe_load((promql.CLUSTER / "grafana/provisioning" / name).read_text())
    return loaded


def test_grafanas_data_source_has_the_name_that_rays_dashboard_asks_for() -> None:
    text = ray_file("dashboard/modules/metrics/metrics_head.py").read_text()
    default = re.search(r'^DEFAULT_PROMETHEUS_NAME = "(\w+)"', text, re.MULTILINE)
    assert default is not None
    (source,) = provisioned("datasources/prometheus.yaml")["datasources"]
    assert source["name"] == default.group(1)


def compose_service(name: str) -> dict[str, Any]:
    """Return a service of compose.yaml."""
    service: dict[str, Any] = yaml.safe_load((promql.CLUSTER / "compose.yaml").read_text())["services"][name]
    return service


def mounts(name: str) -> dict[str, str]:
    """Return where a service sees what, by its place in the container."""
    return {volume.split(":")[1]: volume.split(":")[0] for volume in compose_service(name)["volumes"]}


def test_compose_mounts_what_prometheus_reads() -> None:
    config = yaml.safe_load((promql.CLUSTER / "prometheus.yml").read_text())
    patterns = [
        pattern
        for scrape in config["scrape_configs"]
        for discovery in scrape["file_sd_configs"]
        for pattern in discovery["files"]
    ]
    mounted = mounts("prometheus")
    folder = Path(next(place for place, what in mounted.items() if what == "./prometheus.yml")).parent
    assert mounted[str(folder / "rules")] == "./rules"
    in_container = {str(Path(pattern).parent) for pattern in patterns if pattern.startswith("/")}
    assert in_container <= set(mounted)
    head = compose_service("head")["environment"]
    assert head["TRANSFERLIB_METRICS_DIR"] in in_container


def test_compose_gives_grafana_its_provisioning() -> None:
    mounted = mounts("grafana")
    folder = next(place for place, what in mounted.items() if what == "./grafana")
    environment = compose_service("grafana")["environment"]
    assert environment["GF_PATHS_PROVISIONING"] == f"{folder}/provisioning"
    assert environment["PROMETHEUS_URL"] == "http://prometheus:9090"
    ours, of_ray = (one["options"]["path"] for one in provisioned("dashboards/transferlib.yaml")["providers"])
    assert ours == f"{folder}/dashboards"
    assert Path(of_ray).is_relative_to("/tmp/ray")
    assert "/tmp/ray" in mounted


def test_compose_links_rays_panels_to_our_dashboard() -> None:
    link = compose_service("head")["environment"]["RAY_GRAFANA_DEFAULT_LOG_LINK_URL"]
    assert link == f"/d/{promql.dashboard()['uid']}"
