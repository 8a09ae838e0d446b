"""Send jobs to a Ray cluster through its Jobs API, once it has said what it has and that it sees what a job needs."""

from __future__ import annotations

import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from transferlib.addresses import ClusterAddress
from transferlib.cli.remote_job import RemoteJob
from transferlib.cli.run_view import mirror_of
from transferlib.errors import PlanError, RunFolderError, UsageError
from transferlib.jobs_folder import job_script
from transferlib.on_ray.jobs import JobsClient
from transferlib.on_ray.package_hash import package_sha256
from transferlib.on_ray.probe import ProbeRequest, probe_cluster
from transferlib.planning.machine import Machine, Node
from transferlib.planning.nodes import ClusterFacts
from transferlib.planning.plan import Plan
from transferlib.planning.preflight import Versions, preflight
from transferlib.runs import STORAGE_VARIABLE, RunFolder
from transferlib.spec import JobSpec
from transferlib.storage.locations import open_location
from transferlib.submissions import Submission

STOP_GRACE_S = 120
"""What Ray leaves a job between SIGTERM and SIGKILL (its own default is 3 s): a step, a checkpoint and the end."""


class ClusterTarget:
    """Run jobs on a cluster.

    Args:
        address: Where its head is.
        storage: Where its nodes find run folders, a path or a URI; None: where run folders are made here, on a disk
            that its nodes see too.

    Raises:
        ClusterUnreachableError: It does not answer.
    """

    def __init__(self, address: ClusterAddress, storage: str | None) -> None:
        self._address = address
        self._storage = storage
        self._client = JobsClient(address)
        self._facts: ClusterFacts | None = None

    @property
    def greeting(self) -> str:
        """Return where the job goes, and why there where no flag said so."""
        return f"On the cluster at {self._address}."

    def look(self, spec: JobSpec) -> Machine:
        """Ask the cluster what it has, and whether all its nodes see the images and can write the runs.

        Raises:
            UsageError: They do not, or versions differ; everything at once.
        """
        root = self._storage or spec.output.runs_dir
        with trace_in(root) as trace:
            request = ProbeRequest(
                data=spec.data.path,
                storage=root,
                nonce_file=trace,
                weights=spec.models.weights if "/" in spec.models.weights else "",
                cache_dir=spec.data.cache.dir or "",
            )
            facts = self._facts = probe_cluster(self._client, request)
        problems = preflight(facts, spec, Versions(platform.python_version(), version("ray")), root)
        if problems:
            raise UsageError("\n".join(problems))
        return _machine(facts, spec)

    def find_running(self, run: RunFolder) -> RemoteJob | None:
        """Return the run's job where the cluster has it pending or running: one that was lost sight of, say."""
        submission = Submission.load(run)
        if submission is None or submission.address != self._address.url:
            return None
        state = self._client.find(submission.submission_id)
        is_going = state is not None and state.status in ("PENDING", "RUNNING")
        return RemoteJob(run, submission, self._client) if is_going else None

    def start(self, run: RunFolder, plan: Plan, *, is_detached: bool) -> RemoteJob:
        """Send the run's job.

        Raises:
            ClusterUnreachableError: The cluster went away; the run folder stays, and `--resume` looks the job up.
        """
        submission = self._record(run)
        job = RemoteJob(run, submission, self._client)  # before anything is sent: it may find the storage away
        if (mirror := mirror_of(run, submission)) is not None:
            mirror.clear_stop()
            mirror.push_new_run()
        script = job_script(f"{run.verb}.py")
        with tempfile.TemporaryDirectory(prefix="tl-send-") as folder:
            shutil.copy(script, folder)
            self._client.submit(
                submission.submission_id,
                f"exec python {script.name} {run.run_id}",
                working_dir=Path(folder),
                py_modules=self._package(),
                env_vars=self._environment(run),
                metadata=_metadata(run, plan, submission),
            )
        return job

    def _record(self, run: RunFolder) -> Submission:
        before = Submission.newest(run)
        if before is not None and before.storage != self._storage:
            raise RunFolderError(
                f"Run {run.run_id} lies in {before.storage or run.path.parent}: leave --storage out, or give that."
            )
        submission = Submission(
            run=run.run_id,
            address=self._address.url,
            storage=self._storage,
            attempt=1 if before is None else before.attempt + 1,
            submitted_at=time.time(),
            token_path=str(self._address.token_path) if self._address.token_path else None,
        )
        submission.save(run)
        return submission

    def _package(self) -> list[Path]:
        """Return this package where some node has none, or another one."""
        import transferlib

        assert self._facts is not None, "a cluster is looked at before anything is sent"
        package = Path(transferlib.__file__).parent
        ours = package_sha256(package)
        return [] if all(node.transferlib_sha256 == ours for node in self._facts.nodes) else [package]

    def _environment(self, run: RunFolder) -> dict[str, str]:
        """Return the job's environment variables; Ray's API shows them to everyone, so no secret is among them."""
        from transferlib.on_ray.session import RAY_ENVIRONMENT

        return {
            **RAY_ENVIRONMENT,
            STORAGE_VARIABLE: self._storage or str(run.path.parent),
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S),
        }


def _metadata(run: RunFolder, plan: Plan, submission: Submission) -> dict[str, str]:
    """Return what Ray's dashboard shows beside the job."""
    spec = JobSpec.load(run.spec)
    return {
        "run": run.run_id,
        "verb": spec.verb,
        "attempt": str(submission.attempt),
        "arms": ", ".join(plan.arms),
        "trials": str(plan.num_trained_trials),
        "data": spec.data.path,
    }


@contextmanager
def trace_in(root: str) -> Iterator[str]:
    """Leave a file in the storage that only those see who see the same storage; yields its name."""
    name = f".transferlib-{secrets.token_hex(8)}"
    location = open_location(root)
    try:
        if location.is_local:
            Path(root).mkdir(parents=True, exist_ok=True)
        location.write(name, b"")
    except OSError as error:
        raise UsageError(
            f"{root}: runs cannot be written there from here ({error.strerror}). Give another folder."
        ) from None
    try:
        yield name
    finally:
        location.delete(name)


def _machine(facts: ClusterFacts, spec: JobSpec) -> Machine:
    """Return a cluster as something to plan with; its scarcest node counts where nodes differ."""
    nodes = _nodes(facts, spec)
    if not nodes:
        raise PlanError(f"The cluster at {facts.address} offers no CPUs. Add workers (cluster/README.md).")
    gpu_memory = [node.gpu_memory_bytes for node in facts.nodes if node.gpus]
    return Machine(
        cpus=sum(node.cpus for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        memory_bytes=min(node.memory_bytes for node in facts.nodes) * len(nodes),
        disk_free_bytes=min(node.disk_free_bytes for node in facts.nodes),
        gpu_memory_bytes=min(gpu_memory, default=0),
        cache_free_bytes=min(node.cache_free_bytes for node in facts.nodes),
        has_bf16=all(node.has_bf16 for node in facts.nodes),
        name=f"the cluster at {facts.address}",
        nodes=nodes,
    )


def _nodes(facts: ClusterFacts, spec: JobSpec) -> tuple[Node, ...]:
    """Return the nodes there are, and those that an autoscaler will add for what is asked for."""
    nodes = tuple(Node(node.name, node.cpus, node.gpus) for node in facts.nodes if node.cpus or node.gpus)
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    more_cpus, more_gpus = max(0, (facts.max_cpus or 0) - cpus), max(0, (facts.max_gpus or 0) - gpus)
    if (spec.resources.gpus or 0) > gpus or (spec.resources.cpus or 0) > cpus or not nodes:
        return (*nodes, Node("added by the autoscaler", more_cpus, more_gpus)) if more_cpus else nodes
    return nodes
