"""Whose turn it is, and what a job says that it waits for: pure functions of who has reserved what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from transferlib.on_ray.turns import Amounts, Occupancy, Reservation

CPU2 = ({"CPU": 2.0},)


def occupancy(*reservations: Reservation, cpus: tuple[int, ...] = (4,), gpus: int = 0) -> Occupancy:
    nodes: tuple[Amounts, ...] = tuple({"CPU": float(number), "GPU": float(gpus)} for number in cpus)
    placed = [one for one in reservations if one.is_placed]
    free = {name: sum(node[name] for node in nodes) - sum(one.total(name) for one in placed) for name in ("CPU", "GPU")}
    return Occupancy(7, reservations, nodes, free, {3: "run 20260101-000000-compare-aaaa", 9: "run 9"})


def test_a_job_that_waits_says_what_it_needs_and_who_has_it() -> None:
    now = occupancy(Reservation(3, ({"CPU": 3.0},), True), Reservation(7, CPU2, False))
    assert now.explain() == "waiting: needs 2 CPUs; run 20260101-000000-compare-aaaa holds 3 of 4 CPUs"


def test_a_gpu_that_is_missing_is_what_is_told() -> None:
    wanted = Reservation(7, ({"CPU": 1.0, "GPU": 1.0},), False)
    now = occupancy(Reservation(8, ({"CPU": 1.0, "GPU": 2.0},), True), wanted, gpus=2)
    assert now.explain() == "waiting: needs 1 GPU and 1 CPU; another job holds 2 of 2 GPUs"


def test_a_worker_group_is_counted() -> None:
    now = occupancy(Reservation(3, CPU2, True), Reservation(7, CPU2 * 2, False), cpus=(2, 2))
    assert now.explain().startswith("waiting: needs 2 times 2 CPUs; run 2026")


def test_what_no_node_has_room_for_any_more_is_told() -> None:
    now = occupancy(Reservation(7, ({"CPU": 3.0},), False), cpus=(2, 2))
    assert now.explain() == "waiting: needs 3 CPUs, and the nodes that are alive have no room for that"


def test_a_job_that_has_reserved_nothing_waits_for_a_cpu_to_read_its_images() -> None:
    assert occupancy(Reservation(3, ({"CPU": 4.0},), True)).explain().startswith("waiting: needs 1 CPU; run 2026")
    assert occupancy(Reservation(3, ({"CPU": 3.0},), True)).explain() == ""


def test_trials_of_one_job_that_take_turns_are_no_news() -> None:
    own = Reservation(7, CPU2, True)
    assert occupancy(own, own, replace(own, is_placed=False)).explain() == ""


@pytest.mark.parametrize(
    ("earlier", "uses_gpu", "yields"),
    [
        (Reservation(3, CPU2, False), False, True),
        (Reservation(3, CPU2, True), False, False),
        (Reservation(9, CPU2, False), False, False),
        (Reservation(7, CPU2, False), False, False),
        (Reservation(3, ({"CPU": 8.0},), False), False, False),  # nobody can ever leave it that
        (Reservation(3, CPU2 * 3, False), False, False),
        (Reservation(3, ({"CPU": 1.0, "GPU": 1.0},), False), False, False),  # it waits for the GPU
        (Reservation(3, ({"CPU": 1.0, "GPU": 1.0},), False), True, True),
    ],
)
def test_a_job_yields_to_one_that_came_before_it_and_could_use_the_room(
    earlier: Reservation, uses_gpu: bool, yields: bool
) -> None:
    holder = Reservation(8, ({"GPU": 1.0},), True)
    assert (occupancy(earlier, holder, gpus=1).earlier(uses_gpu=uses_gpu) == earlier) == yields


def test_of_two_jobs_that_wait_one_always_goes() -> None:
    waiting = (Reservation(3, CPU2, False), Reservation(7, CPU2, False))
    assert replace(occupancy(*waiting), own_job=3).earlier(uses_gpu=False) is None
    assert occupancy(*waiting).earlier(uses_gpu=False) == waiting[0]


def test_a_job_that_yields_says_to_whom() -> None:
    now = occupancy(Reservation(3, CPU2 * 2, False), cpus=(2, 2))
    assert now.explain() == "waiting: run 20260101-000000-compare-aaaa came earlier and needs 2 times 2 CPUs"


def test_what_others_hold_without_a_reservation_is_told_too() -> None:
    now = replace(occupancy(Reservation(3, CPU2, True), Reservation(7, CPU2, False)), free={})
    assert now.explain().endswith("aaaa holds 2 of 4 CPUs; something without a reservation holds 2 of 4 CPUs")


def test_only_a_job_that_holds_and_asks_for_nothing_waits_unseen() -> None:
    all_taken = Reservation(3, ({"CPU": 4.0},), True)
    assert occupancy(all_taken).waits_unseen
    assert not occupancy(Reservation(3, CPU2, True)).waits_unseen
    assert not occupancy(all_taken, Reservation(7, CPU2, False)).waits_unseen
