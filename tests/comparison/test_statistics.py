"""Oracles: scipy, and tables worked out by hand or by the formulas as written (statsmodels is not installed)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from transferlib.comparison.power import Needs, detectable_difference, what_it_takes
from transferlib.comparison.statistics import ALPHA, ArmTable, Judgement, file_interval, holm, judge, wilson
from transferlib.comparison.variance import Rows, Spread, borrow, these_models, trained_again
from transferlib.evaluation.image_values import image_values, strata_of
from transferlib.names import LOWER_IS_BETTER, METRICS


def tables(*shapes: tuple[float, int], num_images: int = 60, seed: int = 0) -> list[ArmTable]:
    """Return an arm for each (accuracy, seeds); images have a difficulty in common."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(0, 1, num_images)
    arms = []
    for number, (accuracy, num_seeds) in enumerate(shapes):
        latent = difficulty + generator.normal(0, 1, (num_seeds, num_images)) + generator.normal(0, 0.1, (num_seeds, 1))
        right = latent < stats.norm.ppf(accuracy) * 2**0.5
        arms.append(ArmTable("abcdefgh"[number], right.astype(np.float64)))
    return arms


def judged(arms: list[ArmTable], rows: Rows | None = None) -> Judgement:
    num_images = arms[0].values.shape[1]
    chance = (np.arange(num_images) % 4 == 0).astype(np.float64)
    return judge(arms, Rows.of(num_images) if rows is None else rows, chance)


# The worked table: two arms, three seeds, four images. In units of 1/432:
# a: c = (1, 1, 2/3, 1/3), m_s = (3/4, 1/2, 1), m = 3/4. MSS / N = (0 + 1/16 + 1/16) / 2 = 1/16, q = 1/48 = 9 units.
#    y - c_i - m_s + m: (0, 0, 4, -4), (3, 3, -5, -1) and (-3, -3, 1, 5) twelfths; squares add up to 120/144 = 5/6.
#    MSE = 5/6 / (3 * 2) = 5/36, MSE / N = 5/144. Seed sd: sqrt(9/144 - 5/144) = 1/6.
# b: c = (1, 1/3, 0, 0), m_s = (1/4, 1/4, 1/2), m = 1/3. MSS / N = (1 + 1 + 4) / 144 / 2 = 1/48, q = 1/144 = 3 units.
#    (1, -3, 1, 1) twice and (-2, 6, -2, -2) twelfths: 72/144 = 1/2. MSE / N = 1/2 / 6 / 4 = 1/48. Seed sd: 0.
# a - b: u = (0, 2/3, 2/3, 1/3), d = 5/12, deviations (-5, 3, 3, -1) twelfths: V_f = 44/144 / (3 * 4) = 11 units, which
#    is below the floor 2/16 = 54 units. B = 54 - (5/144 + 3/144) / 3 * 432 = 54 - 8 = 46 units. V = 46 + 9 + 3 = 58.
#    df = 58^2 / (9^2 / 2 + 3^2 / 2 + 46^2 / 3) = 3364 / 750.33.
WORKED = [
    ArmTable("a", np.array([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])),
    ArmTable("b", np.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]])),
]


def test_a_table_worked_by_hand() -> None:
    result = judge(WORKED, Rows.of(4), np.array([1.0, 0, 0, 0]))
    (pair,) = result.pairs
    assert pair.if_trained_again is not None
    assert pair.difference == pytest.approx(5 / 12)
    assert pair.num_discordant == 3
    assert pair.these_models.variance == pytest.approx(2 / 16)
    assert pair.these_models.df == 3
    assert pair.if_trained_again.variance == pytest.approx(58 / 432)
    assert pair.if_trained_again.df == pytest.approx(3364 / (45 + 2116 / 3))
    margin = stats.t.ppf(0.975, pair.if_trained_again.df) * (58 / 432) ** 0.5
    assert pair.if_trained_again.low == pytest.approx(5 / 12 - margin)
    assert pair.if_trained_again.high == pytest.approx(5 / 12 + margin)
    assert [arm.seed_std for arm in result.arms] == [pytest.approx(1 / 6), pytest.approx(0, abs=1e-9)]
    assert [arm.mean for arm in result.arms] == [pytest.approx(3 / 4), pytest.approx(1 / 3)]


def test_the_worked_table_without_the_floor() -> None:
    rows = Rows.of(4)
    a, b = (replace(Spread.of(table.values, rows), floor=np.zeros(())) for table in WORKED)
    assert these_models(a, b).variance == pytest.approx(11 / 432)
    # B = 11 - 8 = 3 units, V = 3 + 9 + 3 = 15, df = 15^2 / (81/2 + 9/2 + 9/3).
    assert trained_again(a, b).variance == pytest.approx(15 / 432)
    assert trained_again(a, b).df == pytest.approx(225 / 48)


def mean_squares(values: np.ndarray) -> tuple[float, float]:
    """Return MSS and MSE as the formulas are written."""
    num_seeds, num_images = values.shape
    m_s, c, m = values.mean(axis=1), values.mean(axis=0), values.mean()
    seeds = num_images * np.square(m_s - m).sum()
    rest = np.square(values - c).sum() - seeds
    return float(seeds / (num_seeds - 1)), float(rest / ((num_images - 1) * (num_seeds - 1)))


def test_differences_follow_the_formulas_with_unequal_seeds() -> None:
    arms = tables((0.7, 3), (0.6, 5))
    num_images = 60
    (pair,) = judged(arms).pairs
    u = arms[0].values.mean(axis=0) - arms[1].values.mean(axis=0)
    fixed = max(u.var(ddof=1) / num_images, 2 / num_images**2)
    squares = [mean_squares(arm.values) for arm in arms]
    counts = [3, 5]
    # In `judge`, no MSS is below a third of the mean; it is not here.
    assert min(mss for mss, _ in squares) > sum(mss for mss, _ in squares) / 2 / 3
    q = [mss / num_images / count for (mss, _), count in zip(squares, counts, strict=True)]
    images = max(0.0, fixed - sum(mse / count for (_, mse), count in zip(squares, counts, strict=True)) / num_images)
    variance = images + sum(q)
    df = variance**2 / (q[0] ** 2 / 2 + q[1] ** 2 / 4 + images**2 / (num_images - 1))
    assert pair.if_trained_again is not None
    assert pair.these_models.variance == pytest.approx(fixed)
    assert pair.if_trained_again.variance == pytest.approx(variance)
    assert pair.if_trained_again.df == pytest.approx(df)
    assert pair.if_trained_again.p == pytest.approx(2 * stats.t.sf(abs(u.mean()) / variance**0.5, df))


def test_one_seed_is_the_paired_t_test() -> None:
    for seed in range(5):
        a, b = tables((0.8, 1), (0.7, 1), seed=seed)
        (pair,) = judged([a, b]).pairs
        expected = stats.ttest_rel(a.values[0], b.values[0])
        assert pair.these_models.p == pytest.approx(expected.pvalue)
        limits = expected.confidence_interval(0.95)
        assert (pair.these_models.low, pair.these_models.high) == pytest.approx((limits.low, limits.high))


def test_where_images_say_nothing_it_is_welchs_t_test_over_seeds() -> None:
    generator = np.random.default_rng(3)
    means = [generator.uniform(0.5, 0.9, count) for count in (4, 6)]
    arms = [ArmTable(name, np.repeat(m[:, None], 50_000, axis=1)) for name, m in zip("ab", means, strict=True)]
    (pair,) = judged(arms).pairs
    expected = stats.ttest_ind(*means, equal_var=False)
    assert pair.if_trained_again is not None
    assert pair.if_trained_again.p == pytest.approx(expected.pvalue, rel=1e-3)
    assert pair.if_trained_again.df == pytest.approx(expected.df, rel=1e-3)


def test_holm_by_hand() -> None:
    # Ascending: 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, which may not be below the one before.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])


def test_p_values_are_over_all_pairs_also_those_that_cannot_be_read() -> None:
    three = judged(tables((0.9, 4), (0.6, 4), (0.6, 4)))
    with_two_seeds = judged(tables((0.9, 4), (0.6, 4), (0.6, 2)))
    pair = with_two_seeds.pairs[0].if_trained_again
    assert pair is not None
    assert [p.if_trained_again is None for p in with_two_seeds.pairs] == [False, True, True]
    assert pair.p_holm == pytest.approx(3 * pair.p)
    assert max(p.if_trained_again.p_holm / p.if_trained_again.p for p in three.pairs if p.if_trained_again) <= 3


@pytest.mark.parametrize(("right", "num_images"), [(0, 20), (1, 20), (17, 20), (19, 20), (20, 20), (263, 300)])
def test_the_files_interval_is_wilsons(right: int, num_images: int) -> None:
    values = (np.arange(num_images) < right).astype(np.float64)
    expected = stats.binomtest(right, num_images).proportion_ci(method="wilson")
    assert file_interval(values, Rows.of(num_images)) == pytest.approx((expected.low, expected.high), abs=1e-12)
    quantile = stats.norm.ppf(0.975)
    assert wilson(right / num_images, num_images, quantile) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_arm_has_wilsons_interval_at_its_effective_number_of_images() -> None:
    (arm,) = tables((0.8, 5))
    statement = judged([arm]).arms[0]
    mss, mse = mean_squares(arm.values)
    fixed, q = arm.values.mean(axis=0).var(ddof=1) / 60, mss / 60 / 5
    images = max(0.0, fixed - mse / 60 / 5)
    df = (images + q) ** 2 / (q**2 / 4 + images**2 / 59)
    mean = arm.values.mean()
    expected = wilson(mean, mean * (1 - mean) / (images + q), stats.t.ppf(0.975, df))
    assert (statement.low, statement.high) == pytest.approx(expected)


def test_more_arms_have_wider_intervals() -> None:
    alone, among = judged(tables((0.8, 4))).arms[0], judged(tables((0.8, 4), (0.8, 4), (0.8, 4))).arms[0]
    assert among.high - among.low > alone.high - alone.low


def test_swapping_arms_negates() -> None:
    a, b, c = tables((0.8, 3), (0.7, 4), (0.75, 5))
    one, other = judged([a, b, c]).pairs[0], judged([b, a, c]).pairs[0]
    assert (other.a, other.b, other.difference) == ("b", "a", -one.difference)
    for x, y in ((one.these_models, other.these_models), (one.if_trained_again, other.if_trained_again)):
        assert x is not None
        assert y is not None
        assert (y.low, y.high, y.p, y.p_holm) == pytest.approx((-x.high, -x.low, x.p, x.p_holm))


def flat(result: Judgement) -> list[float]:
    numbers: list[float] = []
    for arm in result.arms:
        numbers += [arm.mean, arm.low, arm.high, arm.seed_std or 0, arm.at_worst or 0, arm.versus_chance.p_holm]
    for pair in result.pairs:
        numbers += [pair.difference, pair.num_discordant, pair.these_models.low, pair.these_models.p_holm]
        numbers += [] if pair.if_trained_again is None else [pair.if_trained_again.low, pair.if_trained_again.p_holm]
    return numbers


def test_the_order_of_images_and_of_seeds_does_not_matter() -> None:
    generator, arms = np.random.default_rng(1), tables((0.8, 3), (0.7, 4), (0.75, 5))
    groups, strata = np.arange(60) // 3, np.arange(60) // 15
    chance = (np.arange(60) % 4 == 0).astype(np.float64)
    order = generator.permutation(60)
    shuffled = [ArmTable(arm.arm, generator.permutation(arm.values)[:, order]) for arm in arms]
    one = judge(arms, Rows.of(60, groups, strata), chance)
    other = judge(shuffled, Rows.of(60, groups[order], strata[order]), chance[order])
    assert flat(other) == pytest.approx(flat(one))


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 10])
def test_identical_tables_never_separate(num_seeds: int) -> None:
    for accuracy in (0.5, 0.9, 0.999):
        (arm,) = tables((accuracy, num_seeds), num_images=200)
        result = judged([arm, replace(arm, arm="b"), replace(arm, arm="c")])
        for pair in result.pairs:
            assert pair.difference == 0
            assert pair.num_discordant == 0
            assert not pair.is_separated
            assert pair.these_models.p_holm == 1


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_with_few_seeds_nothing_is_claimed_of_the_procedure(num_seeds: int) -> None:
    result = judged(tables((0.99, num_seeds), (0.1, num_seeds), num_images=500))
    (pair,) = result.pairs
    assert pair.these_models.p_holm < 1e-9
    assert pair.if_trained_again is None
    assert not pair.is_separated
    assert [arm.at_worst for arm in result.arms] == [None, None]
    assert (result.arms[0].seed_std is None) == (num_seeds == 1)


def test_one_arm_of_few_seeds_leaves_no_word_on_the_worst() -> None:
    result = judged(tables((0.8, 5), (0.7, 5), (0.7, 2)))
    assert result.arms[0].at_worst is not None
    assert result.arms[2].at_worst is None
    assert [arm.at_worst for arm in judged(tables((0.8, 5), (0.7, 2))).arms] == [None, None]
    assert judged(tables((0.8, 5))).arms[0].at_worst is None


def test_at_worst_lies_beyond_what_was_seen() -> None:
    result = judged(tables((0.95, 5), (0.8, 5), (0.6, 5), num_images=1000))
    means = [arm.mean for arm in result.arms]
    for index, arm in enumerate(result.arms):
        assert arm.at_worst is not None
        assert arm.at_worst > max(means[:index] + means[index + 1 :]) - arm.mean
    assert result.arms[0].at_worst is not None
    assert result.arms[0].at_worst < 0  # better than each other one for certain


def test_at_worst_of_two_arms_is_newcombes_limit() -> None:
    a, b = tables((0.8, 4), (0.75, 4), num_images=200)
    result = judged([a, b])
    spreads = borrow([Spread.of(arm.values, Rows.of(200)) for arm in (a, b)], 3)
    gap, alone = trained_again(*spreads), [trained_again(spread) for spread in spreads]
    t = stats.t.ppf(0.95, float(gap.df))
    limits = [wilson(float(e.value), float(e.value * (1 - e.value) / e.variance), t) for e in alone]
    up, down = limits[0][1] - result.arms[0].mean, result.arms[1].mean - limits[1][0]
    correlation = (alone[0].variance + alone[1].variance - gap.variance) / (
        2 * (alone[0].variance * alone[1].variance) ** 0.5
    )
    expected = result.pairs[0].difference + (up**2 + down**2 - 2 * correlation * up * down) ** 0.5
    assert result.arms[1].at_worst == pytest.approx(float(expected))


def test_for_log_loss_the_lower_arm_is_the_better_one() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.exponential(0.1, 400)
    arms = [
        ArmTable(name, difficulty + generator.exponential(scale, (4, 400)))
        for name, scale in (("good", 0.2), ("bad", 0.6))
    ]
    result = judge(arms, Rows.of(400), np.full(400, np.log(4)), lower_is_better=True, is_share=False)
    assert [arm.has_learnt for arm in result.arms] == [True, True]
    assert result.pairs[0].difference < 0
    assert result.pairs[0].is_separated
    good, bad = (arm.at_worst for arm in result.arms)
    assert good is not None
    assert bad is not None
    assert good < 0 < 0.4 < bad
    for arm in result.arms:
        assert arm.mean / arm.low == pytest.approx(arm.high / arm.mean)


def test_an_arm_that_guesses_has_not_learnt() -> None:
    num_images = 300
    chance = (np.arange(num_images) < 100).astype(np.float64)
    generator = np.random.default_rng(0)
    guesses = ArmTable("guesses", (generator.random((3, num_images)) < 1 / 3).astype(np.float64))
    constant = ArmTable("constant", np.repeat(chance[None], 3, axis=0))
    wrong = ArmTable("wrong", np.zeros((3, num_images)))
    right = ArmTable("right", (generator.random((3, num_images)) < 0.9).astype(np.float64))
    result = judge([guesses, constant, wrong, right], Rows.of(num_images), chance)
    assert [arm.has_learnt for arm in result.arms] == [False, False, False, True]
    assert result.arms[2].versus_chance.p_holm < ALPHA  # separated from chance, on the wrong side
    expected = stats.binomtest(100, 300).proportion_ci(method="wilson")
    assert result.chance.value == pytest.approx(1 / 3)
    assert (result.chance.low, result.chance.high) == pytest.approx((expected.low, expected.high))


def test_with_one_seed_learning_is_that_of_these_models() -> None:
    (arm,) = tables((0.9, 1), num_images=200)
    statement = judged([arm]).arms[0]
    assert statement.has_learnt
    assert statement.versus_chance.df == 199


def extreme_logits() -> list[np.ndarray]:
    right = 20 * np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    one_wrong = right.copy()
    one_wrong[0] = right[1]
    return [right, one_wrong, -right, np.zeros_like(right), np.repeat(right[:1], 30, axis=0)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_seeds", [1, 2, 3])
def test_no_interval_has_width_zero(metric: str, num_seeds: int) -> None:
    labels = np.arange(30) % 3
    is_loss = metric in LOWER_IS_BETTER
    rows = Rows.of(30, strata=strata_of(metric, labels))
    values = [image_values(metric, labels, logits) for logits in extreme_logits()]
    arms = [ArmTable(str(n), np.repeat(v[None], num_seeds, axis=0)) for n, v in enumerate(values)]
    arms += [replace(arms[0], arm="twin"), ArmTable("zero", np.zeros((num_seeds, 30)))]
    result = judge(arms, rows, values[-1], lower_is_better=is_loss, is_share=not is_loss)
    numbers = [(arm.low, arm.high) for arm in result.arms] + [(result.chance.low, result.chance.high)]
    for pair in result.pairs:
        numbers += [(r.low, r.high) for r in (pair.these_models, pair.if_trained_again) if r is not None]
    numbers += [file_interval(v, rows, is_share=not is_loss) for v in values]
    assert np.isfinite(flat(result)).all()
    assert all(high - low > 1e-12 for low, high in numbers)


def test_images_of_one_group_are_one_observation() -> None:
    arms = tables((0.8, 3), (0.7, 4), num_images=80)
    twice = [ArmTable(arm.arm, np.repeat(arm.values, 2, axis=1)) for arm in arms]
    once, grouped = judged(arms), judged(twice, Rows.of(160, groups=np.repeat(np.arange(80), 2)))
    blind = judged(twice)
    for x, y, z in zip(once.pairs, grouped.pairs, blind.pairs, strict=True):
        assert x.if_trained_again is not None
        assert y.if_trained_again is not None
        assert y.num_discordant == x.num_discordant
        assert y.these_models.variance == pytest.approx(x.these_models.variance)
        assert y.these_models.df == x.these_models.df
        assert y.if_trained_again.variance == pytest.approx(x.if_trained_again.variance)
        assert y.if_trained_again.df == pytest.approx(x.if_trained_again.df)
        # As if each copy were a new image: half the variance.
        assert z.these_models.variance == pytest.approx(x.these_models.variance / 2, rel=0.02)
    for one, other in zip(once.arms, grouped.arms, strict=True):
        assert (other.low, other.high, other.seed_std) == pytest.approx((one.low, one.high, one.seed_std))


def test_a_file_judged_on_groups_is_less_certain() -> None:
    values = np.repeat((np.arange(40) % 5 > 0).astype(np.float64), 3)
    grouped = file_interval(values, Rows.of(120, groups=np.repeat(np.arange(40), 3)))
    single, all_rows = file_interval(values[::3], Rows.of(40)), file_interval(values, Rows.of(120))
    assert grouped == pytest.approx(single, abs=0.02)
    assert all_rows[1] - all_rows[0] < 0.65 * (grouped[1] - grouped[0])


def test_variance_within_strata_is_the_textbooks() -> None:
    # Cochran 1977, section 5.4: sum over strata of (N_k / N)^2 s_k^2 / N_k.
    generator = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [40, 15, 5])
    values = generator.normal(strata, 1 + strata)
    expected = sum((n / 60) ** 2 * values[strata == k].var(ddof=1) / n for k, n in enumerate((40, 15, 5)))
    spread = Spread.of(values[None], Rows.of(60, strata=strata))
    assert these_models(spread).variance == pytest.approx(expected)
    assert these_models(spread).df == 57


def test_rows_are_labelled_anew_and_lonely_strata_are_merged() -> None:
    rows = Rows.of(6, groups=["x", "x", "p", "q", "z", "y"], strata=[7, 7, 7, 7, 3, 5])
    assert rows.groups.tolist() == [2, 2, 0, 1, 4, 3]
    assert rows.num_groups == 5
    assert rows.strata.tolist() == [1, 1, 1, 1, 0, 0]
    lonely = Rows.of(5, strata=[0, 0, 1, 1, 2])  # one image alone joins the smallest other class
    assert sorted(np.bincount(lonely.strata).tolist()) == [2, 3]
    assert Rows.of(4).strata.tolist() == [0, 0, 0, 0]
    assert Rows.of(3, strata=[0, 1, 2]).strata.tolist() == [0, 0, 0]


def test_one_group_leaves_numbers_that_claim_nothing() -> None:
    arms = [ArmTable("a", np.ones((3, 4))), ArmTable("b", np.zeros((3, 4)))]
    result = judged(arms, Rows.of(4, groups=[0, 0, 0, 0]))
    assert np.isfinite(flat(result)).all()
    assert not result.pairs[0].is_separated
    assert not result.arms[0].has_learnt


def test_seeds_that_agree_by_chance_borrow_from_the_other_arms() -> None:
    rows = Rows.of(100)
    varied = np.repeat(np.array([0.5, 0.6, 0.7])[:, None], 100, axis=1)
    agreed = np.full((3, 100), 0.6)
    astray = np.repeat(np.array([0.1, 0.6, 0.9])[:, None], 100, axis=1)
    arms = (varied, varied, agreed, astray, varied[:2])
    spreads = borrow([Spread.of(values, rows) for values in arms], 3)
    assert spreads[0].between_seeds == pytest.approx(0.01)
    # Two arms of 0.01, one of 0, and one gone astray (0.163), which counts for ten medians.
    assert spreads[2].between_seeds == pytest.approx((0.01 + 0.01 + 0 + 0.1) / 4 / 3)
    assert spreads[4].between_seeds == pytest.approx(0.005)  # has too few seeds to give or take
    assert borrow([], 3) == []


def test_what_it_takes_is_the_formula_searched() -> None:
    a, b = tables((0.85, 4), (0.75, 3), num_images=150, seed=5)
    found = what_it_takes(a, b, Rows.of(150), 3)
    squares, counts = [mean_squares(arm.values) for arm in (a, b)], (4, 3)
    u = a.values.mean(axis=0) - b.values.mean(axis=0)
    v = u.var(ddof=1) - sum(mse / count for (_, mse), count in zip(squares, counts, strict=True))
    least = sum(mss for mss, _ in squares) / 2 / 3

    def is_enough(images: float, seeds: tuple[int, int]) -> bool:
        parts = [
            mse / (images * count) + max(0.0, max(mss, least) - mse) / 150 / count
            for (mss, mse), count in zip(squares, seeds, strict=True)
        ]
        of_images = max(max(0.0, v) / images, 2 / images**2 - sum(parts))
        variance = of_images + sum(parts)
        df = variance**2 / (
            sum(p**2 / (n - 1) for p, n in zip(parts, seeds, strict=True)) + of_images**2 / (149 * images / 150)
        )
        return bool(abs(u.mean()) > stats.t.ppf(1 - 0.05 / 6, df) * variance**0.5)

    assert found.seeds == next((s for s in range(3, 31) if is_enough(150, (s, s))), None)
    expected = next((n for n in range(10, 3001) if is_enough(n, counts)), None)
    assert (found.images is None) == (expected is None)
    if expected is not None:
        assert found.images == pytest.approx(expected, rel=0.02)


def test_what_it_takes_where_nothing_helps_or_little_is_known() -> None:
    (arm,) = tables((0.8, 4))
    assert what_it_takes(arm, arm, Rows.of(60), 1) == Needs(None, None)
    one_seed = tables((0.9, 1), (0.2, 1))
    assert what_it_takes(*one_seed, Rows.of(60), 1) == Needs(None, None)
    two_seeds = what_it_takes(*tables((0.95, 2), (0.2, 2), num_images=300), Rows.of(300), 1)
    assert two_seeds.images is None
    assert two_seeds.seeds == 3
    clear = what_it_takes(*tables((0.95, 3), (0.2, 3), num_images=300), Rows.of(300), 1)
    assert clear.seeds == 3
    assert clear.images is not None
    assert clear.images < 300


def test_the_difference_that_can_be_shown_shrinks_with_images_and_seeds() -> None:
    for seeds in (3, 5, 10):
        by_images = [detectable_difference(n, seeds, 3) for n in (30, 100, 300, 1000)]
        assert by_images == sorted(by_images, reverse=True)
    by_seeds = [detectable_difference(300, s, 3) for s in (3, 4, 5, 8, 15)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert detectable_difference(300, 5, 8) > detectable_difference(300, 5, 2)
    assert detectable_difference(300, 5, 3, seed_std=0.03) > detectable_difference(300, 5, 3)
    assert detectable_difference(300, 1, 3, seed_std=0.03) == detectable_difference(300, 1, 3)  # of these models


def test_exact_fractions_of_the_worked_table() -> None:
    """Check the comment above, so that it is not taken on trust."""
    a = [[Fraction(int(x)) for x in row] for row in WORKED[0].values]
    c = [sum(column, Fraction()) / 3 for column in zip(*a, strict=True)]
    m_s, m = [sum(row) / 4 for row in a], Fraction(3, 4)
    rest = sum((a[s][i] - c[i] - m_s[s] + m) ** 2 for s in range(3) for i in range(4))
    assert c == [1, 1, Fraction(2, 3), Fraction(1, 3)]
    assert rest / 6 == Fraction(5, 36)
    assert sum((x - m) ** 2 for x in m_s) / 2 == Fraction(1, 16)


def test_a_seed_gone_astray_makes_no_other_arm_uncertain() -> None:
    quiet = tables((0.9, 5), (0.7, 5), num_images=400)
    astray = tables((0.8, 5), num_images=400, seed=9)[0].values.copy()
    astray[1] = 0.0
    beside = judge([*quiet, ArmTable("astray", astray)], Rows.of(400), np.arange(400) % 4 == 0)
    alone = judge(quiet, Rows.of(400), np.arange(400) % 4 == 0)
    assert beside.pairs[0].if_trained_again is not None
    assert alone.pairs[0].if_trained_again is not None
    width = beside.pairs[0].if_trained_again.high - beside.pairs[0].if_trained_again.low
    assert width < 1.5 * (alone.pairs[0].if_trained_again.high - alone.pairs[0].if_trained_again.low)
    assert beside.pairs[0].is_separated
    assert beside.arms[0].has_learnt


def test_one_large_group_among_single_images_gives_few_degrees_of_freedom() -> None:
    rows = Rows.of(160, groups=[0] * 100 + list(range(1, 61)))
    assert rows.num_groups == 61
    assert rows.num_groups_effective == pytest.approx(160**2 / (100**2 + 60))
    assert rows.df < 2


def test_equal_arms_on_groups_of_unequal_size_are_seldom_separated() -> None:
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), random.integers(1, 15, 30))
    rows, false = Rows.of(len(groups), groups=groups), 0
    for _ in range(200):
        # Images of a group are right or wrong together, more or less.
        difficulty = random.normal(1.0, 1.0, 30)[groups] + random.normal(0, 0.3, len(groups))
        arms = [
            ArmTable(name, (difficulty + random.normal(0, 0.5, 30)[groups] > random.normal(0, 0.3, (3, 1))) * 1.0)
            for name in "ab"
        ]
        false += judge(arms, rows, np.zeros(len(groups))).pairs[0].is_separated
    assert false <= 20


def test_a_handful_of_discordant_images_separates_nothing_however_they_fall() -> None:
    values = np.ones((3, 200))
    worse = values.copy()
    worse[:, :5] = 0.0
    (pair,) = judge([ArmTable("a", values), ArmTable("b", worse)], Rows.of(200), np.zeros(200)).pairs
    assert pair.num_discordant == 5
    assert not pair.is_separated
    assert pair.these_models.p_holm >= 2 * 0.5**5
