"""Wait for what may find no room on the cluster for hours, and look meanwhile whether the job is to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import ray

T = TypeVar("T")

POLL_S = 0.5
THREAD_NAME = "waited-for"
LEAVE_S = 2.0
"""How long a call that is left behind may take to end by itself, which is tidier."""


def wait_for(ref: ray.ObjectRef[Any], look: Callable[[], None]) -> Any:
    """Return a task's value.

    Args:
        ref: Of the task.
        look: Called twice a second; what it raises ends the waiting, not the task.

    Raises:
        ray.exceptions.RayError: The task failed.
    """
    while not ray.wait([ref], timeout=POLL_S)[0]:
        look()
    return ray.get(ref)


def wait_for_call(call: Callable[[], T], look: Callable[[], None]) -> T:
    """Return what a call returns, or raise what it raises. It runs in a thread of its own.

    Args:
        call: What waits and cannot be asked to end.
        look: Called twice a second, and once when the call has ended. What it raises ends the waiting; the call is then
            left behind, in a thread that ends with the process.
    """
    future: Future[T] = Future()
    threading.Thread(target=_settle, args=(future, call), name=THREAD_NAME, daemon=True).start()
    try:
        while not wait([future], timeout=POLL_S).done:
            look()
        look()
        return future.result()
    except BaseException:
        wait([future], timeout=LEAVE_S)
        raise
    finally:
        # Here and below: an error knows the frames it came through. Without a circle, what the call held (a stream of
        # Ray's) is closed at once.
        del future


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # whatever it is belongs to whoever waits
        future.set_exception(error)
    finally:
        del future, call
