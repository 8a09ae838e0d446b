"""Read what cluster/ holds, and hold it against the schemas in schemas/ (where those are from: schemas/README.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SCHEMAS = Path(__file__).parent / "schemas"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
RAY_UP = [CLUSTER / "aws.yaml", CLUSTER / "gcp.yaml"]
COMPOSE = [CLUSTER / "compose.yaml", CLUSTER / "compose.gpu.yaml"]
# How an image or a pod asks its own Ray node whether it is well.
HEALTH = "import urllib.request as web; web.urlopen('http://127.0.0.1:52365/api/local_raylet_healthz', timeout=4)"
SCHEMA_OF_KIND = {
    "RayCluster": "kuberay.json#/$defs/RayCluster",
    "RayJob": "kuberay.json#/$defs/RayJob",
    "PodMonitor": "prometheus-operator.json#/$defs/PodMonitor",
    "PrometheusRule": "prometheus-operator.json#/$defs/PrometheusRule",
    "PersistentVolumeClaim": "kubernetes.json#/$defs/io.k8s.api.core.v1.PersistentVolumeClaim",
}


class UniqueKeyLoader(yaml.SafeLoader):
    """Refuse a mapping with a key twice: YAML's readers keep the last, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{sorted(twice)} twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return list(yaml.load_all(path.read_text(), Loader=UniqueKeyLoader))


def document(path: Path) -> dict[str, Any]:
    """Return the only document of a YAML file."""
    [only] = documents(path)
    return only


def kuberay(kind: str) -> dict[str, Any]:
    """Return the only manifest of a kind among cluster/kuberay's."""
    [only] = [manifest for path in KUBERAY for manifest in documents(path) if manifest["kind"] == kind]
    return only


def pods() -> dict[str, dict[str, Any]]:
    """Return the pod templates of the cluster on Kubernetes by their group's name."""
    spec = kuberay("RayCluster")["spec"]
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def mistakes(value: Any, schema: str) -> list[str]:
    """Return what a schema finds wrong with a value.

    Args:
        value: As read.
        schema: Name of a file in schemas/, and a pointer into it.
    """
    loaded = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(content)) for name, content in loaded.items()
    )
    validator = jsonschema.Draft202012Validator({"$ref": schema}, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def interpolated(text: str, environ: dict[str, str]) -> str:
    """Return a compose file's text with its variables put in, as `docker compose` does (`:-` and `:?` only).

    Raises:
        ValueError: A variable that must be set is not.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environ.get(name):
            return environ[name]
        if kind == ":?":
            raise ValueError(f"{name}: {rest}")
        return rest

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text)
