"""Where a job runs: on this machine, or on a cluster. What the command line asks of either is the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transferlib.planning.machine import Machine, detect_machine
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder
from transferlib.spec import JobSpec

if TYPE_CHECKING:
    from transferlib.cli.watching import Job


class Target(Protocol):
    """Be a place that jobs can run in."""

    @property
    def greeting(self) -> str:
        """Return a sentence that says which place this is, where the user may not have thought of it; else empty."""
        ...

    def look(self, spec: JobSpec) -> Machine:
        """Return what there is to plan with.

        Args:
            spec: What is asked for; what it names must be there.

        Raises:
            TransferlibError: The place cannot be reached, or the job cannot run there; all reasons at once.
        """
        ...

    def find_running(self, run: RunFolder) -> Job | None:
        """Return the job of a run where it is running already, so that no second one is started."""
        ...

    def start(self, run: RunFolder, plan: Plan, *, is_detached: bool) -> Job:
        """Start a run's job.

        Args:
            run: With spec and plan in it.
            plan: Of the run.
            is_detached: Whether it outlives this process.
        """
        ...


class ThisMachine:
    """Run jobs here, each on a Ray of its own."""

    greeting = ""

    def look(self, spec: JobSpec) -> Machine:
        """Return this machine."""
        from transferlib.data.cache_dir import cache_folder

        return detect_machine(Path(spec.output.runs_dir), cache_folder(spec.data.cache))

    def find_running(self, run: RunFolder) -> Job | None:
        """Return None: a job that runs here holds its folder's lock, which is looked at in any case."""
        return None

    def start(self, run: RunFolder, plan: Plan, *, is_detached: bool) -> Job:
        """Start the job as a process beside this one."""
        from transferlib.cli.executor import LocalJob
        from transferlib.submissions import came_home

        came_home(run)
        return LocalJob(run, is_bound=not is_detached)


def find_target(address: str | None, storage: str | None, environ: Mapping[str, str]) -> Target:
    """Return where a job is to run: where flags or the environment say, else on the cluster that is up, else here.

    Args:
        address: Of `--address`.
        storage: Of `--storage`.
        environ: Environment variables.

    Raises:
        UsageError: An address or a storage that cannot be, or a storage without a cluster.
        ClusterUnreachableError: The cluster does not answer.
    """
    from transferlib.addresses import resolve_address
    from transferlib.clusters import recorded_cluster

    found = resolve_address(address, environ, recorded_cluster())
    if found is None:
        if storage is not None:
            from transferlib.errors import UsageError

            raise UsageError(
                "--storage says where a cluster keeps runs, and no cluster is named. Add --address http://HEAD:8265, "
                "or use --runs DIR for runs on this machine."
            )
        return ThisMachine()
    from transferlib.cli.cluster_target import ClusterTarget
    from transferlib.cli.resolve import absolute_source

    return ClusterTarget(found, None if storage is None else absolute_source(storage, Path.cwd()))
