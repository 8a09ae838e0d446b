from itertools import pairwise, product

import numpy as np
import pytest

from transferlib.data.images import ImageTable, image_keys
from transferlib.data.schedule import Position, Schedule, permutation

SIZES = [1, 2, 3, 7, 8, 9, 16, 23, 64, 101]
BATCHES = [1, 2, 3, 8, 10, 64, 200]
WORLDS = [1, 2, 3, 5]
CASES = list(product(SIZES, BATCHES, WORLDS))


def make_images(num_train: int, num_val: int = 5, num_test: int = 4) -> ImageTable:
    splits = np.repeat(np.array([0, 1, 2], np.int8), [num_train, num_val, num_test])
    splits = splits[np.argsort(np.arange(len(splits)) * 7919 % 104729, kind="stable")]
    ids = tuple(f"{i:05d}.png" for i in range(len(splits)))
    labels = np.arange(len(splits)) % 2
    return ImageTable(ids, ids, ids, labels, splits, image_keys(ids), ("a", "b"))


def make_schedule(num_train: int, batch: int = 8, eval_batch: int = 4, epochs: int = 2, **splits: int) -> Schedule:
    return Schedule(make_images(num_train, **splits), 3, batch, eval_batch, epochs)


def test_every_image_comes_once_an_epoch_over_all_ranks() -> None:
    for num_images, batch, world_size in CASES:
        schedule = make_schedule(num_images, batch)
        ranks = [list(schedule.steps(rank, world_size)) for rank in range(world_size)]
        for epoch in range(2):
            seen = [s.rows for shares in ranks for s in shares if (s.phase, s.epoch) == ("train", epoch)]
            in_order = sorted(np.concatenate(seen))
            assert in_order == list(schedule.images.rows("train")), (num_images, batch, world_size, epoch)


def test_all_ranks_take_the_same_steps_and_their_shares_make_up_each_step() -> None:
    for case in CASES:
        num_images, batch, world_size = case
        schedule = make_schedule(num_images, batch)
        ranks = [list(schedule.steps(rank, world_size)) for rank in range(world_size)]
        for whole, *shares in zip(schedule.steps(0, 1), *ranks, strict=True):
            assert np.array_equal(np.concatenate([s.rows for s in shares]), whole.rows), case
            assert {(s.phase, s.epoch, s.step, s.num_steps, s.step_images) for s in shares} == {
                (whole.phase, whole.epoch, whole.step, whole.num_steps, len(whole.rows))
            }, case
            assert [s.offset for s in shares] == [0, *np.cumsum([len(s.rows) for s in shares])[:-1]], case
            sizes = [len(s.rows) for s in shares]
            assert max(sizes) - min(sizes) <= 1, case


def test_steps_of_an_epoch_differ_by_at_most_one_image() -> None:
    for case in product(SIZES, BATCHES):
        num_images, batch = case
        sizes = [len(s.rows) for s in make_schedule(num_images, batch).steps(0, 1) if s.phase == "train"]
        assert max(sizes) - min(sizes) <= 1, case
        assert max(sizes) <= batch, case
        assert len(sizes) == 2 * -(-num_images // batch), case


def test_validation_follows_each_epoch_in_row_order_with_nothing_padded_or_dropped() -> None:
    schedule = make_schedule(8, batch=4, eval_batch=3, num_val=7)
    steps = list(schedule.steps(0, 1))
    assert [s.phase for s in steps] == (["train"] * 2 + ["val"] * 3) * 2
    first = [s.rows for s in steps if (s.phase, s.epoch) == ("val", 0)]
    assert [len(rows) for rows in first] == [3, 3, 1]
    assert np.array_equal(np.concatenate(first), schedule.images.rows("val"))


def test_a_rank_may_have_nothing_to_do_in_an_evaluation_step_but_still_takes_it() -> None:
    schedule = make_schedule(8, eval_batch=4, num_test=5)
    shares = [list(schedule.evaluation("test", rank, 2)) for rank in range(2)]
    assert [[len(s.rows) for s in rank] for rank in shares] == [[2, 0], [2, 1]]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stream_begins_at_any_position(world_size: int) -> None:
    schedule = make_schedule(20, batch=8)
    rank = world_size - 1
    whole = list(schedule.steps(rank, world_size))
    for at, share in enumerate(whole):
        if share.phase == "val" and share.step:
            continue  # validation starts at its beginning
        step = share.step if share.phase == "train" else schedule.num_train_steps
        rest = list(schedule.steps(rank, world_size, Position(share.epoch, step)))
        assert len(rest) == len(whole) - at
        for mine, theirs in zip(rest, whole[at:], strict=True):
            assert (mine.phase, mine.epoch, mine.step, mine.offset) == (
                theirs.phase,
                theirs.epoch,
                theirs.step,
                theirs.offset,
            )
            assert np.array_equal(mine.rows, theirs.rows)


def test_the_end_of_training_is_a_position_with_nothing_after_it() -> None:
    schedule = make_schedule(20, epochs=2)
    assert list(schedule.steps(0, 1, Position(2, 0))) == []


def test_epochs_have_orders_of_their_own_and_a_seed_gives_them_again() -> None:
    schedule = make_schedule(64)
    orders = [schedule.epoch_order(epoch) for epoch in range(4)]
    assert all(not np.array_equal(a, b) for a, b in pairwise(orders))
    assert np.array_equal(orders[1], make_schedule(64).epoch_order(1))
    other_seed = Schedule(schedule.images, 4, 8, 4, 2)
    assert not np.array_equal(orders[0], other_seed.epoch_order(0))


def test_the_permutation_is_this_one_on_every_machine() -> None:
    assert permutation(8, seed=0, epoch=0).tolist() == GOLDEN[0]
    assert permutation(8, seed=1, epoch=2).tolist() == GOLDEN[1]
    assert permutation(8, seed=-1, epoch=0).tolist() != GOLDEN[0]


def test_permutations_put_every_image_everywhere() -> None:
    orders = np.array([permutation(6, seed=0, epoch=e) for e in range(3000)])
    counts = np.array([[(orders[:, place] == image).sum() for place in range(6)] for image in range(6)])
    # 500 expected; six standard deviations of a binomial are 122
    assert abs(counts - 500).max() < 122


@pytest.mark.parametrize("bad", [Position(3, 0), Position(0, 4), Position(-1, 0)])
def test_a_position_outside_of_the_training_is_refused(bad: Position) -> None:
    with pytest.raises(ValueError, match="outside"):
        make_schedule(20, batch=8).steps(0, 1, bad)


def test_a_rank_outside_of_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="world_size 2"):
        make_schedule(20).evaluation("test", 2, 2)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="global_batch_size is 0"):
        make_schedule(20, batch=0)


GOLDEN = [[2, 3, 5, 7, 0, 6, 1, 4], [1, 2, 4, 3, 6, 5, 0, 7]]
