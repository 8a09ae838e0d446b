"""Write cluster/kuberay/prometheusrule.yaml from cluster/rules: `python tests/cluster/prometheus_rule.py`."""

from __future__ import annotations

from pathlib import Path

import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
MANIFEST = CLUSTER / "kuberay" / "prometheusrule.yaml"
HEAD = """\
# The rules of cluster/rules for Prometheus' operator: written, and held equal by a test, with
# python tests/cluster/prometheus_rule.py
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: transferlib
  labels:
    release: prometheus # what your Prometheus selects rules by
spec:
"""


def manifest() -> str:
    """Return the manifest's text."""
    files = sorted((CLUSTER / "rules").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    body = yaml.safe_dump({"groups": groups}, sort_keys=False, width=120, allow_unicode=True)
    return HEAD + "".join(f"  {line}\n" for line in body.splitlines())


if __name__ == "__main__":
    MANIFEST.write_text(manifest())
