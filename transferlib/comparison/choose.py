"""The choice, on validation alone, saved before test is read: a rate an arm and seed, and the model handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from transferlib.comparison.results import RunResults, read_results
from transferlib.errors import DamagedFileError, RunFolderError
from transferlib.evaluation.metrics import Metrics
from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS
from transferlib.records import FINISHED, Keyed, TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder, read_json, read_object, reading, write_json

SCHEMA = 2

Edge = Literal["inside", "lowest", "highest", "no grid"]
"""Where a chosen rate lies among the planned ones of its arm; "no grid" with one candidate."""


@dataclass(frozen=True)
class Candidate(Keyed):
    """Say what one finished trial reached on validation."""

    key: TrialKey
    lr: float
    val: float
    """The metric that chooses."""
    val_log_loss: float
    """Mean negative log-likelihood, nat; breaks ties."""
    num_parameters: int
    """Of its network; breaks ties between networks."""


@dataclass(frozen=True)
class ChosenTrial(Candidate):
    """Name the candidate that an arm goes on with for one seed."""

    edge: Edge


@dataclass(frozen=True)
class FailedTrial(Keyed):
    """Name a trial without a result, and say why it has none."""

    key: TrialKey
    lr: float
    reason: str


@dataclass(frozen=True)
class Choice:
    """Hold the chosen trial of each arm and seed that has one, the model handed over, and every trial that failed.

    Where there are folds, "a seed" is a seed and a fold.
    """

    run: str
    metric: str
    """What chose; one of `names.METRICS`."""
    candidates: tuple[Candidate, ...]
    """Every trial that is done, by key."""
    chosen: tuple[ChosenTrial, ...]
    failed: tuple[FailedTrial, ...]
    without_result: tuple[TrialKey, ...]
    """Arms and seeds (and folds) of which every candidate that was trained failed; as their first candidate."""
    grids: Mapping[str, tuple[float, ...]]
    """The planned rates by arm, ascending."""

    @property
    def trial_ids(self) -> tuple[str, ...]:
        """Return the chosen trials, which are to read the test set."""
        return tuple(trial.trial_id for trial in self.chosen)

    @property
    def model(self) -> ChosenTrial | None:
        """Return the trained model handed over: best on validation over all arms and seeds; None without any.

        It depends on neither the test set nor on seconds, so its figure on test is unbiased (with folds rather too low:
        `leaderboard.HandedModel`).

        Source: CONTRACT, Choosing.
        """
        return min(self.chosen, key=lambda trial: _order(trial, self.metric), default=None)

    def to_plain(self) -> dict[str, Any]:
        """Return the content of `choice.json`."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "metric": self.metric,
            "selected_by": selected_by(self.metric),
            "model": None if self.model is None else self.model.trial_id,
            "chosen": [trial.to_plain() for trial in self.chosen],
            "candidates": [trial.to_plain() for trial in self.candidates],
            "failed": [trial.to_plain() for trial in self.failed],
            "without_result": [_plain_place(key) for key in self.without_result],
            "grids": {arm: list(rates) for arm, rates in self.grids.items()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_plain` returned, now or in schema 1, whose metric was accuracy.

        Raises:
            RunFolderError: It is of another schema.
        """
        schema = plain.get("schema")
        if schema not in (1, SCHEMA):
            raise RunFolderError(f"choice.json has schema {schema}; this version reads 1 and {SCHEMA}.")
        chosen = plain["chosen"] if schema == SCHEMA else [_from_schema_1(trial) for trial in plain["chosen"]]
        failed = plain["failed"] if schema == SCHEMA else [_from_schema_1(trial) for trial in plain["failed"]]
        return cls(
            run=plain["run"],
            metric=plain.get("metric", "accuracy"),
            candidates=tuple(Candidate.from_plain(trial) for trial in plain.get("candidates", ())),
            chosen=tuple(ChosenTrial.from_plain(trial) for trial in chosen),
            failed=tuple(FailedTrial.from_plain(trial) for trial in failed),
            without_result=tuple(
                TrialKey.of_arm(entry["arm"], entry["seed"], 0, entry.get("fold", 0))
                for entry in plain["without_result"]
            ),
            grids={arm: tuple(rates) for arm, rates in plain["grids"].items()},
        )


def _plain_place(key: TrialKey) -> dict[str, Any]:
    return {"arm": key.arm, "seed": key.seed, **({"fold": key.fold} if key.fold else {})}


def selected_by(metric: str) -> str:
    """Return the rule in words."""
    log_loss = "" if metric == "log_loss" else "log-loss, then "
    return f"validation {METRIC_WORDS[metric]}, then {log_loss}fewer parameters, then the smaller rate"


def _from_schema_1(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial of an old choice.json with the key's parts and the figures under their names of now."""
    key = TrialKey.parse(trial["trial_id"])
    plain = {**trial, "architecture": key.architecture, "strategy": key.strategy}
    if "val_accuracy" in plain:
        plain |= {"val": plain.pop("val_accuracy"), "num_parameters": 0}
    return plain


def _order(trial: Candidate, metric: str) -> tuple[float, float, int, float, TrialKey]:
    value = trial.val if metric in LOWER_IS_BETTER else -trial.val
    return (value, trial.val_log_loss, trial.num_parameters, trial.lr, trial.key)


def choose(
    run_id: str,
    trials: Sequence[TrialSpec],
    results: Mapping[str, TrialResult],
    val: Mapping[str, Metrics],
    metric: str = "accuracy",
) -> Choice:
    """Choose, per arm and seed, the candidate that is best on validation.

    Best is by the metric, then the lowest log-loss, then the network with fewer parameters, then the smaller rate. A
    trial that failed cannot be chosen; it is listed with its reason. A trial that has not ended is passed over, and so
    is one that was spared, since its arm goes on with another rate (`comparison.tuning`).

    Args:
        run_id: The run's id.
        trials: All that were planned.
        results: How trials ended, by trial id.
        val: Metrics on validation of every trial that is done, by trial id.
        metric: One of `names.METRICS`.
    """
    grids: dict[str, tuple[float, ...]] = {}
    groups: dict[TrialKey, list[TrialSpec]] = {}
    candidates: dict[TrialKey, Candidate] = {}
    for trial in trials:
        grids[trial.arm] = tuple(sorted({*grids.get(trial.arm, ()), trial.lr}))
        groups.setdefault(replace(trial.key, candidate=0), []).append(trial)
        if _state(results, trial) == "done":
            found = val[trial.trial_id]
            number = results[trial.trial_id].total_parameters
            value = float(getattr(found, metric))
            candidates[trial.key] = Candidate(trial.key, trial.lr, value, found.log_loss, number)
    chosen, without_result = [], []
    for key, group in sorted(groups.items()):
        done = [candidates[trial.key] for trial in group if trial.key in candidates]
        if done:
            best = min(done, key=lambda candidate: _order(candidate, metric))
            chosen.append(ChosenTrial(**vars(best), edge=_edge(best.lr, grids[best.arm])))
        elif all(_state(results, trial) in FINISHED for trial in group):
            without_result.append(key)
    failed = [
        FailedTrial(trial.key, trial.lr, results[trial.trial_id].reason)
        for trial in sorted(trials, key=lambda trial: trial.key)
        if _state(results, trial) == "failed"
    ]
    all_done = tuple(candidates[key] for key in sorted(candidates))
    return Choice(run_id, metric, all_done, tuple(chosen), tuple(failed), tuple(without_result), grids)


def choose_candidates(run: RunFolder) -> Choice:
    """Choose for a run whose trials have all ended, and save the choice as `choice.json`.

    Called again it returns the same. A choice that would differ replaces the saved one only while no trial has read
    the test set. One that is gone or damaged is made again: it follows from validation alone, and where no other trial
    has read the test set it is the one that was.

    Raises:
        DataError: A finished trial's validation predictions are missing or incomplete.
        RunFolderError: A trial has not ended, or the choice would change after the test set was read.
    """
    found = read_results(run, ("val",))
    if found.unfinished:
        raise RunFolderError(
            f"{len(found.unfinished)} of {found.num_trained} trials of {run.run_id} have not ended "
            f"({', '.join(found.unfinished[:3])}); all end before one is chosen."
        )
    choice = choose_from(found)
    try:
        saved = read_choice(run)
    except DamagedFileError:
        saved = None
    if saved is not None and _decides_alike(saved, choice):
        if read_json(run.choice) != choice.to_plain():  # of an older version, which wrote less beside it
            write_json(run.choice, choice.to_plain())
        return choice
    test_read = sorted(path.parent.name for path in run.path.glob("trials/*/predictions-test.parquet"))
    others = [trial_id for trial_id in test_read if trial_id not in choice.trial_ids]
    if test_read if saved else others:
        what = "would change" if saved else "is missing and would be another one"
        raise RunFolderError(
            f"The choice of {run.run_id} {what}, but {len(test_read)} trials have "
            f"read the test set ({', '.join(test_read[:3])}). A choice after that would not be blind; start a new run."
        )
    write_json(run.choice, choice.to_plain())
    return choice


def read_choice(run: RunFolder) -> Choice | None:
    """Return the saved choice; None where there is none yet.

    Raises:
        DamagedFileError: It is not what a job wrote.
        RunFolderError: It is of another schema.
    """
    plain = read_object(run.choice)
    with reading(run.choice):
        return None if plain is None else Choice.from_plain(plain)


def choose_from(found: RunResults) -> Choice:
    """Return the choice on what a run has so far; nothing is saved."""
    val = {trial_id: metrics for (trial_id, split), metrics in found.metrics.items() if split == "val"}
    return choose(found.run_id, found.trials, found.results, val, found.metric)


def _state(results: Mapping[str, TrialResult], trial: TrialSpec) -> str:
    result = results.get(trial.trial_id)
    return "pending" if result is None else result.state


def _decides_alike(one: Choice, other: Choice) -> bool:
    """Return whether two choices name the same trials; an older version wrote less beside them."""
    return (one.metric, one.trial_ids, one.failed) == (other.metric, other.trial_ids, other.failed)


def _edge(lr: float, grid: Sequence[float]) -> Edge:
    if len(grid) == 1:
        return "no grid"
    if lr == grid[0]:
        return "lowest"
    return "highest" if lr == grid[-1] else "inside"
