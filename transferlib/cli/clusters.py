"""`submit cluster`: several Ray nodes on this machine, which later commands use until they are ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from transferlib.cli.sifting import JobGroup

if TYPE_CHECKING:
    from transferlib.clusters import ClusterRecord
    from transferlib.on_ray.cluster_state import ClusterState

DEFAULT_PORT = 8265
MAX_NODES = 32
UNPRIVILEGED_PORTS = click.IntRange(1024, 65535)
ENDING_S = 5.0
"""A job that has said how it ended, which is what `submit wait` waits for, takes a moment to be gone."""
NONE_RUNS = "No cluster of yours runs. Start one: submit cluster up"


@click.group("cluster", cls=JobGroup)
def cluster() -> None:
    """Run a local cluster of several Ray nodes, for jobs to share.

    While it is up, `submit compare` and `submit train` send their jobs to it.
    """


@cluster.command("up")
@click.option(
    "--nodes",
    metavar="N",
    type=click.IntRange(1, MAX_NODES),
    default=1,
    show_default=True,
    help="Nodes, head included.",
)
@click.option(
    "--cpus-per-node",
    metavar="C",
    type=click.IntRange(1),
    help="Logical CPUs of each node, at least 2. [default: this machine's shared out, at least 2 for the head]",
)
@click.option(
    "--gpus-per-node",
    metavar="G",
    type=click.IntRange(0),
    help="GPUs of each node. [default: the visible ones shared out]",
)
@click.option(
    "--port",
    metavar="PORT",
    type=UNPRIVILEGED_PORTS,
    default=DEFAULT_PORT,
    show_default=True,
    help="Of the dashboard and the Jobs API, on loopback.",
)
def up(nodes: int, cpus_per_node: int | None, gpus_per_node: int | None, port: int) -> int:
    """Start Ray nodes on this machine; they stay until `submit cluster down`.

    They listen on loopback only and ask for a token, which lies in a file that only you can read.
    """
    import os
    from pathlib import Path

    from transferlib.on_ray.cluster_state import read_state
    from transferlib.on_ray.local_cluster import start_cluster
    from transferlib.on_ray.node_shares import share_out
    from transferlib.planning.machine import detect_machine
    from transferlib.words import count

    machine = detect_machine(Path.cwd(), Path.cwd())
    shares = share_out(machine, os.environ, num_nodes=nodes, cpus_per_node=cpus_per_node, gpus_per_node=gpus_per_node)
    click.echo(f"Starting {count(nodes, 'node')} …", err=True)
    record = start_cluster(shares, port)
    click.echo("\n".join(up_lines(record, read_state(record))))
    return 0


@cluster.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> int:
    """Show the nodes of your cluster and its jobs; forget one that is gone."""
    from transferlib.clusters import recorded_cluster
    from transferlib.on_ray.cluster_state import read_state
    from transferlib.on_ray.local_cluster import stop_cluster

    record = recorded_cluster()
    state = read_state(record) if record else None
    if record and state and state.state == "gone":
        stop_cluster(record)  # clears what it left
    if as_json:
        click.echo(json.dumps(status_object(record, state), indent=2))
    elif record and state:
        click.echo("\n".join(status_lines(record, state)))
    else:
        click.echo(NONE_RUNS, err=True)
    return 0


@cluster.command("down")
@click.option("--force", is_flag=True, help="End it although jobs run on it.")
def down(force: bool) -> int:
    """End your cluster with all its processes.

    Refused while jobs run on it, unless --force is given; a run that is cut off goes on with --resume.
    """
    import time

    from transferlib.clusters import recorded_cluster
    from transferlib.errors import UsageError
    from transferlib.on_ray.cluster_state import read_state
    from transferlib.on_ray.local_cluster import stop_cluster
    from transferlib.words import count

    record = recorded_cluster()
    if record is None:
        click.echo(NONE_RUNS, err=True)
        return 0
    state, deadline = read_state(record), time.monotonic() + ENDING_S
    while state.jobs and not force and time.monotonic() < deadline:
        time.sleep(0.2)
        state = read_state(record)
    if state.jobs is None and not force:
        raise UsageError(
            f"Jobs may run on it: the head at {record.address} does not answer. Try again in a minute, or use --force: "
            "runs are cut off, and go on later with --resume."
        )
    if state.jobs and not force:
        raise UsageError(
            f"{count(len(state.jobs), 'job has', 'jobs have')} not ended on {record.address}: {', '.join(state.jobs)}. "
            "Stop what runs (submit stop RUN) first, or use --force: runs are cut off, and go on later with --resume."
        )
    stop_cluster(record)
    if state.state == "gone":
        click.echo(f"The cluster at {record.address} was gone already; its record and its files are cleared.")
    else:
        click.echo(f"Ended the cluster at {record.address} ({count(len(record.node_pids), 'node')}).")
    return 0


def up_lines(record: ClusterRecord, state: ClusterState) -> list[str]:
    """Return what is said of a cluster that has just come up."""
    from transferlib.words import count

    return [
        f"A cluster of {count(len(state.nodes), 'node')} is up on this machine, on loopback only.",
        *(f"  {line}" for line in _node_lines(state)),
        f"Address    {record.address}",
        f"Dashboard  {record.address} (it asks for a token: paste what `cat {record.token_path}` prints)",
        f"Logs       {record.temp_dir}/node-*.log, {record.temp_dir}/node-*/session_latest/logs",
        "`submit compare` and `submit train` run on it until: submit cluster down",
        "For Ray's own commands:",
        f"  export RAY_API_SERVER_ADDRESS={record.address} RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={record.token_path}",
    ]


def status_lines(record: ClusterRecord, state: ClusterState) -> list[str]:
    """Return how a recorded cluster does, for a terminal."""
    import time

    from transferlib.words import duration

    if state.state == "gone":
        return [f"The cluster at {record.address} is gone ({state.problem}) Its record and its files are cleared."]
    since = duration(max(0.0, time.time() - record.started_at))
    down = "submit cluster down --force" if state.jobs is None else "submit cluster down"
    hint = [] if state.state == "running" else [f"{state.problem} End what is left of it: {down}"]
    jobs = "not known" if state.jobs is None else ", ".join(state.jobs) or "none runs"
    return [f"{record.address}: {state.state}, up for {since}", *hint, *_node_lines(state), f"Jobs: {jobs}"]


def status_object(record: ClusterRecord | None, state: ClusterState | None) -> dict[str, object]:
    """Return how the cluster does as plain values; `state` is running, damaged, gone or none."""
    from transferlib.records import to_plain

    if record is None or state is None:
        return {"id": None, "state": "none", "exit_code": None, "address": None, "nodes": [], "jobs": []}
    return {
        **to_plain(state),
        "exit_code": None,
        "address": record.address,
        "token_path": record.token_path,
        "started_at": record.started_at,
    }


def _node_lines(state: ClusterState) -> list[str]:
    from transferlib.cli.tables import text_table

    rows = [
        [node.name, "alive" if node.is_alive else "not alive", str(node.cpus), str(node.gpus), str(node.pid)]
        for node in state.nodes
    ]
    return text_table(["node", "state", "CPUs", "GPUs", "pid"], rows, left=2)
