"""Several runs of Ray Data side by side, a task at a time in each, their results in the order of the blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import cycle, islice

import pyarrow as pa

from transferlib.on_ray.blocks import run_blocks
from transferlib.on_ray.pump import Pump


def run_lanes(
    blocks: Sequence[pa.Table],
    function: Callable[[pa.Table], pa.Table],
    lanes: int,
    memory_bytes: int,
    *,
    is_reserved: bool = False,
) -> Generator[pa.Table, None, None]:
    """Yield a function of each block, in order. Closing the generator ends the tasks.

    Ray Data waits until all running tasks have something, or 0.1 s, and that twice a block: with two tasks in one run,
    their processes were busy half of the time. With one task a run it goes on at once, so there is a run a lane.
    There should not be more than CPUs: Ray ends idle workers beyond their number, and each new one takes seconds.

    Args:
        blocks: Small tables, at least one.
        function: Turns a block into a table; importable by workers.
        lanes: Tasks at the same time.
        memory_bytes: Object store that results may take.
        is_reserved: As `run_blocks`.

    Raises:
        As `run_blocks`.
    """
    lanes = min(lanes, len(blocks))
    run = partial(run_blocks, function=function, memory_bytes=memory_bytes // lanes, is_reserved=is_reserved)
    if lanes == 1:
        yield from run(blocks)
        return
    pumps = [Pump(partial(run, blocks[lane::lanes])) for lane in range(lanes)]
    try:
        results = [iter(pump) for pump in pumps]
        for result in islice(cycle(results), len(blocks)):
            yield next(result)
    finally:
        for pump in pumps:
            pump.close()
