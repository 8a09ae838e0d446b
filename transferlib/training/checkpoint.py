"""Our own checkpoint store: tensors and JSON in folders that are whole or not there, checked when they are read.

    last/e00002-s000000/           epoch 2, step 0 comes next
      model.safetensors ...        named tensors
      state.json                   plain values
      MANIFEST.json                size and sha256 of each of the others

A checkpoint is written to a temporary folder, each file and the folder are fsynced, and the rename is the commit. The
best epoch's and the last two are kept. A damaged one is never used: the one before it is, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from transferlib.data.schedule import Position
from transferlib.errors import CheckpointError

log = logging.getLogger("transferlib.training")

_NUM_LAST = 2
_MANIFEST = "MANIFEST.json"
_STATE = "state.json"
_SUFFIX = ".safetensors"
_TEMPORARY = ".writing"

Tensors = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """Hold what was saved at a position."""

    position: Position
    """What comes next."""
    tensors: Tensors
    """Named tensors by file: model, optimizer, ..."""
    state: dict[str, Any]
    """Plain values."""


class CheckpointStore:
    """Keep a trial's checkpoints in one folder, which one process at a time writes.

    Args:
        folder: Made when the first checkpoint is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def positions(self) -> list[Position]:
        """Return the positions of all checkpoints, good or damaged, ascending."""
        return sorted(p for path in self.folder.glob("e*-s*") if (p := _position(path.name)) is not None)

    def save(self, position: Position, tensors: Tensors, state_after: Callable[[float], dict[str, Any]]) -> None:
        """Write a checkpoint, then remove those that are neither among the last two nor the best epoch's.

        Args:
            position: What comes next; a checkpoint at the same position is replaced.
            tensors: Named tensors by file.
            state_after: Returns the plain values, given the seconds that writing the tensors took: so a checkpoint can
                hold what it cost. Its `best` names the best epoch's checkpoint, which may be this one.

        Raises:
            CheckpointError: It could not be written; the ones before it are still there.
        """
        target = self.folder / _name(position)
        temporary = self.folder / f"{target.name}{_TEMPORARY}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            state = _write(temporary, tensors, state_after)
            if target.exists():
                shutil.rmtree(target)
            os.rename(temporary, target)
            _fsync_folder(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(
                f"The checkpoint {target} could not be written: {error}. "
                f"{shutil.disk_usage(_existing(self.folder)).free / 1e9:.1f} GB are free there. "
                "Make room, then --resume the run: it goes on from the checkpoint before."
            ) from error
        self._prune(best_position(state))

    def load(self, position: Position, only: Collection[str] | None = None) -> Checkpoint:
        """Read a checkpoint and check every file that is read against the manifest.

        Args:
            position: Of the checkpoint.
            only: Names of the tensor files to read; None: all.

        Raises:
            CheckpointError: It is damaged or not there; the text says in what way.
        """
        folder = self.folder / _name(position)
        files = _read_verified(folder, None if only is None else {_STATE, *(f"{name}{_SUFFIX}" for name in only)})
        state = json.loads(files.pop(_STATE))
        tensors = {name.removesuffix(_SUFFIX): load_tensors(raw) for name, raw in files.items()}
        return Checkpoint(position, tensors, state)

    def newest_good(self) -> Checkpoint | None:
        """Return the newest checkpoint from which training can go on; None when there is none.

        One can serve if it is whole and so is the best epoch's checkpoint that it names (`state["best"]["position"]`).
        Each one that is passed over is logged as a warning. All damaged: None, and the trial begins anew, which costs
        time but ends in the same weights.
        """
        positions = self.positions()
        for position in reversed(positions):
            try:
                checkpoint = self.load(position)
                best = best_position(checkpoint.state)
                if best is not None and best != position:
                    self.load(best)
            except CheckpointError as error:
                log.warning("Checkpoint at %s cannot serve: %s Looking at the one before.", _name(position), error)
            else:
                return checkpoint
        if positions:
            log.warning("None of %d checkpoints in %s can serve: training begins anew.", len(positions), self.folder)
        return None

    def discard_after(self, position: Position) -> None:
        """Remove what lies beyond the position that training goes on from: checkpoints that cannot serve.

        They would stand among the last two, in the place of good ones.
        """
        for later in self.positions():
            if later > position:
                shutil.rmtree(self.folder / _name(later), ignore_errors=True)

    def drop(self) -> None:
        """Remove all checkpoints; of a trial that is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prune(self, best: Position | None) -> None:
        positions = self.positions()
        for position in positions[:-_NUM_LAST]:
            if position != best:
                shutil.rmtree(self.folder / _name(position), ignore_errors=True)


def best_position(state: Mapping[str, Any]) -> Position | None:
    """Return where the best epoch's checkpoint is, by a checkpoint's state."""
    best = state.get("best")
    return None if best is None else Position(*best["position"])


def _name(position: Position) -> str:
    return f"e{position.epoch:05d}-s{position.step:06d}"


def _position(name: str) -> Position | None:
    epoch, _, step = name.removeprefix("e").partition("-s")
    return Position(int(epoch), int(step)) if epoch.isdecimal() and step.isdecimal() else None


def _write(folder: Path, tensors: Tensors, state_after: Callable[[float], dict[str, Any]]) -> dict[str, Any]:
    started_at = time.perf_counter()
    facts = {}
    for name, named in tensors.items():
        path = folder / f"{name}{_SUFFIX}"
        # Straight to the file: as bytes first, the tensors would be in memory twice more.
        save_file({key: value.detach().cpu().contiguous() for key, value in named.items()}, path)
        facts[path.name] = _commit_file(path)
    state = state_after(time.perf_counter() - started_at)
    (folder / _STATE).write_text(json.dumps(state, indent=1))
    facts[_STATE] = _commit_file(folder / _STATE)
    (folder / _MANIFEST).write_text(json.dumps({"schema": 1, "files": facts}, indent=1))
    _commit_file(folder / _MANIFEST)
    _fsync_folder(folder)
    return state


def _commit_file(path: Path) -> dict[str, int | str]:
    with open(path, "r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest}


def _read_verified(folder: Path, only: Collection[str] | None) -> dict[str, bytes]:
    try:
        facts: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())["files"]
        files = {name: (folder / name).read_bytes() for name in facts if only is None or name in only}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: {error}.") from None
    for name, raw in files.items():
        if len(raw) != facts[name]["bytes"]:
            raise CheckpointError(f"{folder / name} has {len(raw)} bytes, not {facts[name]['bytes']}.")
        if hashlib.sha256(raw).hexdigest() != facts[name]["sha256"]:
            raise CheckpointError(f"{folder / name} has another sha256 than when it was written.")
    return files


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
