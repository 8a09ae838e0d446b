"""Every option that says something about a job: its flag, its place in the spec, its help. Plain data and click only.

All values arrive as text, so that wrong flags, wrong values and wrong keys of a spec file can be told in one report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click

from transferlib import names

Kind = Literal["text", "path", "int", "float", "bytes", "count or list", "switch"]
Number = int | float
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Flag:
    """Describe one flag."""

    name: str
    """With its dashes."""
    place: str
    """In the spec, with dots."""
    help: str
    default: str
    """As the help shows it; empty where the help says it."""
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    is_repeatable: bool = False
    """Given once for each value."""
    metavar: str = ""
    train_default: str = ""
    """Of `submit train`, where it is another."""

    @property
    def parameter(self) -> str:
        """Return the name that click passes the value under."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def off_name(self) -> str:
        """Return what turns a switch off, with its dashes."""
        return f"--no-{self.name.lstrip('-')}"


SECTIONS: dict[str, tuple[Flag, ...]] = {
    "Images": (
        Flag(
            "--data",
            "data.path",
            "Image folder, or a .csv or .jsonl manifest; a path or URI (s3://, gs://).",
            "",
            "path",
            metavar="PATH",
        ),
        Flag("--image-size", "data.image_size", "Side of the square a model sees, pixels.", "224", "int"),
        Flag(
            "--augmentation",
            "data.augmentation",
            "Augmentation of training images; a spec file can hold a list of torchvision's operations instead.",
            "standard",
            choices=names.AUGMENTATION_PRESETS,
        ),
        Flag(
            "--class-level",
            "data.class_level",
            "Which folders name the classes: 1, those below --data (or below train and test); 2, those below these.",
            "1, where that is not in doubt",
            "int",
        ),
        Flag(
            "--group-regex",
            "data.group_regex",
            "Regular expression over an image's path whose bracket is its group, which is not split: '([^/]+)/[^/]+$' "
            "groups by folder, '/(patient[0-9]+)_' by a part of the name.",
            "groups of a manifest's column",
            metavar="REGEX",
        ),
        Flag(
            "--near-duplicates",
            "data.near_duplicates",
            "group: photos that show the same (copies, crops, turns, frames of a burst) fall on one side of a cut and "
            "count as one; tell: they are only named; off: they are not looked for.",
            "group",
            choices=names.NEAR_DUPLICATES,
        ),
        Flag(
            "--val-share",
            "data.split.val",
            "Share of each class for choosing, where no split is given.",
            "0.15",
            "float",
        ),
        Flag("--test-share", "data.split.test", "Share of each class for the final figure, likewise.", "0.15", "float"),
        Flag(
            "--folds",
            "data.split.folds",
            "Cut into N equal parts, anew for each seed, and test on each in turn: every image is tested, and other "
            "training images are part of the comparison. N times the trainings.",
            "one cut",
            "int",
        ),
        Flag("--split-seed", "data.split.seed", "Seed of the cut; apart from the training seeds.", "0", "int"),
        Flag(
            "--on-bad-image",
            "data.on_bad_image",
            "skip: leave a bad file out, with a row in the manifest; fail: stop before training.",
            "skip",
            choices=names.ON_BAD_IMAGE,
        ),
        Flag(
            "--depth-range",
            "data.depth_range",
            "Of images with more than 8 bits a sample: the values that become black and white, in all of them.",
            "what the training images declare, else from their 99.99th percentile",
            metavar="LO:HI",
        ),
        Flag("--max-pixels", "data.max_pixels", "Largest width x height that is decoded.", "110000000", "int"),
        Flag("--max-file-size", "data.max_file_bytes", "Largest file that is read.", "500MB", "bytes"),
        Flag(
            "--cache",
            "data.cache.mode",
            "disk: decode each image once and keep it; none: decode it every time.",
            "disk",
            choices=names.CACHE_MODES,
        ),
        Flag(
            "--cache-dir", "data.cache.dir", "Folder of decoded images.", "~/.cache/transferlib", "path", metavar="DIR"
        ),
        Flag(
            "--cache-size",
            "data.cache.max_bytes",
            "Size at which old decoded images are dropped; 0: never.",
            "50GB",
            "bytes",
        ),
    ),
    "Networks and strategies": (
        Flag(
            "--arch",
            "models.architectures",
            f"Network, by torchvision's name; repeat for several. {', '.join((*names.RESNETS, *names.VGGS))}; "
            f"beyond VGG and ResNet: {', '.join(names.BEYOND_VGG_AND_RESNET)}.",
            "resnet50",
            is_repeatable=True,
            metavar="NAME",
        ),
        Flag(
            "--weights",
            "models.weights",
            "Where to start: torchvision's name of its weights, a .pth or .safetensors file (path or URI), a run "
            "(its folder, its id, the start of it, or @last), or none.",
            "IMAGENET1K_V1",
        ),
        Flag(
            "--strategy",
            "strategies.names",
            f"Way of transferring; repeat for several. {', '.join(names.STRATEGIES)}.",
            ", ".join(names.DEFAULT_STRATEGIES),
            is_repeatable=True,
            metavar="NAME",
            train_default="full",
        ),
        Flag("--last-stages", "strategies.last_stages", "last_layers: stages trained before the head.", "1", "int"),
        Flag(
            "--stage-lr-factor",
            "strategies.stage_lr_factor",
            "full: each stage's rate as a factor of the next one's.",
            "0.4",
            "float",
        ),
    ),
    "Training": (
        Flag("--epochs", "training.epochs", "Most epochs of a trial.", "10", "int"),
        Flag("--global-batch-size", "training.global_batch_size", "Images in a step, over all workers.", "32", "int"),
        Flag("--optimizer", "training.optimizer", "Optimizer.", "sgd", choices=names.OPTIMIZERS),
        Flag("--momentum", "training.momentum", "Momentum of sgd.", "0.9", "float"),
        Flag(
            "--weight-decay",
            "training.weight_decay",
            "Weight decay, never on biases and normalisation.",
            "0.0001",
            "float",
        ),
        Flag("--warmup-epochs", "training.warmup_epochs", "Linear warm-up before the cosine.", "0.5", "float"),
        Flag(
            "--label-smoothing",
            "training.label_smoothing",
            "Share of the target spread over all classes.",
            "0",
            "float",
        ),
        Flag(
            "--gradient-clip-norm",
            "training.gradient_clip_norm",
            "Largest gradient norm; 0: no clipping.",
            "5",
            "float",
        ),
        Flag(
            "--patience",
            "training.early_stopping_patience",
            "Epochs without a better validation result before a trial ends; 0: never.",
            "5",
            "int",
        ),
        Flag(
            "--precision", "training.precision", "auto: bf16 where the device has it.", "auto", choices=names.PRECISIONS
        ),
        Flag(
            "--class-weights",
            "training.class_weights",
            "balanced: the loss weighs classes by inverse frequency.",
            "none",
            choices=names.CLASS_WEIGHTS,
        ),
        Flag(
            "--sync-batchnorm",
            "training.sync_batchnorm",
            "Trained BatchNorm takes its statistics over a step's images on all of a trial's workers, so that results "
            "do not depend on their number; off: each worker over its own share.",
            "on",
            "switch",
        ),
        Flag(
            "--checkpoint-every",
            "training.checkpoint_every_s",
            "Seconds between checkpoints within an epoch.",
            "300",
            "int",
        ),
    ),
    "Comparison": (
        Flag(
            "--metric",
            "comparison.metric",
            "What chooses, ranks and is tested.",
            "accuracy; balanced_accuracy where the largest class has ten times the smallest",
            choices=names.METRICS,
        ),
        Flag(
            "--margin",
            "comparison.margin",
            "How much worse a cheaper arm may be and still be called good enough (0.02: two points).",
            "0.02",
            "float",
        ),
        Flag(
            "--seeds",
            "comparison.seeds",
            "How many seeds each arm is trained with, or a list (0,1,5).",
            "5",
            "count or list",
            metavar="N",
            train_default="1",
        ),
        Flag(
            "--lr-candidates",
            "comparison.lr_candidates",
            "How many learning rates each arm is tried at, or a list (0.01,0.1); the best on validation counts.",
            "2",
            "count or list",
            metavar="N",
            train_default="1",
        ),
        Flag(
            "--tuning-seeds",
            "comparison.tuning_seeds",
            "How many of the seeds, from the first, are trained at every rate; the others go on with the rate that was "
            "best there. As many as --seeds: all.",
            "all of them",
            "int",
        ),
        Flag("--base-lr", "comparison.base_lr", "Rate that the candidates lie around.", "each arm's own", "float"),
    ),
    "Machine": (
        Flag("--cpus", "resources.cpus", "CPUs for the whole job.", "all usable", "int"),
        Flag("--gpus", "resources.gpus", "GPUs for the whole job; 0: train on CPU.", "all there are", "int"),
        Flag("--gpus-per-trial", "resources.gpus_per_trial", "GPUs that share one trial (DDP).", "1", "int"),
        Flag(
            "--workers-per-trial",
            "resources.workers_per_trial",
            "CPU training: workers that share one trial (DDP).",
            "1",
            "int",
        ),
        Flag("--threads-per-worker", "resources.threads_per_worker", "torch threads of a worker.", "planned", "int"),
    ),
    "Output": (
        Flag("--runs", "output.runs_dir", "Folder that run folders are made in.", "runs", "path", metavar="DIR"),
        Flag(
            "--keep",
            "output.keep",
            "chosen: model files of the chosen candidates only; all: of every trial.",
            "chosen",
            choices=names.KEEP,
        ),
    ),
}
FLAGS: tuple[Flag, ...] = tuple(flag for flags in SECTIONS.values() for flag in flags)


def job_options(verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with every option of a job.

    Args:
        verb: compare or train; some defaults differ.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for flag in reversed(FLAGS):
            default = (flag.train_default if verb == "train" else "") or flag.default
            text = f"{flag.help} [default: {default}]" if default else f"{flag.help} [required]"
            if flag.kind == "switch":
                option = click.option(f"{flag.name}/{flag.off_name}", flag.parameter, help=text, default=None)
            else:
                option = click.option(
                    flag.name,
                    flag.parameter,
                    help=text,
                    metavar=_metavar(flag),
                    multiple=flag.is_repeatable,
                    default=None,
                )
            command = option(command)
        return command

    return decorate


def _metavar(flag: Flag) -> str:
    if flag.choices:
        return "|".join(flag.choices)
    return flag.metavar or {"int": "N", "float": "X", "bytes": "SIZE"}.get(flag.kind, "TEXT")


def parse_flag(flag: Flag, text: str | bool | tuple[str, ...]) -> Any:
    """Return a flag's value as the spec takes it.

    Args:
        flag: Which.
        text: As typed; a tuple for one that is repeated; of a switch whether it is on.

    Raises:
        ValueError: It is not of the flag's kind; the text says what is.
    """
    if isinstance(text, bool):
        return text
    if isinstance(text, tuple):
        return list(text)
    if flag.choices and text not in flag.choices:
        from transferlib.errors import unknown_name

        raise ValueError(unknown_name("value", text, flag.choices))
    match flag.kind:
        case "int":
            return _number(text, int, "a whole number")
        case "float":
            return _number(text, float, "a number")
        case "bytes":
            return _parse_bytes(text)
        case "count or list":
            return _parse_count_or_list(flag, text)
        case "switch":
            return text == "on"
    return text


def _number(text: str, kind: type[int] | type[float], what: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {what}.") from None


def _parse_bytes(text: str) -> int:
    digits = text.strip().upper().rstrip("KMGTB ")
    unit = text.strip().upper()[len(digits) :].strip()
    try:
        return int(float(digits) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a size. Use bytes or a unit: 500MB, 50GB.") from None


def _parse_count_or_list(flag: Flag, text: str) -> Number | list[Number]:
    kind, what = (int, "whole numbers") if flag.parameter == "seeds" else (float, "rates")
    try:
        if text.strip().removeprefix("-").isdigit():
            return int(text)  # a negative count is the spec's to refuse
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{text!r} is neither a count nor a list of {what} with commas between.") from None
