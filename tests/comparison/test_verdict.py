from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from transferlib.comparison.arms import ArmResult
from transferlib.comparison.choose import ChosenTrial, FailedTrial
from transferlib.comparison.power import Needs, what_it_takes
from transferlib.comparison.statistics import ArmTable, Judgement, judge
from transferlib.comparison.variance import Rows
from transferlib.comparison.verdict import Evidence, Verdict, about_losses, give_verdict
from transferlib.records import TrialKey

NUM_IMAGES = 1000
FLOPS = {"feature_extraction": 1.0, "last_layers": 1.3, "full": 3.0}


def arm_result(strategy: str, *, num_seeds: int = 3, num_failed: int = 0, seconds: float = 10.0) -> ArmResult:
    keys = [TrialKey("resnet18", strategy, 0, seed, 0) for seed in range(num_seeds)]
    chosen = tuple(ChosenTrial(key, 0.03, 0.9, 0.3, 10, "inside") for key in keys)
    return ArmResult(
        arm=f"resnet18-{strategy}",
        architecture="resnet18",
        strategy=strategy,
        metric="accuracy",
        chosen=chosen,
        figures={},
        trained_parameters=10,
        train_flops=FLOPS[strategy],
        seconds=seconds,
        images_per_s=1.0,
        peak_memory_bytes=1,
        num_done=num_seeds,
        num_failed=num_failed,
        total_seconds=seconds,
    )


def table(strategy: str, wrong: Sequence[Sequence[int]]) -> ArmTable:
    """Return an arm that is right on all images but those listed, a list a seed."""
    values = np.ones((len(wrong), NUM_IMAGES))
    for seed, images in enumerate(wrong):
        values[seed, list(images)] = 0.0
    return ArmTable(f"resnet18-{strategy}", values)


def first(number: int, skip: int = 0) -> list[int]:
    return list(range(skip, skip + number))


def verdict_of(
    tables: Sequence[ArmTable],
    *,
    margin: float = 0.02,
    seconds: Mapping[str, float] | None = None,
    chance: float = 0.5,
    notes: Sequence[str] = (),
) -> Verdict:
    rows = Rows.of(NUM_IMAGES)
    constant = (np.arange(NUM_IMAGES) < chance * NUM_IMAGES).astype(np.float64)
    judged = judge(tables, rows, constant) if tables else None
    needs = {frozenset((a.arm, b.arm)): what_it_takes(a, b, rows, 3) for a, b in combinations(tables, 2)}
    arms = [
        arm_result(
            found.arm.split("-")[1],
            num_seeds=len(found.values),
            seconds=(seconds or {}).get(found.arm.split("-")[1], 10.0),
        )
        for found in tables
    ]
    return give_verdict(arms, Evidence("accuracy", margin, "test", NUM_IMAGES, "daisy", judged, needs), notes)


SEEDS = range(3)
GOOD = [first(50, seed) for seed in SEEDS]
"""Wrong on 50 images, nearly the same ones in each seed."""
NEARLY_AS_GOOD = [first(52, seed) for seed in SEEDS]
BAD = [first(150, seed) for seed in SEEDS]


def test_an_arm_that_is_better_than_all_is_said_to_be_separated() -> None:
    verdict = verdict_of([table("full", GOOD), table("feature_extraction", BAD)])
    assert verdict.state == "separated"
    assert verdict.best == "resnet18-full"
    assert "resnet18-full is better than resnet18-feature_extraction by 10.0 points" in verdict.text
    assert "on these training images" in verdict.text


def test_a_cheaper_arm_within_the_margin_is_named_for_the_next_training() -> None:
    verdict = verdict_of([table("full", GOOD), table("last_layers", NEARLY_AS_GOOD)])
    assert verdict.cheapest_good_enough == "resnet18-last_layers"
    assert "Good enough to train next time: resnet18-last_layers, which costs at most" in verdict.text
    assert "0.43 of resnet18-full's operations" in verdict.text


def noisy(strategy: str, accuracy: float, seed_std: float, seed: int, num_seeds: int = 3) -> ArmTable:
    random = np.random.default_rng(seed)
    wrong = [
        random.choice(NUM_IMAGES, round(NUM_IMAGES * (1 - accuracy - seed_std * step)), replace=False).tolist()
        for step in np.linspace(-1, 1, num_seeds)
    ]
    return table(strategy, wrong)


def test_what_is_not_told_apart_is_open_and_nothing_is_recommended_for_being_cheap() -> None:
    verdict = verdict_of([noisy("full", 0.92, 0.03, 0), noisy("last_layers", 0.90, 0.03, 1)])
    assert verdict.state == "open"
    assert verdict.cheapest_good_enough is None
    assert "not told apart" in verdict.text
    assert "Whether a cheaper arm would do is open (margin 2.0 points)" in verdict.text
    assert "resnet18-last_layers could cost" in verdict.text
    assert "so take it" not in verdict.text


def test_seconds_decide_nothing() -> None:
    tables = [noisy("full", 0.92, 0.03, 0), noisy("last_layers", 0.90, 0.03, 1)]
    slow, fast = (verdict_of(tables, seconds={"full": 1.0, "last_layers": of}) for of in (0.001, 1000.0))
    assert slow == fast


def test_the_issues_case_of_full_against_features_recommends_no_worse_arm() -> None:
    verdict = verdict_of(
        [noisy("full", 0.85, 0.10, 0, num_seeds=2), noisy("feature_extraction", 0.715, 0.005, 1, num_seeds=2)],
        seconds={"full": 100.0, "feature_extraction": 80.0},
    )
    assert verdict.state == "few_seeds"
    assert verdict.cheapest_good_enough is None
    assert verdict.best == "resnet18-full"


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_fewer_than_three_seeds_say_nothing_of_the_procedure(num_seeds: int) -> None:
    verdict = verdict_of([table("full", GOOD[:num_seeds]), table("feature_extraction", BAD[:num_seeds])])
    assert verdict.state == "few_seeds"
    assert "of the models as trained" in verdict.text
    assert "use 3 or more seeds" in verdict.text
    assert verdict.cheapest_good_enough is None


def test_arms_at_chance_are_said_not_to_have_learnt_and_never_recommended() -> None:
    guessing = [first(480 + 5 * seed, 260) for seed in SEEDS]
    verdict = verdict_of([table("full", guessing), table("last_layers", guessing)])
    assert verdict.state == "at_chance"
    assert verdict.cheapest_good_enough is None
    assert verdict.best is None
    assert "No arm has learnt" in verdict.text
    assert "always answering 'daisy' (0.500)" in verdict.text


def test_one_arm_at_chance_beside_one_that_learnt_is_named() -> None:
    guessing = [first(480 + 5 * seed, 260) for seed in SEEDS]
    verdict = verdict_of([table("full", GOOD), table("feature_extraction", guessing)])
    assert verdict.state == "separated"
    assert "resnet18-feature_extraction has not learnt" in verdict.text


def test_a_handful_of_discordant_images_could_have_shown_nothing() -> None:
    same = [first(50)] * 3
    nearly = [first(52)] * 3
    verdict = verdict_of([table("full", same), table("last_layers", nearly)])
    assert "differ on 2 of 1,000 test images: no outcome" in verdict.text


def test_what_it_would_take_is_said_in_seeds_and_images() -> None:
    verdict = verdict_of([noisy("full", 0.92, 0.03, 0), noisy("last_layers", 0.90, 0.03, 1)])
    assert "To tell resnet18-full and resnet18-last_layers apart" in verdict.text
    assert "about" in verdict.sentences[-1]
    assert "seeds" in verdict.sentences[-1]


def test_one_arm_alone_is_compared_with_nothing() -> None:
    verdict = verdict_of([table("full", GOOD)])
    assert "there is no other arm to compare it with" in verdict.text
    assert verdict.best == "resnet18-full"


def test_nothing_is_said_where_nothing_has_a_result() -> None:
    verdict = verdict_of([], notes=["6 of 6 trials failed."])
    assert verdict.sentences == ("No arm has a result.",)
    assert verdict.best is None
    assert verdict.text == "No arm has a result. 6 of 6 trials failed."


def test_failed_trials_and_missing_seeds_are_counted() -> None:
    key = TrialKey("resnet18", "full", 0, 2, 0)
    arms = [arm_result("full", num_seeds=2, num_failed=1), arm_result("last_layers")]
    text = " ".join(about_losses(arms, [FailedTrial(key, 0.1, "not finite")], 6, 0))
    assert "1 of 6 trials failed and is in no figure" in text or "1 of 6 trials failed" in text
    assert "resnet18-full is over 2 of 3 seeds only." in text


def test_a_separation_over_all_pairs_is_not_claimed_from_one_interval() -> None:
    found = verdict_of([noisy("full", 0.92, 0.03, 0), noisy("last_layers", 0.90, 0.03, 1)])
    assert not math.isnan(found.margin)
    assert found.state == "open"


def random_tables(seed: int) -> list[ArmTable]:
    random = np.random.default_rng(seed)
    tables = []
    difficulty = random.normal(0, 1, NUM_IMAGES)
    for strategy in ("feature_extraction", "last_layers", "full")[: random.integers(2, 4)]:
        num_seeds = int(random.choice([1, 2, 3, 3, 5, 5, 5]))
        skill = random.choice([-1.2, 1.0, 1.1, 1.5, 1.6]) + random.normal(0, random.choice([0.0, 0.05, 0.4]), num_seeds)
        noise = random.normal(0, random.choice([0.05, 0.7]), (num_seeds, NUM_IMAGES))
        tables.append(ArmTable(f"resnet18-{strategy}", (skill[:, None] + noise > difficulty).astype(float)))
    return tables


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(first, first + 40) for first in range(0, 160, 40)])
def test_no_sentence_says_more_than_the_figures(seeds: range) -> None:
    for seed in seeds:
        tables = random_tables(seed)
        judged = judge(tables, Rows.of(NUM_IMAGES), (np.arange(NUM_IMAGES) < 500).astype(float))
        verdict = verdict_of(tables)
        by_arm = {arm.arm: arm for arm in judged.arms}
        claimed = (
            verdict.text.split(" is better than ", 1)[1].split(", if they")[0] if ", if they" in verdict.text else ""
        )
        for pair in judged.pairs:
            if verdict.best in (pair.a, pair.b) and verdict.state != "few_seeds":
                other = pair.b if pair.a == verdict.best else pair.a
                if by_arm[other].num_seeds >= 3:
                    assert (f"{other} by" in claimed) == pair.is_separated, (seed, verdict.text)
        if (enough := verdict.cheapest_good_enough) is not None:
            assert by_arm[enough].at_worst is not None
            assert by_arm[enough].at_worst < 0.02
            assert by_arm[enough].has_learnt
        if verdict.state == "separated":
            assert "not told apart" not in verdict.text
            assert "would do is open" not in verdict.text
        if "also the cheapest" in verdict.text:
            known = [arm for arm in by_arm.values() if arm.num_seeds >= 3]
            cost = {arm.arm: FLOPS[arm.arm.split("-")[1]] for arm in known}
            assert all(cost[arm] > 0.9 * cost[str(verdict.best)] for arm in cost if arm != verdict.best)
        assert (verdict.state == "at_chance") == (not any(arm.has_learnt for arm in judged.arms))
        assert (verdict.state == "few_seeds") >= (
            verdict.best is not None and max(a.num_seeds for a in judged.arms) < 3
        )


def test_one_arm_of_few_seeds_takes_nothing_from_the_others() -> None:
    verdict = verdict_of([table("full", GOOD), table("feature_extraction", BAD), table("last_layers", GOOD[:2])])
    assert verdict.state == "separated"
    assert "resnet18-full is better than resnet18-feature_extraction" in verdict.text
    assert "Nothing is said of training resnet18-last_layers (2 seeds) again" in verdict.text


def test_arms_worse_than_guessing_are_not_called_level_with_it() -> None:
    hopeless = [first(900, seed) for seed in SEEDS]
    verdict = verdict_of([table("full", hopeless)])
    assert verdict.state == "at_chance"
    assert "not known to be better than always answering 'daisy'" in verdict.text
    assert "not told apart" not in verdict.text


def with_folds(found: ArmTable, means: Sequence[float]) -> ArmTable:
    return replace(found, by_fold={(0, fold): mean for fold, mean in enumerate(means, 1)})


def folded_verdict(tables: Sequence[ArmTable], metric: str = "accuracy") -> Verdict:
    rows = Rows.of(NUM_IMAGES)
    is_loss = metric == "log_loss"
    judged = judge(
        tables, rows, np.full(NUM_IMAGES, 2.0 if is_loss else 0.1), test_per_train=1 / 3, lower_is_better=is_loss
    )
    needs = {frozenset((a.arm, b.arm)): what_it_takes(a, b, rows, 3) for a, b in combinations(tables, 2)}
    arms = [arm_result(found.arm.split("-")[1], num_seeds=len(found.values)) for found in tables]
    return give_verdict(arms, Evidence(metric, 0.02, "test", NUM_IMAGES, "daisy", judged, needs, num_folds=5), [])


STEADY = [0.95, 0.951, 0.949, 0.95, 0.95]


def test_folds_say_which_differences_other_training_images_would_show_too() -> None:
    verdict = folded_verdict(
        [
            with_folds(table("full", GOOD), STEADY),
            with_folds(table("last_layers", NEARLY_AS_GOOD), [0.99, 0.90, 0.97, 0.93, 0.95]),
            with_folds(table("feature_extraction", BAD), [0.85, 0.849, 0.85, 0.851, 0.85]),
        ]
    )
    sentence = verdict.sentences[1]
    assert sentence.startswith("With other training images of this kind (from 5 folds), resnet18-full is ")
    assert "is better than resnet18-feature_extraction by 10.0 points (9.6 to 10.4)" in sentence
    assert "it leads resnet18-last_layers by 0.2 points (" in sentence
    assert sentence.endswith("which does not tell them apart.")


def test_with_one_seed_folds_speak_of_other_images_and_nothing_else_of_training_again() -> None:
    verdict = folded_verdict(
        [with_folds(table("full", GOOD[:1]), STEADY), with_folds(table("feature_extraction", BAD[:1]), [0.85] * 5)]
    )
    assert verdict.state == "few_seeds"
    assert "One seed says nothing of training again" in verdict.text
    assert "With other training images of this kind (from 5 folds), resnet18-full is better than" in verdict.text


def test_without_folds_nothing_is_said_of_other_images() -> None:
    assert "other training images" not in verdict_of([table("full", GOOD), table("feature_extraction", BAD)]).text


def test_the_images_it_would_take_are_said_in_groups_where_images_belong_together() -> None:
    tables = [noisy("full", 0.92, 0.01, 0), noisy("last_layers", 0.90, 0.01, 1)]
    rows = Rows.of(NUM_IMAGES, groups=np.arange(NUM_IMAGES) // 4)
    needs = {frozenset((a.arm, b.arm)): Needs(9, 4000) for a, b in combinations(tables, 2)}
    judged = judge(tables, rows, np.zeros(NUM_IMAGES))
    arms = [arm_result(found.arm.split("-")[1]) for found in tables]
    evidence = Evidence("accuracy", 0.001, "test", NUM_IMAGES, "daisy", judged, needs, num_groups=250)
    text = give_verdict(arms, evidence, []).text
    assert "about 9 seeds, or about 4,000 images in test (in about 1,000 groups)." in text


def test_arms_whose_means_are_equal_are_not_said_to_lead() -> None:
    wrong = [first(30), first(31), first(32)]
    other = [first(31, 500), first(31, 500), first(31, 500)]
    text = verdict_of([table("full", wrong), table("last_layers", other)]).text
    assert "are not told apart: their means are equal." in text
    assert "leads" not in text


def test_cheaper_arms_are_called_worse_only_where_they_are() -> None:
    """An arm that is not told apart from any other, nor from chance, was called worse in the next sentence."""
    seen = set()
    for seed in range(60):
        random = np.random.default_rng(seed)
        accuracies, stds = random.uniform(0.48, 0.64, 3), random.uniform(0.005, 0.06, 3)
        tables = [noisy(name, *of, seed) for name, *of in zip(FLOPS, accuracies, stds, strict=True)]
        verdict = verdict_of(tables, chance=0.5)
        found = re.search(r"every cheaper arm is worse( or not known to have learnt)?\.", verdict.text)
        if not found:
            continue
        constant = (np.arange(NUM_IMAGES) < 500).astype(np.float64)
        judged = judge(tables, Rows.of(NUM_IMAGES), constant)
        assert verdict.best is not None
        cost = {f"resnet18-{name}": flops for name, flops in FLOPS.items()}
        worse = {
            arm.arm: any(pair.is_separated and {pair.a, pair.b} == {arm.arm, verdict.best} for pair in judged.pairs)
            for arm in judged.arms
            if cost[arm.arm] <= 0.9 * cost[verdict.best]
        }
        assert all(worse.values()) == (found[1] is None)
        seen.add(found[1])
    assert len(seen) == 2


def test_limits_that_exclude_zero_say_why_they_tell_nothing_apart() -> None:
    tables = [
        with_folds(table("full", GOOD), [0.95, 0.97, 0.93, 0.96, 0.94]),
        with_folds(table("last_layers", NEARLY_AS_GOOD), [0.90, 0.93, 0.89, 0.90, 0.90]),
        with_folds(table("feature_extraction", BAD), [0.85, 0.88, 0.82, 0.87, 0.84]),
    ]
    judged = judge(tables, Rows.of(NUM_IMAGES), np.zeros(NUM_IMAGES), test_per_train=1 / 3)
    sentence = next(text for text in folded_verdict(tables).sentences if text.startswith("With other"))
    for pair in judged.pairs[:2]:
        found = pair.with_other_images
        assert found is not None
        alone = found.low * found.high > 0 and found.p_holm >= 0.05
        assert ("for this pair alone, but p = " in sentence.split(pair.b)[1].split(")")[0]) == alone


def random_verdict(seed: int) -> tuple[Verdict, Judgement, dict[str, float]]:
    """Return a verdict on arms of few seeds, arms at chance and arms whose costs are close."""
    random = np.random.default_rng([7, seed])
    tables = [
        noisy(name, random.uniform(0.46, 0.70), random.uniform(0.005, 0.08), seed, int(random.integers(1, 5)))
        for name in FLOPS
    ]
    rows, constant = Rows.of(NUM_IMAGES), (np.arange(NUM_IMAGES) < 500).astype(np.float64)
    judged = judge(tables, rows, constant)
    needs = {frozenset((a.arm, b.arm)): what_it_takes(a, b, rows, 3) for a, b in combinations(tables, 2)}
    costs = dict(zip(FLOPS, random.choice([1.0, 0.97, 0.93, 0.5, 0.2], 3), strict=True))
    arms = [
        replace(arm_result(name, num_seeds=len(found.values)), train_flops=costs[name])
        for name, found in zip(FLOPS, tables, strict=True)
    ]
    evidence = Evidence("accuracy", 0.05, "test", NUM_IMAGES, "daisy", judged, needs)
    return give_verdict(arms, evidence, []), judged, {arm.arm: arm.train_flops for arm in arms}


@pytest.mark.slow
def test_who_leads_who_is_best_and_what_is_cheapest_is_true_beside_arms_that_say_little() -> None:
    """A worse arm "led by -14.7 points", and one of two dearest ones was "also the cheapest"."""
    seen: Counter[str] = Counter()
    for seed in range(400):
        verdict, judged, cost = random_verdict(seed)
        text, mean = verdict.text, {arm.arm: arm.mean for arm in judged.arms}
        assert not re.search(r"(leads|trails|leading|trailing)[^(]* by -", text)
        assert "by -" not in text
        seen["trails"] += "trails" in text or "trailing" in text
        if "comes out best, but" in text:
            assert verdict.best == max(mean, key=mean.__getitem__)
            seen["best"] += 1
        if "it is also the cheapest" in text:
            assert verdict.best is not None
            assert cost[verdict.best] == min(cost.values())
            seen["cheapest"] += 1
        seen["no tenth"] += "saves a tenth" in text
        if verdict.state == "good_enough":
            assert "Good enough to train next time" in text
            assert "is open" not in text
        if "is open" in text:
            assert verdict.cheapest_good_enough is None
            seen["open"] += 1
    assert all(seen[what] for what in ("trails", "best", "cheapest", "no tenth", "open")), seen


def test_the_best_is_named_among_those_that_have_learnt() -> None:
    wild = table("full", [first(20), first(600), first(300)])
    tables = [wild, noisy("last_layers", 0.62, 0.004, 1), noisy("feature_extraction", 0.61, 0.004, 2)]
    text = verdict_of(tables).text
    assert "resnet18-last_layers comes out best of the arms that have learnt and have 3 seeds, but is not told" in text
    assert "it leads resnet18-feature_extraction by" in text
    assert "and it trails resnet18-full by" in text


def test_discordant_groups_are_called_groups() -> None:
    values = np.ones((3, 320))
    other = values.copy()
    other[:, :32] = 0.0
    rows = Rows.of(320, groups=np.arange(320) // 8)
    judged = judge([ArmTable("resnet18-full", values), ArmTable("resnet18-last_layers", other)], rows, np.zeros(320))
    evidence = Evidence(
        "accuracy", 0.02, "test", 320, "daisy", judged, {frozenset(("a", "b")): Needs(None, None)}, num_groups=40
    )
    text = give_verdict([arm_result("full"), arm_result("last_layers")], evidence, []).text
    assert "differ on 4 of 40 groups of test images: no outcome could have told them apart" in text
