"""The choice: one learning rate an arm and seed, on validation alone, saved before the test set is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from transferlib.comparison.results import RunResults, read_results
from transferlib.errors import RunFolderError
from transferlib.evaluation.metrics import Metrics
from transferlib.records import TrialResult, TrialSpec
from transferlib.runs import RunFolder, read_json, write_json

SCHEMA = 1
SELECTED_BY = "validation accuracy, then log-loss, then the smaller rate"

Edge = Literal["inside", "lowest", "highest", "no grid"]
"""Where a chosen rate lies among the planned ones of its arm; "no grid" with one candidate."""


@dataclass(frozen=True)
class ChosenTrial:
    """Name the candidate that an arm goes on with for one seed."""

    arm: str
    seed: int
    trial_id: str
    candidate: int
    lr: float
    edge: Edge
    val_accuracy: float
    val_log_loss: float


@dataclass(frozen=True)
class FailedTrial:
    """Name a trial without a result, and say why it has none."""

    arm: str
    seed: int
    trial_id: str
    candidate: int
    lr: float
    reason: str


@dataclass(frozen=True)
class Choice:
    """Hold the chosen trial of each arm and seed that has one, and every trial that failed."""

    run: str
    chosen: tuple[ChosenTrial, ...]
    failed: tuple[FailedTrial, ...]
    without_result: tuple[tuple[str, int], ...]
    """Arms and seeds of which every candidate failed."""
    grids: Mapping[str, tuple[float, ...]]
    """The planned rates by arm, ascending."""

    @property
    def trial_ids(self) -> tuple[str, ...]:
        """Return the chosen trials, which are to read the test set."""
        return tuple(trial.trial_id for trial in self.chosen)

    def to_plain(self) -> dict[str, Any]:
        """Return the content of `choice.json`."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "selected_by": SELECTED_BY,
            "chosen": [asdict(trial) for trial in self.chosen],
            "failed": [asdict(trial) for trial in self.failed],
            "without_result": [{"arm": arm, "seed": seed} for arm, seed in self.without_result],
            "grids": {arm: list(rates) for arm, rates in self.grids.items()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned.

        Raises:
            RunFolderError: It is of another schema.
        """
        if plain.get("schema") != SCHEMA:
            raise RunFolderError(f"choice.json has schema {plain.get('schema')}; this version reads {SCHEMA}.")
        return cls(
            run=plain["run"],
            chosen=tuple(ChosenTrial(**trial) for trial in plain["chosen"]),
            failed=tuple(FailedTrial(**trial) for trial in plain["failed"]),
            without_result=tuple((entry["arm"], entry["seed"]) for entry in plain["without_result"]),
            grids={arm: tuple(rates) for arm, rates in plain["grids"].items()},
        )


def choose(
    run_id: str, trials: Sequence[TrialSpec], results: Mapping[str, TrialResult], val: Mapping[str, Metrics]
) -> Choice:
    """Choose, per arm and seed, the candidate that is best on validation.

    Best is the highest accuracy, then the lowest log-loss, then the smaller rate. A trial that failed cannot be
    chosen; it is listed with its reason. A trial that has not ended is passed over.

    Args:
        run_id: The run's id.
        trials: All that were planned.
        results: How trials ended, by trial id.
        val: Metrics on validation of every trial that is done, by trial id.
    """
    grids: dict[str, tuple[float, ...]] = {}
    groups: dict[tuple[str, int], list[TrialSpec]] = {}
    for trial in trials:
        grids[trial.arm] = tuple(sorted({*grids.get(trial.arm, ()), trial.lr}))
        groups.setdefault((trial.arm, trial.seed), []).append(trial)
    chosen, without_result = [], []
    for key, candidates in sorted(groups.items()):
        done = [trial for trial in candidates if _state(results, trial) == "done"]
        if done:
            best = min(done, key=lambda t: (-val[t.trial_id].accuracy, val[t.trial_id].log_loss, t.lr))
            chosen.append(_chosen(best, val[best.trial_id], grids[best.arm]))
        elif all(_state(results, trial) == "failed" for trial in candidates):
            without_result.append(key)
    failed = [
        FailedTrial(t.arm, t.seed, t.trial_id, t.candidate, t.lr, results[t.trial_id].reason)
        for t in sorted(trials, key=lambda t: (t.arm, t.seed, t.candidate))
        if _state(results, t) == "failed"
    ]
    return Choice(run_id, tuple(chosen), tuple(failed), tuple(without_result), grids)


def choose_candidates(run: RunFolder) -> Choice:
    """Choose for a run whose trials have all ended, and save the choice as `choice.json`.

    Called again it returns the same. A choice that would differ replaces the saved one only while no trial has read
    the test set.

    Raises:
        DataError: A finished trial's validation predictions are missing or incomplete.
        RunFolderError: A trial has not ended, or the choice would change after the test set was read.
    """
    found = read_results(run, ("val",))
    if found.unfinished:
        raise RunFolderError(
            f"{len(found.unfinished)} of {len(found.trials)} trials of {run.run_id} have not ended "
            f"({', '.join(found.unfinished[:3])}); every candidate is trained before one is chosen."
        )
    choice = choose_from(found)
    saved = read_json(run.choice)
    if saved == choice.to_plain():
        return choice
    test_read = sorted(path.parent.name for path in run.path.glob("trials/*/predictions-test.parquet"))
    if test_read:
        raise RunFolderError(
            f"The choice of {run.run_id} {'would change' if saved else 'is missing'}, but {len(test_read)} trials have "
            f"read the test set ({', '.join(test_read[:3])}). A choice after that would not be blind; start a new run."
        )
    write_json(run.choice, choice.to_plain())
    return choice


def read_choice(run: RunFolder) -> Choice | None:
    """Return the saved choice; None where there is none yet."""
    plain = read_json(run.choice)
    return None if plain is None else Choice.from_plain(plain)


def choose_from(found: RunResults) -> Choice:
    """Return the choice on what a run has so far; nothing is saved."""
    val = {trial_id: metrics for (trial_id, split), metrics in found.metrics.items() if split == "val"}
    return choose(found.run_id, found.trials, found.results, val)


def _state(results: Mapping[str, TrialResult], trial: TrialSpec) -> str:
    result = results.get(trial.trial_id)
    return "pending" if result is None else result.state


def _chosen(trial: TrialSpec, val: Metrics, grid: Sequence[float]) -> ChosenTrial:
    edge: Edge = "inside"
    if len(grid) == 1:
        edge = "no grid"
    elif trial.lr == grid[0]:
        edge = "lowest"
    elif trial.lr == grid[-1]:
        edge = "highest"
    return ChosenTrial(
        arm=trial.arm,
        seed=trial.seed,
        trial_id=trial.trial_id,
        candidate=trial.candidate,
        lr=trial.lr,
        edge=edge,
        val_accuracy=val.accuracy,
        val_log_loss=val.log_loss,
    )
