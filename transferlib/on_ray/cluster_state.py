"""What has become of a recorded cluster: which of its processes live, and what its head says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transferlib.addresses import ClusterAddress
from transferlib.clusters import ClusterRecord
from transferlib.errors import TransferlibError
from transferlib.on_ray.head_http import HeadHttp
from transferlib.on_ray.processes import Process, read_process

NODE_SCRIPT = Path(__file__).with_name("loopback_node.py")
ANSWER_TIMEOUT_S = 10.0
UNFINISHED = frozenset({"PENDING", "RUNNING"})

State = Literal["running", "damaged", "gone"]


@dataclass(frozen=True)
class NodeState:
    """Say how one node does."""

    name: str
    pid: int
    is_alive: bool
    """Whether its process is there and the head counts it as alive."""
    cpus: int
    """Logical CPUs it offers; 0: not known."""
    gpus: int


@dataclass(frozen=True)
class ClusterState:
    """Say how a recorded cluster does."""

    id: str
    """Name of its temporary folder."""
    state: State
    """"gone": no node's process is left; "damaged": some are not, or the head does not answer."""
    nodes: tuple[NodeState, ...]
    jobs: tuple[str, ...] | None = ()
    """Submission ids that have not ended; None: the head does not answer, so nobody knows."""
    problem: str = ""
    """Why it is not "running"."""


def read_state(record: ClusterRecord) -> ClusterState:
    """Return how a recorded cluster does; never longer than two answers may take."""
    living = node_processes(record)
    name = Path(record.temp_dir).name
    if not living:
        return ClusterState(name, "gone", (), problem="None of its processes is left.")
    known = {node["node_name"]: node for node in alive_nodes(record) or []}
    jobs = ask_cluster(record, "/api/jobs/") if known else None
    nodes = tuple(_node_state(f"node-{index + 1}", pid, living, known) for index, pid in enumerate(record.node_pids))
    dead = [node.name for node in nodes if not node.is_alive]
    problem = ""
    if not isinstance(jobs, list):
        problem = f"Its head does not answer at {record.address}."
    elif dead:
        problem = f"Not alive: {', '.join(dead)}."
    return ClusterState(name, "damaged" if problem else "running", nodes, _unfinished(jobs), problem)


def node_processes(record: ClusterRecord) -> dict[int, Process]:
    """Return the recorded nodes that still run, by process id; an id that another process has now is left out."""
    found = {}
    for pid in record.node_pids:
        process = read_process(pid)
        words = process.command_line if process else []
        # The temp dir's name is random and stands in the node's options.
        if process and str(NODE_SCRIPT) in words and any(f'"{record.temp_dir}/' in word for word in words):
            found[pid] = process
    return found


def alive_nodes(record: ClusterRecord) -> list[dict[str, Any]] | None:
    """Return Ray's rows of the nodes that are alive; None where the head does not answer."""
    answer = ask_cluster(record, "/api/v0/nodes?limit=1000")
    try:
        return [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]
    except (TypeError, KeyError):
        return None


def ask_cluster(record: ClusterRecord, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """Return what the head answers to a GET with the cluster's token; None where it does not, or refuses.

    Args:
        record: The cluster's.
        path: With its slash, e.g. "/api/version".
        timeout_s: Seconds to wait.
    """
    head = ClusterAddress(record.address, "submit cluster up", Path(record.token_path))
    try:
        answer = HeadHttp(head, timeout_s=timeout_s).ask("GET", path)
        return answer.json() if answer.ok else None
    except (TransferlibError, ValueError):
        return None


def _node_state(name: str, pid: int, living: dict[int, Process], known: dict[str, dict[str, Any]]) -> NodeState:
    offers = known.get(name, {}).get("resources_total", {})
    return NodeState(name, pid, pid in living and name in known, int(offers.get("CPU", 0)), int(offers.get("GPU", 0)))


def _unfinished(jobs: Any) -> tuple[str, ...] | None:
    if not isinstance(jobs, list):
        return None
    return tuple(str(row["submission_id"]) for row in jobs if row.get("status") in UNFINISHED and row["submission_id"])
