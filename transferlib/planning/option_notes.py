"""What was asked for and has no effect beside the rest, and what is allowed but rarely meant: a sentence each.

No option is ignored without a warning. An option counts as asked for where it is not at its default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from transferlib.data.listing import Listing, split_roles
from transferlib.models.backbones import get_backbone, stage_names
from transferlib.models.sizes import counted
from transferlib.models.weight_names import NONE
from transferlib.spec import CacheSpec, JobSpec, ModelSpec, Section, SplitSpec, StrategySpec, TrainingSpec
from transferlib.strategies import get_strategy
from transferlib.strategies.strategy import FROZEN

IMBALANCE = 10
"""Largest class over smallest from which plain accuracy would hide the small one."""
SMALL_FOR_BF16 = 96
"""Pixels, up to which bf16 was measured slower than fp32 on a CPU for networks that gain little from it."""
BF16_GAINS_LITTLE = 0.5
"""A network's share of ResNet's speed in bf16 below which it gains little."""


def decide_metric(spec: JobSpec, listing: Listing) -> JobSpec:
    """Return the spec with the metric it leaves open: accuracy, or balanced accuracy where classes differ tenfold.

    Args:
        spec: With or without a metric.
        listing: Its images.
    """
    if spec.comparison.metric is not None:
        return spec
    sizes = Counter(entry.label for entry in listing.entries).values()
    is_uneven = bool(sizes) and max(sizes) >= IMBALANCE * min(sizes)
    metric = "balanced_accuracy" if is_uneven else "accuracy"
    return spec.model_copy(update={"comparison": spec.comparison.model_copy(update={"metric": metric})})


def option_notes(spec: JobSpec, listing: Listing) -> tuple[str, ...]:
    """Return what the user should know about the options.

    Args:
        spec: All of them.
        listing: Images found; which of them have a split decides whether shares count.
    """
    return (*_training_notes(spec), *_strategy_notes(spec), *_weights_notes(spec), *_data_notes(spec, listing))


def worker_notes(spec: JobSpec, workers_per_trial: int) -> Iterator[str]:
    """Yield what the user should know about options that are of the workers of a trial.

    Args:
        spec: All of them.
        workers_per_trial: As planned.
    """
    if spec.training.sync_batchnorm:
        return
    if workers_per_trial == 1:
        yield "--no-sync-batchnorm has no effect: a trial has one worker."
    elif not any(trains_batchnorm(spec, architecture) for architecture in spec.models.architectures):
        yield "--no-sync-batchnorm has no effect: no BatchNorm is trained."
    else:
        yield (
            f"--no-sync-batchnorm: BatchNorm that is trained takes its statistics from each of {workers_per_trial} "
            "workers' share of a step, so results depend on the number of workers."
        )


def small_bf16_notes(spec: JobSpec, *, may_be_bf16: bool) -> Iterator[str]:
    """Yield what the user should know about bf16 on a CPU: small images make it slower than fp32 for some networks.

    Args:
        spec: Networks, image size and precision.
        may_be_bf16: Whether "auto" means bf16 on the CPU that trains.

    Source: measured, docs/decisions/0019-one-entry-a-backbone.md.
    """
    names = [name for name in spec.models.architectures if get_backbone(name).cpu_speed["bf16"] < BF16_GAINS_LITTLE]
    precision, size = spec.training.precision, spec.data.image_size
    if names and size <= SMALL_FOR_BF16 and (precision == "bf16" or (precision == "auto" and may_be_bf16)):
        yield (
            f"{' and '.join(names)} at {size} px: on a CPU, bf16 is often slower than fp32 for images this small. "
            "Try --precision fp32."
        )


def trains_batchnorm(spec: JobSpec, architecture: str) -> bool:
    """Return whether some strategy trains a network's BatchNorm.

    Args:
        spec: Strategies and their settings.
        architecture: torchvision's name.
    """
    stages, holding = stage_names(architecture), counted(architecture).batchnorm
    factors = (get_strategy(name).stage_factors(stages, spec.strategies) for name in spec.strategies.names)
    return any(of_stage[stage] != FROZEN for of_stage in factors for stage in holding)


def _training_notes(spec: JobSpec) -> Iterator[str]:
    comparison, training = spec.comparison, spec.training
    if comparison.base_lr is not None and not isinstance(comparison.lr_candidates, int):
        rates = ", ".join(f"{rate:g}" for rate in comparison.lr_candidates)
        yield f"--base-lr {comparison.base_lr:g} has no effect: --lr-candidates lists the rates itself ({rates})."
    if training.optimizer == "adamw" and _is_set(training, TrainingSpec(), "momentum"):
        yield f"--momentum {training.momentum:g} has no effect: it is of --optimizer sgd, and this is adamw."


def _strategy_notes(spec: JobSpec) -> Iterator[str]:
    strategies, default = spec.strategies, StrategySpec()
    if "last_layers" not in strategies.names and _is_set(strategies, default, "last_stages"):
        yield f"--last-stages {strategies.last_stages} has no effect: it is of --strategy last_layers."
    if "full" not in strategies.names and _is_set(strategies, default, "stage_lr_factor"):
        yield f"--stage-lr-factor {strategies.stage_lr_factor:g} has no effect: it is of --strategy full."


def _weights_notes(spec: JobSpec) -> Iterator[str]:
    weights, names = spec.models.weights, spec.strategies.names
    if weights == NONE:
        frozen = [name for name in names if _freezes(spec, name)]
        if frozen:
            yield (
                f"--weights none with {' and '.join(frozen)}: the frozen layers stay random, so what is trained after "
                "them learns from noise. Give source weights, or leave the strategy out."
            )
        if "full" in names:
            yield (
                "--weights none with full: it begins from random weights as scratch does, at other rates for early "
                "layers; nothing is transferred."
            )
    elif _is_set(spec.models, ModelSpec(), "weights") and not any(get_strategy(name).uses_source for name in names):
        yield f"--weights {weights} has no effect: {' and '.join(names)} starts from random weights on purpose."


def _freezes(spec: JobSpec, strategy: str) -> bool:
    factors = get_strategy(strategy).stage_factors
    return any(FROZEN in factors(stage_names(name), spec.strategies).values() for name in spec.models.architectures)


def _data_notes(spec: JobSpec, listing: Listing) -> Iterator[str]:
    split, cache = spec.data.split, spec.data.cache
    given = {entry.split or "" for entry in listing.entries}
    cut = ("val", "test") if "" in given else split_roles(given).cut_from_train
    if split.folds is not None:
        cut = ()
    wanted = {"--val-share": ("val", "val" in cut), "--test-share": ("test", "test" in cut)}
    wanted["--split-seed"] = ("seed", bool(cut) or split.folds is not None)
    for flag, (field, is_used) in wanted.items():
        if not is_used and _is_set(split, SplitSpec(), field):
            what = "no image is cut into splits" if not cut else f"the {field} images are given"
            why = f"{what} ({listing.layout})" if split.folds is None else f"--folds {split.folds} cuts equal parts"
            yield f"{flag} {getattr(split, field):g} has no effect: {why}."
    if cache.mode == "none":
        for flag, field in (("--cache-dir", "dir"), ("--cache-size", "max_bytes")):
            if _is_set(cache, CacheSpec(), field):
                yield f"{flag} {getattr(cache, field)} has no effect with --cache none."


def _is_set(section: Section, default: Section, field: str) -> bool:
    return bool(getattr(section, field) != getattr(default, field))
