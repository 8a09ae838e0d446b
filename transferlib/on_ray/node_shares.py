"""Share one machine out over the nodes of a local cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transferlib.errors import PlanError
from transferlib.on_ray.session import object_store_bytes
from transferlib.planning.machine import Machine

MIN_HEAD_CPUS = 2
"""With one logical CPU Ray Data never delivers."""
MIN_OBJECT_STORE_BYTES = 100 << 20


@dataclass(frozen=True)
class NodeShare:
    """Say what one node of a local cluster offers."""

    name: str
    """"node-1" is the head; each node also offers one of a resource of its name."""
    cpus: int
    """Logical CPUs."""
    gpus: tuple[str, ...]
    """Of this machine, as CUDA_VISIBLE_DEVICES names them."""
    memory_bytes: int
    object_store_bytes: int


def share_out(
    machine: Machine,
    environ: Mapping[str, str],
    *,
    num_nodes: int,
    cpus_per_node: int | None = None,
    gpus_per_node: int | None = None,
) -> tuple[NodeShare, ...]:
    """Divide a machine's CPUs, GPUs and memory over nodes.

    Args:
        machine: This machine.
        environ: Its CUDA_VISIBLE_DEVICES is respected.
        num_nodes: Head included.
        cpus_per_node: Logical CPUs of each; None: the usable ones shared out, at least 2 for the head and 1 for others.
        gpus_per_node: GPUs of each; None: the visible ones shared out. No GPU belongs to two nodes.

    Raises:
        PlanError: One line per demand that cannot be met.
    """
    visible = _visible_gpus(machine.gpus, environ)
    per_node = len(visible) // num_nodes if gpus_per_node is None else gpus_per_node
    problems = []
    if cpus_per_node is not None and cpus_per_node < MIN_HEAD_CPUS:
        problems.append(
            f"--cpus-per-node {cpus_per_node}: the head needs {MIN_HEAD_CPUS} (with one, Ray Data delivers nothing). "
            f"They are logical: --cpus-per-node {MIN_HEAD_CPUS} works on one CPU too."
        )
    if per_node * num_nodes > len(visible):
        problems.append(
            f"--gpus-per-node {per_node}: {num_nodes} nodes need {per_node * num_nodes} GPUs and this machine shows "
            f"{len(visible)}. Use --gpus-per-node {len(visible) // num_nodes}, or fewer --nodes."
        )
    if problems:
        raise PlanError("\n".join(problems))
    cpus = _cpus(machine.cpus, num_nodes) if cpus_per_node is None else [cpus_per_node] * num_nodes
    store = max(MIN_OBJECT_STORE_BYTES, object_store_bytes(machine.memory_bytes, sum(cpus)) // num_nodes)
    return tuple(
        NodeShare(
            name=f"node-{index + 1}",
            cpus=cpus[index],
            gpus=tuple(visible[index * per_node : (index + 1) * per_node]),
            memory_bytes=machine.memory_bytes // num_nodes - store,
            object_store_bytes=store,
        )
        for index in range(num_nodes)
    )


def _cpus(usable: int, num_nodes: int) -> list[int]:
    shares = [usable // num_nodes + (index < usable % num_nodes) for index in range(num_nodes)]
    return [max(MIN_HEAD_CPUS, shares[0]), *(max(1, share) for share in shares[1:])]


def _visible_gpus(number: int, environ: Mapping[str, str]) -> list[str]:
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(number)]
    return [name.strip() for name in named.split(",")][:number]
