"""What runs on the cluster when it is probed: a small task on each node looks around there.

Nothing here may need more than the standard library, pyarrow, and Ray with what it needs itself: whether the rest is
there is the question.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import shutil
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from transferlib.data.cache_dir import default_cache_dir
from transferlib.errors import TransferlibError
from transferlib.on_ray.autoscaling import most_resources
from transferlib.on_ray.package_hash import package_sha256
from transferlib.on_ray.probe import ANSWER, REQUEST_VARIABLE
from transferlib.planning.machine import detect_machine
from transferlib.planning.nodes import ClusterFacts, NodeFacts
from transferlib.storage.uris import is_uri

NODE_TIMEOUT_S = 40.0
HEAD_RESOURCE = "node:__internal_head__"


def main() -> int:
    """Look at each node and print the answer as one line; what `jobs/probe.py` calls."""
    request = json.loads(os.environ[REQUEST_VARIABLE])
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    names = node_names(nodes)
    look: Any = ray.remote(num_cpus=0, max_retries=0)(look_around)
    tasks = {
        node["NodeID"]: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(request)
        for node in nodes
    }
    ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=NODE_TIMEOUT_S)
    found = []
    for node in nodes:
        resources = node["Resources"]
        known = {
            "name": names[node["NodeID"]],
            "is_head": HEAD_RESOURCE in resources,
            "cpus": int(resources.get("CPU", 0)),
            "gpus": int(resources.get("GPU", 0)),
        }
        found.append(NodeFacts(**{**_answer(tasks[node["NodeID"]]), **known}))
    free, most = ray.available_resources(), most_resources()  # type: ignore[no-untyped-call]
    facts = ClusterFacts(
        address="",
        ray=ray.__version__,
        python=platform.python_version(),
        nodes=tuple(sorted(found, key=lambda node: (not node.is_head, node.name))),
        cpus_free=free.get("CPU", 0.0),
        gpus_free=free.get("GPU", 0.0),
        max_cpus=most.get("CPU"),
        max_gpus=most.get("GPU"),
    )
    print(ANSWER + json.dumps(asdict(facts)), flush=True)
    return 0


def node_names(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Return a name for each node id: Ray's own where it is unique, else with the first characters of the id.

    Args:
        nodes: As `ray.nodes()` lists them.
    """
    own = {node["NodeID"]: str(node.get("NodeName") or node["NodeManagerAddress"]) for node in nodes}
    taken = list(own.values())
    return {id_: name if taken.count(name) == 1 else f"{name}-{id_[:6]}" for id_, name in own.items()}


def look_around(request: dict[str, Any]) -> dict[str, Any]:
    """Return what this node has and sees, as the fields of `NodeFacts` that only it can know.

    Args:
        request: Of `probe.ProbeRequest`.
    """
    storage = request["storage"]
    runs = Path(storage) if storage and not is_uri(storage) else Path(tempfile.gettempdir())
    cache = Path(request["cache_dir"]) if request["cache_dir"] else default_cache_dir()
    machine = detect_machine(runs, cache)
    facts: dict[str, Any] = {
        "memory_bytes": machine.memory_bytes,
        "gpu_memory_bytes": machine.gpu_memory_bytes,
        "has_bf16": machine.has_bf16,
        "shm_free_bytes": shutil.disk_usage("/dev/shm").free,
        "disk_free_bytes": machine.disk_free_bytes,
        "cache_free_bytes": machine.disk_free_bytes if machine.cache_free_bytes is None else machine.cache_free_bytes,
        "python": platform.python_version(),
        "ray": ray.__version__,
        "torch": _version("torch"),
        "torchvision": _version("torchvision"),
        "torch_error": _import_error() if request["is_thorough"] else "",
        "transferlib_sha256": _installed_sha256(),
    }
    problems: list[str] = []
    facts["sees_data"] = _sees(request["data"], problems)
    facts["sees_weights"] = _sees(request["weights"], problems)
    facts["sees_run"], facts["can_write"] = _try_storage(storage, request["nonce_file"], problems)
    return {**facts, "problem": "; ".join(problems)}


def _answer(task: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = ray.get(task, timeout=0.1)
    except Exception as error:  # a node that cannot even do this is what is asked about
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"problem": f"no answer within {NODE_TIMEOUT_S:g} s" if "timed out" in lines[0] else lines[-1][:300]}
    return answer


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _import_error() -> str:
    try:
        import torch
        import torchvision  # noqa: F401 - its compiled half must fit torch's

        torch.zeros(1)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__
    return ""


def _installed_sha256() -> str:
    """Return the hash of the transferlib that is installed here, not of the one that came with the probe."""
    with_probe = Path(__file__).resolve().parents[2]
    for folder in sys.path:
        package = Path(folder or ".").resolve() / "transferlib"
        if package.parent != with_probe and (package / "__init__.py").is_file():
            return package_sha256(package)
    return ""


def _sees(place: str, problems: list[str]) -> bool:
    if not place or not is_uri(place):
        return not place or os.path.exists(place)
    from transferlib.storage.locations import open_location

    try:
        location = open_location(place)
        return location.info() is not None or bool(location.list(recursive=False))
    except TransferlibError as error:
        problems.append(str(error))
        return False


def _try_storage(storage: str, trace: str, problems: list[str]) -> tuple[bool, bool]:
    """Return whether the sender's trace is in the storage, and whether a file could be written there."""
    if not storage:
        return True, True
    from transferlib.storage.locations import open_location

    location = open_location(storage)
    sees = can_write = False
    try:
        sees = not trace or location.exists(trace)
        if location.is_local and not sees:
            return False, os.access(storage, os.W_OK)  # another folder: nothing is made there
        name = f".transferlib-probe-{secrets.token_hex(8)}"
        location.write(name, b"")
        location.delete(name)
        can_write = True
    except (TransferlibError, OSError) as error:
        problems.append(str(error))
    return sees, can_write
