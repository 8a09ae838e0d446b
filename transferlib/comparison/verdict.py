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

    sentences: tuple[str, ...]
    """The first names the best; the others say what it can be told apart from, what is cheaper and what is missing."""
    recommended: str | None
    """The arm to take; None where no arm has a result."""
    best: str | None
    """First on validation."""
    not_separated: tuple[str, ...]
    """Arms that the seeds do not tell apart from the best."""

    @property
    def text(self) -> str:
        """Return the sentences as one."""
        return " ".join(self.sentences)


def are_separated(better: ArmResult, other: ArmResult) -> bool | None:
    """Return whether two arms' spreads of validation accuracy over seeds lie apart; None where one has no spread.

    They do when mean - std of the better one is above mean + std of the other (std over seeds, n - 1); where they
    touch, they do not. An arm with fewer than two seeds has no spread. This is a rule of thumb on a few seeds, no
    test: it says what not to conclude.
    """
    high, low = better.val_accuracy, other.val_accuracy
    if high.mean is None or low.mean is None or high.std is None or low.std is None:
        return None
    return high.mean - high.std > low.mean + low.std


def give_verdict(
    arms: Sequence[ArmResult], failed: Sequence[FailedTrial], num_trials: int, num_unfinished: int = 0
) -> Verdict:
    """Say what the validation results show; figures on test have no part in it.

    Among the arms that are not separated from the best, the cheapest in training seconds is recommended when it takes
    less than `CHEAPER` of the best one's; otherwise the best is, as it is where no noise was measured.

    Args:
        arms: Ranked, as `build_arms` returns them.
        failed: Trials without a result.
        num_trials: All that were planned.
        num_unfinished: Trials that have not ended; the sentences then hold for now only.
    """
    ranked = [arm for arm in arms if arm.chosen]
    losses = _about_losses(arms, failed, num_trials, num_unfinished)
    if not ranked:
        return Verdict(("No arm has a result.", *losses), None, None, ())
    best, *others = ranked
    tied = [arm for arm in others if are_separated(best, arm) is False]
    cheapest = min([best, *tied], key=lambda arm: arm.seconds)
    if cheapest.seconds >= CHEAPER * best.seconds:
        cheapest = best
    lead = f"{best.arm} is best on validation: {_accuracy(best)}."
    if not others:
        lead = f"{best.arm} reaches {_accuracy(best)} on validation; there is no other arm to compare it with."
    if all(len(arm.chosen) < 2 for arm in ranked):
        told = [_about_one_seed(others, has_ended=not num_unfinished)]
    else:
        told = [*_about_noise(best, tied, others), *_about_cost(best, tied, cheapest)]
    return Verdict((lead, *told, *losses), cheapest.arm, best.arm, tuple(arm.arm for arm in tied))


def _accuracy(arm: ArmResult, *, brief: bool = False) -> str:
    mean, std, count = arm.val_accuracy.mean, arm.val_accuracy.std, len(arm.chosen)
    if brief:
        return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"
    return f"accuracy {mean:.3f}" if std is None else f"accuracy {mean:.3f} ± {std:.3f} over {count} seeds"


def _about_one_seed(others: Sequence[ArmResult], *, has_ended: bool) -> str:
    if not others:
        return "With one seed, noise was not measured: another seed may give another figure."
    runner_up = others[0]
    return (
        f"Next is {runner_up.arm} with {_accuracy(runner_up)}. With one seed, noise was not measured: a difference may "
        f"be chance.{' Use --seeds 3 or more to know.' if has_ended else ''}"
    )


def _about_noise(best: ArmResult, tied: Sequence[ArmResult], others: Sequence[ArmResult]) -> list[str]:
    apart = [arm.arm for arm in others if are_separated(best, arm)]
    unknown = [arm.arm for arm in others if are_separated(best, arm) is None]
    sentences = []
    # Those it is not separated from come last: the sentence on cost goes on from them.
    if apart:
        sentences.append(f"Its spread over seeds lies above that of {_listed(apart)}.")
    if unknown:
        lone = best.arm if len(best.chosen) < 2 else _listed(unknown)
        sentences.append(
            f"How it stands to {_listed(unknown)} is not known: with one seed of {lone}, noise was not measured."
        )
    if tied:
        named = _listed([f"{arm.arm} ({_accuracy(arm, brief=True)})" for arm in tied])
        sentences.append(f"It is not separated from {named}: their spreads over seeds overlap.")
    return sentences


def _about_cost(best: ArmResult, tied: Sequence[ArmResult], cheapest: ArmResult) -> list[str]:
    if not tied:
        return []
    if cheapest is best:
        return [f"None of them is clearly cheaper to train, so take {best.arm}."]
    return [
        f"Of these, {cheapest.arm} is the cheapest to train: {cheapest.seconds / best.seconds:.2g} times the seconds "
        f"of {best.arm} ({cheapest.seconds:,.1f} s against {best.seconds:,.1f} s), so take it unless more seeds tell "
        "them apart."
    ]


def _about_losses(
    arms: Sequence[ArmResult], failed: Sequence[FailedTrial], num_trials: int, num_unfinished: int
) -> list[str]:
    sentences = []
    if num_unfinished:
        sentences.append(f"{num_unfinished} of {num_trials} trials have not ended, so this may change.")
    if failed:
        sentences.append(f"{len(failed)} of {num_trials} trials failed and are in no figure; the report lists why.")
    seeds = {trial.seed for arm in arms for trial in arm.chosen} | {trial.seed for trial in failed}
    for arm in arms:
        if not arm.chosen and arm.num_failed and not num_unfinished:
            sentences.append(f"{arm.arm} has no result: all its trials failed.")
        elif arm.chosen and len(arm.chosen) < len(seeds):
            sentences.append(f"{arm.arm} is over {len(arm.chosen)} of {len(seeds)} seeds only.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
