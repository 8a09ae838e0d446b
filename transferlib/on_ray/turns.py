"""Whose turn it is on a cluster that jobs share, and what a job waits for.

Ray gives a place that becomes free to whichever reservation fits first, so small trials of a later job could keep a
large one of an earlier job waiting for ever, and a job that has trained could wait for its test set until another has
trained. So a job begins no trial while a job that came before it waits: first come, first served, a trial at a time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transferlib.planning.plan import Plan
from transferlib.words import form

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

LOOK_S = 1.0
"""How often Ray is asked."""
PATIENCE_S = 3.0
"""How long a reservation may take before it is called waiting: with room, Ray makes one in a fraction of a second."""
RUN_ID = re.compile(r"\b\d{8}-\d{6}-(?:train|compare)-[0-9a-f]{4}\b")
RESOURCES = (("GPU", "GPU", "GPUs"), ("CPU", "CPU", "CPUs"))

Amounts = Mapping[str, float]
"""Of resources, by Ray's names."""


@dataclass(frozen=True)
class Reservation:
    """Say what a job has reserved, or waits for."""

    job: int
    """Ray's number of the job; a job that comes later has a larger one."""
    bundles: tuple[Amounts, ...]
    """Each lies on one node."""
    is_placed: bool

    def total(self, resource: str) -> float:
        """Return how much of a resource it takes in all."""
        return sum(bundle.get(resource, 0.0) for bundle in self.bundles)


@dataclass(frozen=True)
class Occupancy:
    """Say who takes what of a cluster at one moment."""

    own_job: int
    reservations: tuple[Reservation, ...]
    nodes: tuple[Amounts, ...]
    """What each node that is alive offers."""
    free: Amounts
    """What nobody takes, over all nodes."""
    names: Mapping[int, str]
    """What people know jobs by."""

    @property
    def waiting(self) -> tuple[Reservation, ...]:
        """Return what this job waits for."""
        return tuple(one for one in self.reservations if one.job == self.own_job and not one.is_placed)

    @property
    def holds_some(self) -> bool:
        """Say whether this job has a reservation."""
        return any(one.job == self.own_job and one.is_placed for one in self.reservations)

    @property
    def waits_unseen(self) -> bool:
        """Say whether this job has reserved nothing and other jobs hold every CPU: it waits for one to read images."""
        return not self.waiting and not self.holds_some and self.is_full

    @property
    def is_full(self) -> bool:
        """Say whether other jobs have reserved every CPU."""
        return self._offered("CPU") - sum(self._taken("CPU").values()) < 1.0

    def earlier(self, *, uses_gpu: bool) -> Reservation | None:
        """Return what a job that came before this one waits for and this one could leave to it; None: nothing.

        Args:
            uses_gpu: Whether this job's trials take GPUs.
        """
        wanted = (
            one
            for one in self.reservations
            if one.job < self.own_job
            and not one.is_placed
            and self._fits_when_empty(one)
            and (uses_gpu or one.total("GPU") <= self.free.get("GPU", 0.0))
        )
        return next(wanted, None)

    def explain(self, *, uses_gpu: bool = False) -> str:
        """Say what this job waits for and who has it; empty where it waits for nothing, or a moment only.

        A job that has reserved nothing yet waits for the CPU that reads its images.

        Args:
            uses_gpu: Whether this job's trials take GPUs.
        """
        holds_some = self.holds_some
        if self.waiting:
            wanted = self.waiting[0]
        elif self.waits_unseen:
            wanted = _one_cpu(self.own_job)
        elif (earlier := self.earlier(uses_gpu=uses_gpu)) is not None:
            return f"waiting: {self._name(earlier.job)} came earlier and needs {_describe(earlier)}"
        else:
            return ""
        if not self._fits_when_empty(wanted):
            return f"waiting: needs {_describe(wanted)}, and the nodes that are alive have no room for that"
        short = next((name for name, _, _ in RESOURCES if wanted.total(name) > self.free.get(name, 0.0)), "CPU")
        holders = self._holders(short)
        if holds_some and not holders:
            return ""  # its trials take turns among themselves
        return f"waiting: needs {_describe(wanted)}{''.join(f'; {holder}' for holder in holders)}"

    def _offered(self, resource: str) -> float:
        return sum(node.get(resource, 0.0) for node in self.nodes)

    def _taken(self, resource: str) -> dict[int, float]:
        """Return what each other job has reserved of a resource."""
        taken: dict[int, float] = {}
        for reservation in self.reservations:
            if reservation.is_placed and reservation.job != self.own_job:
                taken[reservation.job] = taken.get(reservation.job, 0.0) + reservation.total(resource)
        return taken

    def _holders(self, resource: str) -> list[str]:
        """Name the other jobs that have a resource, the largest share first."""
        _, one, many = next(row for row in RESOURCES if row[0] == resource)
        offered, taken = self._offered(resource), self._taken(resource)
        ranked = sorted(((amount, job) for job, amount in taken.items() if amount), reverse=True)
        own = sum(one.total(resource) for one in self.reservations if one.job == self.own_job and one.is_placed)
        rest = offered - self.free.get(resource, 0.0) - own - sum(taken.values())
        holders = [(self._name(job), amount) for amount, job in ranked]
        holders += [("something without a reservation", rest)] if rest >= 0.5 else []
        unit = form(offered, one, many)
        return [f"{name} holds {amount:.4g} of {offered:.4g} {unit}" for name, amount in holders]

    def _name(self, job: int) -> str:
        return self.names.get(job, "another job")

    def _fits_when_empty(self, wanted: Reservation) -> bool:
        """Say whether the nodes that are alive could hold a reservation if nothing else were there."""
        return all(
            sum(_times(node, bundle) for node in self.nodes) >= wanted.bundles.count(bundle)
            for bundle in wanted.bundles
        )


class Turns:
    """Look from time to time who takes what of the cluster that a job runs on.

    Args:
        plan: Of the job.
        is_shared: Whether there may be other jobs; without, it is always this job's turn.
    """

    def __init__(self, plan: Plan, *, is_shared: bool) -> None:
        self._uses_gpu = plan.use_gpu
        self._is_shared = is_shared
        self._looked_at = float("-inf")
        self._ticket: PlacementGroup | None = None
        self._occupancy: Occupancy | None = None
        self._waiting_since: float | None = None

    def must_yield(self) -> bool:
        """Say whether an earlier job waits, so that this one begins nothing now."""
        occupancy = self._look()
        return occupancy is not None and occupancy.earlier(uses_gpu=self._uses_gpu) is not None

    def explain(self) -> str:
        """Say what this job waits for; empty where it does not, or has not for long."""
        occupancy = self._look()
        if occupancy is None:
            return ""
        text = occupancy.explain(uses_gpu=self._uses_gpu)
        now = time.monotonic()
        self._waiting_since = (self._waiting_since or now) if text else None
        return text if self._waiting_since is not None and now - self._waiting_since >= PATIENCE_S else ""

    def _look(self) -> Occupancy | None:
        if self._is_shared and time.monotonic() - self._looked_at >= LOOK_S:
            self._occupancy = read_occupancy()
            self._looked_at = time.monotonic()
            self._show_that_it_waits(self._occupancy)
        return self._occupancy

    def _show_that_it_waits(self, occupancy: Occupancy) -> None:
        """Ask for a CPU where the tasks that read images wait for one: a reservation is what later jobs leave room for.

        It goes once there is a place: one of those tasks takes it.
        """
        from ray.util import placement_group, remove_placement_group

        if self._ticket is None and occupancy.waits_unseen:
            self._ticket = placement_group([{"CPU": 1.0}])
        elif self._ticket is not None and (occupancy.holds_some or not occupancy.is_full):
            remove_placement_group(self._ticket)
            self._ticket = None


def read_occupancy() -> Occupancy:
    """Ask Ray who takes what."""
    import ray
    from ray._private.state import state
    from ray.util import placement_group_table

    reservations = tuple(
        Reservation(
            job=_job_number(group["placement_group_id"][-8:]),
            bundles=tuple(dict(bundle) for bundle in group["bundles"].values()),
            is_placed=group["state"] == "CREATED",
        )
        for group in placement_group_table().values()
        if group["state"] != "REMOVED"
    )
    names = {}
    for job in state.job_table():  # type: ignore[no-untyped-call]
        found = RUN_ID.search(job.get("Entrypoint") or "")
        if found:
            names[_job_number(job["JobID"])] = f"run {found.group()}"
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return Occupancy(
        own_job=_job_number(ray.get_runtime_context().get_job_id()),
        reservations=reservations,
        nodes=tuple(node["Resources"] for node in nodes if node["Alive"]),
        free=free,
        names=names,
    )


def _one_cpu(job: int) -> Reservation:
    return Reservation(job, ({"CPU": 1.0},), is_placed=False)


def _job_number(text: str) -> int:
    """Return the number behind Ray's job id, lowest byte first; a placement group's id ends with its job's."""
    return int.from_bytes(bytes.fromhex(text), "little")


def _times(node: Amounts, bundle: Amounts) -> int:
    """Return how often a bundle fits on an empty node."""
    return int(min((node.get(name, 0.0) / amount + 1e-6 for name, amount in bundle.items() if amount), default=1))


def _describe(reservation: Reservation) -> str:
    bundle, number = reservation.bundles[0], len(reservation.bundles)
    amounts = [(bundle[name], one, many) for name, one, many in RESOURCES if bundle.get(name)]
    each = " and ".join(f"{amount:.4g} {form(amount, one, many)}" for amount, one, many in amounts)
    return each if number == 1 else f"{number} times {each}"
