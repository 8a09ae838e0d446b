"""What a job would do, as text: the plan, the strategies' tables, and a cheaper command where it would take long."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from transferlib import words
from transferlib.cli.init import weights_line
from transferlib.cli.options import FLAGS, Flag
from transferlib.data.cache_dir import cache_folder
from transferlib.data.depth_scale import in_words
from transferlib.data.health import MOST_NAME_CHARACTERS, printable
from transferlib.data.listing import Listing
from transferlib.data.sources import list_images, missing_source
from transferlib.errors import DataError, PlanError, SpecError, WeightsError
from transferlib.names import METRIC_WORDS, MIN_SEEDS
from transferlib.planning.cheaper import make_cheaper_plan
from transferlib.planning.fit import check_weights
from transferlib.planning.machine import Machine
from transferlib.planning.plan import LONG_JOB_S, Plan, make_plan
from transferlib.spec import JobSpec
from transferlib.strategies.table import format_strategy_table, strategy_table

LABEL_WIDTH = 14
MAX_WIDTH = 100
MOST_CLASSES = 12
"""Named in a plan."""
FEW_IMAGES = 100
"""Of test: with fewer, what is reckoned to be found four times of five is found in half to two thirds of them."""
LARGEST_SHOWN = 0.5
"""Difference of two accuracies from which nobody needs a test to see it."""


def look(spec: JobSpec) -> Listing:
    """List a job's images; weights that are not there are told before anything else.

    Raises:
        WeightsError: There are no such weights.
        SpecError: Nor are there images.
        DataError: The images cannot serve.
    """
    try:
        check_weights(spec)
    except WeightsError as error:
        if (missing := missing_source(spec.data.path)) is not None:
            raise SpecError([missing, str(error)]) from None
        raise
    return list_images(spec.data.path, spec.data.class_level, spec.data.group_regex)


def plan_job(spec: JobSpec, listing: Listing, machine: Machine, *, is_exact: bool = False) -> Plan:
    """Plan a job; looks into the decoded cache only where that matters, since it takes half a second.

    Args:
        spec: What is asked for.
        listing: Its images.
        machine: What there is.
        is_exact: Look into the cache in any case.

    Raises:
        PlanError: The machine cannot meet the demand.
    """
    if is_exact:
        return make_plan(spec, listing, machine, num_cached=_count_cached(spec, listing))
    try:
        return make_plan(spec, listing, machine)
    except PlanError:
        return make_plan(spec, listing, machine, num_cached=_count_cached(spec, listing))


def _count_cached(spec: JobSpec, listing: Listing) -> int:
    root = cache_folder(spec.data.cache)
    if spec.data.cache.mode == "none" or not root.is_dir():
        return 0
    from transferlib.data.cache import DecodedCache
    from transferlib.data.decode import Limits
    from transferlib.data.depth_scale import DepthScale
    from transferlib.data.manifest import Manifest

    limits, uris = Limits(spec.data.max_pixels, spec.data.max_file_bytes), [entry.uri for entry in listing.entries]
    cache = DecodedCache(root, spec.short_side, limits, DepthScale.given(spec.data.depth_range))
    known = cache.known(uris)
    read = [facts for facts in known if facts is not None]
    if cache.scale is None and len(read) == len(uris) and any(facts.depth for facts in read):
        with contextlib.suppress(DataError):  # the job will say it
            known = replace(cache, scale=Manifest.build(listing, read, spec.data).scale).known(uris)
    return sum(facts is not None for facts in known)


def plan_lines(spec: JobSpec, listing: Listing, machine: Machine, plan: Plan) -> Iterator[str]:
    """Yield the plan, a line a matter.

    Args:
        spec: What is asked for.
        listing: Its images.
        machine: What it would run on.
        plan: How.
    """
    images, cost, folds = plan.images, plan.cost, plan.num_folds
    num_steps = -(-images["train"] // spec.training.global_batch_size)
    yield _row(
        "images",
        f"{sum(images.values()):,} in {words.count(plan.num_classes, 'class')} "
        f"({listing.layout}): {images['train']:,} train, {images['val']:,} val, {images['test']:,} test"
        + (f" in each of {folds} folds, cut anew for each seed" if folds > 1 else ""),
    )
    yield _row("classes", _class_names(listing.classes))
    yield _row("from", printable(listing.root))
    if spec.data.depth_range is not None:
        yield _row("deep images", f"{in_words(spec.data.depth_range)} in all of them (--depth-range)")
    yield _row(
        "arms",
        f"{len(plan.arms)}: {words.listed(spec.models.architectures)}, by {words.listed(spec.strategies.names)}",
    )
    yield _row(
        "trials",
        f"{plan.num_trained_trials} = {trials_product(plan)}, each of at most {words.count(plan.epochs, 'epoch')}",
    )
    yield _row(
        "an epoch",
        f"{words.count(images['train'], 'image')} in {words.count(num_steps, 'step')} "
        f"of at most {spec.training.global_batch_size}",
    )
    metric = spec.comparison.decided_metric
    yield _row("metric", f"{METRIC_WORDS[metric]} chooses, ranks and is tested (--metric)")
    if (shown := can_show(plan)) is not None:
        yield _row("can show", shown)
    yield _row("side by side", _side_by_side(plan))
    if plan.placement:
        yield _row("nodes", plan.placement)
    yield _row("disk", _disk(machine, plan))
    yield _row("memory", _memory(machine, plan))
    yield _row("time", f"about {words.duration(cost.seconds)} (rough; corrected once the first epochs are done)")
    missing = "" if machine.nodes or spec.strategies.names == ("scratch",) else weights_line(os.environ, spec.models)
    for note in (*listing.notes, *plan.notes, *filter(None, [missing])):
        yield _row("note", note)


def _class_names(classes: Sequence[str]) -> str:
    shown = [words.shortened(printable(label), MOST_NAME_CHARACTERS) for label in classes[:MOST_CLASSES]]
    return words.listed([*shown, *([f"{len(classes) - MOST_CLASSES:,} more"] if len(classes) > MOST_CLASSES else [])])


def trials_product(plan: Plan) -> str:
    """Return what the number of trainings comes from: `3 arms x (2 seeds x 2 learning rates + 3 seeds)`.

    Args:
        plan: Of the job.
    """
    arms, rates = words.count(len(plan.arms), "arm"), words.count(plan.num_candidates, "learning rate")
    folds = f" x {words.count(plan.num_folds, 'fold')}" if plan.num_folds > 1 else ""
    if plan.num_trained_trials == len(plan.trials):
        return f"{arms} x {words.count(len(plan.seeds), 'seed')}{folds} x {rates}"
    num_later = len(plan.seeds) - (plan.tuning_seeds or 0)
    first, later = words.count(len(plan.seeds) - num_later, "seed"), words.count(num_later, "seed")
    return f"{arms}{folds} x ({first} x {rates} + {later})"


def can_show(plan: Plan) -> str | None:
    """Return the smallest difference that a comparison can show, and what fewer or more seeds could; None of one arm.

    Source: `comparison.power.detectable_difference`, whose assumptions the text names.

    Args:
        plan: Of the comparison.
    """
    num_arms, num_seeds, num_images = len(plan.arms), len(plan.seeds), plan.num_tested
    if num_arms < 2 or num_images < 2:
        return None
    from transferlib.comparison.power import detectable_difference

    least = "about" if num_images >= FEW_IMAGES else "more than"

    if detectable_difference(num_images, max(num_seeds, 10), num_arms) > LARGEST_SHOWN:
        return f"nothing: {words.count(num_images, 'test image')} are too few"

    def points(seeds: int) -> str:
        return f"{100 * detectable_difference(num_images, seeds, num_arms):.1f}"

    if num_seeds < MIN_SEEDS:
        return (
            f"nothing of the strategies: {words.count(num_seeds, 'seed')} cannot (use {MIN_SEEDS} or more); of the "
            f"trained models, differences from {least} {points(num_seeds)} points"
        )
    others = [seeds for seeds in (MIN_SEEDS, 10) if seeds != num_seeds]
    beside = words.listed([f"{points(seeds)} with {seeds} seeds" for seeds in others])
    on = f"{words.count(num_images, 'test image')} with {num_seeds} seeds ({beside})"
    return (
        f"differences of two arms from {least} {points(num_seeds)} points of accuracy, on {on}, where the better one "
        "is right on 90 % of the images and seeds differ as is usual"
    )


def _row(label: str, text: str) -> str:
    """Return a line, broken where it is wider than the terminal (without one: 100 characters)."""
    width = max(60, min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns - 2))
    indent = " " * LABEL_WIDTH
    lines = textwrap.wrap(text, width - LABEL_WIDTH, break_on_hyphens=False, break_long_words=False)
    return f"\n{indent}".join([f"{label:<{LABEL_WIDTH}}{lines[0]}", *lines[1:]])


def _side_by_side(plan: Plan) -> str:
    trials, workers = words.count(plan.concurrency, "trial"), words.count(plan.workers_per_trial, "worker")
    cpus = f"{_number(plan.cpus_per_worker)} CPU{'' if plan.cpus_per_worker <= 1 else 's'}"
    images = f", {_number(plan.data_cpus)} of them for its images" if plan.data_cpus else ""
    if plan.use_gpu:
        share = f"a GPU and {cpus} a worker{images}"
        used = f"{plan.concurrency * plan.workers_per_trial} of {plan.gpus} GPUs busy"
    else:
        share = f"{cpus} a worker{images}"
        used = words.count(plan.threads_per_worker, "thread") + " each"
    return f"{trials} of {workers}, {share}; {used}"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _disk(machine: Machine, plan: Plan) -> str:
    run, cache = words.size(plan.cost.run_bytes), words.size(plan.cost.cache_bytes)
    free = words.size(machine.disk_free_bytes)
    if machine.cache_free_bytes is None:
        return f"run folder {run} at its peak, {cache} of decoded images to add; {free} free"
    cache_free = words.size(machine.cache_free_bytes)
    return f"run folder {run} at its peak, {free} free; {cache} of decoded images to add, {cache_free} free there"


def _memory(machine: Machine, plan: Plan) -> str:
    text = f"about {words.size(plan.cost.memory_bytes)} of {words.size(machine.memory_bytes)}"
    if plan.use_gpu:
        text += f"; about {words.size(plan.cost.gpu_memory_bytes)} of each GPU"
        text += f"'s {words.size(machine.gpu_memory_bytes)}" if machine.gpu_memory_bytes else ""
    return text


def table_lines(spec: JobSpec, plan: Plan) -> Iterator[str]:
    """Yield, for each arm, the table of parameters trained and rate by stage, at the middle learning rate."""
    for arm in plan.arms:
        trials = [trial for trial in plan.trials if trial.arm == arm and (trial.seed, trial.fold) == plan.trainings[0]]
        rates = [trial.lr for trial in trials]
        middle = trials[len(trials) // 2]
        rows = strategy_table(
            middle.architecture, middle.strategy, plan.num_classes, rates[len(rates) // 2], spec.strategies
        )
        yield ""
        yield from format_strategy_table(middle.architecture, middle.strategy, rows).splitlines()
        if len(rates) > 1:
            yield f"  at the head's rate {middle.lr:.3g}; tried: {', '.join(f'{rate:.3g}' for rate in rates)}"


def cheaper_lines(
    verb: str, given: Mapping[str, Any], spec: JobSpec, listing: Listing, machine: Machine, plan: Plan
) -> Iterator[str]:
    """Yield a cheaper command where the plan is long.

    Args:
        verb: compare or train.
        given: What was typed, `--spec` included, by click's parameter name.
        spec: What is asked for.
        listing: Its images.
        machine: What it would run on.
        plan: The long one.
    """
    if not plan.is_long:
        return
    cheaper = make_cheaper_plan(spec, listing, machine, plan)
    if cheaper is None:
        return
    smaller, smaller_plan = cheaper
    yield f"This is past {words.duration(LONG_JOB_S)}. About {words.duration(smaller_plan.cost.seconds)}:"
    yield f"  {command_for(verb, given, spec, smaller)}"


def command_for(verb: str, given: Mapping[str, Any], spec: JobSpec, changed: JobSpec) -> str:
    """Return the command that was typed, with the flags that lead to a changed spec.

    Args:
        verb: compare or train.
        given: What was typed, by click's parameter name.
        spec: What it said.
        changed: What the command is to say.
    """
    before, after = spec.model_dump(mode="json"), changed.model_dump(mode="json")
    differing = {flag.parameter: _at(after, flag) for flag in FLAGS if _at(before, flag) != _at(after, flag)}
    switches = {flag.parameter: flag for flag in FLAGS if flag.kind == "switch"}
    words_ = ["submit", verb]
    for name, value in {**given, **differing}.items():
        if name in switches:
            words_.append(switches[name].name if value else switches[name].off_name)
            continue
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, list | tuple) else [value]:
            words_ += [flag, str(one)]
    return shlex.join(words_)


def _at(dumped: Any, flag: Flag) -> Any:
    for part in flag.place.split("."):
        dumped = dumped[part]
    return dumped
