"""What was typed after `submit compare`, `train` or `plan`, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """Hold what was typed."""

    verb: str
    given: Mapping[str, Any]
    """Job flags by click's parameter name; what was not typed is left out."""
    spec_file: str | None = None
    is_dry_run: bool = False
    resume: str | None = None
    resume_changed: bool = False
    as_json: bool = False
    address: str | None = None
    """Of a cluster's Jobs API; None: what the environment or `submit cluster up` says, else this machine."""
    storage: str | None = None
    """Where the cluster keeps runs; None: where they are made here."""
    is_detached: bool = False
    id_file: str | None = None
    """File that gets the run's id."""
    fail_under: float | None = None
    """Least value of the model handed over, of log-loss the highest, for exit code 0; None: any."""
    problems: tuple[str, ...] = ()
    """What is wrong with the command line already."""
