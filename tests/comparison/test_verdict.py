from __future__ import annotations

import numpy as np
import pytest

from transferlib.comparison.arms import ArmResult
from transferlib.comparison.choose import ChosenTrial, FailedTrial
from transferlib.comparison.verdict import Verdict, are_separated, give_verdict
from transferlib.evaluation.metrics import Metrics


def metrics(accuracy: float) -> Metrics:
    return Metrics(10, accuracy, accuracy, accuracy, None, 1 - accuracy, 0.0, np.zeros((2, 2), np.int64))


def arm(strategy: str, accuracies: list[float], seconds: float = 10.0, failed: int = 0) -> ArmResult:
    name = f"resnet18-{strategy}"
    chosen = tuple(
        ChosenTrial(name, s, f"{name}-s{s}-c1", 1, 0.03, "inside", a, 1 - a) for s, a in enumerate(accuracies)
    )
    by_seed = {seed: metrics(accuracy) for seed, accuracy in enumerate(accuracies)}
    return ArmResult(
        arm=name,
        architecture="resnet18",
        strategy=strategy,
        chosen=chosen,
        val_metrics=by_seed,
        test_metrics=by_seed,
        trained_parameters=1,
        seconds=seconds,
        images_per_s=1.0,
        peak_memory_bytes=1,
        num_done=len(accuracies),
        num_failed=failed,
        total_seconds=seconds,
    )


def failure(name: str, seed: int) -> FailedTrial:
    return FailedTrial(name, seed, f"{name}-s{seed}-c0", 0, 0.1, "not finite")


def test_arms_are_separated_where_mean_plus_minus_std_lie_apart() -> None:
    # Means 0.9 and 0.8; std 0.04 each, then 0.05 each, where they touch.
    apart = arm("full", [0.86, 0.9, 0.94]), arm("scratch", [0.76, 0.8, 0.84])
    assert are_separated(*apart)
    touching = arm("full", [0.75, 1.0]), arm("scratch", [0.5, 0.75])
    assert touching[0].val_accuracy.std == pytest.approx(0.25 / 2**0.5)
    assert not are_separated(*touching)
    assert are_separated(arm("full", [0.9]), arm("scratch", [0.1])) is None


def test_equal_seeds_without_any_spread_are_not_separated() -> None:
    assert not are_separated(arm("full", [0.9, 0.9]), arm("scratch", [0.9, 0.9]))


def test_a_clear_winner_is_named_and_recommended() -> None:
    verdict = give_verdict([arm("full", [0.95, 0.96], 40), arm("scratch", [0.7, 0.71], 5)], [], 4)
    assert verdict.best == verdict.recommended == "resnet18-full"
    assert "best on validation: accuracy 0.955 ± 0.007 over 2 seeds" in verdict.text
    assert "not separated" not in verdict.text


def test_among_arms_not_separated_the_cheaper_is_named_with_its_cost_ratio() -> None:
    ranked = [arm("full", [0.94, 0.96], 40), arm("last_layers", [0.93, 0.95], 10), arm("scratch", [0.5, 0.51], 1)]
    verdict = give_verdict(ranked, [], 6)
    assert verdict.best == "resnet18-full"
    assert verdict.recommended == "resnet18-last_layers"
    assert verdict.not_separated == ("resnet18-last_layers",)
    assert "not separated from resnet18-last_layers" in verdict.text
    assert "0.25 times the seconds" in verdict.text


def test_a_few_percent_of_seconds_do_not_make_an_arm_cheaper() -> None:
    verdict = give_verdict([arm("full", [0.94, 0.96], 10), arm("last_layers", [0.93, 0.95], 9.5)], [], 4)
    assert verdict.recommended == "resnet18-full"
    assert "not separated" in verdict.text


def test_with_one_seed_noise_was_not_measured() -> None:
    verdict = give_verdict([arm("full", [0.95], 40), arm("last_layers", [0.94], 1)], [], 2)
    assert "noise was not measured" in verdict.text
    assert "not separated" not in verdict.text
    assert verdict.recommended == "resnet18-full"


def test_one_arm_is_compared_with_nothing() -> None:
    verdict = give_verdict([arm("full", [0.95])], [], 1)
    assert "no other arm" in verdict.text
    assert "noise was not measured" in verdict.text
    assert "no other arm" in give_verdict([arm("full", [0.95, 0.9])], [], 2).text


def test_failures_are_told() -> None:
    lost, hurt = "resnet18-scratch", "resnet18-last_layers"
    failed = [failure(lost, 0), failure(lost, 1), failure(hurt, 1)]
    arms = [arm("full", [0.9, 0.91]), arm("last_layers", [0.8], failed=1), arm("scratch", [], failed=2)]
    verdict = give_verdict(arms, failed, 6)
    assert "3 of 6 trials failed" in verdict.text
    assert "resnet18-scratch has no result" in verdict.text
    assert "resnet18-last_layers is over 1 of 2 seeds only" in verdict.text
    assert "How it stands to resnet18-last_layers is not known: with one seed of resnet18-last_layers" in verdict.text


def test_nothing_is_recommended_where_nothing_has_a_result() -> None:
    verdict = give_verdict([arm("full", [], failed=1)], [failure("resnet18-full", 0)], 1)
    assert isinstance(verdict, Verdict)
    assert verdict.recommended is None
    assert verdict.text.startswith("No arm has a result.")


def test_a_verdict_before_the_end_says_so() -> None:
    assert "3 of 9 trials have not ended" in give_verdict([arm("full", [0.9, 0.8])], [], 9, 3).text


def test_an_arm_of_one_seed_is_never_recommended_over_the_best_for_its_price() -> None:
    verdict = give_verdict([arm("full", [0.9], 40), arm("scratch", [0.4, 0.6], 1)], [], 3)
    assert verdict.recommended == "resnet18-full"
    assert verdict.not_separated == ()
    assert "with one seed of resnet18-full, noise was not measured" in verdict.text
