"""Draws are data, keyed by (seed, epoch, image) and by nothing else."""

import pickle

import numpy as np
import pytest

from transferlib.data.augment import Augmentation
from transferlib.data.draws import STEPS, uniforms

KEYS = np.array([3, 2**64 - 1, 17, 0, 99], np.uint64)
SIZES = np.array([[73, 90], [73, 73], [100, 73], [73, 74], [90, 73]])
STRONG = Augmentation.from_spec("strong", 64)
MASK = 2**64 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Return a block of Philox 4x64-10 (Salmon et al. 2011), written out in plain integers."""
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [(b >> 64) ^ counter[1] ^ key[0], b & MASK, (a >> 64) ^ counter[3] ^ key[1], a & MASK]
        key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
    return counter


def test_uniforms_are_philox_of_seed_epoch_and_key_on_any_numpy():
    stream = int.from_bytes(b"augment\0", "big")
    for seed, epoch, key in [(0, 0, 0), (3, 7, 2**63 + 5)]:
        words = philox([1, key, stream, 0], [seed, epoch]) + philox([2, key, stream, 0], [seed, epoch])
        assert uniforms(seed, epoch, key, 7) == [(word >> 11) / 2**53 for word in words[:7]]


def test_uniforms_lie_in_the_unit_interval_and_are_spread_evenly():
    numbers = np.array([uniforms(0, epoch, key, 10) for epoch in range(20) for key in range(50)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert ((counts - 500) ** 2 / 500).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001


@pytest.mark.parametrize("changed", [(1, 0, 5), (0, 1, 5), (0, 0, 6)])
def test_seed_epoch_and_key_each_change_all_numbers(changed):
    assert not set(uniforms(0, 0, 5, 40)) & set(uniforms(*changed, 40))


def test_draws_of_an_image_do_not_depend_on_its_batch():
    whole = STRONG.draw(4, 2, KEYS, SIZES)
    order = [3, 0, 4, 1]
    assert STRONG.draw(4, 2, KEYS[order], SIZES[order]) == whole.take(order)
    for n in range(len(KEYS)):
        assert STRONG.draw(4, 2, KEYS[[n]], SIZES[[n]]) == whole.take([n])


def test_draws_of_an_operation_do_not_depend_on_those_before_it():
    rest = [{"ColorJitter": {"brightness": 0.5}}, {"RandomErasing": {"p": 1}}]
    one = Augmentation.from_spec([{"RandomResizedCrop": {}}, *rest], 64)
    other = Augmentation.from_spec([{"RandomResizedCrop": {"scale": [0.9, 1]}}, *rest], 64)
    values = [a.draw(0, 0, KEYS, SIZES).passes[0].values for a in (one, other)]
    np.testing.assert_array_equal(*values)


def test_draws_print_compare_and_pickle():
    draws = STRONG.draw(1, 1, KEYS, SIZES)
    assert pickle.loads(pickle.dumps(draws)) == draws
    assert draws != STRONG.draw(1, 2, KEYS, SIZES)
    assert draws != draws.take([0])
    assert "matrices" in repr(draws)
    assert len(draws) == 5
    assert len(draws.take([])) == 0


def test_jitter_draws_every_order_of_its_operations():
    keys = np.arange(400).astype(np.uint64)
    jitter = Augmentation.from_spec("standard", 64)
    codes = jitter.draw(0, 0, keys, np.full((400, 2), 73)).passes[0].codes
    orders, counts = np.unique(codes, axis=0, return_counts=True)
    assert len(orders) == 6
    assert {STEPS[code] for code in orders[0]} == {"adjust_brightness", "adjust_contrast", "adjust_saturation"}
    assert ((counts - 400 / 6) ** 2 / (400 / 6)).sum() < 20.5  # chi-squared, 5 degrees of freedom, p = 0.001


def test_draws_of_one_image_are_these_numbers():
    """A change of these numbers changes every result: it needs a new version and a line in the changelog."""
    calls = Augmentation.from_spec("standard", 224).calls(0, 0, 1, (256, 341))
    crop, flip, turn, *jitter = calls
    assert crop == ("resized_crop", {"top": 35, "left": 11, "height": 198, "width": 176, "size": [224, 224]})
    assert flip == ("horizontal_flip", {})
    assert turn.arguments["angle"] == pytest.approx(0.7788699064178246, rel=1e-12)
    assert [name for name, _ in jitter] == ["adjust_saturation", "adjust_brightness", "adjust_contrast"]
    factors = [factor for _, arguments in jitter for factor in arguments.values()]
    assert factors == pytest.approx([0.8288585094189485, 0.8624737578431729, 0.8677728576433501], rel=1e-12)
