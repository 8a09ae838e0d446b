"""One machine, shared out over nodes."""

from __future__ import annotations

import pytest

from transferlib.errors import PlanError
from transferlib.on_ray.node_shares import MIN_OBJECT_STORE_BYTES, share_out
from transferlib.planning.machine import Machine


def machine(cpus: int = 8, gpus: int = 0) -> Machine:
    return Machine(cpus=cpus, gpus=gpus, memory_bytes=16 << 30, disk_free_bytes=64 << 30)


def test_usable_cpus_are_shared_out_the_rest_to_the_first() -> None:
    assert [share.cpus for share in share_out(machine(8), {}, num_nodes=3)] == [3, 3, 2]


def test_the_head_has_two_cpus_and_every_node_one_on_the_smallest_machine() -> None:
    assert [share.cpus for share in share_out(machine(1), {}, num_nodes=3)] == [2, 1, 1]


def test_cpus_asked_for_are_given_to_every_node() -> None:
    assert [share.cpus for share in share_out(machine(2), {}, num_nodes=2, cpus_per_node=4)] == [4, 4]


def test_names_are_distinct() -> None:
    assert [share.name for share in share_out(machine(), {}, num_nodes=3)] == ["node-1", "node-2", "node-3"]


def test_no_gpu_belongs_to_two_nodes() -> None:
    shares = share_out(machine(gpus=4), {}, num_nodes=2)
    assert [share.gpus for share in shares] == [("0", "1"), ("2", "3")]


def test_gpus_keep_the_names_that_the_user_chose() -> None:
    shares = share_out(machine(gpus=2), {"CUDA_VISIBLE_DEVICES": "5, GPU-abc"}, num_nodes=2)
    assert [share.gpus for share in shares] == [("5",), ("GPU-abc",)]


def test_a_gpu_that_cannot_be_divided_goes_to_nobody_unless_asked_for() -> None:
    assert [share.gpus for share in share_out(machine(gpus=1), {}, num_nodes=2)] == [(), ()]


def test_memory_and_object_stores_fit_the_machine_together() -> None:
    shares = share_out(machine(64), {}, num_nodes=4)
    stores = [share.object_store_bytes for share in shares]
    assert min(stores) >= MIN_OBJECT_STORE_BYTES
    assert sum(stores) <= 0.3 * (16 << 30)
    assert sum(share.memory_bytes + share.object_store_bytes for share in shares) <= 16 << 30


def test_all_demands_that_cannot_be_met_are_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        share_out(machine(gpus=1), {}, num_nodes=2, cpus_per_node=1, gpus_per_node=1)
    first, second = str(caught.value).splitlines()
    assert first.startswith("--cpus-per-node 1: the head needs 2")
    assert second.startswith("--gpus-per-node 1: 2 nodes need 2 GPUs and this machine shows 1. Use --gpus-per-node 0")
