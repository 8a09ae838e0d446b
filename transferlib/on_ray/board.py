"""Show each trial under its own name in Ray's dashboard.

A trial process trains many trials, and Ray shows a process under one name. So for each trial there is a call that lasts
as long as the trial does and carries its name, at an actor that does nothing but wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

NAME = "transferlib-trials"
MAX_SHOWN = 1000
"""Trials at the same time; more than any cluster of ours trains side by side."""


class _Board:
    """Wait until trials end; one call a trial."""

    def __init__(self) -> None:
        self._ended: dict[str, asyncio.Event] = {}

    async def show(self, trial_id: str) -> None:
        """Last until the trial has ended."""
        ended = self._ended.setdefault(trial_id, asyncio.Event())
        ended.clear()
        await ended.wait()

    async def end(self, trial_id: str) -> None:
        """End the call that shows a trial."""
        if trial_id in self._ended:
            self._ended[trial_id].set()


@contextmanager
def trial_board(*, is_shown: bool) -> Iterator[None]:
    """Keep the board for the length of a `with` block.

    Args:
        is_shown: False where there is no dashboard: then there is no board, and showing a trial does nothing.
    """
    board: Any = None
    if is_shown:
        actor: Any = ray.remote(num_cpus=0, max_concurrency=MAX_SHOWN)(_Board)  # type: ignore[call-overload]
        board = actor.options(name=NAME).remote()
    try:
        yield
    finally:
        if board is not None:
            ray.kill(board)


@contextmanager
def shown_as(trial_id: str) -> Iterator[None]:
    """Show a trial in the dashboard for the length of a `with` block, where there is a board.

    Args:
        trial_id: Name to show.
    """
    try:
        board: Any = ray.get_actor(NAME)
    except ValueError:  # no board, no dashboard
        yield
        return
    board.show.options(name=trial_id).remote(trial_id)
    try:
        yield
    finally:
        board.end.remote(trial_id)
