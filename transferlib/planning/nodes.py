"""What a cluster has, node by node, as its own processes found it. No Ray in here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from transferlib.records import JsonRecord


@dataclass(frozen=True)
class NodeFacts(JsonRecord):
    """Say what one node offers and what it can reach; a job's worker there would find the same."""

    name: str
    """Unique: the node's address, or with several Rays on one machine its host name and Ray's number for it."""
    is_head: bool = False
    cpus: int = 0
    """Logical CPUs that Ray gives out there, in use or not."""
    gpus: int = 0
    """GPUs that Ray gives out there, in use or not."""
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0
    """Of the smallest GPU; 0: unknown or none."""
    has_bf16: bool = False
    """Whether the CPU computes in bfloat16 by itself."""
    shm_free_bytes: int = 0
    """Free in /dev/shm, where Ray keeps objects and torch what its processes share."""
    disk_free_bytes: int = 0
    """Free where run folders lie: the storage, or the temporary folder where the storage is an object store."""
    cache_free_bytes: int = 0
    """Free where decoded images are kept."""
    python: str = ""
    """Version, e.g. "3.11.9"."""
    ray: str = ""
    torch: str = ""
    """Version; empty: not installed."""
    torchvision: str = ""
    """Version; empty: not installed."""
    torch_error: str = ""
    """Why torch and torchvision do not import together; empty: they do, or were not tried."""
    transferlib_sha256: str = ""
    """Of the package installed there (on_ray.probe.package_sha256); empty: there is none."""
    sees_data: bool = False
    """Whether the images are there; True where none were asked for."""
    sees_run: bool = False
    """Whether the file that the client has written into the storage is there; True where none was asked for."""
    can_write: bool = False
    """Whether a file could be written into the storage; True where none was asked for."""
    sees_weights: bool = False
    """Whether the source weights are there or can be fetched; True where none were asked for."""
    problem: str = ""
    """What else went wrong, in the node's own words; a node that did not answer has only this."""


@dataclass(frozen=True)
class ClusterFacts:
    """Say what a cluster has in all."""

    address: str
    ray: str
    """Version of the head's Ray."""
    python: str
    """Version of the head's Python."""
    nodes: tuple[NodeFacts, ...]
    """Head first, then by name."""
    cpus_free: float = 0.0
    """Not in use now."""
    gpus_free: float = 0.0
    """Not in use now."""
    max_cpus: int | None = None
    """What an autoscaler may scale to; None: there is no autoscaler, or it has no limit of this kind."""
    max_gpus: int | None = None
    """What an autoscaler may scale to; None: there is no autoscaler, or it has no limit of this kind."""

    @property
    def cpus(self) -> int:
        """Return the logical CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        """Return the GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the JSON of one; keys that a node does not know are an error, as everywhere."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "nodes": tuple(NodeFacts(**node) for node in fields["nodes"])})
