"""A cheaper job of the same kind, for a plan that would take very long."""

from __future__ import annotations

from collections.abc import Iterator

from transferlib.comparison.machine import Machine
from transferlib.comparison.plan import Plan, make_plan
from transferlib.data.listing import Listing
from transferlib.spec import JobSpec

SMALL_ARCHITECTURE = "resnet18"
SMALLER_PIXELS = (160, 128, 96)
FEWER_SEEDS = 2


def make_cheaper_plan(spec: JobSpec, listing: Listing, machine: Machine, plan: Plan) -> tuple[JobSpec, Plan] | None:
    """Return the least reduced job that is not long any more, or the most reduced one; None where nothing is left.

    Args:
        spec: The job that takes long.
        listing: Its images.
        machine: What it would run on.
        plan: Its plan.
    """
    best = None
    for reduced in _reductions(spec):
        best = (reduced, make_plan(reduced, listing, machine))
        if not best[1].is_long:
            break
    return best if best is not None and best[1].cost.seconds < plan.cost.seconds else None


def _reductions(spec: JobSpec) -> Iterator[JobSpec]:
    """Yield ever smaller jobs: a small network first, since it changes least about which strategy is best."""
    if spec.models.architectures != (SMALL_ARCHITECTURE,):
        spec = _changed(spec, "models", architectures=(SMALL_ARCHITECTURE,))
        yield spec
    if len(spec.comparison.seed_values) > FEWER_SEEDS:
        spec = _changed(spec, "comparison", seeds=FEWER_SEEDS)
        yield spec
    for pixels in SMALLER_PIXELS:
        if spec.data.image_size > pixels:
            spec = _changed(spec, "data", image_size=pixels)
            yield spec
    if spec.comparison.lr_candidates != 1:
        spec = _changed(spec, "comparison", lr_candidates=1)
        yield spec


def _changed(spec: JobSpec, section: str, **values: object) -> JobSpec:
    part = getattr(spec, section).model_copy(update=values)
    return spec.model_copy(update={section: part})
