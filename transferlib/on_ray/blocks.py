"""One run of Ray Data: small tables in, a function over each, one task at a time, results out in order and bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import ray.data
from ray.data import DataContext, Datasource, ExecutionResources, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata
from ray.exceptions import RayTaskError

from transferlib.on_ray.tasks import own_error

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data._internal.execution.interfaces import RefBundle

NODE_ID_LABEL = "ray.io/node-id"
"""Ray gives each node this label."""


class IndexBlocks(Datasource):
    """Offer small tables that the driver holds, one a task.

    `ray.data.from_arrow` would start a one-CPU task a table just to read its schema: slow for hundreds of them, and
    without end where training has left less than one CPU.

    Args:
        tables: One a block.
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tables = tables

    def get_name(self) -> str:
        return "Index"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(_read, table),
                BlockMetadata(num_rows=table.num_rows, size_bytes=table.nbytes, input_files=None, exec_stats=None),
            )
            for table in self._tables
        ]


def _read(table: pa.Table) -> list[pa.Table]:
    return [table]


def run_blocks(
    blocks: Sequence[pa.Table],
    function: Callable[[pa.Table], pa.Table],
    memory_bytes: int,
    *,
    is_reserved: bool = False,
) -> Generator[pa.Table, None, None]:
    """Yield a function of each block, in order. Closing the generator ends the tasks.

    Args:
        blocks: Small tables, at least one.
        function: Turns a block into a table; importable by workers.
        memory_bytes: Object store that results may take.
        is_reserved: Whether the caller has reserved what a task uses: it then asks Ray for nothing, and runs on the
            caller's node. Else it waits for a CPU, on whichever node has one. One task runs at a time.

    Raises:
        TransferlibError: The function raised it.
        ray.exceptions.RayError: Anything else that ended the run.
    """
    here = {NODE_ID_LABEL: ray.get_runtime_context().get_node_id()}
    where: dict[str, Any] = {"num_cpus": 0, "label_selector": here} if is_reserved else {"num_cpus": 1}
    one = TaskPoolStrategy(size=1)
    with quiet_console():
        dataset = ray.data.read_datasource(
            IndexBlocks(blocks), override_num_blocks=len(blocks), compute=one, **where
        ).map_batches(function, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, compute=one, **where)
        _configure(dataset.context, memory_bytes)
        bundles: Iterator[RefBundle] | None = None
        try:
            # Not iter_batches: closed early it kills the worker processes (the next stream waits seconds for new ones);
            # without prefetching it leaves a thread behind, with it it starts an actor.
            bundles = dataset.iter_internal_ref_bundles()
            for bundle in bundles:
                for entry in bundle.blocks:
                    yield ray.get(cast("ObjectRef[pa.Table]", entry.ref))
        except RayTaskError as error:
            raise own_error(error) from None
        finally:
            # The last reference: the executor shuts down here, and cancels its tasks gently.
            del bundles


def _configure(context: DataContext, memory_bytes: int) -> None:
    """Set what holds for one dataset; its context is its own copy."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.target_max_block_size = None  # a task's result is one block, as we cut it
    options = context.execution_options
    options.preserve_order = True
    # Without limits, the streams of trials side by side would each budget for the whole machine.
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=memory_bytes)


class _Mute(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # Errors are raised to the consumer; the tip comes with every first stream that shows no bars.
        return record.levelno == logging.WARNING and not record.getMessage().startswith("Progress bars disabled")


@contextmanager
def quiet_console() -> Iterator[None]:
    """Keep Ray Data's notes off the terminal for the length of a `with` block; its log files get all of them."""
    mute = _Mute()
    consoles = [handler for handler in logging.getLogger("ray.data").handlers if handler.name == "console"]
    for handler in consoles:
        handler.addFilter(mute)
    try:
        yield
    finally:
        for handler in consoles:
            handler.removeFilter(mute)
