"""`submit doctor`: whether a job could run, checked matter by matter, here and on every node of a cluster."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transferlib.addresses import ClusterAddress, resolve_address
from transferlib.cli.tables import GAP, text_table
from transferlib.clusters import recorded_cluster
from transferlib.data.cache_dir import default_cache_dir
from transferlib.errors import TransferlibError, UsageError
from transferlib.planning.nodes import ClusterFacts, NodeFacts
from transferlib.planning.preflight import torch_problems
from transferlib.spec import ModelSpec
from transferlib.words import count, size

if TYPE_CHECKING:
    from transferlib.on_ray.jobs import JobsClient

State = Literal["ok", "warning", "failed"]

SHM = "/dev/shm"
LEAST_SHM_BYTES = 1 << 30
LEAST_DISK_BYTES = 5 << 30
LEAST_TEXT_WIDTH = 30
TESTED_RAY = "2.60"
"""The minor version whose private names this package uses; `pyproject.toml` allows no other."""


@dataclass(frozen=True)
class Check:
    """Say how one matter stands."""

    name: str
    state: State
    text: str


@dataclass(frozen=True)
class Wanted:
    """Say what a job would need; empty: not asked."""

    data: str = ""
    storage: str = ""
    weights: str = ""
    models: ModelSpec = field(default_factory=ModelSpec)
    """Networks of a job here, and the weights that it would start from."""


def examine(address: str | None, wanted: Wanted, environ: Mapping[str, str]) -> list[Check]:
    """Return every check: of this machine, then of the cluster, where there is one.

    Args:
        address: Of `--address`.
        wanted: What a job would need.
        environ: Environment variables.

    Raises:
        UsageError: An address that cannot be.
    """
    checks = list(check_here(wanted))
    found = resolve_address(address, environ, recorded_cluster())
    if found is not None:  # whose nodes have weights of their own
        return [*checks, *check_cluster(found, wanted)]
    return [*checks, *check_downloads(wanted)]


def check_here(wanted: Wanted) -> Iterator[Check]:
    """Yield the checks of this machine."""
    from transferlib.data.sources import list_images

    yield _ray_here()
    yield _tried("here: torch", _torch)
    yield _room("here: /dev/shm", SHM, LEAST_SHM_BYTES)
    cache = default_cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if os.path.exists(folder))
    yield _room("here: cache disk", existing, LEAST_DISK_BYTES)
    if wanted.storage:
        yield _tried("here: storage", lambda: _write_and_remove(wanted.storage))
    if wanted.data:
        yield _tried("here: images", lambda: count(len(list_images(wanted.data).entries), "file"))
    if wanted.weights:
        yield _tried("here: weights", lambda: _source(wanted))


def check_downloads(wanted: Wanted) -> Iterator[Check]:
    """Yield where torchvision's weights are that a job on this machine starts from, or whether they can be fetched."""
    from transferlib.models.weight_names import resolve_weights

    for architecture in wanted.models.architectures:
        try:
            choice = resolve_weights(wanted.models.weights, architecture)
        except TransferlibError as error:
            if not wanted.weights:  # else they have a line of their own
                yield Check(f"here: {architecture}", "failed", str(error).splitlines()[0])
        else:
            if choice.kind == "torchvision":
                yield _download(architecture, choice.value)
            elif choice.kind == "folder" and not wanted.weights:
                yield _tried(f"here: {architecture}", partial(_model_of_run, choice.value, architecture))


def check_cluster(address: ClusterAddress, wanted: Wanted) -> Iterator[Check]:
    """Yield the checks of a cluster: that it answers, then one line a node."""
    from transferlib.cli.cluster_target import trace_in
    from transferlib.on_ray.jobs import JobsClient
    from transferlib.on_ray.probe import ProbeRequest, probe_cluster

    try:
        client = JobsClient(address)
        yield Check("cluster", "ok", f"{address} answers, Ray {client.ray_version}")
        yield _door(client)
        weights = wanted.weights if "/" in wanted.weights else ""
        if wanted.storage:
            with trace_in(wanted.storage) as trace:
                request = ProbeRequest(wanted.data, wanted.storage, trace, weights, is_thorough=True)
                facts = probe_cluster(client, request)
        else:
            facts = probe_cluster(client, ProbeRequest(wanted.data, weights=weights, is_thorough=True))
    except TransferlibError as error:
        yield Check("cluster", "failed", str(error))
        return
    ours = (_minor(platform.python_version()), version("ray"))
    theirs = (_minor(facts.python), facts.ray)
    text = f"Python {facts.python}, Ray {facts.ray}"
    yield Check("cluster: versions", "ok" if ours == theirs else "failed", text)
    differing = "; ".join(torch_problems(facts, use_gpu=facts.gpus > 0))
    yield Check("cluster: torch", "failed" if differing else "ok", differing or "the same wherever workers may train")
    yield Check("cluster: has", "ok", _has(facts))
    for node in facts.nodes:
        problems = list(node_problems(node))
        yield Check(node.name, "failed" if problems else "ok", "; ".join(problems) or _describe(node))


def node_problems(node: NodeFacts) -> Iterator[str]:
    """Yield what would keep a job from running on a node.

    Args:
        node: As it was found.
    """
    if not node.python:
        yield f"no word from it: {node.problem or 'it did not say why'}"
        return
    for is_wrong, text in (
        (not node.torch or not node.torchvision, "no torch and torchvision"),
        (bool(node.torch_error), f"torch: {node.torch_error}"),
        (not node.sees_data, "does not see the images"),
        (not node.sees_weights, "does not see the weights"),
        (not node.sees_run, "its storage is not the one here"),
        (not node.can_write, "cannot write the storage"),
        (node.shm_free_bytes < LEAST_SHM_BYTES // 4, f"/dev/shm has {size(node.shm_free_bytes)} free"),
    ):
        if is_wrong:
            yield text
    if node.problem:
        yield node.problem


def doctor_lines(checks: list[Check], width: int | None = None) -> list[str]:
    """Return the checks as a table.

    Args:
        checks: Of `examine`.
        width: Characters; what does not fit goes on under its own column. None: of the terminal, else no limit.
    """
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    header = ("what", "state", "found")
    beside = zip(header[:2], *((check.name, check.state) for check in checks), strict=True)
    taken = sum(max(map(len, column)) + len(GAP) for column in beside)
    room = sys.maxsize if width is None else max(LEAST_TEXT_WIDTH, width - taken)
    rows = []
    for check in checks:
        first, *more = textwrap.wrap(check.text, room, break_long_words=False, break_on_hyphens=False) or [""]
        rows += [[check.name, check.state, first], *(["", "", line] for line in more)]
    return text_table(header, rows, left=len(header))


def doctor_json(checks: list[Check]) -> dict[str, Any]:
    """Return the checks as the object that `--json` prints."""
    code = exit_code(checks)
    state = "failed" if code else "ok"
    return {"id": "doctor", "state": state, "exit_code": code, "checks": [asdict(check) for check in checks]}


def exit_code(checks: list[Check]) -> int:
    """Return 0 where nothing failed, else what a wrong demand ends with."""
    return UsageError.exit_code if any(check.state == "failed" for check in checks) else 0


def _tried(name: str, look: Any) -> Check:
    try:
        return Check(name, "ok", str(look()))
    except TransferlibError as error:
        return Check(name, "failed", str(error).splitlines()[0])


def _door(client: JobsClient) -> Check:
    if client.asks_for_token():
        return Check("cluster: token", "ok", "asked for, and ours is right")
    text = "not asked for: whoever reaches it can run anything there. Start its head with RAY_AUTH_MODE=token."
    return Check("cluster: token", "warning", text)


def _room(name: str, folder: str | Path, least: int) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(name, "failed", f"{folder}: {error.strerror}. A job needs it, with {size(least)} free.")
    return Check(name, "ok" if free >= least else "warning", f"{size(free)} free")


def _ray_here() -> Check:
    """Check the Ray of this machine: this package uses names of its that may change with any minor version."""
    name = "here: Python, Ray"
    try:
        ray = _version("ray")
    except TransferlibError as error:
        return Check(name, "failed", str(error))
    text = f"Python {platform.python_version()}, Ray {ray}"
    if _minor(ray) == TESTED_RAY:
        return Check(name, "ok", text)
    return Check(name, "warning", f"{text}; transferlib was tested with Ray {TESTED_RAY} only. Install that one.")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise TransferlibError(f"{name} is not installed. Install transferlib again, with all it needs.") from None


def _torch() -> str:
    """Return which torch and torchvision are here.

    Raises:
        TransferlibError: One is not, or they do not fit each other.
    """
    versions = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    try:
        import torch
        import torchvision  # noqa: F401 - its compiled half must fit torch's

        torch.zeros(1)
    except Exception as error:
        text = f"torch and torchvision do not import together: {type(error).__name__}: {error}"
        raise TransferlibError(text) from None
    return versions


def _source(wanted: Wanted) -> str:
    """Return what the weights are; of a run, which model each network would start from."""
    from transferlib.models.weight_names import resolve_weights

    choices = {name: resolve_weights(wanted.weights, name) for name in wanted.models.architectures}
    folders = {name: choice.value for name, choice in choices.items() if choice.kind == "folder"}
    if not folders:
        return next(iter(choices.values())).kind
    return "; ".join(_model_of_run(folder, name) for name, folder in folders.items())


def _model_of_run(folder: str, architecture: str) -> str:
    from transferlib.models.run_weights import find_run_model

    model = find_run_model(Path(folder), architecture)
    return " ".join([f"{model.origin}.", *model.notes]) if model.notes else model.origin


def _download(architecture: str, name: str) -> Check:
    what, title = f"here: {architecture}", f"{architecture} {name}"
    try:
        from transferlib.models import downloads
    except Exception:  # whatever is wrong with torch stands on its own line
        return Check(what, "failed", "torch and torchvision are needed to find its weights")
    weights = downloads.TorchvisionWeights.find(architecture, name)
    if weights.path.exists():
        return Check(what, "ok", f"the weights {title} are at {weights.path}")
    why = downloads.why_unreachable(weights.url)
    if not why:
        return Check(what, "ok", f"the weights {title} are not here yet; a job downloads them to {weights.path}")
    text = f"the weights {title} are not here and cannot be downloaded ({why.rstrip('.')}). {weights.ways_out}"
    return Check(what, "warning", text)


def _write_and_remove(storage: str) -> str:
    from transferlib.cli.cluster_target import trace_in

    with trace_in(storage):
        return "a file could be written and removed"


def _has(facts: ClusterFacts) -> str:
    free = f"{facts.cpus_free:g} of {facts.cpus} CPUs and {facts.gpus_free:g} of {facts.gpus} GPUs free"
    return f"{count(len(facts.nodes), 'node')}; {free}"


def _describe(node: NodeFacts) -> str:
    gpus = f", {count(node.gpus, 'GPU')}" if node.gpus else ""
    return (
        f"{count(node.cpus, 'CPU')}{gpus}, {size(node.memory_bytes)} memory, {size(node.shm_free_bytes)} /dev/shm, "
        f"{size(node.disk_free_bytes)} disk, torch {node.torch}"
    )


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])
