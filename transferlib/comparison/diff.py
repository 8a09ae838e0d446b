"""Two runs against each other, on the test images that both have: image by image, by the rule of `statistics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from transferlib.comparison.arms import SHARES
from transferlib.comparison.choose import ChosenTrial, read_choice
from transferlib.comparison.results import RunResults, SplitImages, read_final_results
from transferlib.comparison.statistics import ArmStatement, ArmTable, PairStatement, holm, judge
from transferlib.comparison.variance import Rows
from transferlib.data.components import find_components
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError, RunFolderError, unknown_name
from transferlib.evaluation.completeness import some_of
from transferlib.evaluation.image_values import image_values, strata_of, values_of_scores
from transferlib.evaluation.metrics import Scores
from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS
from transferlib.runs import RunFolder

if TYPE_CHECKING:
    import numpy.typing as npt

    from transferlib.comparison.variance import Floats

MIN_SHARED = 2
"""Of one image there is no variance."""

MatchedBy = Literal["content", "image_id"]


@dataclass(frozen=True)
class Shared:
    """Say which test images two runs have in common."""

    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    """[N] each: places among the test images of the one and of the other run, in the order of the first."""
    num_only: tuple[int, int]
    """Test images that only the one, and only the other run has."""
    matched_by: MatchedBy
    """Bytes of the files, or ids where no two files are the same."""


@dataclass(frozen=True)
class Difference:
    """Hold one thing of the first run against one of the second: their models, or an arm with all its seeds."""

    what: str
    """Of the first run: "resnet18-full", or "resnet18-full, seed 3" for a model."""
    than: str
    """Of the second run."""
    a: ArmStatement
    """On the shared images."""
    b: ArmStatement
    pair: PairStatement
    """Of a minus b; p_holm is over the arms that are compared, and of models it is p."""
    num_images: int
    """Shared test images that it is on: of models from folds, those that both were tested on."""

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON, as `pairs` of `leaderboard.json` has it."""
        fixed, anew = self.pair.these_models, self.pair.if_trained_again
        return {
            "a": _plain_side(self.what, self.a),
            "b": _plain_side(self.than, self.b),
            "images": self.num_images,
            "difference": self.pair.difference,
            "discordant_images": self.pair.num_discordant,
            "these_models": {"low": fixed.low, "high": fixed.high, "p_holm": fixed.p_holm},
            "if_trained_again": None
            if anew is None
            else {"low": anew.low, "high": anew.high, "df": anew.df, "p_holm": anew.p_holm},
        }


@dataclass(frozen=True)
class RunDifference:
    """Say how two runs differ on the test images they share."""

    runs: tuple[str, str]
    metric: str
    num_shared: int
    num_only: tuple[int, int]
    matched_by: MatchedBy
    models: Difference | None
    """The models handed over; None where arms were named."""
    arms: tuple[Difference, ...]
    """Arms that both have, or the two that were named."""
    notes: tuple[str, ...]

    @property
    def first(self) -> Difference:
        """Return what was asked for: the models handed over, or the arms named."""
        return self.models or self.arms[0]

    @property
    def shortfall(self) -> float:
        """Return by how much the second run's is worse than the first's, in the metric's units; below 0: better."""
        difference = self.first.pair.difference
        return -difference if self.metric in LOWER_IS_BETTER else difference

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON; differences are the first run's minus the second's."""
        return {
            "a": self.runs[0],
            "b": self.runs[1],
            "metric": self.metric,
            "images": {
                "shared": self.num_shared,
                "only_a": self.num_only[0],
                "only_b": self.num_only[1],
                "matched_by": self.matched_by,
            },
            "models": None if self.models is None else self.models.to_plain(),
            "arms": [arm.to_plain() for arm in self.arms],
            "notes": list(self.notes),
        }


def _plain_side(name: str, found: ArmStatement) -> dict[str, Any]:
    return {"name": name, "seeds": found.num_seeds, "mean": found.mean, "low": found.low, "high": found.high}


@dataclass(frozen=True)
class _Side:
    """Hold one run and what its chosen trials answered on test."""

    run: RunFolder
    model: ChosenTrial
    found: RunResults
    arms: Mapping[str, Mapping[int, Scores]]
    """By arm and seed, on the test images; arms without a whole seed are left out."""
    sha256: tuple[str, ...]
    """Of its test images."""

    @property
    def metric(self) -> str:
        return self.found.metric

    @property
    def classes(self) -> tuple[str, ...]:
        return self.found.classes

    @property
    def test(self) -> SplitImages:
        return self.found.splits["test"]

    @property
    def of_model(self) -> npt.NDArray[np.int64]:
        """Return the places of the images that the model handed over was tested on: of its fold, or all."""
        key = self.model.key
        return self.found.places[key.seed, key.fold]["test"] if key.fold else np.arange(len(self.test.labels))


def compare_runs(a: RunFolder, b: RunFolder, *, arm: str | None = None, arm_b: str | None = None) -> RunDifference:
    """Compare two finished runs on the test images that both have, pairing their answers image by image.

    Images are the same where their bytes are, whatever they are called; where no two are, ids are taken and a note says
    so. The models handed over are one statement, of these models alone; all arms that both runs have are a family of
    their own, over which p values are Holm's. Images that belong together in either run count as one.

    Args:
        a: The run that is compared with.
        b: The run that is compared.
        arm: Compare this arm of a, and nothing else.
        arm_b: With this one of b; None: the same.

    Raises:
        DataError: Classes or labels do not agree, or fewer than two test images are shared.
        RunFolderError: A run has not ended, or has no such arm.
    """
    one, other = _open(a), _open(b)
    _check_classes(one, other)
    shared = _match(one, other)
    pairs = _arm_pairs(one, other, arm, arm_b)
    metric = one.metric
    is_of_models = arm is None and arm_b is None
    models = _hold_models(one, other, shared) if is_of_models else None
    if is_of_models and models is None:
        raise DataError(
            f"The models that {a.run_id} and {b.run_id} hand over were tested on images of different folds, so they "
            f"cannot be compared. Compare arms: --arm {next(iter(one.arms))}."
        )
    arms = [_hold(one, other, shared, (x, y), (one.arms[x], other.arms[y])) for x, y in pairs]
    return RunDifference(
        runs=(a.run_id, b.run_id),
        metric=metric,
        num_shared=len(shared.rows[0]),
        num_only=shared.num_only,
        matched_by=shared.matched_by,
        models=models,
        arms=_over_all(arms),
        notes=tuple(_notes(one, other, shared, models, pairs)),
    )


def _open(run: RunFolder) -> _Side:
    choice = read_choice(run)
    if choice is None or not run.predictions.exists():
        raise RunFolderError(
            f"Run {run.run_id} has not read its test set, so there is nothing to compare. Go on with it first: "
            f"submit {run.verb} --resume {run.run_id}"
        )
    if choice.model is None:
        raise RunFolderError(f"Run {run.run_id} has no model: all its trials failed.")
    found = read_final_results(run, choice.trial_ids)
    lost = [trial_id for trial_id in choice.trial_ids if (trial_id, "test") not in found.scores]
    if lost:
        raise DataError(f"{run.predictions} lacks test predictions of {len(lost)} chosen trials: {some_of(lost)}.")
    names = dict.fromkeys(trial.arm for trial in choice.chosen)
    by_arm = {name: found.by_seed([trial for trial in choice.chosen if trial.arm == name], "test") for name in names}
    arms = {name: {seed: of.scores for seed, of in by_seed.items()} for name, by_seed in by_arm.items() if by_seed}
    images = Manifest.load(run.manifest).images()
    sha256_of = dict(zip(images.image_ids, images.sha256, strict=True))
    sha256 = tuple(sha256_of[image_id] for image_id in found.splits["test"].image_ids)
    return _Side(run, choice.model, found, arms, sha256)


def _check_classes(one: _Side, other: _Side) -> None:
    a, b = set(one.classes), set(other.classes)
    if a != b:
        only = [
            f"only {side.run.run_id} has {', '.join(map(repr, sorted(names)))}"
            for side, names in ((one, a - b), (other, b - a))
            if names
        ]
        raise DataError(f"The runs have other classes ({'; '.join(only)}): what they answer cannot be compared.")


def _match(one: _Side, other: _Side) -> Shared:
    """Pair the test images of two runs; the same content several times is paired in order.

    Raises:
        DataError: Fewer than two are shared, or their labels do not agree.
    """
    sides = (one, other)
    by_content = _pairs(one.sha256, other.sha256)
    matched_by: MatchedBy = "content"
    pairs = by_content
    if len(by_content) < MIN_SHARED:
        by_id = _pairs(one.test.image_ids, other.test.image_ids)
        if len(by_id) >= MIN_SHARED:
            pairs, matched_by = by_id, "image_id"
    if len(pairs) < MIN_SHARED:
        raise DataError(
            f"{one.run.run_id} and {other.run.run_id} share {len(pairs)} of their {len(one.sha256)} and "
            f"{len(other.sha256)} test images; a comparison needs {MIN_SHARED} or more. Compare runs on the same "
            "images and the same cut (--split-seed)."
        )
    rows = np.array(pairs, dtype=np.int64).T
    labels = [[side.classes[label] for label in side.test.labels[of]] for side, of in zip(sides, rows, strict=True)]
    names = [one.test.image_ids[row] for row in rows[0]]
    unlike = [f"{name} ({x} and {y})" for name, x, y in zip(names, *labels, strict=True) if x != y]
    if unlike:
        raise DataError(
            f"{len(unlike)} of {len(pairs)} shared test images have another label in {other.run.run_id} than in "
            f"{one.run.run_id}: {some_of(unlike)}. One of the runs learnt from other labels; they are not comparable."
        )
    num_only = (len(one.sha256) - len(pairs), len(other.sha256) - len(pairs))
    return Shared((rows[0], rows[1]), num_only, matched_by)


def _pairs(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, token in reversed(list(enumerate(other))):
        places.setdefault(token, []).append(place)
    return [(place, places[token].pop()) for place, token in enumerate(one) if places.get(token)]


def _arm_pairs(one: _Side, other: _Side, arm: str | None, arm_b: str | None) -> list[tuple[str, str]]:
    """Return which arms to compare.

    Raises:
        RunFolderError: A named one is not there.
    """
    if arm is None and arm_b is None:
        return [(name, name) for name in one.arms if name in other.arms]
    names = (arm or arm_b or "", arm_b or arm or "")
    for side, name in zip((one, other), names, strict=True):
        if name not in side.arms:
            raise RunFolderError(f"Run {side.run.run_id}: {unknown_name('arm', name, tuple(side.arms))}")
    return [names]


def _rows(one: _Side, other: _Side, shared: Shared, metric: str) -> Rows:
    """Return which shared images belong together: those that do in either run."""
    groups = [side.test.groups[of] for side, of in zip((one, other), shared.rows, strict=True)]
    texts = [[str(group) for group in of.tolist()] for of in groups]
    joined = find_components(texts[0], texts[1]).of_row
    labels = one.test.labels[shared.rows[0]]
    return Rows.of(len(labels), joined, strata_of(metric, labels))


def _hold(
    one: _Side,
    other: _Side,
    shared: Shared,
    names: tuple[str, str],
    answers: tuple[Mapping[int, Scores], Mapping[int, Scores]],
) -> Difference:
    """Judge one thing of each run on the shared images, by what each answered on its run's test images, by seed."""
    metric, sides = one.metric, (one, other)
    tables = [
        ArmTable(name, _values(side, of.values(), places, metric))
        for name, side, of, places in zip(names, sides, answers, shared.rows, strict=True)
    ]
    chance = image_values(metric, one.test.labels[shared.rows[0]], one.test.constant[shared.rows[0]])
    found = judge(
        tables,
        _rows(one, other, shared, metric),
        chance,
        lower_is_better=metric in LOWER_IS_BETTER,
        is_share=metric in SHARES,
    )
    return Difference(*names, found.arms[0], found.arms[1], found.pairs[0], len(shared.rows[0]))


def _hold_models(one: _Side, other: _Side, shared: Shared) -> Difference | None:
    """Judge the models handed over, on shared images that both were tested on; None with fewer than two of those."""
    sides = (one, other)
    is_of_both = np.logical_and(*(np.isin(rows, side.of_model) for side, rows in zip(sides, shared.rows, strict=True)))
    if is_of_both.sum() < MIN_SHARED:
        return None
    rows = (shared.rows[0][is_of_both], shared.rows[1][is_of_both])
    # Their scores are on the images of their folds: these are spread over the places of all.
    answers = []
    for side in sides:
        scores = side.found.scores[side.model.trial_id, "test"].scores
        place_of = np.zeros(len(side.test.labels), np.int64)
        place_of[side.of_model] = np.arange(len(side.of_model))
        answers.append({side.model.seed: _taken(scores, place_of)})
    names = (_model_name(one.model), _model_name(other.model))
    return _hold(one, other, replace(shared, rows=rows), names, (answers[0], answers[1]))


def _values(side: _Side, answers: Iterable[Scores], places: npt.NDArray[np.int64], metric: str) -> Floats:
    """Return the values of the metric on some of a run's test images, [S, n]."""
    labels, num_classes = side.test.labels[places], len(side.classes)
    return np.stack([values_of_scores(metric, labels, _taken(scores, places), num_classes) for scores in answers])


def _taken(scores: Scores, places: npt.NDArray[np.int64]) -> Scores:
    return Scores(
        predicted=scores.predicted[places],
        confidence=scores.confidence[places],
        label_loss=scores.label_loss[places],
        label_rank=scores.label_rank[places],
    )


def _over_all(arms: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return the arms with p values that hold over all of them."""
    if not arms:
        return ()
    fixed = holm(np.array([arm.pair.these_models.p for arm in arms]))
    anew = holm(np.array([1.0 if (found := arm.pair.if_trained_again) is None else found.p for arm in arms]))
    adjusted = []
    for arm, p_fixed, p_anew in zip(arms, fixed.tolist(), anew.tolist(), strict=True):
        again = arm.pair.if_trained_again
        pair = replace(
            arm.pair,
            these_models=replace(arm.pair.these_models, p_holm=p_fixed),
            if_trained_again=None if again is None else replace(again, p_holm=p_anew),
        )
        adjusted.append(replace(arm, pair=pair))
    return tuple(adjusted)


def _model_name(trial: ChosenTrial) -> str:
    return f"{trial.arm}, {trial.key.training}"


def _notes(
    one: _Side, other: _Side, shared: Shared, models: Difference | None, pairs: Sequence[tuple[str, str]]
) -> list[str]:
    notes = []
    if one.run.path.resolve() == other.run.path.resolve() and any(a == b for a, b in pairs):
        notes.append(
            "Both are the same run, so nothing can differ. The limits are what two trainings that answer alike would "
            "have."
        )
    if shared.matched_by == "image_id":
        notes.append(
            "The files of these test sets have other contents, so images were matched by their ids: see that they "
            "show the same."
        )
    if one.metric != other.metric:
        notes.append(
            f"{other.run.run_id} was chosen by {METRIC_WORDS[other.metric]}; both are compared by "
            f"{METRIC_WORDS[one.metric]}, as {one.run.run_id} was chosen."
        )
    if models is not None and not pairs:
        notes.append("The runs have no arm in common; --arm and --arm-b compare two that differ.")
    return notes
