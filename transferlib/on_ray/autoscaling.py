"""What an autoscaler may scale a cluster to, from Ray where it knows, else from the file that the head began with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import yaml

from transferlib.on_ray.processes import PROC, read_process

_MONITOR = "monitor.py"
_CONFIG_OPTION = "--autoscaling-config"
_ADDRESS_OPTION = "--gcs-address"


def most_resources() -> dict[str, int]:
    """Return what the cluster may grow to; empty where nothing scales it. Asked in a process on its head.

    Ray 2.60 itself knows only with its second autoscaler; `ray up` starts the first unless told otherwise.
    """
    from ray._private.state import state

    found = state.get_max_resources_from_cluster_config()
    if not found:
        config = find_config(ray.get_runtime_context().gcs_address, _command_lines())
        found = read_most(config) if config is not None else None
    return dict(found or {})


def find_config(gcs_address: str, command_lines: Iterator[list[str]]) -> Path | None:
    """Return the autoscaling config of a cluster, by the command lines of its head's processes; None: there is none.

    Args:
        gcs_address: Of the cluster, host:port; several may run on one machine.
        command_lines: Of processes.
    """
    for words in command_lines:
        if any(os.path.basename(word) == _MONITOR for word in words[:4]):
            config = _option(words, _CONFIG_OPTION)
            if config and _option(words, _ADDRESS_OPTION) == gcs_address:
                return Path(config).expanduser()
    return None


def read_most(config: Path) -> dict[str, int] | None:
    """Return what an autoscaling config allows; None where it cannot be read or is none.

    Args:
        config: YAML or JSON.
    """
    try:
        return most_allowed(yaml.safe_load(config.read_text()))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return None


def most_allowed(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the most of each resource that a config allows: its head, and the workers that have most of it.

    Each resource has an answer of its own: where `max_workers` of the cluster is less than the sum of its types',
    all of them cannot be had at once.

    Args:
        config: With `available_node_types`, `head_node_type` and `max_workers`, as the cluster launcher takes it.
    """
    types: Mapping[str, Mapping[str, Any]] = config.get("available_node_types") or {}
    head = str(config.get("head_node_type"))
    most_workers = config.get("max_workers")
    names = {name for of_type in types.values() for name in of_type.get("resources") or {}}
    found: dict[str, int] = {}
    for name in sorted(names):
        amounts = {kind: (of_type.get("resources") or {}).get(name, 0) for kind, of_type in types.items()}
        total, left = amounts.get(head, 0), most_workers
        for kind in sorted(types, key=lambda kind: -amounts[kind]):
            # Ray's own defaults: no more heads, and of other types as many as of all together.
            number = types[kind].get("max_workers", 0 if kind == head else most_workers) or 0
            number = number if left is None else min(number, left)
            total += amounts[kind] * number
            left = None if left is None else left - number
        found[name] = int(total)
    return found


def _option(words: list[str], name: str) -> str:
    """Return the value of an option, given as `--name=value` or `--name value`; empty where it is not there."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return ""


def _command_lines() -> Iterator[list[str]]:
    processes = (read_process(int(entry)) for entry in os.listdir(PROC) if entry.isdigit())
    return (process.command_line for process in processes if process is not None)
