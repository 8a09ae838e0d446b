from itertools import product

import pytest

from transferlib.errors import PlanError
from transferlib.planning.machine import Machine, Node
from transferlib.planning.placement import count_slots, describe_placement, place_trials
from transferlib.planning.resources import derive_resources
from transferlib.spec import ResourcesSpec


def cluster(*nodes: Node) -> Machine:
    return Machine(
        cpus=sum(node.cpus for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        memory_bytes=64 << 30,
        disk_free_bytes=10**12,
        name="the cluster at http://head:8265",
        nodes=nodes,
    )


def test_every_planned_worker_has_room_on_some_node() -> None:
    clusters = product([1, 2, 3, 8], [1, 2, 3, 4, 7, 16], [0, 1, 4])
    for (num_nodes, cpus, gpus), workers, num_trials in product(clusters, [1, 2, 3, 4, 8], [1, 9, 54]):
        case = f"{num_nodes} nodes of {cpus} CPUs and {gpus} GPUs, {workers} workers, {num_trials} trials"
        machine = cluster(*(Node(f"n{index}", cpus, gpus) for index in range(num_nodes)))
        wanted = ResourcesSpec(gpus_per_trial=workers) if gpus else ResourcesSpec(workers_per_trial=workers)
        try:
            resources = derive_resources(wanted, machine, num_trials)
        except PlanError:
            assert workers > (machine.gpus or max(2, machine.cpus)), case
            continue
        if machine.cpus == 1:
            continue  # Ray is told of two there, see `submit cluster up`
        slots = count_slots(machine.nodes, resources.cpus_per_worker, use_gpu=resources.use_gpu)
        assert slots >= resources.concurrency * workers, case
        assert resources.concurrency * workers * resources.cpus_per_worker <= machine.cpus + 1e-9, case
        assert 0 < resources.data_cpus < resources.cpus_per_worker, case


def test_a_worker_never_asks_for_more_than_a_node_has() -> None:
    machine = cluster(*(Node(f"n{index}", 3, 0) for index in range(20)))
    resources = derive_resources(ResourcesSpec(), machine, 54)
    assert (resources.cpus_per_worker, resources.data_cpus) == (3, 1)
    assert resources.concurrency == 20


@pytest.mark.parametrize(
    ("cpus", "reserved", "concurrency"),
    [((2, 1), 1, 2), ((2, 2), 2, 2), ((2, 2, 2, 2), 2, 4), ((4, 4), 1.3333, 6), ((8, 2), 2.6666, 3), ((1, 1, 1), 1, 2)],
)
def test_each_node_keeps_a_share_for_the_images_of_its_trials(
    cpus: tuple[int, ...], reserved: float, concurrency: int
) -> None:
    machine = cluster(*(Node(f"n{index}", number, 0) for index, number in enumerate(cpus)))
    resources = derive_resources(ResourcesSpec(), machine, 54)
    assert (resources.cpus_per_worker, resources.concurrency) == (reserved, concurrency)


def test_a_gpu_reserves_its_share_of_its_node_and_leaves_the_others_theirs() -> None:
    resources = derive_resources(ResourcesSpec(gpus=1), cluster(Node("gpus", 16, 4)), 54)
    assert (resources.concurrency, resources.cpus_per_worker, resources.data_cpus) == (1, 4, 3)


def test_gpu_workers_share_the_cpus_of_their_own_node() -> None:
    machine = cluster(Node("gpus", 4, 8), Node("cpus", 64, 0))
    resources = derive_resources(ResourcesSpec(gpus=8), machine, 54)
    assert resources.cpus_per_worker == 0.5
    assert resources.concurrency == 8


def test_a_trial_is_packed_on_the_fullest_node_that_holds_it() -> None:
    nodes = (Node("a", 16, 4), Node("b", 16, 2), Node("c", 16, 1))
    assert place_trials(nodes, 1, use_gpu=True, num_trials=3, workers_per_trial=2) == ({"b": 2}, {"a": 2}, {"a": 2})
    assert place_trials(nodes, 1, use_gpu=True, num_trials=1, workers_per_trial=6) == ({"a": 4, "b": 2},)
    assert place_trials(nodes, 1, use_gpu=True, num_trials=2, workers_per_trial=4) == ({"a": 4},)


def test_the_plan_says_over_which_nodes_the_gpus_lie() -> None:
    assert describe_placement([{"a": 4}], use_gpu=True) == "4 GPUs on 1 node (a 4); each trial lies on one node."
    assert describe_placement([{"a": 1}, {"b": 1}], use_gpu=True) == (
        "2 GPUs on 2 nodes (a 1, b 1); each trial lies on one node."
    )
    assert describe_placement([{"a": 2, "b": 2}], use_gpu=True) == (
        "4 GPUs on 2 nodes (a 2, b 2); the trial's gradients cross the network between 2 nodes each step."
    )


def test_more_gpus_than_the_cluster_has_are_refused_with_its_address() -> None:
    with pytest.raises(PlanError) as caught:
        derive_resources(ResourcesSpec(gpus=4), cluster(Node("a", 8, 2)), 9)
    assert str(caught.value) == (
        "--gpus 4: the cluster at http://head:8265 has 2. Use --gpus 2, or add workers (cluster/README.md)."
    )
