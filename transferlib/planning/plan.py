"""The plan of a job: its trials in order, how they share the machine, and what they will take.

Made before anything starts, from the spec, the listed images and the machine; saved as `plan.json`. No torch, no Ray.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transferlib.comparison.tuning import Tuning
from transferlib.data.listing import Listing
from transferlib.errors import DataError, PlanError, RunFolderError
from transferlib.planning.cost import Cost, Demand, estimate_cost
from transferlib.planning.fit import check_steps, fit_to_memory, gpu_memory_notes, refuse_if_too_big
from transferlib.planning.machine import Machine
from transferlib.planning.option_notes import option_notes, small_bf16_notes, worker_notes
from transferlib.planning.placement import describe_placement, place_trials
from transferlib.planning.resources import Resources, derive_resources
from transferlib.records import TrialKey, TrialSpec, check_types
from transferlib.runs import RunFolder, cure_of, reading
from transferlib.spec import JobSpec
from transferlib.strategies import lr_candidates
from transferlib.words import form

SCHEMA = 1
FEW_TEST_IMAGES = 150
"""Below it a plan offers folds."""
OFFERED_FOLDS = 5
LONG_JOB_S = 12 * 3600.0
"""A plan past this also names a cheaper command."""


@dataclass(frozen=True)
class Plan:
    """Say what a job will do and take; prints, saves and compares."""

    trials: tuple[TrialSpec, ...]
    """By seed, fold, candidate, then arm, so that what is finished early can be compared. All that may be trained."""
    workers_per_trial: int
    use_gpu: bool
    """One GPU a worker when true."""
    gpus: int
    """For the whole job."""
    cpus_per_worker: float
    """What a worker reserves: for training and for its images."""
    ray_cpus: int
    """What Ray is started with."""
    threads_per_worker: int
    """torch threads; part of what makes a result bit-exact."""
    concurrency: int
    """Trials side by side."""
    images: dict[str, int]
    """By split: train, val, test; of one fold where there are several. Expected, before bad images and duplicates are
    taken out."""
    num_classes: int
    epochs: int
    """Most epochs a trial."""
    cost: Cost
    """What it will take; estimates."""
    notes: tuple[str, ...] = ()
    """What the user should know, a sentence each."""
    where: str = "this machine"
    """What it was planned for, as sentences name it."""
    placement: str = ""
    """On which nodes of a cluster the workers will lie, a sentence; empty on one machine."""
    data_cpus: float = 0.0
    """What a worker reserves for its images; 0: planned by a version that reserved nothing for them."""
    tuning_seeds: int | None = None
    """How many seeds, from the first, are trained at every rate; None: all of them."""

    @property
    def tuning(self) -> Tuning:
        """Return what knows which of the trials are trained."""
        return Tuning(self.trials, self.tuning_seeds)

    @property
    def num_trained_trials(self) -> int:
        """Return how many of the trials are trained: later seeds at one rate, where only the first ones tune."""
        return len(self.tuning.expected({}))

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the arms' names in the order of the trials."""
        return tuple(dict.fromkeys(trial.arm for trial in self.trials))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds in the order of the trials."""
        return tuple(dict.fromkeys(trial.seed for trial in self.trials))

    @property
    def trainings(self) -> tuple[tuple[int, int], ...]:
        """Return the seeds and folds that each arm is trained on, in the order of the trials."""
        return tuple(dict.fromkeys((trial.seed, trial.fold) for trial in self.trials))

    @property
    def num_folds(self) -> int:
        """Return how many cuts each seed is trained on; 1: one cut."""
        return len({trial.fold for trial in self.trials})

    @property
    def num_tested(self) -> int:
        """Return how many images each seed of an arm is tested on."""
        return self.images["test"] if self.num_folds == 1 else sum(self.images.values())

    @property
    def num_candidates(self) -> int:
        """Return the learning-rate candidates of each arm: what a seed that tunes is trained at."""
        return len(self.trials) // (len(self.arms) * len(self.seeds) * self.num_folds)

    @property
    def is_long(self) -> bool:
        """Return whether the job is expected to take more than twelve hours."""
        return self.cost.seconds > LONG_JOB_S

    def to_json(self) -> str:
        """Return the plan as JSON that `from_json` reads back to an equal one."""
        fields = {**dataclasses.asdict(self), "trials": [trial.to_plain() for trial in self.trials]}
        return json.dumps({"schema": SCHEMA, **fields}, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a run's `plan.json`.

        Raises:
            FileNotFoundError: There is none.
            PlanError: It is of another schema.
            DamagedFileError: It is no plan.
        """
        with reading(path):
            return cls.from_json(path.read_text())

    @classmethod
    def of_run(cls, run: RunFolder) -> Self:
        """Read the plan of a run that must have one.

        Raises:
            RunFolderError: There is none, or it is damaged.
            PlanError: It is of another schema.
        """
        try:
            return cls.load(run.plan)
        except FileNotFoundError:
            raise RunFolderError(f"{run.plan} is missing. {cure_of(run.plan)}") from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            PlanError: It is of another schema.
        """
        fields: dict[str, Any] = json.loads(text)
        schema = fields.pop("schema", None)
        if schema != SCHEMA:
            raise PlanError(f"plan.json has schema {schema}; this version of transferlib reads {SCHEMA}.")
        fields["trials"] = tuple(TrialSpec.from_plain(trial) for trial in fields["trials"])
        fields["cost"] = Cost(**fields["cost"])
        fields["notes"] = tuple(fields["notes"])
        if "data_cpus" not in fields:  # of a version that left them over instead: what was left, a worker
            workers = fields["concurrency"] * fields["workers_per_trial"]
            fields["data_cpus"] = max(0.0, (fields["ray_cpus"] / workers) - fields["cpus_per_worker"])
        plan = cls(**fields)
        for record in (plan, plan.cost):
            check_types(record)
        if not plan.trials:
            raise ValueError("it has no trials")
        return plan


def make_plan(spec: JobSpec, listing: Listing, machine: Machine, *, num_cached: int = 0) -> Plan:
    """Plan a job.

    Args:
        spec: What is asked for.
        listing: The images found.
        machine: What there is to run it on.
        num_cached: How many of the images are in the decoded cache already.

    Raises:
        DataError: A class has too few images.
        PlanError: The machine cannot meet the demand, or the steps would be too small; with the arithmetic.
    """
    folds = spec.data.split.folds
    if folds is None:
        listing.check_counts()
        images = listing.planned_counts(spec.data.split.val, spec.data.split.test)
    else:
        listing.check_folds(folds)
        images = listing.planned_fold_counts(folds)
    trials = plan_trials(spec)
    tuning = Tuning(trials, spec.comparison.tuning_seeds)
    num_classes = len(listing.classes)
    resources = derive_resources(spec.resources, machine, tuning.most_side_by_side)
    check_steps(spec, images["train"], resources.workers_per_trial)
    resources, notes = fit_to_memory(
        spec, num_classes, len(listing.entries), resources, machine, tuning.most_side_by_side
    )
    to_decode = max(0, len(listing.entries) - num_cached)
    cost = estimate_cost(Demand(spec, tuning.expected({}), images, to_decode, num_classes, resources, machine))
    refuse_if_too_big(spec, cost, machine)
    roles_note = (listing.roles.note,) if listing.roles.note and folds is None else ()
    notes = (
        *roles_note,
        *option_notes(spec, listing),
        *worker_notes(spec, resources.workers_per_trial),
        *(() if resources.use_gpu else small_bf16_notes(spec, may_be_bf16=machine.has_bf16)),
        *notes,
        *gpu_memory_notes(cost, machine),
    )
    idle = resources.gpus - resources.concurrency * resources.workers_per_trial if resources.use_gpu else 0
    if idle:
        side_by_side = f"{resources.concurrency} trials side by side"
        notes = (*notes, f"{idle} of {resources.gpus} GPUs {form(idle, 'stays', 'stay')} idle: {side_by_side}.")
    return Plan(
        trials=trials,
        workers_per_trial=resources.workers_per_trial,
        use_gpu=resources.use_gpu,
        gpus=resources.gpus,
        cpus_per_worker=resources.cpus_per_worker,
        data_cpus=resources.data_cpus,
        ray_cpus=resources.ray_cpus,
        threads_per_worker=resources.threads_per_worker,
        concurrency=resources.concurrency,
        images=images,
        num_classes=num_classes,
        epochs=spec.training.epochs,
        cost=cost,
        notes=(*notes, *_folds_note(spec, listing, images)),
        where=machine.name,
        placement=_placement(resources, machine),
        tuning_seeds=spec.comparison.tuning_seeds,
    )


def _folds_note(spec: JobSpec, listing: Listing, images: dict[str, int]) -> tuple[str, ...]:
    """Offer folds where the test set is small and nothing stands against them."""
    if spec.verb != "compare" or spec.data.split.folds is not None or images["test"] >= FEW_TEST_IMAGES:
        return ()
    try:
        listing.check_folds(OFFERED_FOLDS)
    except DataError:
        return ()
    return (
        f"Few test images ({images['test']}): --folds {OFFERED_FOLDS} would test on all {len(listing.entries):,}, and "
        f"show what other training images would have done, for {OFFERED_FOLDS} times the trainings.",
    )


def _placement(resources: Resources, machine: Machine) -> str:
    if not machine.nodes:
        return ""
    placed = place_trials(
        machine.nodes,
        resources.cpus_per_worker,
        use_gpu=resources.use_gpu,
        num_trials=resources.concurrency,
        workers_per_trial=resources.workers_per_trial,
    )
    return describe_placement(placed, use_gpu=resources.use_gpu)


def plan_trials(spec: JobSpec) -> tuple[TrialSpec, ...]:
    """Return every trial that may be trained: by seed, fold, learning-rate candidate, then arm.

    Each arm has the same number of candidates.
    """
    arms = [(a, s) for a in spec.models.architectures for s in spec.strategies.names]
    rates = {arm: lr_candidates(spec.comparison, *arm, spec.training.optimizer) for arm in arms}
    num_candidates = len(rates[arms[0]])
    trials = tuple(
        TrialSpec(TrialKey(*arm, fold=fold, seed=seed, candidate=candidate), lr=rates[arm][candidate])
        for seed in spec.comparison.seed_values
        for fold in spec.data.split.fold_values
        for candidate in range(num_candidates)
        for arm in arms
    )
    assert len({trial.trial_id for trial in trials}) == len(trials), "each trial has a folder of its own"
    return trials
