"""On which nodes of a cluster trials and their workers come to lie: packed, as Ray packs them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from transferlib.planning.machine import Node
from transferlib.words import count

EPSILON = 1e-6

Placement = dict[str, int]
"""Workers of one trial by node."""


def count_slots(nodes: Sequence[Node], cpus_per_worker: float, *, use_gpu: bool) -> int:
    """Return how many workers all nodes have room for, each on one node.

    Args:
        nodes: Of the cluster.
        cpus_per_worker: Logical CPUs a worker asks for.
        use_gpu: Whether each asks for a GPU too.
    """
    return sum(_slots(node, cpus_per_worker, use_gpu=use_gpu) for node in nodes)


def place_trials(
    nodes: Sequence[Node], cpus_per_worker: float, *, use_gpu: bool, num_trials: int, workers_per_trial: int
) -> tuple[Placement, ...]:
    """Return where the workers of trials side by side lie: on one node where one has room, else on as few as will do.

    Args:
        nodes: Of the cluster.
        cpus_per_worker: Logical CPUs a worker asks for.
        use_gpu: Whether each asks for a GPU too.
        num_trials: Side by side.
        workers_per_trial: Of each.

    Returns:
        One a trial; shorter where the nodes have no room for the rest.
    """
    free = {node.name: _slots(node, cpus_per_worker, use_gpu=use_gpu) for node in nodes}
    placed: list[Placement] = []
    for _ in range(num_trials):
        if sum(free.values()) < workers_per_trial:
            break
        fitting = [name for name, slots in free.items() if slots >= workers_per_trial]
        order = [min(fitting, key=free.__getitem__)] if fitting else sorted(free, key=lambda name: -free[name])
        trial: Placement = {}
        for name in order:
            take = min(free[name], workers_per_trial - sum(trial.values()))
            if take:
                trial[name] = take
                free[name] -= take
        placed.append(trial)
    return tuple(placed)


def describe_placement(placed: Sequence[Placement], *, use_gpu: bool) -> str:
    """Return a sentence that says which nodes the workers lie on.

    Args:
        placed: Of `place_trials`.
        use_gpu: Whether a worker has a GPU.
    """
    total: Counter[str] = Counter()
    for trial in placed:
        total.update(trial)
    workers = count(sum(total.values()), "GPU" if use_gpu else "worker")
    shares = ", ".join(f"{name} {number}" for name, number in total.items())
    text = f"{workers} on {count(len(total), 'node')} ({shares})"
    spread = [trial for trial in placed if len(trial) > 1]
    if not spread:
        return f"{text}; each trial lies on one node."
    widest = max(map(len, spread))
    whose = "the trial's" if len(placed) == 1 else f"{len(spread)} of {len(placed)} trials'"
    return f"{text}; {whose} gradients cross the network between {count(widest, 'node')} each step."


def _slots(node: Node, cpus_per_worker: float, *, use_gpu: bool) -> int:
    by_cpu = math.floor(node.cpus / cpus_per_worker + EPSILON)
    return min(node.gpus, by_cpu) if use_gpu else by_cpu
