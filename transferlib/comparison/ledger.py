"""Which runs have read a test set: a ledger of each user's, and what a run's place in it does to what may be said.

The rule of the verdict holds for one reading of a test set. Whoever trains again after looking at a verdict, on the
same test images, chooses between readings, and the rule's error rate is no longer that of any single one. So a job
writes a line just before it reads the test set, and says in its run folder (`test_readings.json`) what it found there;
everything later is made from the run folder alone.

The ledger is `$XDG_STATE_HOME/transferlib/test_readings.jsonl`, else `~/.local/state/transferlib/test_readings.jsonl`,
of the user and on the machine where the job's own process runs: of a job on a cluster that is the node which Ray runs
the driver on, whose home may be another one than that of the machine it was submitted from. What was read under another
home, by another user, or with one photo more or less, is not counted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import pyarrow.compute as pc

from transferlib.clusters import state_dir
from transferlib.comparison.statistics import ALPHA
from transferlib.data.manifest import Manifest
from transferlib.errors import RunFolderError
from transferlib.records import check_types
from transferlib.runs import RunFolder, read_json, write_json
from transferlib.words import count

FILE_NAME = "test_readings.json"
"""In a run folder."""
LEDGER_NAME = "test_readings.jsonl"
"""In the user's state folder."""
LOCK_TIMEOUT_S = 10.0
NAMED_RUNS = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readings:
    """Say what a run knew of its test set just before it read it: `test_readings.json`."""

    fingerprint: str
    """Of the test set; see `fingerprint_test_set`."""
    manifest_sha256: str
    """Of the whole manifest, as it was then; see `Manifest.sha256`."""
    num_readings: int | None
    """Runs that have read this test set, this one among them; None: the ledger could not be written."""
    earlier: tuple[str, ...]
    """Ids of the runs before, the first of them first."""

    def to_plain(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {**asdict(self), "earlier": list(self.earlier)}

    @property
    def notes(self) -> list[str]:
        """Return what a verdict has to say of it: nothing of a first reading."""
        number = self.num_readings
        if number is None:
            return [
                "How many runs have read this test set is not known: the ledger of them could not be written (the "
                "job's log says why)."
            ]
        if number < 2:
            return []
        before = f"{count(number - 1, 'run')} before ({_some(self.earlier)})"
        chance = 100 * (1 - (1 - ALPHA) ** number)
        return [
            f"This test set has been read by {before}. Read once, arms that are alike are called different in about "
            f"{100 * ALPHA:.0f} of 100 cases; read {number} times, with choices in between, in up to {chance:.0f} of "
            "100. The test figure of a model picked by test among these runs is too high. New test images would tell."
        ]


def fingerprint_test_set(manifest: Manifest) -> str:
    """Return what makes two test sets the same: the sha256 over content and label of their images, in sorted order.

    Names, folders and the order of images do not matter.

    Args:
        manifest: Of a run; its used test images count, and where there are folds all that are used.
    """
    is_test = pc.equal(manifest.table["status"], "used")
    if manifest.folds is None:
        is_test = pc.and_(is_test, pc.equal(manifest.table["split"], "test"))
    rows = manifest.table.filter(is_test).select(["sha256", "label"])
    pairs = sorted(zip(rows["sha256"].to_pylist(), rows["label"].to_pylist(), strict=True))
    return hashlib.sha256("\n".join(json.dumps(pair) for pair in pairs).encode()).hexdigest()


def ledger_path() -> Path:
    """Return where this user's ledger is."""
    return state_dir() / LEDGER_NAME


def record_reading(run: RunFolder) -> Readings:
    """Write down, in the user's ledger and in the run folder, that a run is about to read its test set.

    A run counts once, however often it is resumed. Where the ledger cannot be written, the run goes on and its verdict
    says that the number is not known.

    Args:
        run: Holds the manifest; its choice is saved.
    """
    manifest = Manifest.load(run.manifest)
    fingerprint, whole = fingerprint_test_set(manifest), manifest.sha256()
    saved = read_readings(run)
    if saved is not None and saved.num_readings is not None and saved.fingerprint == fingerprint:
        readings = replace(saved, manifest_sha256=whole)
    else:
        try:
            earlier = _enter(ledger_path(), run, fingerprint)
            readings = Readings(fingerprint, whole, len(earlier) + 1, earlier)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            logger.warning("How many runs have read this test set is not known: %s", error)
            readings = Readings(fingerprint, whole, None, ())
    write_json(run.path / FILE_NAME, readings.to_plain())
    return readings


def read_readings(run: RunFolder) -> Readings | None:
    """Return what a run wrote down; None before it read its test set, and of runs from before there was a ledger.

    Raises:
        RunFolderError: The file is damaged.
    """
    try:
        plain = read_json(run.path / FILE_NAME)
        if plain is None:
            return None
        readings = Readings(**{**plain, "earlier": tuple(plain["earlier"])})
        check_types(readings)
        return readings
    except (ValueError, TypeError, KeyError):
        raise RunFolderError(
            f"{run.path / FILE_NAME} is damaged. Delete it: the verdict then does not say how often the test set was "
            "read."
        ) from None


def reading_notes(run: RunFolder) -> list[str]:
    """Return what the verdict of a finished run has to say of how often its test set was read."""
    readings = read_readings(run)
    return [] if readings is None else readings.notes


def _enter(path: Path, run: RunFolder, fingerprint: str) -> tuple[str, ...]:
    """Add a line for a run where it has none; return the ids of the runs before it.

    Raises:
        OSError: The ledger cannot be read, locked or written.
    """
    with _locked(path) as file:
        runs = list(dict.fromkeys(_runs_of(file, path, fingerprint)))
        if run.run_id in runs:
            return tuple(runs[: runs.index(run.run_id)])
        entry = {"fingerprint": fingerprint, "run": run.run_id, "path": str(run.path.absolute()), "at": time.time()}
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        begins = b"" if file.read(1) in (b"", b"\n") else b"\n"  # a line that was cut off stays by itself
        file.write(begins + json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return tuple(runs)


def _runs_of(file: IO[bytes], path: Path, fingerprint: str) -> Iterator[str]:
    file.seek(0)
    for number, line in enumerate(file, start=1):
        try:
            entry = json.loads(line)
            found, run_id = str(entry["fingerprint"]), str(entry["run"])
        except (ValueError, TypeError, KeyError):
            logger.warning("%s, line %d is damaged and counts for nothing.", path, number)
            continue
        if found == fingerprint:
            yield run_id


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open the ledger, for this user alone, and hold it: two jobs that end together must see each other."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_new = not path.exists()
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b") as file:
        os.fchmod(file.fileno(), 0o600)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield file
        if is_new:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _some(runs: tuple[str, ...]) -> str:
    shown = ", ".join(runs[-NAMED_RUNS:])
    return shown if len(runs) <= NAMED_RUNS else f"{shown} and {len(runs) - NAMED_RUNS} before them"
