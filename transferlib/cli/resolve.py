"""From flags, a spec file and defaults to one JobSpec; every mistake in any of them is told in one report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlib.cli.options import FLAGS, Flag, parse_flag
from transferlib.errors import MISSING, Problem, RunFolderError, SpecError, UsageError
from transferlib.models.backbones import get_backbone
from transferlib.models.weight_names import NONE
from transferlib.runs import RunFolder
from transferlib.spec import WHOLE, JobSpec, ModelSpec, read_mapping
from transferlib.storage.uris import is_uri

SPEC_NAME = "submit.yaml"
"""Looked for in the current folder."""
TRAIN_DEFAULTS = {"strategies.names": ["full"], "comparison.seeds": 1, "comparison.lr_candidates": 1}
RUNS_DIR = "runs"
LAST = "@last"
WEIGHT_FILES = (".pth", ".pt", ".safetensors")
NO_DATA = "No images are named. Use --data PATH, or `submit init PATH` to write a submit.yaml."

Given = Mapping[str, str | bool | tuple[str, ...]]
"""What was typed, by click's parameter name; what was not typed is left out."""


@dataclass(frozen=True)
class Resolved:
    """Hold a spec and where it came from."""

    spec: JobSpec
    spec_file: Path | None
    notes: tuple[str, ...]
    """For the user."""


def resolve_spec(
    verb: str, given: Given, *, spec_file: str | None, folder: Path, problems: Sequence[str] = ()
) -> Resolved:
    """Lay flags over a spec file over defaults.

    Args:
        verb: compare or train.
        given: Flags as typed.
        spec_file: Of `--spec`; None: `submit.yaml` in the folder, where there is one.
        folder: The current folder; all relative paths are relative to it.
        problems: What is wrong already.

    Raises:
        SpecError: All that is wrong.
        UsageError: The spec file cannot be read.
    """
    path = _spec_file(spec_file, folder)
    found = [Problem("", text) for text in problems]
    mapping: dict[str, Any] = {}
    notes: list[str] = []
    if path is not None:
        mapping = read_mapping(_read(path), path.name)
        notes.append(f"Options from {path}; flags go over them.")
        if mapping.get("verb", verb) != verb:
            notes.append(f"{path.name} says verb: {mapping['verb']}; this is submit {verb}.")
    values, wrong = _parse(given)
    found += wrong
    for flag in FLAGS:
        value = _get(values, flag.place)
        if value is not None:
            _put(mapping, flag.place, value)
    if verb == "train":
        for place, value in TRAIN_DEFAULTS.items():
            if _get(mapping, place) is None:
                _put(mapping, place, value)
    mapping["verb"] = verb
    if _get(mapping, "output.runs_dir") is None:
        _put(mapping, "output.runs_dir", RUNS_DIR)
    found += (misplaced := _make_paths_absolute(mapping, folder))
    try:
        _find_run_of_weights(mapping)
    except RunFolderError as error:
        found.append(Problem(f"--weights {_get(mapping, 'models.weights')}", str(error)))
    typed = {flag.place: flag for flag in FLAGS if flag.parameter in given}
    spec: JobSpec | None = None
    try:
        spec = JobSpec.from_mapping(mapping)
    except SpecError as error:
        told = {problem.place for problem in (*wrong, *misplaced)}
        hidden = [flag.place for flag in typed.values() if flag.name in told]
        found += [_by_flag(problem, typed) for problem in error.problems if not any(map(problem.is_within, hidden))]
    if found or spec is None:
        raise SpecError(list({str(problem): problem for problem in [*found, *_nothing_there(mapping)]}.values()))
    return Resolved(spec, path, tuple(notes))


def _nothing_there(mapping: dict[str, Any]) -> list[Problem]:
    """Return the sentence for images that are not there: told with what else is wrong, not once that is mended."""
    from transferlib.data.sources import missing_source

    path = _get(mapping, "data.path")
    problem = missing_source(path) if isinstance(path, str) and path else None
    return [] if problem is None else [Problem("", problem)]


def absolute_weights(weights: str, folder: Path) -> str:
    """Return weights that name a file or folder as an absolute path, others (URIs too) as they are.

    Args:
        weights: torchvision's name, "none", a path or a URI.
        folder: What a relative path is relative to.

    Raises:
        UsageError: A URI of a kind that is not known, or with credentials.
    """
    if weights in ("", NONE) or is_uri(weights):
        return weights
    path = folder / Path(weights).expanduser()
    is_path = "/" in weights or weights.endswith(WEIGHT_FILES) or os.path.exists(path)
    return os.path.abspath(path) if is_path else weights


def find_models(folder: Path, weights: str, architectures: Sequence[str] = ()) -> ModelSpec:
    """Return the networks and weights of a job: what was typed, else what `submit.yaml` says, else the defaults.

    Args:
        folder: The current one.
        weights: Empty: none were typed. A run may be named by its id, the start of it, or @last.
        architectures: Empty: none were typed.

    Raises:
        RunFolderError: The typed weights name no run, or several.
        SpecError: A typed architecture is none of ours.
    """
    path = folder / SPEC_NAME
    written: Any = None
    with suppress(SpecError, UsageError):
        written = read_mapping(_read(path), path.name).get("models") if path.is_file() else None
    for architecture in architectures:
        get_backbone(architecture)
    if _names_run(weights):
        weights = str(RunFolder.find(find_runs_dir(None, folder), weights).path)
    typed = {
        **({"weights": weights} if weights else {}),
        **({"architectures": list(architectures)} if architectures else {}),
    }
    try:
        models = ModelSpec.model_validate({**written, **typed} if isinstance(written, dict) else typed)
    except ValueError:  # what is wrong with the file is told when a job is asked for
        return ModelSpec.model_validate(typed)
    if _names_run(models.weights):
        with suppress(RunFolderError, UsageError):  # as above
            found = RunFolder.find(find_runs_dir(None, folder), models.weights).path
            return models.model_copy(update={"weights": str(found)})
    return models


def find_runs_dir(typed: str | None, folder: Path) -> Path:
    """Return the folder that run folders are in: what was typed, else what `submit.yaml` says, else `runs`.

    Args:
        typed: Of `--runs`.
        folder: The current one; a relative path is relative to it.

    Raises:
        UsageError: `submit.yaml` cannot be read, or a URI is given.
    """
    said: Any = typed
    path = folder / SPEC_NAME
    if said is None and path.is_file():
        said = _get(read_mapping(_read(path), path.name), "output.runs_dir")
    return Path(_absolute_folder(said if isinstance(said, str) and said else RUNS_DIR, folder))


def _find_run_of_weights(mapping: dict[str, Any]) -> None:
    """Put the path of a run where weights name one."""
    weights, runs_dir = _get(mapping, "models.weights"), _get(mapping, "output.runs_dir")
    if isinstance(weights, str) and isinstance(runs_dir, str) and _names_run(weights):
        _put(mapping, "models.weights", str(RunFolder.find(Path(runs_dir), weights).path))


def _names_run(weights: str) -> bool:
    """Say whether weights are a run's id, the start of one (its date; no name of torchvision's), or @last."""
    return weights == LAST or weights[:1].isdigit()


def _spec_file(named: str | None, folder: Path) -> Path | None:
    if named is not None:
        path = folder / Path(named).expanduser()
        if not path.is_file():
            raise UsageError(f"--spec {named}: there is no such file. `submit init PATH` writes one.")
        return path
    path = folder / SPEC_NAME
    return path if path.is_file() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None


def _parse(given: Given) -> tuple[dict[str, Any], list[Problem]]:
    """Return typed flags as a nested mapping, and what is wrong with them."""
    values: dict[str, Any] = {}
    problems = []
    for flag in FLAGS:
        if flag.parameter not in given:
            continue
        try:
            _put(values, flag.place, parse_flag(flag, given[flag.parameter]))
        except ValueError as error:
            problems.append(Problem(flag.name, str(error)))
    return values, problems


def _make_paths_absolute(mapping: dict[str, Any], folder: Path) -> list[Problem]:
    """Make paths absolute, leave URIs as they are, and return what is wrong with those; it is taken out."""
    problems = []
    for place, to_absolute in (
        ("data.path", absolute_source),
        ("data.cache.dir", _absolute_folder),
        ("output.runs_dir", _absolute_folder),
        ("models.weights", absolute_weights),
    ):
        value = _get(mapping, place)
        if not isinstance(value, str) or not value:
            continue
        try:
            _put(mapping, place, to_absolute(value, folder))
        except UsageError as error:
            flag = next((flag.name for flag in FLAGS if flag.place == place), place)
            problems.append(Problem(flag, str(error)))
            _put(mapping, place, ".")  # a URI may hold credentials: it goes no further
    return problems


def absolute_source(source: str, folder: Path) -> str:
    """Return images as an absolute path, or as the URI that was given.

    Args:
        source: A path or URI.
        folder: What a relative path is relative to.

    Raises:
        UsageError: A URI of a kind that is not known, or with credentials.
    """
    return source.rstrip("/") if is_uri(source) else os.path.abspath(folder / Path(source).expanduser())


def _absolute_folder(path: str, folder: Path) -> str:
    if is_uri(path):
        raise UsageError(f"{path} is no folder on a disk. --storage puts the runs of a cluster in an object store.")
    return os.path.abspath(folder / Path(path).expanduser())


def _get(mapping: Any, place: str) -> Any:
    for part in place.split("."):
        if not isinstance(mapping, dict):
            return None
        mapping = mapping.get(part)
    return mapping


def _put(mapping: dict[str, Any], place: str, value: Any) -> None:
    """Set a nested value; where a section is not a mapping it is left for the spec to refuse."""
    *sections, last = place.split(".")
    for part in sections:
        if mapping.get(part) is None:
            mapping[part] = {}
        mapping = mapping[part]
        if not isinstance(mapping, dict):
            return
    mapping[last] = value


def _by_flag(problem: Problem, typed: Mapping[str, Flag]) -> Problem:
    """Name the flag instead of the place in the spec, where the flag was typed."""
    if problem.text == MISSING and problem.place in ("data", "data.path"):
        return Problem("", NO_DATA)
    if problem.place == WHOLE:
        return Problem("", problem.text)
    flags = [flag.name for place, flag in typed.items() if problem.is_within(place)]
    return problem._replace(place=flags[0]) if flags else problem
