"""A cheaper job of the same kind, for a plan that would take very long. Advice: it never keeps a job from starting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from transferlib.data.listing import Listing
from transferlib.errors import TransferlibError
from transferlib.planning.fit import check_weights
from transferlib.planning.machine import Machine
from transferlib.planning.plan import Plan, make_plan
from transferlib.spec import JobSpec

SMALL_ARCHITECTURE = "resnet18"
SMALLER_PIXELS = (160, 128, 96)
FEWER_SEEDS = 3
"""With fewer nothing can be said of training again."""


class Reduction(NamedTuple):
    """Change one field of a spec."""

    section: str
    field: str
    value: object


def make_cheaper_plan(spec: JobSpec, listing: Listing, machine: Machine, plan: Plan) -> tuple[JobSpec, Plan] | None:
    """Return the least reduced job that is not long any more, or the most reduced one; None where nothing is left.

    Args:
        spec: The job that takes long.
        listing: Its images.
        machine: What it would run on.
        plan: Its plan.
    """
    best = None
    for reduction in _reductions(spec):
        reduced = _changed(best[0] if best else spec, reduction)
        reduced_plan = _planned(reduced, listing, machine)
        if reduced_plan is None:
            continue  # the others go on without it
        best = (reduced, reduced_plan)
        if not reduced_plan.is_long:
            break
    return best if best is not None and best[1].cost.seconds < plan.cost.seconds else None


def _planned(spec: JobSpec, listing: Listing, machine: Machine) -> Plan | None:
    """Return the plan of a job, None where it would be refused."""
    try:
        check_weights(spec)
        return make_plan(spec, listing, machine)
    except TransferlibError:
        return None


def _reductions(spec: JobSpec) -> Iterator[Reduction]:
    """Yield what makes a job smaller: a small network first, since it changes least about which strategy is best."""
    if spec.models.architectures != (SMALL_ARCHITECTURE,) and _can_be_small(spec):
        yield Reduction("models", "architectures", (SMALL_ARCHITECTURE,))
    if len(spec.comparison.seed_values) > FEWER_SEEDS:
        yield Reduction("comparison", "seeds", FEWER_SEEDS)
    for pixels in SMALLER_PIXELS:
        if spec.data.image_size > pixels:
            yield Reduction("data", "image_size", pixels)
    if spec.comparison.lr_candidates != 1:
        yield Reduction("comparison", "lr_candidates", 1)


def _can_be_small(spec: JobSpec) -> bool:
    """Return whether the weights could be the small network's: a file or a run is of the networks asked for."""
    return SMALL_ARCHITECTURE in spec.models.architectures or not os.path.exists(
        os.path.expanduser(spec.models.weights)
    )


def _changed(spec: JobSpec, reduction: Reduction) -> JobSpec:
    part = getattr(spec, reduction.section).model_copy(update={reduction.field: reduction.value})
    return spec.model_copy(update={reduction.section: part})
