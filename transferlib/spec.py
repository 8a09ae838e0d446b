"""JobSpec: everything a job is asked to do, as one frozen value that prints, saves and compares.

Each field has a line under it: meaning, unit, special values. Unknown keys and wrong values are refused, all at once,
with the valid ones named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from transferlib import names
from transferlib.errors import MISSING, Problem, SpecError, unknown_name
from transferlib.runs import reading

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
NonNegative = Annotated[float, Field(ge=0.0)]

WHOLE = "spec"
"""Place of what is wrong with no one field."""
DEFAULT_CLIP_NORM = 5.0
"""Of gradients."""


class Section(BaseModel):
    """Base of all parts of a spec: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SplitSpec(Section):
    """How images without a given split are cut."""

    val: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of each class for choosing."""
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of each class for the final figure."""
    seed: Seed = 0
    """Seed of the cut; apart from the training seeds."""
    folds: Annotated[int, Field(ge=3)] | None = None
    """Cut into so many equal parts, anew for each training seed; each part is the test set once, and the next one is
    for choosing, whatever the shares above. Costs as many times the trainings. null: one cut."""

    @property
    def fold_values(self) -> tuple[int, ...]:
        """Return the folds, from 1; (0,) where there is one cut."""
        return (0,) if self.folds is None else tuple(range(1, self.folds + 1))

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.val + self.test >= 1.0:
            raise ValueError(f"val {self.val} + test {self.test} leave nothing for train; their sum must be under 1")
        return self


class CacheSpec(Section):
    """Where decoded images are kept."""

    mode: Literal["disk", "none"] = "disk"
    """disk: decode once and keep; none: decode from the source each time (same batches)."""
    dir: str | None = None
    """Folder of the cache, per node; null: $XDG_CACHE_HOME/transferlib or ~/.cache/transferlib."""
    max_bytes: Annotated[int, Field(ge=0)] = 50_000_000_000
    """Size at which the entries least lately used are evicted before a job, bytes; 0: never."""


NearDuplicates = Literal["group", "tell", "off"]


class DataSpec(Section):
    """Which images, how they are cut, decoded and augmented."""

    path: str
    """An image folder, or a .csv or .jsonl manifest; a path, or a URI (s3://, gs://) without credentials."""
    class_level: Literal[1, 2] | None = None
    """Which folders name the classes, counted from the top or below the split folders; null: the first, and a question
    where the second would do as well."""
    group_regex: str | None = None
    """Regular expression over an image's path below the source; what its first bracket matches is the image's group
    (a patient, a scene), which stays on one side of a split. null: groups come from a manifest's column alone."""
    near_duplicates: NearDuplicates = "group"
    """group: photos that show the same (copies encoded anew, resized, mirrored, turned or cropped by a tenth, frames of
    a burst) fall on one side of a cut and count as one in the statistics; tell: they are only named; off: they are not
    looked for."""
    split: SplitSpec = SplitSpec()
    """How to cut what has no given split."""
    image_size: Annotated[int, Field(ge=8, le=2048)] = 224
    """Side of the square a model sees, pixels; images are kept at short side round(image_size * 256 / 224)."""
    augmentation: str | tuple[dict[str, dict[str, Any]], ...] = "standard"
    """none, standard, strong, or a list of one-key maps {torchvision name: parameters} in order."""
    on_bad_image: Literal["skip", "fail"] = "skip"
    """skip: leave a bad file out, with a row in the manifest; fail: stop before training."""
    depth_range: tuple[float, float] | None = None
    """Of images with more than 8 bits a sample: the values that become black and white in all of them, as LO:HI or a
    list of two. null: what the training images declare, else the smallest power of two above the 99.99th percentile of
    their pixels; the manifest and the model's metadata say which."""
    max_pixels: Annotated[int, Field(ge=1, lt=1 << 63)] = 110_000_000
    """Largest width x height that is decoded (102-megapixel cameras pass); more is taken for a decompression bomb."""
    max_file_bytes: Annotated[int, Field(ge=1, lt=1 << 63)] = 500_000_000
    """Largest file that is read, bytes."""
    cache: CacheSpec = CacheSpec()
    """The decoded cache."""

    @field_validator("group_regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                num_brackets = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression: {error}") from None
            if num_brackets != 1:
                raise ValueError(f"{value!r} has {num_brackets} brackets; exactly one must say what the group is")
        return value

    @field_validator("depth_range", mode="before")
    @classmethod
    def _is_range(cls, value: Any) -> tuple[float, float] | None:
        if value is None:
            return None
        parts = value.split(":") if isinstance(value, str) else value
        try:
            low, high = (float(part) for part in parts)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{value!r} is no range; use two numbers as LO:HI, as in 0:4095") from None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{value!r} will not do: HI must be a larger number than LO, as in 0:4095 or -1024:3071")
        return low, high

    @field_validator("augmentation")
    @classmethod
    def _known_preset(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in names.AUGMENTATION_PRESETS:
            raise ValueError(unknown_name("augmentation", value, names.AUGMENTATION_PRESETS))
        if isinstance(value, tuple) and any(len(step) != 1 for step in value):
            raise ValueError("each augmentation step is a map of one torchvision name to its parameters")
        return value


class ModelSpec(Section):
    """Which networks, from which weights."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = ("resnet50",)
    """torchvision names."""
    weights: str = "IMAGENET1K_V1"
    """torchvision's enum name; a .pth or .safetensors file (path or URI); a run folder; or "none", said explicitly."""

    @field_validator("architectures")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _all_known("architecture", value, names.ARCHITECTURES)
        return value


class StrategySpec(Section):
    """Which ways of transferring."""

    names: Annotated[tuple[str, ...], Field(min_length=1)] = names.DEFAULT_STRATEGIES
    """feature_extraction, last_layers, full, scratch."""
    last_stages: Count = 1
    """last_layers: how many stages before the head are trained too."""
    stage_lr_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    """full: each stage's rate as a factor of the next one's."""

    @field_validator("names")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _all_known("strategy", value, names.STRATEGIES)
        return value


class TrainingSpec(Section):
    """How one trial is trained."""

    epochs: Count = 10
    """Most epochs of a trial."""
    global_batch_size: Count = 32
    """Images in a step over all workers."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (with momentum) or adamw."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of sgd."""
    weight_decay: NonNegative = 1e-4
    """On weights; never on biases and normalisation."""
    warmup_epochs: NonNegative = 0.5
    """Linear warm-up before the cosine, in epochs; cut to a fifth of the training at most."""
    label_smoothing: Fraction = 0.0
    """Share of the target spread over all classes."""
    gradient_clip_norm: NonNegative = DEFAULT_CLIP_NORM
    """Largest global gradient norm; 0: no clipping."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 5
    """Epochs without a better validation result before a trial ends; 0: never."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU or CPU that has it, else fp32."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: the loss weighs classes by inverse frequency."""
    sync_batchnorm: bool = True
    """Trained BatchNorm takes its statistics over a step's images on all of a trial's workers, as one worker does;
    false: each worker over its own share. Frozen BatchNorm has none to take."""
    checkpoint_every_s: Positive = 300
    """Seconds between checkpoints within an epoch; one is written after each epoch in any case."""


class ComparisonSpec(Section):
    """How often and at which rates each arm is trained."""

    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"] | None = None
    """Chooses rates, epochs and the model, ranks the arms and is tested; null: accuracy, or balanced_accuracy where the
    largest class has ten times the images of the smallest. Decided before the run, so a run's own spec names it."""
    margin: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.02
    """How much worse, in the metric's units (0.02: two points of accuracy), a cheaper arm may be and still be called
    good enough."""
    rule: Literal["crossed_t_holm"] = "crossed_t_holm"
    """How statements about strategies are made, fixed before the run: two-sided t tests of all pairs of arms on test,
    seeds and images crossed, at 5 % over all pairs after Holm."""
    # The formulas: transferlib/comparison/statistics.py.
    seeds: Annotated[int, Field(ge=1, le=1000)] | Annotated[tuple[Seed, ...], Field(min_length=1)] = 5
    """A count (seeds 0, 1, ...) or a list."""
    lr_candidates: (
        Annotated[int, Field(ge=1, le=100)] | Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    ) = 2
    """A count of rates around each arm's base rate, a factor sqrt(10) apart, or a list of rates for every arm."""
    tuning_seeds: Count | None = None
    """How many of the seeds, from the first, are trained at every rate; the others go on with the arm's rate that was
    best there: by the mean of the metric on validation, then of log-loss, then the smaller rate. null: all of them."""
    base_lr: Annotated[float, Field(gt=0)] | None = None
    """Base rate for every arm; null: each arm's own, which `submit plan` prints."""

    @field_validator("seeds", "lr_candidates")
    @classmethod
    def _distinct(cls, value: int | tuple[float, ...]) -> int | tuple[float, ...]:
        if isinstance(value, int):
            return value
        problems = [f"{item:g} is given twice" for item in dict.fromkeys(value) if value.count(item) > 1]
        if problems:
            raise ValueError(f"{', '.join(problems)}; use a count, or a list of different values with commas between.")
        return value

    @property
    def decided_metric(self) -> str:
        """Return the metric; of a run from before there was a choice, accuracy."""
        return self.metric or "accuracy"

    @property
    def seed_values(self) -> tuple[int, ...]:
        """Return the seeds as a list."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


class ResourcesSpec(Section):
    """What the job may take of the machine."""

    cpus: Count | None = None
    """CPUs for the whole job; null: all usable ones."""
    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs for the whole job; null: all there are; 0: train on CPU."""
    gpus_per_trial: Count | None = None
    """GPUs (one DDP worker each) a trial; null: 1 when training on GPUs."""
    workers_per_trial: Count | None = None
    """DDP workers a trial when training on CPU; null: 1."""
    threads_per_worker: Count | None = None
    """torch threads of a CPU worker; null: planned. Part of what makes a result bit-exact."""


class OutputSpec(Section):
    """Where results go."""

    runs_dir: str = "runs"
    """Folder that run folders are made in."""
    keep: Literal["chosen", "all"] = "chosen"
    """chosen: model files of the chosen candidates only; all: of every trial."""


class JobSpec(Section):
    """One job: `submit compare` or `submit train`."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this layout."""
    verb: Literal["compare", "train"] = "compare"
    """What the job does."""
    data: DataSpec
    models: ModelSpec = ModelSpec()
    strategies: StrategySpec = StrategySpec()
    training: TrainingSpec = TrainingSpec()
    comparison: ComparisonSpec = ComparisonSpec()
    resources: ResourcesSpec = ResourcesSpec()
    output: OutputSpec = OutputSpec()

    @model_validator(mode="after")
    def _folds_tune_each_seed(self) -> Self:
        if self.data.split.folds is not None and self.comparison.tuning_seeds is not None:
            raise ValueError(
                f"--tuning-seeds {self.comparison.tuning_seeds} does not go with --folds {self.data.split.folds}: each "
                "seed cuts anew, so later seeds would be tested on images that chose their rate; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _train_is_one_arm(self) -> Self:
        arms = len(self.models.architectures) * len(self.strategies.names)
        if self.verb == "train" and arms != 1:
            raise ValueError(f"train takes one architecture and one strategy, got {arms} arms; use compare for several")
        return self

    @property
    def short_side(self) -> int:
        """Return the short side that images are decoded to, pixels."""
        return round(self.data.image_size * 256 / 224)

    def to_yaml(self) -> str:
        """Return the spec as YAML that `from_yaml` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> JobSpec:
        """Check a nested mapping and return the spec.

        Raises:
            SpecError: Every unknown key and wrong value, one line each.
        """
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise SpecError(_problems([cast("dict[str, Any]", e) for e in error.errors()])) from None

    @classmethod
    def from_yaml(cls, text: str, source: str = "spec") -> JobSpec:
        """Read a spec from YAML or JSON text.

        Raises:
            SpecError: Not YAML, not a mapping, or wrong in content.
        """
        return cls.from_mapping(read_mapping(text, source))

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        """Read a run's spec, which means what it meant when the run began.

        `to_yaml` writes every field, so one that is not there is younger than the run: it reads as what was done before
        there was a choice, which need not be today's default.

        Raises:
            SpecError: Not YAML, not a mapping, or wrong in content.
        """
        with reading(path):
            text = path.read_text(encoding="utf-8")
        mapping = read_mapping(text, str(path))
        for section, field, before in (("comparison", "tuning_seeds", None), ("training", "sync_batchnorm", False)):
            fields = mapping.setdefault(section, {})
            if isinstance(fields, dict):
                fields.setdefault(field, before)
        return cls.from_mapping(mapping)


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """Read YAML or JSON text that must hold a mapping.

    Raises:
        SpecError: It does not.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError(f"{source} is no spec: its brackets go too deep.") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError(f"{source} holds a {type(value).__name__}; a spec is a mapping, as `submit init` writes it.")
    return value


def _all_known(kind: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    problems = [unknown_name(kind, name, known) for name in given if name not in known]
    problems += [f"{kind} {name!r} is given twice." for name in dict.fromkeys(given) if given.count(name) > 1]
    if problems:
        raise ValueError(" ".join(problems))


def _section_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    section: type[BaseModel] = JobSpec
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return section


def _problems(errors: list[dict[str, Any]]) -> list[Problem]:
    """Return one a mistake; of a field that takes one of two kinds, what is wrong with the nearer kind."""
    by_field: dict[tuple[str | int, ...], list[dict[str, Any]]] = {}
    for error in errors:
        by_field.setdefault(_field(error["loc"]), []).append(error)
    problems = []
    for group in by_field.values():
        if not any(_is_union_tag(part) for error in group for part in error["loc"]):
            problems += [_problem(error) for error in group]
            continue
        depth = max(len(error["loc"]) for error in group)
        first, *others = [error for error in group if len(error["loc"]) == depth]
        place, text = _problem(first)
        problems.append(Problem(place, " or ".join([text.removesuffix("."), *map(_reason, others)]) + "."))
    return problems


def _field(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return the part of an error's location that lies in the spec's own fields, without pydantic's union tags."""
    section: Any = JobSpec
    for index, part in enumerate(location):
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return location[:index]
        field = section.model_fields.get(str(part))
        section = None if field is None else field.annotation
    return location


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "constrained-int", "constrained-float"))


def _problem(error: dict[str, Any]) -> Problem:
    location = tuple(part for part in error["loc"] if not _is_union_tag(part))
    place = ".".join(map(str, location)) or WHOLE
    match error["type"]:
        case "extra_forbidden":
            fields = _section_at(location).model_fields
            known = [".".join([*map(str, location[:-1]), f.alias or n]) for n, f in fields.items()]
            return Problem("", unknown_name("key", place, known))
        case "missing":
            return Problem(place, MISSING)
        case "value_error":
            return Problem(place, str(error["ctx"]["error"]))
        case _:
            return Problem(place, f"{error['input']!r} will not do: {_reason(error)}.")


def _reason(error: dict[str, Any]) -> str:
    if error["type"] == "model_type":
        return "input should be a mapping"
    return str(error["msg"]).lower().replace("valid tuple", "list")
