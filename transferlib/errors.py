"""Every error a user can meet, and the exit code each one ends a job with.

    TransferlibError                    1  the job failed
    ├── UsageError                      2  what was asked for cannot be done as it was said
    │   ├── SpecError                      an option, key or value
    │   ├── DataError                      the images, their labels or their splits
    │   ├── WeightsError                   the source weights
    │   ├── StorageError                   an s3:// or gs:// place, or a folder on a shared disk
    │   │   ├── ObjectNotFoundError
    │   │   └── StorageUnreachableError       it may answer later
    │   └── PlanError                      more than the machine has
    ├── ClusterUnreachableError         3
    ├── RayError                        1  the Ray of a job did not start, or died
    ├── TrialError                      1  one trial cannot go on; the others do
    │   ├── NonFiniteLossError
    │   └── CheckpointError
    ├── StoppedError                    5  stopped by SIGTERM or `submit stop`
    └── RunFolderError                  2  a run that is locked, missing or not what was asked to be resumed

Texts say what we saw, what is allowed and what to do next. All of them survive pickling, since they cross processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MISSING = "is missing."
"""What is said of a place where there is nothing."""


class TransferlibError(Exception):
    """Base of all errors raised on purpose; `str(error)` is fit to show to a user."""

    exit_code = 1


class UsageError(TransferlibError):
    """Say that what was asked for cannot be done as it was said."""

    exit_code = 2


class Problem(NamedTuple):
    """Say what is wrong, and at which place; prints as one line."""

    place: str
    """Field of the spec in dots, e.g. "data.path", or the flag that was typed; empty: the text says it all."""
    text: str
    """`MISSING`, or a sentence without the place."""

    def __str__(self) -> str:
        if self.text == MISSING:
            return f"{self.place} {self.text}"
        return f"{self.place}: {self.text}" if self.place else self.text

    def is_within(self, place: str) -> bool:
        """Return whether it is about a place, or about an item of the list that is there."""
        return f"{self.place}.".startswith(f"{place}.")


class SpecError(UsageError):
    """Report every wrong option, key and value of a job spec at once.

    Args:
        problems: One per mistake.
    """

    def __init__(self, problems: Sequence[Problem | str] | str) -> None:
        given = (problems,) if isinstance(problems, str) else problems
        self.problems = tuple(one if isinstance(one, Problem) else Problem("", one) for one in given)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...]]]:
        return (type(self), (self.problems,))


class DataError(UsageError):
    """Report images, labels or splits that cannot serve."""


class CacheWriteError(DataError):
    """Report a cache of decoded images that cannot be written: when there is room again, it can."""


class WeightsError(UsageError):
    """Report source weights that cannot be had or do not match."""


class StorageError(UsageError):
    """Report a place for images, weights or runs that cannot be used, and what to set."""


class ObjectNotFoundError(StorageError):
    """Report an object or file that is not there."""


class StorageUnreachableError(StorageError):
    """Report a store that does not answer; asking again later may help."""


class PlanError(UsageError):
    """Report a demand that the machine cannot meet, with the arithmetic."""


class ClusterUnreachableError(TransferlibError):
    """Report a Ray cluster that does not answer."""

    exit_code = 3


class RayError(TransferlibError):
    """Report a Ray that did not start or could not be joined, or of which a part died."""


class TrialError(TransferlibError):
    """Report why one trial cannot go on."""


class NonFiniteLossError(TrialError):
    """Report a loss that is not finite, with epoch, step and rate."""


class CheckpointError(TrialError):
    """Report a checkpoint that is damaged, of another trial, or cannot be written."""


class StoppedError(TransferlibError):
    """Report a job that was told to stop."""

    exit_code = 5


class RunFolderError(UsageError):
    """Report a run folder that is locked, missing or of another experiment."""


class DamagedFileError(RunFolderError, ValueError):
    """Report a file of a run that is not what was written: cut off, emptied by a power cut, or of other content."""


EXIT_SOME_FAILED = 4
EXIT_INTERRUPTED = 130


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest one and all valid ones.

    Args:
        kind: What it names, e.g. "strategy".
        name: What was given.
        known: All valid names.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."
