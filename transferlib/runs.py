"""The run folder: the record of a job, and the only place that knows its paths.

    runs/<id>/
      spec.yaml environment.json manifest.parquet plan.json     what was asked, where, on which images, how
      status.json progress.json lock STOP                       where it stands; who writes; a request to stop
      job.json                                                  on which cluster, as which job (not for a local one)
      metrics.jsonl log/                                        every epoch of every trial; full logs
      choice.json predictions.parquet leaderboard.{json,csv,md} the choice on validation, then the result
      test_readings.json                                        which other runs of this user read the same test set
      model/model.safetensors                                   to use: the best on validation of all
      augmentation.png report.html                              to look at
      trials/<arm>[-f<fold>]-s<seed>-c<candidate>/
        trial.json progress.json metrics.csv result.json predictions-val.parquet predictions-test.parquet
        best.safetensors last/

Standard library only. Everything is written by rename; nothing here deletes a result.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import IO, Any, ClassVar

from transferlib.errors import DamagedFileError, RunFolderError
from transferlib.records import TrialResult, checked
from transferlib.words import without_escapes

PARENT_VARIABLE = "TRANSFERLIB_PARENT_PID"
"""Environment variable that tells a job whose death ends it."""
STORAGE_VARIABLE = "TRANSFERLIB_STORAGE"
"""Environment variable that tells a job on a cluster where run folders are: a folder that all nodes see, or a URI."""
ENDED = ("done", "failed", "stopped")
"""States of `status.json` after which a job changes nothing more."""
STATES = ("preparing", "running", "evaluating", *ENDED)
MOST_CODE = 255
LAST_S = 1e11
"""No Unix time of ours comes after this; the calendar of the system ends later."""
LOOK_S = 1.0
"""How long a lock may be held by somebody who only looks, seconds."""
RUN_ID = re.compile(r"\d{8}-\d{6}-(compare|train)-[0-9a-f]{4}")
"""A run's id is a folder's name and a word of a command line, so nothing else is taken for one."""


def new_run_id(verb: str) -> str:
    """Return a run id that sorts by time (UTC) and does not collide: `20261125-014503-compare-3fa9`."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{verb}-{secrets.token_hex(2)}"


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file by temporary name, fsync and rename, so that a reader sees the old or the new one.

    Args:
        path: Its folder must exist.
        data: Text is written as UTF-8.
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Say whether an error says that there is no room left: on the disk, or for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full_text(folder: Path) -> str:
    """Return what to say where a disk is full.

    Args:
        folder: That could not be written to.
    """
    free = shutil.disk_usage(folder).free
    return f"{folder} is on a disk that is full ({free / 1e6:,.0f} MB free). Make room there, then go on with --resume."


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_content(path: Path) -> bool:
    """Say whether a file is there and holds something: a power cut may leave an empty one."""
    return path.is_file() and path.stat().st_size > 0


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, by rename: a hard link where the disk has them, so that it takes no space.

    Args:
        source: Is there.
        target: Its folder need not be; a file that is there is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON by rename."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


CURES = {
    "status.json": "Remove it: what is finished stays, and `--resume` goes on.",
    "result.json": "Remove it: `--resume` trains this trial again.",
    "progress.json": "Remove it: it only says how far the trial was.",
    "plan.json": "Without it nothing can go on; bring it back from a copy, or start a new run.",
    "prepared.json": "Without it nothing can go on; bring it back from a copy, or start a new run.",
    "job.json": "Remove it if the run's job is on this machine; else bring it back from a copy.",
    "choice.json": "Remove it: `--resume` makes it again from what the trials left.",
    "leaderboard.json": "Remove it: `--resume` writes it again; nothing is trained again.",
    "spec.yaml": "Without it nothing can go on; bring it back from a copy, or start a new run.",
    "manifest.parquet": "Bring it back from a copy, or remove it: `--resume` makes it again while prepared.json is "
    "there and the images are what they were.",
    "metrics.csv": "Remove it: the report then lacks this trial's curves.",
    "metrics.jsonl": "Remove it: `--resume` writes it again from what the trials left.",
    "environment.json": "Remove it: the report then does not say what the run was made with.",
    "augmentation.png": "Remove it: `--resume` draws it again.",
    "job.log": "Remove it: it only says what the job did.",
    "messages.txt": "Remove it: it only says what the job told.",
    "test_readings.json": "Remove it: the verdict then does not say how often the test set was read.",
}
"""What to do about a damaged file, by its name."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file ends in into one error that says what to do.

    Args:
        path: Which is read inside the `with`.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is not what was written, or the system does not give it: its cause then is an OSError.
    """
    try:
        yield
    except (DamagedFileError, FileNotFoundError):
        raise
    except OSError as error:
        what = "damaged: a folder is in its place" if path.is_dir() else f"not to be read: {error.strerror or error}"
        raise DamagedFileError(f"{path} is {what}. {cure_of(path)}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        is_empty = path.is_file() and path.stat().st_size == 0
        is_deep = isinstance(error, RecursionError)
        text = "its brackets go too deep" if is_deep else " ".join(str(error).split())[:120]
        what = "it is empty" if is_empty else text or type(error).__name__
        raise DamagedFileError(f"{path} is damaged: {what}. {cure_of(path)}") from None


def cure_of(path: Path) -> str:
    """Return what to do about a file of a run that cannot be read."""
    return CURES.get(path.name, "Bring it back from a copy.")


def read_json(path: Path) -> Any:
    """Read a JSON file; None where there is none.

    Raises:
        DamagedFileError: It holds something else.
    """
    try:
        with reading(path):
            return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON file that holds an object; None where there is none.

    Raises:
        DamagedFileError: It holds something else.
    """
    value = read_json(path)
    with reading(path):
        if value is not None or path.exists():
            if not isinstance(value, dict):
                raise TypeError(f"it holds {json.dumps(value)[:40]}, not an object")
            return value
    return None


@dataclass(frozen=True)
class TrialFolder:
    """Know the files of one trial."""

    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "trial.json"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "last"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def predictions(self, split: str) -> Path:
        """Return the path of one split's predictions table."""
        return self.path / f"predictions-{split}.parquet"

    def damaged_files(self) -> list[Path]:
        """Return the files of a finished trial that are here and are not what it wrote."""
        result = self.read_result()
        files = {} if result is None else result.files
        return [
            self.path / name
            for name, sha256 in files.items()
            if (self.path / name).is_file() and file_sha256(self.path / name) != sha256
        ]

    def lost_files(self, *, has_model: bool = True) -> list[Path]:
        """Return the files that a trial that is done leaves and that are not here, or are empty.

        Args:
            has_model: Whether its model is kept.
        """
        result = self.read_result()
        if result is None or result.state != "done":
            return []
        left = (self.predictions("val"), *((self.best,) if has_model else ()))
        return [path for path in left if not has_content(path)]

    def read_result(self) -> TrialResult | None:
        """Return how the trial ended, or None while it has not.

        Raises:
            DamagedFileError: It is not what a trial wrote.
        """
        try:
            with reading(self.result):
                return TrialResult.from_json(self.result.read_text())
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class RunFolder:
    """Know the files of one run."""

    path: Path
    MODEL: ClassVar[str] = "model/model.safetensors"
    """The model handed over, relative to the folder."""

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def verb(self) -> str:
        """Return what made it, "compare" or "train", as its id says; "compare" where the folder has another name."""
        found = RUN_ID.fullmatch(self.run_id)
        return found[1] if found else "compare"

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.parquet"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def choice(self) -> Path:
        return self.path / "choice.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def model(self) -> Path:
        return self.path / self.MODEL

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def mosaic(self) -> Path:
        return self.path / "augmentation.png"

    @property
    def stop_flag(self) -> Path:
        return self.path / "STOP"

    @property
    def prepared(self) -> Path:
        return self.path / "prepared.json"

    @property
    def resume_changed_flag(self) -> Path:
        return self.path / "RESUME_CHANGED"

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def job_log(self) -> Path:
        return self.log / "job.log"

    def leaderboard(self, suffix: str) -> Path:
        """Return the leaderboard's path for a suffix: json, csv or md."""
        return self.path / f"leaderboard.{suffix}"

    def trial(self, trial_id: str) -> TrialFolder:
        """Return a trial's folder; it may not exist yet."""
        return TrialFolder(self.path / "trials" / trial_id)

    @classmethod
    def create(cls, runs_dir: Path, verb: str) -> RunFolder:
        """Make a new run folder under `runs_dir`."""
        run = cls(runs_dir.absolute() / new_run_id(verb))
        (run.path / "trials").mkdir(parents=True)
        run.log.mkdir()
        return run

    @classmethod
    def find(cls, runs_dir: Path, name: str) -> RunFolder:
        """Return the run that a path, an id, a unique prefix or `@last` names.

        Raises:
            RunFolderError: None or several match.
        """
        direct = Path(name)
        if (direct / "spec.yaml").is_file():
            return cls(direct.absolute())
        runs = sorted(p for p in runs_dir.absolute().glob("*") if (p / "spec.yaml").is_file())
        found = runs[-1:] if name == "@last" else [p for p in runs if p.name.startswith(name)]
        if len(found) == 1:
            return cls(found[0])
        if not found:
            recent = ", ".join(p.name for p in runs[-3:]) or "none"
            raise RunFolderError(
                f"No run {name!r} under {runs_dir}. Newest there: {recent}. "
                "Give an id, the start of one, @last, or a run folder's path (--runs DIR looks elsewhere)."
            )
        raise RunFolderError(
            f"{name!r} fits {len(found)} runs: {', '.join(p.name for p in found)}. Give more of the id."
        )

    def set_status(self, state: str, **details: Any) -> None:
        """Record the run's state: preparing, running, evaluating, done, failed, stopped; on a full disk too."""
        # Ray colours its errors; a file is read by more than terminals.
        texts = {name: without_escapes(value) for name, value in details.items() if isinstance(value, str)}
        status = {"id": self.run_id, "state": state, "updated_at": time.time(), **details, **texts}
        try:
            write_json(self.status, status)
        except OSError as error:
            if not is_disk_full(error) or not self.status.exists():
                raise
            # No room for a new file: the old one's blocks are there. A reader may meet it half written.
            with open(self.status, "r+", encoding="utf-8") as file:
                file.write(json.dumps(status) + "\n")
                file.truncate()

    def read_status(self) -> dict[str, Any] | None:
        """Return `status.json`; None where there is none.

        Raises:
            DamagedFileError: It is not what `set_status` wrote.
        """
        status = read_object(self.status)
        if status is None:
            return None
        with reading(self.status):
            if checked(status.get("state"), str, "state") not in STATES:
                raise ValueError(f"state is {status['state']!r}, not one of {', '.join(STATES)}")
            for name in ("message", "error"):
                checked(status.get(name, ""), str, name)
            code = checked(status.get("exit_code"), (int, NoneType), "exit_code")
            if code is not None and not -MOST_CODE <= code <= MOST_CODE:
                raise ValueError(f"exit_code is {code:g}, which no process ends with")
            if not 0 <= checked(status.get("updated_at", 0.0), (int, float), "updated_at") < LAST_S:
                raise ValueError(f"updated_at is {status['updated_at']:g}, which is no time")
        return status

    def append_metrics(self, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
        """Append rows to `metrics.jsonl`; only the holder of the lock may."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run: one job writes it at a time. The lock goes with the process, however that ends.

        Raises:
            RunFolderError: Another process holds it.
        """
        with open(self.path / "lock", "a+", encoding="utf-8") as file:
            if not _takes_lock(file):
                file.seek(0)
                raise RunFolderError(
                    f"{self.path} is being written by process {file.read().strip() or '?'}. "
                    "Wait for it, or stop it first."
                ) from None
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)  # who is killed leaves its name: see `was_left_by_a_dead_process`

    def was_left_by_a_dead_process(self) -> bool:
        """Return whether whoever held the run last was killed while it did, and nobody holds it now."""
        try:
            holder = int((self.path / "lock").read_text())
            if self.is_locked():
                return False
            os.kill(holder, 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError, OverflowError):
            return False
        return False

    def is_locked(self) -> bool:
        """Return whether a job holds the run."""
        try:
            with open(self.path / "lock", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (FileNotFoundError, IsADirectoryError):
            return False
        except OSError:
            return True
        return False


def _takes_lock(file: IO[str]) -> bool:
    """Take a file's lock; whoever only looks whether it is held holds it for a moment too, so try for a second."""
    deadline = time.monotonic() + LOOK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_S / 20)
