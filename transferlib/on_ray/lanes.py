"""Several runs of Ray Data side by side, a task at a time in each, their results in the order of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import cycle, islice

import pyarrow as pa

from transferlib.on_ray.blocks import run_blocks
from transferlib.on_ray.pump import Pump


def run_lanes(
    blocks: Sequence[pa.Table], function: Callable[[pa.Table], pa.Table], cpus: float, memory_bytes: int
) -> Generator[pa.Table, None, None]:
    """Yield a function of each block, in order. Closing the generator ends the tasks.

    Ray Data waits until all running tasks have something, or 0.1 s, and that twice a block: with two tasks in one run,
    their processes were busy half of the time. With one task a run it goes on at once, so there is a run a whole CPU.
    There are never more: Ray ends idle workers beyond the number of CPUs, and each new one takes seconds.

    Args:
        blocks: Small tables, at least one.
        function: Turns a block into a table; importable by workers.
        cpus: Logical CPUs that tasks may take together; below 1: one task at a time that asks for this fraction.
        memory_bytes: Object store that results may take.

    Raises:
        As `run_blocks`.
    """
    num_lanes = min(max(1, int(cpus)), len(blocks))
    if num_lanes == 1:
        yield from run_blocks(blocks, function, min(cpus, 1.0), memory_bytes)
        return
    share = memory_bytes // num_lanes
    lanes = [Pump(partial(run_blocks, blocks[lane::num_lanes], function, 1.0, share)) for lane in range(num_lanes)]
    try:
        results = [iter(lane) for lane in lanes]
        for result in islice(cycle(results), len(blocks)):
            yield next(result)
    finally:
        for lane in lanes:
            lane.close()
