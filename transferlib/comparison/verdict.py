"""The verdict: what may be said of the strategies on test, by a rule fixed before the run, in words for a student.

Absence of evidence is called open, never a tie; what an arm costs is counted in operations, not in seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transferlib.comparison.arms import ArmResult
from transferlib.comparison.choose import FailedTrial
from transferlib.comparison.power import Needs
from transferlib.comparison.statistics import (
    ALPHA,
    ArmStatement,
    Inference,
    Judgement,
    PairStatement,
    sign_bound,
)
from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS, MIN_SEEDS
from transferlib.words import count, form, listed

State = Literal["separated", "good_enough", "open", "few_seeds", "at_chance"]

CHEAPER = 0.9
"""An arm counts as cheaper up to this share of the other's operations."""
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
    """Highest mean of the metric on test of the arms that have learnt and have three seeds (where none has: that have
    learnt); None without."""
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
    needs: Mapping[frozenset[str], Needs]
    """By pair of arms: what would separate them."""
    num_groups: int | None = None
    """Of images that belong together; None: no two do."""
    num_folds: int = 1
    """1: the images are cut once."""

    @property
    def is_loss(self) -> bool:
        """Return whether lower is better."""
        return self.metric in LOWER_IS_BETTER


def give_verdict(
    arms: Sequence[ArmResult], evidence: Evidence, notes: Sequence[str], *, is_over: bool = True
) -> Verdict:
    """Say what the predictions show.

    Args:
        arms: Ranked, as `build_arms` returns them.
        evidence: What is known of them.
        notes: Sentences to end with.
        is_over: Whether all trials have ended.
    """

    def verdict(state: State, *sentences: str, best: str | None = None, enough: str | None = None) -> Verdict:
        return Verdict(state, sentences, tuple(notes), evidence.margin, best, enough)

    judged = evidence.judgement
    if judged is None:
        what = "No seed has a result in all its folds" if any(arm.chosen for arm in arms) else "No arm has a result"
        return verdict("open", f"{what}." if is_over else f"{what} yet.")
    words = _Words(evidence)
    ordered = sorted(judged.arms, key=lambda arm: arm.mean if evidence.is_loss else -arm.mean)
    learnt = [arm for arm in ordered if arm.has_learnt]
    if not learnt:
        return verdict("at_chance", words.at_chance(ordered[0], is_only=len(ordered) == 1), words.if_at_chance())
    about_unlearnt = words.unlearnt([arm for arm in ordered if not arm.has_learnt])
    known = [arm for arm in ordered if arm.num_seeds >= MIN_SEEDS]
    if len(ordered) == 1:
        return verdict("open" if known else "few_seeds", words.alone(ordered[0]), best=ordered[0].arm)
    few = [arm for arm in ordered if arm.num_seeds < MIN_SEEDS]
    best = next((arm for arm in known if arm.has_learnt), None)
    if best is None or len(known) < 2:
        pairs = [_oriented(judged, learnt[0].arm, other.arm) for other in ordered if other is not learnt[0]]
        said = [words.these_models(pairs), words.few_seeds(few), *words.with_other_images(pairs)]
        return verdict("few_seeds", *said, *about_unlearnt, best=learnt[0].arm)
    pairs = [_oriented(judged, best.arm, other.arm) for other in known if other is not best]
    cost = {arm.arm: arm.train_flops for arm in arms if arm.chosen}
    worse = {pair.b for pair in pairs if pair.is_separated}
    enough = _cheapest_good_enough(known, cost, best.arm, worse, evidence.margin)
    open_pairs = [pair for pair in pairs if not pair.is_separated]
    return verdict(
        "good_enough" if open_pairs and enough else "open" if open_pairs else "separated",
        words.separation(best, pairs, is_best_of_all=best is ordered[0]),
        *words.with_other_images(pairs),
        *words.about_cost(enough, best, known, worse, cost),
        *[words.needs(pair) for pair in open_pairs[:1]],
        *about_unlearnt,
        *([words.left_out(few)] if few else []),
        best=best.arm,
        enough=None if enough is None else enough.arm,
    )


def _oriented(judged: Judgement, a: str, b: str) -> PairStatement:
    """Return what is known of a minus b."""
    for pair in judged.pairs:
        if (pair.a, pair.b) == (a, b):
            return pair
        if (pair.a, pair.b) == (b, a):
            return pair.swapped()
    raise KeyError((a, b))


def _cheapest_good_enough(
    arms: Sequence[ArmStatement], cost: Mapping[str, float], best: str, worse: Collection[str], margin: float
) -> ArmStatement | None:
    """Return the cheapest arm that is not worse than any other by more than the margin, if it saves something.

    The arm that is best itself counts where no cheaper one may do: each is worse, or has not learnt.
    """
    fitting = [arm for arm in arms if arm.has_learnt and arm.at_worst is not None and arm.at_worst < margin]
    cheaper = [arm for arm in fitting if arm.arm != best and _is_cheaper(arm, best, cost)]
    if cheaper:
        return min(cheaper, key=lambda arm: (cost[arm.arm], arm.arm))
    if _undecided(arms, cost, best, worse):
        return None
    return next((arm for arm in fitting if arm.arm == best), None)


def _undecided(
    arms: Sequence[ArmStatement], cost: Mapping[str, float], best: str, worse: Collection[str]
) -> list[ArmStatement]:
    """Return the cheaper arms that may be as good as the best."""
    return [arm for arm in arms if _is_cheaper(arm, best, cost) and arm.arm not in worse and arm.has_learnt]


def _is_cheaper(arm: ArmStatement, best: str, cost: Mapping[str, float]) -> bool:
    return cost[arm.arm] <= CHEAPER * cost[best]


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
        which = "it is" if is_only else f"the best of them, {best.arm}, is"
        return f"{who}: with {self._value(best)} {which} not known to be better than {self._guessing()}."

    def if_at_chance(self) -> str:
        return (
            "More epochs, other rates (--base-lr, --lr-candidates) or source weights that fit may change that; where "
            "test images are few, more of them, or --folds, may show what these could not."
        )

    def unlearnt(self, arms: Sequence[ArmStatement]) -> list[str]:
        if not arms:
            return []
        have = form(len(arms), "has", "have")
        return [
            f"{listed([arm.arm for arm in arms])} {have} not learnt: not known to be better than {self._guessing()}."
        ]

    def _guessing(self) -> str:
        chance = self._evidence.judgement.chance.value if self._evidence.judgement else 0.0
        what = (
            "answering with the classes' shares" if self._is_loss else f"always answering {self._evidence.majority!r}"
        )
        return f"{what} ({chance:.3f})"

    def separation(self, best: ArmStatement, pairs: Sequence[PairStatement], *, is_best_of_all: bool) -> str:
        apart = [pair for pair in pairs if pair.is_separated]
        together = [pair for pair in pairs if not pair.is_separated]
        on = f"On {SPLIT_OF[self._evidence.split]},"
        if not apart and len(pairs) == 1:
            verb = "leads" if self._is_ahead(pairs[0]) else "trails"
            leads = f"{best.arm} {verb} by {self._lead(pairs[0])}" if pairs[0].difference else "their means are equal"
            return f"{on} {best.arm} and {pairs[0].b} are not told apart: {leads}."
        if not apart:
            of = "" if is_best_of_all else f" of the arms that have learnt and have {MIN_SEEDS} seeds"
            return f"{on} {best.arm} comes out best{of}, but is not told apart from any other: {self._leads(together)}."
        told = f"{on} {best.arm} is better than {listed([f'{pair.b} by {self._lead(pair)}' for pair in apart])}"
        again = "if they are trained again on these training images"
        if not together:
            return f"{told}, {again}."
        return f"{told}, {again}; it is not told apart from the rest: {self._leads(together)}."

    def with_other_images(self, pairs: Sequence[PairStatement]) -> list[str]:
        """Say which differences would be there with other training images too, where folds show it."""
        found: dict[str, list[str]] = {}
        for pair in pairs:
            better = pair.swapped() if self._is_loss else pair
            if (reading := better.with_other_images) is None:
                continue
            lead = (reading.low + reading.high) / 2
            reading = reading if lead >= 0 else reading.negated()
            text = f"{pair.b} by {self._amount(abs(lead))} ({self._reading(reading)})"
            verb = "leads" if lead >= 0 else "trails"
            if reading.p_holm < ALPHA:
                verb = "is better than" if lead > 0 else "is worse than"
            found.setdefault(verb, []).append(text)
        if not found:
            return []
        told = "; it ".join(f"{verb} {listed(others)}" for verb, others in sorted(found.items()))
        end = ", which does not tell them apart" if found.keys() & {"leads", "trails"} else ""
        folds = self._evidence.num_folds
        return [f"With other training images of this kind (from {folds} folds), {pairs[0].a} {told}{end}."]

    def these_models(self, pairs: Sequence[PairStatement]) -> str:
        told = []
        for pair in pairs:
            better = pair.swapped() if self._is_loss else pair
            found = better.these_models
            lead = f"by {self._amount(better.difference)} ({self._reading(found)})"
            apart, how = "is better than", "leading"
            if not self._is_ahead(pair):
                turned = better.swapped()
                found = turned.these_models
                lead = f"by {self._amount(turned.difference)} ({self._reading(found)})"
                apart, how = "is worse than", "trailing"
            verb = apart if found.p_holm < ALPHA else "is not told apart from"
            told.append(f"{verb} {pair.b}, {how} {lead}")
        on = SPLIT_OF[self._evidence.split]
        return f"On {on}, of the models as trained, {pairs[0].a} {listed(told)}."

    def few_seeds(self, few: Sequence[ArmStatement]) -> str:
        most = max(arm.num_seeds for arm in few)
        return (
            f"{'One seed says' if most == 1 else 'Two seeds say'} nothing of training again, which may turn this "
            f"around: use {MIN_SEEDS} or more seeds (--seeds) to compare strategies."
        )

    def left_out(self, few: Sequence[ArmStatement]) -> str:
        which = listed([f"{arm.arm} ({count(arm.num_seeds, 'seed')})" for arm in few])
        return f"Nothing is said of training {which} again: that takes {MIN_SEEDS} seeds with a result."

    def about_cost(
        self,
        enough: ArmStatement | None,
        best: ArmStatement,
        known: Sequence[ArmStatement],
        worse: Collection[str],
        cost: Mapping[str, float],
    ) -> list[str]:
        """Say which arm to train next time, or what a cheaper one could cost."""
        margin = self._amount(self._evidence.margin)
        is_best_of_all = len(worse) == len(known) - 1
        cheaper = [arm for arm in known if _is_cheaper(arm, best.arm, cost)]
        if enough is not None and enough.arm != best.arm:
            share = cost[enough.arm] / cost[best.arm]
            limit = self._amount(max(enough.at_worst or 0.0, 0.0))
            return [
                f"Good enough to train next time: {enough.arm}, which costs at most {limit} against the best of the "
                f"others (margin {margin}), at {share:.2g} of {best.arm}'s operations."
            ]
        undecided = _undecided(known, cost, best.arm, worse)
        if undecided:
            costs = listed([f"{arm.arm} {self._amount(max(arm.at_worst or 0.0, 0.0))}" for arm in undecided])
            return [f"Whether a cheaper arm would do is open (margin {margin}): at worst, next time, {_could(costs)}."]
        is_cheapest = all(cost[best.arm] <= other for other in cost.values())
        tail = "it is also the cheapest" if is_cheapest else "no arm that is compared with it saves a tenth"
        if cheaper:
            is_unlearnt = any(arm.arm not in worse for arm in cheaper)
            tail = "every cheaper arm is worse" + (" or not known to have learnt" if is_unlearnt else "")
        if is_best_of_all:
            return [f"To train next time: {best.arm}; {tail}."]
        limit = self._amount(max(best.at_worst or 0.0, 0.0))
        if enough is not None:
            return [
                f"Good enough to train next time: {best.arm}, which costs at most {limit} against the best of the "
                f"others (margin {margin}); {tail}."
            ]
        return [f"{best.arm} could cost {limit} against another, at worst (margin {margin}); {tail}."]

    def needs(self, pair: PairStatement) -> str:
        evidence = self._evidence
        on = f"{evidence.num_images:,} {SPLIT_OF[evidence.split]} images"
        if evidence.num_groups is not None:
            on = f"{evidence.num_groups:,} groups of {SPLIT_OF[evidence.split]} images"
        if sign_bound(pair.num_discordant) >= ALPHA:
            differ = str(pair.num_discordant or "none")
            return f"{pair.a} and {pair.b} differ on {differ} of {on}: no outcome could have told them apart."
        found = evidence.needs[frozenset((pair.a, pair.b))]
        if found.seeds is None and found.images is None:
            return (
                f"{pair.a} and {pair.b} differ too little for their spread: neither 30 seeds nor 20 times the images "
                "would tell them apart."
            )
        where = "in all" if evidence.num_folds > 1 else "in test"
        images = "no number of images" if found.images is None else f"about {_rounded(found.images):,} images {where}"
        if found.images is not None and evidence.num_groups is not None:
            num_groups = round(found.images * evidence.num_groups / evidence.num_images)
            images += f" (in about {_rounded(num_groups):,} groups)"
        seeds = "no number of seeds" if found.seeds is None else f"about {found.seeds} seeds"
        return f"To tell {pair.a} and {pair.b} apart, if the difference is what it looks like: {seeds}, or {images}."

    def _value(self, arm: ArmStatement) -> str:
        return f"{self._name} {arm.mean:.3f} ({arm.low:.3f} to {arm.high:.3f})"

    def _leads(self, pairs: Sequence[PairStatement]) -> str:
        ahead = [f"{pair.b} by {self._lead(pair)}" for pair in pairs if self._is_ahead(pair)]
        behind = [f"{pair.b} by {self._lead(pair)}" for pair in pairs if not self._is_ahead(pair)]
        told = [f"it {verb} {listed(others)}" for verb, others in (("leads", ahead), ("trails", behind)) if others]
        return " and ".join(told)

    def _is_ahead(self, pair: PairStatement) -> bool:
        """Return whether a is at least as good as b: a worse one may have a higher mean that shows no learning."""
        return (pair.difference <= 0) if self._is_loss else (pair.difference >= 0)

    def _lead(self, pair: PairStatement) -> str:
        """Return by how much the better of the two is better, with limits."""
        better = pair if self._is_ahead(pair) != self._is_loss else pair.swapped()
        return f"{self._amount(better.difference)} ({self._reading(better.if_trained_again or better.these_models)})"

    def _reading(self, found: Inference) -> str:
        """Return the limits, and why they tell nothing apart where those of the pair alone would."""
        limits = self._limits(found.low, found.high)
        if found.p_holm >= ALPHA and found.low * found.high > 0:
            limits += f" for this pair alone, but p = {found.p_holm:.2g} over all pairs"
        return limits

    def _amount(self, value: float) -> str:
        if self._is_loss:
            return f"{value:.3f} nat"
        return "under 0.1 points" if 0 < value < 0.0005 else f"{100 * value:.1f} points"

    def _limits(self, low: float, high: float) -> str:
        if self._is_loss:
            return f"{low:.3f} to {high:.3f}"
        return f"{100 * low:.1f} to {100 * high:.1f}"


def about_losses(
    arms: Sequence[ArmResult],
    failed: Sequence[FailedTrial],
    num_trials: int,
    num_unfinished: int,
    num_folds: int = 1,
) -> list[str]:
    """Return a sentence for each thing that is missing from the figures.

    Args:
        arms: All that were planned.
        failed: Trials without a result.
        num_trials: All that were planned.
        num_unfinished: Trials that have not ended.
        num_folds: Trials a seed and rate; 1: the images are cut once.
    """
    sentences = []
    if failed:
        verb = form(len(failed), "is", "are")
        sentences.append(f"{len(failed)} of {num_trials} trials failed and {verb} in no figure; the report lists why.")
    seeds = {trial.seed for arm in arms for trial in arm.chosen} | {trial.seed for trial in failed}
    for arm in arms:
        if not arm.chosen and arm.num_failed and not num_unfinished:
            sentences.append(f"{arm.arm} has no result: all its trials failed.")
        elif arm.chosen and len(arm.chosen) < len(seeds) * num_folds and not num_unfinished:
            folds_of = Counter(trial.seed for trial in arm.chosen)
            num_whole = sum(number == num_folds for number in folds_of.values())
            sentences.append(f"{arm.arm} is over {num_whole} of {len(seeds)} seeds only.")
    return sentences


def _could(costs: str) -> str:
    name, _, rest = costs.partition(" ")
    return f"{name} could cost {rest}"


def _rounded(number: int) -> int:
    """Return a number to two digits: more would claim more than is known."""
    unit = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // unit) * unit
