"""The leaderboard: every arm with its figures, what may be said of them, and the model handed over; JSON and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from transferlib.comparison import tables
from transferlib.comparison.arms import SHARES, ArmResult, build_arms, ranked_by
from transferlib.comparison.choose import Choice, ChosenTrial, choose_from, read_choice
from transferlib.comparison.ledger import reading_notes
from transferlib.comparison.power import Needs, what_it_takes
from transferlib.comparison.results import RunResults, SplitImages, read_final_results, read_results
from transferlib.comparison.statistics import ArmTable, Interval, Judgement, PairStatement, file_interval, judge
from transferlib.comparison.verdict import Evidence, Verdict, about_losses, give_verdict
from transferlib.errors import DataError, RunFolderError
from transferlib.names import LOWER_IS_BETTER
from transferlib.runs import RunFolder, write_atomic, write_json

SCHEMA = 2
"""Of `leaderboard.json`; changes with its layout."""


@dataclass(frozen=True)
class HandedModel:
    """Say which trained model a run hands over: the best on validation over all arms, seeds and folds."""

    trial: ChosenTrial
    images: SplitImages
    """That its figure is on: test, of its fold where there are folds; validation until test was read."""
    test: Interval | None
    """The metric on test with 95 % limits; None until test was read. Unbiased where the images are cut once: nothing on
    test chose it. With folds it is rather too low, since a fold's test images are other folds' validation images: the
    fold is chosen whose own were easy, and the others are then harder (by 1 to 2 points with 60 images in 3 folds)."""

    def to_plain(self, path: str) -> dict[str, Any]:
        """Return `model` of `leaderboard.json`.

        Args:
            path: Of the file, relative to the run folder.
        """
        trial, test = self.trial, self.test
        of_fold = {"fold": trial.fold, "images": len(self.images.labels)} if trial.fold else {}
        return {
            "path": path,
            "arm": trial.arm,
            "seed": trial.seed,
            **of_fold,
            "candidate": trial.candidate,
            "val": trial.val,
            "test": None if test is None else {"value": test.value, "low": test.low, "high": test.high},
        }


@dataclass(frozen=True)
class Comparison:
    """Hold the result of a run, or of what is finished of it."""

    run: str
    metric: str
    arms: tuple[ArmResult, ...]
    """Best on validation first."""
    verdict: Verdict
    choice: Choice
    judgement: Judgement | None
    """On test; while the run has not ended on validation, over the seeds that all arms have finished. None: nothing."""
    model: HandedModel | None
    classes: tuple[str, ...]
    images: SplitImages
    """Of the split that the judgement is on."""
    num_trials: int
    unfinished: tuple[str, ...]
    """Trials that have not ended; none in a finished run."""
    is_final: bool
    """Whether the choice is saved and the chosen trials have read the test set."""
    num_folds: int
    """Folds that each seed is trained on; 1: the images are cut once."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds that figures are over; before there is one, those that any arm has a result for."""
        figures = [arm.figure("val", "accuracy") for arm in self.arms]
        seeds = {seed for figure in figures if figure is not None for seed in figure.by_seed}
        return tuple(sorted(seeds or {trial.seed for trial in self.choice.chosen}))

    @property
    def ranked_by(self) -> str:
        """Return the rule of the arms' order in words."""
        return ranked_by(self.metric)

    def to_plain(self) -> dict[str, Any]:
        """Return the content of `leaderboard.json`, schema 2."""
        verdict, judged = self.verdict, self.judgement
        chance = None if judged is None else judged.chance
        return {
            "schema": SCHEMA,
            "run": self.run,
            "metric": self.metric,
            "ranked_by": self.ranked_by,
            "verdict": {
                "state": verdict.state,
                "sentences": list(verdict.sentences),
                "notes": list(verdict.notes),
                "margin": verdict.margin,
                "cheapest_good_enough": verdict.cheapest_good_enough,
            },
            "model": None if self.model is None else self.model.to_plain(RunFolder.MODEL),
            "chance": None if chance is None else {"value": chance.value, "low": chance.low, "high": chance.high},
            "images": {"test": len(self.images.labels)},
            "pairs": [_plain_pair(pair) for pair in (judged.pairs if judged else ())],
            "arms": [arm.to_plain() for arm in self.arms],
        }


def _plain_pair(pair: PairStatement) -> dict[str, Any]:
    fixed, anew, others = pair.these_models, pair.if_trained_again, pair.with_other_images
    return {
        "a": pair.a,
        "b": pair.b,
        "difference": pair.difference,
        "discordant_images": pair.num_discordant,
        "these_models": {"low": fixed.low, "high": fixed.high, "p_holm": fixed.p_holm},
        "if_trained_again": None
        if anew is None
        else {"low": anew.low, "high": anew.high, "df": anew.df, "p_holm": anew.p_holm},
        **(
            {}
            if others is None
            else {"with_other_images": {"low": others.low, "high": others.high, "p_holm": others.p_holm}}
        ),
    }


def build_comparison(found: RunResults, choice: Choice, *, is_final: bool, notes: Sequence[str] = ()) -> Comparison:
    """Bring trials, choice and scores together.

    Args:
        found: The trials and their scores.
        choice: On validation.
        is_final: Whether test figures must be there.
        notes: Sentences for the verdict to end with.

    Raises:
        DataError: A chosen trial has no scores on test though the run is said to be final.
    """
    unread = [trial.trial_id for trial in choice.chosen if (trial.trial_id, "test") not in found.scores]
    if is_final and unread:
        raise DataError(f"{len(unread)} chosen trials have no predictions on test: {', '.join(unread[:3])}.")
    arms = build_arms(found, choice)
    split = "test" if is_final else "val"
    evidence = _evidence(found, arms, split)
    missing = about_losses(arms, choice.failed, found.num_trained, len(found.unfinished), found.num_folds)
    if not is_final:
        missing = [*_interim(found, evidence), *missing]
    return Comparison(
        run=found.run_id,
        metric=found.metric,
        arms=arms,
        verdict=give_verdict(arms, evidence, [*missing, *notes], is_over=not found.unfinished),
        choice=choice,
        judgement=evidence.judgement,
        model=_handed_model(found, choice, is_final=is_final),
        classes=found.classes,
        images=found.splits[split],
        num_trials=found.num_trained,
        unfinished=found.unfinished,
        is_final=is_final,
        num_folds=found.num_folds,
    )


def _evidence(found: RunResults, arms: Sequence[ArmResult], split: str) -> Evidence:
    """Judge the arms on a split; while the run has not ended, over the seeds that all arms have finished."""
    images, metric = found.splits[split], found.metric
    begun = found.begun_seeds if split == "val" else frozenset()
    measured = []
    for arm in arms:
        chosen = [trial for trial in arm.chosen if trial.seed not in begun]
        if by_seed := found.by_seed(chosen, split):
            values = np.stack([scores.values[metric] for scores in by_seed.values()])
            measured.append(ArmTable(arm.arm, values, found.by_fold(chosen, split, metric)))
    judgement, needs, is_loss = None, {}, metric in LOWER_IS_BETTER
    if measured:
        rows, chance = images.rows(metric), images.chance(metric)
        judgement = judge(
            measured,
            rows,
            chance,
            lower_is_better=is_loss,
            is_share=metric in SHARES,
            test_per_train=found.test_per_train,
        )
        needs = {
            frozenset((a.arm, b.arm)): _more_than_there_is(what_it_takes(a, b, rows, len(judgement.pairs)), a, b)
            for a, b in combinations(measured, 2)
        }
    majority = found.classes[int(images.constant[0].argmax())]
    margin, num_groups = found.spec.comparison.margin, len(np.unique(images.groups))
    return Evidence(
        metric=metric,
        margin=margin,
        split=split,
        num_images=len(images.labels),
        majority=majority,
        judgement=judgement,
        needs=needs,
        num_groups=num_groups if num_groups < len(images.labels) else None,
        num_folds=found.num_folds,
    )


def _more_than_there_is(needs: Needs, a: ArmTable, b: ArmTable) -> Needs:
    """Leave out what has not been enough: when all arms are judged together, the others weigh in."""
    num_seeds, num_images = min(len(a.values), len(b.values)), a.values.shape[1]
    return Needs(
        seeds=needs.seeds if needs.seeds is not None and needs.seeds > num_seeds else None,
        images=needs.images if needs.images is not None and needs.images > num_images else None,
    )


def _interim(found: RunResults, evidence: Evidence) -> list[str]:
    if not found.unfinished:
        if evidence.judgement is None:
            return []
        return ["The test set has not been read, so this is from validation, which flatters what was chosen on it."]
    unfinished = f"Not the end: {len(found.unfinished)} of {found.num_trained} trials have not ended"
    if evidence.judgement is None:
        return [f"{unfinished}, and no seed is finished in all arms, so nothing is compared yet."]
    num_seeds = max(arm.num_seeds for arm in evidence.judgement.arms)
    over = "the one seed" if num_seeds == 1 else f"the {num_seeds} seeds"
    return [f"{unfinished}. This is from validation, over {over} that all arms have finished, and may change."]


def _handed_model(found: RunResults, choice: Choice, *, is_final: bool) -> HandedModel | None:
    trial = choice.model
    if trial is None:
        return None
    images = found.images_of(trial.key, "test" if is_final else "val")
    if not is_final:
        return HandedModel(trial, images, None)
    scores, rows = found.scores[trial.trial_id, "test"], images.rows(found.metric)
    low, high = file_interval(scores.values[found.metric], rows, is_share=found.metric in SHARES)
    return HandedModel(trial, images, Interval(float(getattr(scores.metrics, found.metric)), low, high))


def load_comparison(run: RunFolder, notes: Sequence[str] = ()) -> Comparison:
    """Return a run's result from `predictions.parquet`; of an unfinished run, what its trials show on validation.

    Args:
        run: The run.
        notes: Sentences for the verdict of a finished run to end with.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
    """
    choice = read_choice(run)
    if choice is not None and run.predictions.exists():
        found = read_final_results(run, choice.trial_ids)
        return build_comparison(found, choice, is_final=True, notes=[*reading_notes(run), *notes])
    found = read_results(run, ("val",))
    return build_comparison(found, choice or choose_from(found), is_final=False)


def write_leaderboard(run: RunFolder, notes: Sequence[str] = ()) -> Comparison:
    """Write `leaderboard.json`, `.csv` and `.md` of a run whose predictions are joined.

    Args:
        run: The run.
        notes: Sentences for the verdict to end with.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
        RunFolderError: No choice is saved, or the predictions are not joined yet.
    """
    comparison = load_comparison(run, notes)
    if not comparison.is_final:
        raise RunFolderError(f"{run.run_id} has no choice.json or no predictions.parquet yet, so no leaderboard.")
    write_json(run.leaderboard("json"), comparison.to_plain())
    write_atomic(run.leaderboard("csv"), tables.to_csv(comparison.arms))
    write_atomic(run.leaderboard("md"), tables.to_markdown(comparison))
    return comparison
