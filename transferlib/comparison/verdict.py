"""The verdict: what may be said of the strategies on test, by a rule fixed before the run, in words for a student.

Absence of evidence is called open, never a tie; what an arm costs is counted in operations, not in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transferlib.comparison.arms import ArmResult
from transferlib.comparison.choose import METRIC_WORDS, FailedTrial
from transferlib.comparison.statistics import ALPHA, MIN_SEEDS, ArmStatement, Judgement, Needs, PairStatement
from transferlib.names import LOWER_IS_BETTER

State = Literal["separated", "good_enough", "open", "few_seeds", "at_chance"]

CHEAPER = 0.9
"""An arm counts as cheaper up to this share of the other's operations."""
FEW_DISCORDANT = 5
"""Below so many images that two arms treat unlike, no outcome could have told them apart: 2 * 0.5^5 > 0.05."""
FEW_TEST_IMAGES = 150
SPLIT_OF = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Verdict:
    """Hold the sentences, and what they are about."""

    state: State
    sentences: tuple[str, ...]
    """Of the strategies: what was told apart, what a cheaper one would cost, what would tell more."""
    notes: tuple[str, ...]
    """What limits it: trials that failed or have not ended, a test set that was read before."""
    margin: float
    best: str | None
    """Highest mean of the metric on test; None without a judgement."""
    cheapest_good_enough: str | None
    """What to train next time: the cheapest arm that is not worse than any other by more than the margin."""

    @property
    def text(self) -> str:
        """Return sentences and notes as one."""
        return " ".join((*self.sentences, *self.notes))


@dataclass(frozen=True)
class Evidence:
    """Hold what a verdict rests on."""

    metric: str
    margin: float
    split: str
    """test; val while the run has not ended."""
    num_images: int
    majority: str
    """What the predictor that looks at no image says."""
    judgement: Judgement | None
    """Of the arms that have a result; None without any."""
    needs: Mapping[str, Needs]
    """By arm: what would separate the best from it."""

    @property
    def is_loss(self) -> bool:
        """Return whether lower is better."""
        return self.metric in LOWER_IS_BETTER


def give_verdict(arms: Sequence[ArmResult], evidence: Evidence, notes: Sequence[str]) -> Verdict:
    """Say what the predictions show.

    Args:
        arms: Ranked, as `build_arms` returns them.
        evidence: What is known of them.
        notes: Sentences to end with.
    """
    judged = evidence.judgement
    if judged is None:
        nothing = ("No arm has a result yet.",) if any(arm.chosen for arm in arms) else ("No arm has a result.",)
        return Verdict("open", nothing, tuple(notes), evidence.margin, None, None)
    words = _Words(evidence)
    ordered = sorted(judged.arms, key=lambda arm: arm.mean if evidence.is_loss else -arm.mean)
    best, *others = ordered
    sentences: tuple[str, ...]
    if not best.has_learnt:
        sentences = (words.at_chance(best, is_only=not others), words.if_at_chance())
        return Verdict("at_chance", sentences, tuple(notes), evidence.margin, None, None)
    unlearnt = [arm for arm in others if not arm.has_learnt]
    about_unlearnt = [words.unlearnt(unlearnt)] if unlearnt else []
    if not others:
        state: State = "open" if best.num_seeds >= MIN_SEEDS else "few_seeds"
        return Verdict(state, (words.alone(best),), tuple(notes), evidence.margin, best.arm, None)
    pairs = [_oriented(judged, best.arm, other.arm) for other in others]
    if min(arm.num_seeds for arm in ordered) < MIN_SEEDS:
        sentences = (words.these_models(pairs), words.few_seeds(min(arm.num_seeds for arm in ordered)))
        return Verdict("few_seeds", (*sentences, *about_unlearnt), tuple(notes), evidence.margin, best.arm, None)
    cost = {arm.arm: arm.train_flops for arm in arms}
    enough = _cheapest_good_enough(judged, cost, best.arm, evidence.margin)
    is_separated = all(pair.is_separated for pair in pairs)
    sentences = (
        words.separation(best, pairs),
        words.good_enough(enough, best, cost) if enough else words.open_cost(ordered, cost),
        *about_unlearnt,
        *[words.needs(pair) for pair in [pair for pair in pairs if not pair.is_separated][:1]],
    )
    state = "separated" if is_separated else "good_enough" if enough else "open"
    return Verdict(state, sentences, tuple(notes), evidence.margin, best.arm, None if enough is None else enough.arm)


def _oriented(judged: Judgement, a: str, b: str) -> PairStatement:
    """Return what is known of a minus b."""
    for pair in judged.pairs:
        if (pair.a, pair.b) == (a, b):
            return pair
        if (pair.a, pair.b) == (b, a):
            return pair.swapped()
    raise KeyError((a, b))


def _cheapest_good_enough(judged: Judgement, cost: dict[str, float], best: str, margin: float) -> ArmStatement | None:
    """Return the cheapest arm that is not worse than any other by more than the margin, if it saves something.

    The arm that is best itself counts where no cheaper one does.
    """
    fitting = [arm for arm in judged.arms if arm.has_learnt and arm.at_worst is not None and arm.at_worst < margin]
    cheaper = [arm for arm in fitting if arm.arm != best and cost[arm.arm] <= CHEAPER * cost[best]]
    if cheaper:
        return min(cheaper, key=lambda arm: (cost[arm.arm], arm.arm))
    return next((arm for arm in fitting if arm.arm == best), None)


class _Words:
    """Write the sentences."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._is_loss = evidence.is_loss
        self._name = METRIC_WORDS[evidence.metric]

    def alone(self, arm: ArmStatement) -> str:
        return f"{arm.arm} reaches {self._value(arm)}; there is no other arm to compare it with."

    def at_chance(self, best: ArmStatement, *, is_only: bool) -> str:
        who = f"{best.arm} has not learnt" if is_only else "No arm has learnt"
        chance = self._evidence.judgement.chance.value if self._evidence.judgement else 0.0
        which = "it is" if is_only else f"the best of them, {best.arm}, is"
        return (
            f"{who}: with {self._value(best)} {which} not told apart from always answering "
            f"{self._evidence.majority!r} ({chance:.3f})."
        )

    def if_at_chance(self) -> str:
        return "More epochs, other rates (--base-lr, --lr-candidates) or source weights that fit may change that."

    def unlearnt(self, arms: Sequence[ArmStatement]) -> str:
        verb = "has" if len(arms) == 1 else "have"
        return (
            f"{_listed([arm.arm for arm in arms])} {verb} not learnt: not told apart from always answering "
            f"{self._evidence.majority!r}."
        )

    def separation(self, best: ArmStatement, pairs: Sequence[PairStatement]) -> str:
        apart = [pair for pair in pairs if pair.is_separated]
        together = [pair for pair in pairs if not pair.is_separated]
        if not apart and len(pairs) == 1:
            return f"{best.arm} and {pairs[0].b} are not told apart: {best.arm} leads by {self._lead(pairs[0])}."
        if not apart:
            return f"{best.arm} comes out best, but is not told apart from any other: {self._leads(together)}."
        told = f"{best.arm} is better than {_listed([f'{pair.b} by {self._lead(pair)}' for pair in apart])}"
        again = "if they are trained again on these training images"
        if not together:
            return f"{told}, {again}."
        return f"{told}, {again}; it is not told apart from the rest: {self._leads(together)}."

    def these_models(self, pairs: Sequence[PairStatement]) -> str:
        told = []
        for pair in pairs:
            better = pair.swapped() if self._is_loss else pair
            found = better.these_models
            lead = f"by {self._amount(better.difference)} ({self._limits(found.low, found.high)})"
            is_apart = found.p_holm < ALPHA
            told.append(f"{'is better than' if is_apart else 'is not told apart from'} {pair.b}, leading {lead}")
        return f"Of the models as trained, {pairs[0].a} {_listed(told)}."

    def few_seeds(self, num_seeds: int) -> str:
        return (
            f"{'One seed says' if num_seeds == 1 else 'Two seeds say'} nothing of training again, which may turn this "
            f"around: use {MIN_SEEDS} or more seeds (--seeds) to compare strategies."
        )

    def good_enough(self, enough: ArmStatement, best: ArmStatement, cost: dict[str, float]) -> str:
        limit = self._amount(enough.at_worst or 0.0)
        margin = self._amount(self._evidence.margin)
        if (enough.at_worst or 0.0) <= 0.0:
            worst = "is better than every other"
        else:
            worst = f"could cost at most {limit} against the best of the others (margin {margin})"
        if enough.arm == best.arm:
            return f"To train next time: {enough.arm}, which {worst}; no cheaper arm is known to be good enough."
        share = cost[enough.arm] / cost[best.arm]
        return (
            f"Good enough to train next time: {enough.arm}, which {worst}, at {share:.2g} of {best.arm}'s operations."
        )

    def open_cost(self, ordered: Sequence[ArmStatement], cost: dict[str, float]) -> str:
        margin = self._amount(self._evidence.margin)
        dearest = max(cost[arm.arm] for arm in ordered)
        cheaper = [arm for arm in ordered if cost[arm.arm] <= CHEAPER * dearest and arm.has_learnt]
        if not cheaper:
            return (
                f"None of the arms is clearly cheaper to train, and none is known to be good enough (margin {margin})."
            )
        costs = _listed([f"{arm.arm} {self._amount(arm.at_worst or 0.0)}" for arm in cheaper])
        return f"Whether a cheaper arm would do is open (margin {margin}): at worst, next time, {_could(costs)}."

    def needs(self, pair: PairStatement) -> str:
        evidence = self._evidence
        if pair.num_discordant < FEW_DISCORDANT:
            return (
                f"{pair.a} and {pair.b} differ on {_count(pair.num_discordant, 'image')} only: no outcome on these "
                f"{evidence.num_images} {SPLIT_OF[evidence.split]} images could have told them apart."
            )
        found = evidence.needs[pair.b]
        if found.seeds is None and found.images is None:
            return f"{pair.a} and {pair.b} are so close that neither 30 seeds nor 20 times the images would do."
        ways = []
        if found.seeds is not None:
            ways.append(f"about {found.seeds} seeds")
        images = "no number of images with these seeds"
        if found.images is not None:
            images = f"about {_rounded(found.images):,} {SPLIT_OF[evidence.split]} images"
        elif found.seeds is not None:
            images = "no number of images alone"
        ways.append(images)
        return f"To tell {pair.a} and {pair.b} apart, if the difference is what it looks like: {' or '.join(ways)}."

    def _value(self, arm: ArmStatement) -> str:
        return f"{self._name} {arm.mean:.3f} ({arm.low:.3f} to {arm.high:.3f})"

    def _leads(self, pairs: Sequence[PairStatement]) -> str:
        return f"it leads {_listed([f'{pair.b} by {self._lead(pair)}' for pair in pairs])}"

    def _lead(self, pair: PairStatement) -> str:
        """Return by how much a is better than b, with limits."""
        better = pair.swapped() if self._is_loss else pair
        reading = better.if_trained_again or better.these_models
        limits = self._limits(reading.low, reading.high)
        if not pair.is_separated and reading.low * reading.high > 0:
            limits += f" for this pair alone, but p = {reading.p_holm:.2g} over all pairs"
        return f"{self._amount(better.difference)} ({limits})"

    def _amount(self, value: float) -> str:
        return f"{value:.3f} nat" if self._is_loss else f"{100 * value:.1f} points"

    def _limits(self, low: float, high: float) -> str:
        if self._is_loss:
            return f"{low:.3f} to {high:.3f}"
        return f"{100 * low:.1f} to {100 * high:.1f}"


def about_losses(
    arms: Sequence[ArmResult], failed: Sequence[FailedTrial], num_trials: int, num_unfinished: int
) -> list[str]:
    """Return a sentence for each thing that is missing from the figures.

    Args:
        arms: All that were planned.
        failed: Trials without a result.
        num_trials: All that were planned.
        num_unfinished: Trials that have not ended.
    """
    sentences = []
    if failed:
        verb = "is" if len(failed) == 1 else "are"
        sentences.append(f"{len(failed)} of {num_trials} trials failed and {verb} in no figure; the report lists why.")
    seeds = {trial.seed for arm in arms for trial in arm.chosen} | {trial.seed for trial in failed}
    for arm in arms:
        if not arm.chosen and arm.num_failed and not num_unfinished:
            sentences.append(f"{arm.arm} has no result: all its trials failed.")
        elif arm.chosen and len(arm.chosen) < len(seeds) and not num_unfinished:
            sentences.append(f"{arm.arm} is over {len(arm.chosen)} of {len(seeds)} seeds only.")
    return sentences


def _could(costs: str) -> str:
    name, _, rest = costs.partition(" ")
    return f"{name} could cost {rest}"


def _rounded(number: int) -> int:
    """Return a number to two digits: more would claim more than is known."""
    unit = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // unit) * unit


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
