"""What a run that is done should have, and has not: `--resume` makes it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from transferlib.cli.outcome import is_to_be_written_anew, saved_leaderboard
from transferlib.errors import RunFolderError
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder, TrialFolder, file_sha256, has_content, read_object
from transferlib.spec import JobSpec
from transferlib.submissions import Submission

_TABLE_END = b"PAR1"


def missing_files(run: RunFolder, plan: Plan, spec: JobSpec) -> list[str]:
    """Return the files of a run that is done which are not there or not what was written, relative to its folder.

    Of a run in a storage elsewhere only the leaderboard is looked at: its large files are not here.

    Args:
        run: Its folder, up to date.
        plan: Its plan.
        spec: Its spec.
    """
    submission = Submission.load(run)
    if submission is not None and submission.storage is not None:
        is_whole = run.leaderboard("json").exists() and not is_to_be_written_anew(run)
        return [] if is_whole else [run.leaderboard("json").name]
    found = dict.fromkeys(_missing(run, plan, keeps_all=spec.output.keep != "chosen"))
    return [path.relative_to(run.path).as_posix() for path in found]


def refuse_folders(run: RunFolder, plan: Plan) -> None:
    """Refuse to go on with a run where a folder has the name of a file: nothing could be written there.

    Args:
        run: Its folder.
        plan: Its plan.

    Raises:
        RunFolderError: There is one.
    """
    files = [run.status, run.metrics, run.job_log, run.log / "messages.txt", run.model, run.path / "test_readings.json"]
    files += [run.manifest, run.prepared, run.environment, run.choice, run.predictions, run.report, run.mosaic]
    files += [run.leaderboard(suffix) for suffix in ("json", "csv", "md")]
    for trial in plan.trials:
        folder = run.trial(trial.trial_id)
        files += [folder.spec, folder.progress, folder.metrics, folder.result, folder.best]
        files += [folder.predictions("val"), folder.predictions("test")]
    if found := [path.relative_to(run.path).as_posix() for path in files if path.is_dir()]:
        raise RunFolderError(
            f"Run {run.run_id} cannot go on: {', '.join(found)} should be a file, and is a folder. Remove it."
        )


def _missing(run: RunFolder, plan: Plan, *, keeps_all: bool) -> Iterator[Path]:
    if is_to_be_written_anew(run):
        yield run.leaderboard("json")
    for path in (
        *(run.manifest, run.prepared, run.environment, run.choice, run.predictions, run.report, run.mosaic),
        *(run.leaderboard(suffix) for suffix in ("json", "csv", "md")),
    ):
        if not has_content(path) or (path.suffix == ".parquet" and not _is_table(path)):
            yield path
    try:
        choice = read_object(run.choice) or {}
        chosen = {trial["trial_id"] for trial in choice.get("chosen", ())}
    except (RunFolderError, LookupError, TypeError, AttributeError):
        yield run.choice
        return
    for trial in plan.trials:
        folder = run.trial(trial.trial_id)
        yield from _missing_of(folder, is_chosen=trial.trial_id in chosen, keeps_all=keeps_all)
    try:
        has_model = (saved_leaderboard(run) or {}).get("model") is not None
    except RunFolderError:
        return
    if has_model and not _is_model_whole(run, choice.get("model")):
        yield run.model


def _missing_of(folder: TrialFolder, *, is_chosen: bool, keeps_all: bool) -> Iterator[Path]:
    try:
        yield from folder.damaged_files()
        yield from folder.lost_files(has_model=keeps_all or is_chosen)
    except RunFolderError:
        yield folder.result
    if not has_content(folder.result):
        yield folder.result
    if is_chosen and not has_content(folder.predictions("test")):
        yield folder.predictions("test")


def _is_model_whole(run: RunFolder, trial_id: object) -> bool:
    """Say whether the model handed over is its trial's, as far as is known."""
    if not has_content(run.model) or not isinstance(trial_id, str):
        return has_content(run.model)
    folder = run.trial(trial_id)
    if folder.best.exists() and run.model.samefile(folder.best):
        return True  # looked at with its trial
    try:
        result = folder.read_result()
    except RunFolderError:
        return False
    sha256 = None if result is None else result.files.get(folder.best.name)
    return sha256 is None or file_sha256(run.model) == sha256


def _is_table(path: Path) -> bool:
    """Say whether a file ends as a parquet table does."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - len(_TABLE_END), 0))
        return file.read() == _TABLE_END
