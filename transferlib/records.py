"""The plain types that pass between rooms and into the run folder: what a trial is, where it stands, how it ended.

No torch and no numpy, so that the command line can read a run at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TrialState = Literal["pending", "running", "done", "failed", "stopped", "spared"]
"""spared: never trained, since another rate was better on the seeds that tune."""
FINISHED: frozenset[str] = frozenset({"done", "failed", "spared"})
"""Nothing more comes of such a trial."""


def checked(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    """Return a value read from JSON, which may hold anything, where it is of the kind that it should be.

    Args:
        value: As it was read.
        kind: One type or several; a bool is no number.
        name: What to call it.

    Raises:
        TypeError: It is of another.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} is {json.dumps(value)[:40]}, not {' or '.join(each.__name__ for each in kinds)}")
    return value


def check_types(record: Any) -> None:
    """Hold the values of a dataclass that was read from JSON against what its fields are declared as.

    Raises:
        TypeError: One is of another type.
    """
    from pydantic import ValidationError  # here, since no help page needs it

    kind: Any = type(record)
    try:
        _adapter(kind).validate_json(json.dumps(dataclasses.asdict(record)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise TypeError(f"{name} is {json.dumps(first['input'])[:40]}: {first['msg'].lower()}") from None


@lru_cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


class JsonRecord:
    """Give a frozen dataclass of plain values a JSON form; unknown keys and values of other types are refused."""

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        record = cls(**json.loads(text))
        check_types(record)
        return record


@dataclass(frozen=True, order=True)
class TrialKey:
    """Name one trial: the only thing that tells trials of a run apart, and the name of its folder."""

    architecture: str
    """torchvision's name, e.g. "resnet18"."""
    strategy: str
    """A transfer strategy, e.g. "last_layers"."""
    fold: int
    """Which fold is the test set, from 1; 0: the images are cut once."""
    seed: int
    """Seed of the order, the augmentation, the new head, Dropout and StochasticDepth; the same over all arms."""
    candidate: int
    """Index of the learning-rate candidate, from 0, ascending in rate."""

    @property
    def arm(self) -> str:
        """Return `architecture-strategy`, fit for a folder's name."""
        return f"{self.architecture}-{self.strategy}"

    @property
    def id(self) -> str:
        """Return `arm-s<seed>-c<candidate>`, with `-f<fold>` after the arm where there are folds."""
        fold = f"-f{self.fold}" if self.fold else ""
        return f"{self.arm}{fold}-s{self.seed}-c{self.candidate}"

    @property
    def seed_name(self) -> str:
        """Return the seed as a name, with the fold where there are folds: "3", or "3-f2"."""
        return f"{self.seed}-f{self.fold}" if self.fold else str(self.seed)

    @property
    def training(self) -> str:
        """Return which training of the arm it is, in words: "seed 3", or "seed 3, fold 2"."""
        return f"seed {self.seed}, fold {self.fold}" if self.fold else f"seed {self.seed}"

    @classmethod
    def parse(cls, trial_id: str) -> Self:
        """Return the key of an id.

        Raises:
            ValueError: It is none.
        """
        found = TRIAL_ID.fullmatch(trial_id)
        if found is None:
            raise ValueError(f"{trial_id!r} is no trial's id: they look like resnet18-last_layers-s0-c1.")
        return cls(found[1], found[2], int(found[3] or 0), int(found[4]), int(found[5]))

    @classmethod
    def of_arm(cls, arm: str, seed: int, candidate: int, fold: int = 0) -> Self:
        """Return the key of one trial of an arm, given as `architecture-strategy`."""
        architecture, _, strategy = arm.partition("-")
        return cls(architecture, strategy, fold, seed, candidate)


TRIAL_ID = re.compile(r"(\w+)-(\w+?)(?:-f([1-9]\d*))?-s(\d+)-c(\d+)")
"""Neither architectures nor strategies have a hyphen."""


class Keyed:
    """Give a record of one trial its key's parts, and a JSON form in which they stand side by side with its own."""

    key: TrialKey

    @property
    def architecture(self) -> str:
        return self.key.architecture

    @property
    def strategy(self) -> str:
        return self.key.strategy

    @property
    def arm(self) -> str:
        return self.key.arm

    @property
    def fold(self) -> int:
        return self.key.fold

    @property
    def seed(self) -> int:
        return self.key.seed

    @property
    def candidate(self) -> int:
        return self.key.candidate

    @property
    def trial_id(self) -> str:
        return self.key.id

    def to_plain(self) -> dict[str, Any]:
        """Return the key's id and parts and the record's own fields, for a boundary (JSON, Ray)."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"trial_id": self.trial_id, "arm": self.arm, **fields.pop("key"), **fields}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned, now or in a version that had no folds; unknown keys are refused."""
        names = [name.name for name in dataclasses.fields(TrialKey)]
        key = TrialKey(**{"fold": 0} | {name: plain[name] for name in names if name in plain})
        own = {name: value for name, value in plain.items() if name not in (*names, "trial_id", "arm")}
        record = cls(key=key, **own)  # type: ignore[call-arg]
        check_types(key)
        check_types(record)
        return record

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(self.to_plain(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls.from_plain(json.loads(text))


@dataclass(frozen=True)
class TrialSpec(Keyed):
    """Plan one training: which, and at what rate."""

    key: TrialKey
    lr: float
    """The head's peak learning rate."""


@dataclass(frozen=True)
class EpochRecord(JsonRecord):
    """Report one finished epoch of one trial: a row of `metrics.csv`."""

    epoch: int
    """From 0."""
    train_loss: float
    """Mean loss (label smoothing and class weights included) over the epoch's images, nat."""
    val_loss: float
    """Mean negative log-likelihood over validation (no smoothing, no class weights), nat."""
    val_accuracy: float
    """Share of validation images classified correctly, 0 to 1."""
    lr: float
    """The head's rate at the epoch's last step."""
    images: int
    """Training images seen in this epoch over all ranks."""
    seconds: float
    """Wall seconds of the epoch, validation and checkpoint included."""
    train_seconds: float
    """Wall seconds of the training steps alone, waiting for data included."""
    data_wait_s: float
    """Seconds rank 0 waited for batches during training steps and validation."""
    checkpoint_s: float
    """Seconds spent writing the epoch's checkpoint."""
    peak_memory_bytes: int
    """Peak memory so far: CUDA's allocator on a GPU, resident set of rank 0's process on a CPU."""
    is_best: bool
    """Whether this is the best epoch so far by the comparison's metric, then the lower val_loss."""


@dataclass
class PhaseTotals:
    """Add up what a trial has done in one phase, train or val."""

    images: int = 0
    """Over all ranks."""
    steps: int = 0
    seconds: float = 0.0
    """Wall seconds of steps, waiting for data included."""
    data_wait_s: float = 0.0
    """Seconds rank 0 waited for batches."""


@dataclass
class TrialTotals:
    """Add up what a trial has done over all its starts, work that had to be done again included: its counters.

    Of the train steps, `train.steps - steps_redone` stand; the other sums count work, whether it stands or not.
    """

    train: PhaseTotals = field(default_factory=PhaseTotals)
    val: PhaseTotals = field(default_factory=PhaseTotals)
    steps_redone: int = 0
    """Train steps done by a process that was lost before it saved them."""
    checkpoint_s: float = 0.0
    """Wall seconds of writing checkpoints."""
    checkpoint_bytes: int = 0
    """Of the tensors written."""

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` returned."""
        totals = cls(**{**plain, "train": PhaseTotals(**plain["train"]), "val": PhaseTotals(**plain["val"])})
        for each in (totals, totals.train, totals.val):
            check_types(each)
        return totals

    def of(self, phase: str) -> PhaseTotals:
        """Return the totals of a phase, "train" or "val"."""
        return {"train": self.train, "val": self.val}[phase]


@dataclass(frozen=True)
class TrialProgress(JsonRecord):
    """Say where a trial stands, for the live table and the exporter; replaced in place, never history."""

    trial_id: str
    state: TrialState
    epoch: int
    """Epochs finished."""
    num_epochs: int
    step: int
    """Step within the current epoch."""
    num_steps: int
    images_per_s: float
    """Training images a second over the last report interval, all ranks."""
    data_wait_share: float
    """Share of the last interval spent waiting for data, 0 to 1."""
    loss: float
    val_accuracy: list[float]
    """One value a finished epoch."""
    started_at: float
    """Unix time of the trial's (first) start."""
    updated_at: float
    reason: str = ""
    num_restarts: int = 0
    totals: TrialTotals | None = None
    """Over all starts; None: written by a version that did not count."""
    stage_lrs: dict[str, float] = field(default_factory=dict)
    """Rate by stage at the newest step, 0 for frozen ones, input to head."""
    val_loss: float | None = None
    """Of the newest finished epoch, nat; None: there is none."""
    memory_bytes: int | None = None
    """Resident memory of rank 0's process; None: the system does not tell."""
    gpu_memory_bytes: int | None = None
    """What rank 0's process holds of its GPU; None: it has none."""
    gpu_utilisation: float | None = None
    """Share of time rank 0's GPU was busy, 0 to 1; None: NVML does not tell."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote, now or in an earlier version."""
        fields = json.loads(text)
        if fields.get("totals") is not None:
            fields["totals"] = TrialTotals.from_plain(fields["totals"])
        progress = cls(**fields)
        check_types(progress)
        return progress


@dataclass(frozen=True)
class TrialResult(Keyed):
    """Say how a trial ended: `result.json` in its folder, written last."""

    key: TrialKey
    lr: float
    state: TrialState
    reason: str = ""
    """Why it failed, was stopped or was spared; empty when done."""
    error: str = ""
    """Name of the error's class when failed, e.g. "NonFiniteLossError", for programs; empty otherwise."""
    best_epoch: int = -1
    epochs: int = 0
    """Epochs run (fewer than asked for after early stopping)."""
    val_accuracy: float = 0.0
    """At the best epoch."""
    val_loss: float = float("inf")
    """At the best epoch."""
    val_score: float | None = None
    """Of the comparison's metric at the best epoch, negated where lower is better; None: it was accuracy, before
    there was a choice."""
    seconds: float = 0.0
    """Wall seconds of training over all its starts."""
    images_per_s: float = 0.0
    """Training images over training seconds."""
    peak_memory_bytes: int = 0
    trained_parameters: int = 0
    total_parameters: int = 0
    precision: str = "fp32"
    num_workers: int = 1
    threads_per_worker: int = 1
    weights_sha256: str = ""
    """Of the best epoch's full state dict in key order (models.weights.state_sha256)."""
    first_step_s: float = 0.0
    """Seconds from the trial's start in its process to its first finished step."""
    stage_lrs: dict[str, float] = field(default_factory=dict)
    """Peak rate by stage, 0 for frozen ones, input to head."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of the files that the trial left, by name; empty: written by a version that did not say."""

    def to_plain(self) -> dict[str, Any]:
        """Return it for a boundary; JSON has no infinity, so a loss that there is not is null."""
        return {**super().to_plain(), "val_loss": self.val_loss if math.isfinite(self.val_loss) else None}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned."""
        loss = plain.get("val_loss")
        return super().from_plain({**plain, "val_loss": float("inf") if loss is None else loss})

    @property
    def score(self) -> float:
        """Return what candidates are compared by on validation; higher is better."""
        return self.val_accuracy if self.val_score is None else self.val_score


def to_plain(record: Any) -> dict[str, Any]:
    """Return a record as a dict of plain values, for a boundary (JSON, CSV, Ray)."""
    return dataclasses.asdict(record)
