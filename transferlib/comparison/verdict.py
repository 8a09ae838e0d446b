"""The verdict: which arm is best on validation, what it can be told apart from, and what is cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transferlib.comparison.arms import ArmResult
from transferlib.comparison.choose import FailedTrial

CHEAPER = 0.9
"""An arm counts as cheaper below this share of the other's training seconds: seconds differ by a few percent anyway."""


@dataclass(frozen=True)
class Verdict:
    """Hold the sentences, and what they are about."""

    text: str
    recommended: str | None
    """The arm to take; None where no arm has a result."""
    best: str | None
    """First on validation."""
    not_separated: tuple[str, ...]
    """Arms that the seeds do not tell apart from the best."""


def are_separated(better: ArmResult, other: ArmResult) -> bool:
    """Return whether two arms' spreads of validation accuracy over seeds lie apart.

    They do when mean - std of the better one is above mean + std of the other (std over seeds, n - 1); where they
    touch, they do not. An arm with fewer than two seeds has no spread and is separated from none. This is a rule of
    thumb on a few seeds, no test: it says what not to conclude.
    """
    high, low = better.val_accuracy, other.val_accuracy
    if high.mean is None or low.mean is None or high.std is None or low.std is None:
        return False
    return high.mean - high.std > low.mean + low.std


def give_verdict(
    arms: Sequence[ArmResult], failed: Sequence[FailedTrial], num_trials: int, num_unfinished: int = 0
) -> Verdict:
    """Say what the validation results show; figures on test have no part in it.

    Among the arms that are not separated from the best, the cheapest in training seconds is recommended when it takes
    less than `CHEAPER` of the best one's; otherwise the best is.

    Args:
        arms: Ranked, as `build_arms` returns them.
        failed: Trials without a result.
        num_trials: All that were planned.
        num_unfinished: Trials that have not ended; the sentences then hold for now only.
    """
    ranked = [arm for arm in arms if arm.chosen]
    losses = _about_failures(arms, failed, num_trials)
    if num_unfinished:
        losses.insert(0, f"{num_unfinished} of {num_trials} trials have not ended, so this may change.")
    if not ranked:
        return Verdict(" ".join(["No arm has a result.", *losses]), None, None, ())
    best, *others = ranked
    tied = [arm for arm in others if not are_separated(best, arm)]
    several_seeds = any(len(arm.chosen) > 1 for arm in ranked)
    cheapest = min([best, *tied], key=lambda arm: arm.seconds) if several_seeds else best
    if cheapest.seconds >= CHEAPER * best.seconds:
        cheapest = best
    sentences = [f"{best.arm} is best on validation: {_accuracy(best)}."]
    if len(ranked) == 1:
        sentences = [f"{best.arm} reaches {_accuracy(best)} on validation; there is no other arm to compare it with."]
    if not several_seeds:
        sentences.append(_about_one_seed(others))
    elif others:
        sentences.append(_about_noise(best, tied, others))
        sentences.append(_about_cost(best, tied, cheapest))
    text = " ".join(sentence for sentence in (*sentences, *losses) if sentence)
    return Verdict(text, cheapest.arm, best.arm, tuple(arm.arm for arm in tied))


def _accuracy(arm: ArmResult) -> str:
    mean, std, count = arm.val_accuracy.mean, arm.val_accuracy.std, len(arm.chosen)
    return f"accuracy {mean:.3f}" if std is None else f"accuracy {mean:.3f} ± {std:.3f} over {count} seeds"


def _about_one_seed(others: Sequence[ArmResult]) -> str:
    if not others:
        return "With one seed, noise was not measured: another seed may give another figure."
    runner_up = others[0]
    return (
        f"Next is {runner_up.arm} with {_accuracy(runner_up)}. With one seed, noise was not measured: a difference may "
        "be chance. Use --seeds 3 or more to know."
    )


def _about_noise(best: ArmResult, tied: Sequence[ArmResult], others: Sequence[ArmResult]) -> str:
    if not tied:
        return f"Its spread over seeds lies above that of {_listed([arm.arm for arm in others])}."
    named = _listed([f"{arm.arm} ({_short(arm)})" for arm in tied])
    lone = [arm.arm for arm in (best, *tied) if len(arm.chosen) < 2]
    if not lone:
        return f"It is not separated from {named}: their spreads over seeds overlap."
    return f"It is not separated from {named}: spreads over seeds overlap, or are unknown ({_listed(lone)}: one seed)."


def _about_cost(best: ArmResult, tied: Sequence[ArmResult], cheapest: ArmResult) -> str:
    if not tied:
        return ""
    if cheapest is best:
        return f"None of them is clearly cheaper to train, so take {best.arm}."
    return (
        f"Of these, {cheapest.arm} is the cheapest to train: {cheapest.seconds / best.seconds:.2g} times the seconds "
        f"of {best.arm} ({cheapest.seconds:,.1f} s against {best.seconds:,.1f} s), so take it unless more seeds tell "
        "them apart."
    )


def _about_failures(arms: Sequence[ArmResult], failed: Sequence[FailedTrial], num_trials: int) -> list[str]:
    if not failed:
        return []
    sentences = [f"{len(failed)} of {num_trials} trials failed and are in no figure; the report lists why."]
    seeds = {trial.seed for arm in arms for trial in arm.chosen} | {trial.seed for trial in failed}
    for arm in arms:
        if not arm.chosen and arm.num_failed and not arm.num_done:
            sentences.append(f"{arm.arm} has no result: all its trials failed.")
        elif arm.chosen and len(arm.chosen) < len(seeds) and arm.num_failed:
            sentences.append(f"{arm.arm} is over {len(arm.chosen)} of {len(seeds)} seeds only.")
    return sentences


def _short(arm: ArmResult) -> str:
    mean, std = arm.val_accuracy.mean, arm.val_accuracy.std
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
