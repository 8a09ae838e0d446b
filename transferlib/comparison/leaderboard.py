"""The leaderboard: every arm with its figures on validation and test, ordered by validation, as JSON, CSV and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transferlib.comparison import tables
from transferlib.comparison.arms import RANKED_BY, ArmResult, build_arms
from transferlib.comparison.choose import Choice, choose_from, read_choice
from transferlib.comparison.results import RunResults, read_final_results, read_results
from transferlib.comparison.verdict import Verdict, give_verdict
from transferlib.errors import DataError, RunFolderError
from transferlib.runs import RunFolder, write_atomic, write_json

SCHEMA = 1
"""Of `leaderboard.json`; changes with its layout."""


@dataclass(frozen=True)
class Comparison:
    """Hold the result of a run, or of what is finished of it."""

    run: str
    arms: tuple[ArmResult, ...]
    """Best on validation first."""
    verdict: Verdict
    choice: Choice
    classes: tuple[str, ...]
    num_trials: int
    unfinished: tuple[str, ...]
    """Trials that have not ended; none in a finished run."""
    is_final: bool
    """Whether the choice is saved and the chosen trials have read the test set."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds that any arm has a result for."""
        return tuple(sorted({trial.seed for trial in self.choice.chosen}))

    @property
    def recommended(self) -> ArmResult | None:
        """Return the arm that the verdict names to be taken."""
        return next((arm for arm in self.arms if arm.arm == self.verdict.recommended), None)

    def to_plain(self) -> dict[str, Any]:
        """Return the content of `leaderboard.json`, schema 1."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "ranked_by": RANKED_BY,
            "verdict": self.verdict.text,
            "arms": [arm.to_plain() for arm in self.arms],
        }


def build_comparison(found: RunResults, choice: Choice, *, is_final: bool) -> Comparison:
    """Bring trials, choice and metrics together.

    Args:
        found: The trials and their metrics.
        choice: On validation.
        is_final: Whether test figures must be there.

    Raises:
        DataError: A chosen trial has no metrics on test though the run is said to be final.
    """
    unread = [trial.trial_id for trial in choice.chosen if (trial.trial_id, "test") not in found.metrics]
    if is_final and unread:
        raise DataError(f"{len(unread)} chosen trials have no predictions on test: {', '.join(unread[:3])}.")
    arms = build_arms(found, choice)
    return Comparison(
        run=found.run_id,
        arms=arms,
        verdict=give_verdict(arms, choice.failed, len(found.trials), len(found.unfinished)),
        choice=choice,
        classes=found.classes,
        num_trials=len(found.trials),
        unfinished=found.unfinished,
        is_final=is_final,
    )


def load_comparison(run: RunFolder) -> Comparison:
    """Return a run's result from `predictions.parquet`; of an unfinished run, what its trials show on validation.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
    """
    choice = read_choice(run)
    if choice is not None and run.predictions.exists():
        return build_comparison(read_final_results(run), choice, is_final=True)
    found = read_results(run, ("val",))
    return build_comparison(found, choice or choose_from(found), is_final=False)


def write_leaderboard(run: RunFolder) -> Comparison:
    """Write `leaderboard.json`, `.csv` and `.md` of a run whose predictions are joined.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
        RunFolderError: No choice is saved, or the predictions are not joined yet.
    """
    comparison = load_comparison(run)
    if not comparison.is_final:
        raise RunFolderError(f"{run.run_id} has no choice.json or no predictions.parquet yet, so no leaderboard.")
    write_json(run.leaderboard("json"), comparison.to_plain())
    write_atomic(run.leaderboard("csv"), tables.to_csv(comparison.arms))
    write_atomic(run.leaderboard("md"), tables.to_markdown(comparison.arms, comparison.verdict.text, RANKED_BY))
    return comparison
