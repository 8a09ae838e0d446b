"""What cluster/ asks of Prometheus: the expressions of rules and panels, and the names in them."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
DASHBOARD = CLUSTER / "grafana/dashboards/transferlib.json"
RULES = sorted((CLUSTER / "rules").glob("*.yml"))


@functools.cache
def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Return the rules of a kind, "record" or "alert", by name."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    found = [rule for group in groups for rule in group["rules"] if kind in rule]
    by_name = {rule[kind]: rule for rule in found}
    assert len(by_name) == len(found), f"two {kind} rules of one name"
    return by_name


@functools.cache
def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that ask for something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rule_expressions() -> dict[str, str]:
    """Return the expression of each rule by the rule's name."""
    return {name: rule["expr"] for kind in ("record", "alert") for name, rule in rules(kind).items()}


def panel_expressions() -> dict[str, str]:
    """Return the expression of each query by its panel's title and its place there, Grafana's variables still in it."""
    return {
        f"{panel['title']} ({target['refId']})": target["expr"] for panel in panels() for target in panel["targets"]
    }


def variable_expressions() -> dict[str, str]:
    """Return the series that each variable of the dashboard takes its values from."""
    variables = [one for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    return {
        one["name"]: re.fullmatch(r"label_values\((.+), \w+\)", one["query"]["query"]).group(1)  # type: ignore[union-attr]
        for one in variables
    }


@functools.cache
def expressions() -> dict[str, str]:
    """Return all of them."""
    return {**rule_expressions(), **panel_expressions(), **variable_expressions()}


def metric_names(expression: str) -> set[str]:
    """Return the metrics that an expression reads: ours, recorded ones and Ray's."""
    bare = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b(?:transferlib_\w+|transferlib:[\w:]+|ray_\w+)", bare))


def matchers(expression: str) -> list[tuple[str, str, list[str]]]:
    """Return (metric, label, alternatives) of each matcher of a metric's."""
    return [
        (metric, label, values.split("|"))
        for metric, inside in re.findall(r"([\w:]+)\{([^}]*)\}", expression)
        for label, values in re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*"([^"]*)"', inside)
    ]


def filled(expression: str, run: str) -> str:
    """Return a panel's expression as Grafana asks it: one run, all its arms."""
    return expression.replace("$run", run).replace("$arm", ".+")
