"""Hold a finished run against its own sources: every figure is computed anew and must be what the files say.

Sources are `predictions.parquet`, `manifest.parquet`, the trials' `result.json` (what they cost, which failed), spec
and plan. From them follow `choice.json` and `leaderboard.{json,csv,md}`, number for number, and the report, whose check
is handed in. The sources are held against each other too: predictions against the manifest's images and against what
each trial wrote itself, the manifest against what it was when the test set was read. No torch, no matplotlib.
"""

from __future__ import annotations

import contextlib
import csv
import filecmp
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from transferlib.comparison import tables
from transferlib.comparison.choose import SCHEMA as CHOICE_SCHEMA
from transferlib.comparison.choose import Choice, choose_from, read_choice
from transferlib.comparison.leaderboard import SCHEMA, Comparison, build_comparison
from transferlib.comparison.ledger import FILE_NAME as READINGS
from transferlib.comparison.ledger import fingerprint_test_set, read_readings, reading_notes
from transferlib.comparison.mismatches import (
    DAMAGE,
    Verification,
    compare_lines,
    read_damaged_json,
    read_damaged_text,
    sentence_of,
)
from transferlib.comparison.results import RunResults, planned_trials, read_final_results
from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.errors import RunFolderError, TransferlibError
from transferlib.evaluation.predictions import Predictions, Source, read_predictions
from transferlib.names import LOWER_IS_BETTER, SPLITS
from transferlib.runs import RunFolder, file_sha256, has_content, read_json
from transferlib.spec import JobSpec
from transferlib.submissions import Submission

Plain = Mapping[str, Any]
CheckReport = Callable[[RunFolder, Verification], None]


def verify_run(run: RunFolder, check_report: CheckReport | None = None) -> Verification:
    """Compute every figure of a finished run anew, and return what differs.

    Args:
        run: The whole folder; what only some places keep (the trials' own tables, models) is looked at where it is.
        check_report: Compares the report with what it should be; called where its sources are in order.

    Raises:
        RunFolderError: The run has no result, its result is of another version, or its folder has another name.
    """
    _refuse_others(run)
    verification = Verification()
    manifest = _check_manifest(run, verification)
    if manifest is None:
        return verification
    _check_records(run, verification)
    _check_predictions(run, manifest, verification)
    try:
        found, choice = _read_with_choice(run, verification)
        notes = reading_notes(run)
        comparison = build_comparison(found, choice, is_final=True, notes=notes)
    except DAMAGE as error:
        if not verification.mismatches:  # else it is said already, and in which rows
            verification.add(run.predictions.name, f"no figure can be computed: {sentence_of(error)}")
        return verification
    _check_trials(run, found, verification)
    _check_leaderboard(run, comparison, verification)
    _check_model(run, choice, verification)
    is_choice_right = all(mismatch.file != run.choice.name for mismatch in verification.mismatches)
    if check_report is not None and is_choice_right:  # a page is made by the choice as it is saved
        try:
            check_report(run, verification)
        except DAMAGE as error:
            verification.add(run.report.name, f"cannot be made anew: {sentence_of(error)}")
    return verification


def _refuse_others(run: RunFolder) -> None:
    """Refuse what is no finished run of this version."""
    path = run.leaderboard("json")
    status: Plain = {}
    with contextlib.suppress(ValueError):
        status = run.read_status() or {}
    if not path.exists() and status.get("state") != "done":
        raise RunFolderError(
            f"Run {run.run_id} has no result that could be verified: it is {status.get('state', 'not begun')}. "
            f"Go on with it first: submit {run.verb} --resume {run.run_id}"
        )
    try:
        board = read_json(path)
    except ValueError:
        return
    schema = board.get("schema") if isinstance(board, dict) else SCHEMA
    if isinstance(schema, int) and schema < SCHEMA:
        raise RunFolderError(
            f"The result of {run.run_id} was written by an older version (leaderboard.json has schema {schema}, this "
            f"verifies {SCHEMA}), by a rule that this version does not have. `submit {run.verb} --resume {run.run_id}` "
            "writes it anew; nothing is trained again. Then verify that."
        )
    named = str(status.get("id", run.run_id))
    if named != run.run_id:
        raise RunFolderError(
            f"The folder {run.run_id} holds run {named} (status.json). Give it that name again to verify it."
        )


def _check_manifest(run: RunFolder, verification: Verification) -> Manifest | None:
    """Return the manifest where images can be made of it; hold it against what it was when the test set was read."""
    name = run.manifest.name
    try:
        manifest = Manifest.load(run.manifest)
        rows = manifest.table.select(["image_id", "label", "split", "status"]).to_pylist()
        for row in rows:
            if row["status"] == "used" and (row["label"] not in manifest.classes or row["split"] not in SPLITS):
                problem = f"is used as {row['label']!r} in {row['split']!r}, which is no class or no split of this run"
                verification.add(name, problem, f"image {row['image_id']}")
        if verification.mismatches:
            return None
        readings = read_readings(run)
        if readings is not None:
            is_same = readings.manifest_sha256 == manifest.sha256()
            if not is_same:
                verification.add(name, f"is not what it was when the test set was read ({READINGS} has its sha256)")
            if is_same and readings.fingerprint != fingerprint_test_set(manifest):
                verification.add(READINGS, "is not of the manifest's test images", "fingerprint")
    except DAMAGE as error:
        verification.add(name, sentence_of(error))
        return None
    return manifest


def _check_records(run: RunFolder, verification: Verification) -> None:
    """Read spec, plan and how each trial ended; what cannot be read is named."""
    for path, load in ((run.spec, JobSpec.load), (run.plan, lambda _: planned_trials(run))):
        try:
            load(path)
        except DAMAGE as error:
            verification.add(path.name, sentence_of(error))
            return
    for trial in planned_trials(run):
        folder = run.trial(trial.trial_id)
        name = folder.result.relative_to(run.path).as_posix()
        try:
            result = folder.read_result()
        except DAMAGE as error:
            verification.add(name, f"cannot be read: {sentence_of(error)}")
            continue
        if result is None:
            verification.add(name, "is missing")
        elif (result.key, result.lr) != (trial.key, trial.lr):
            verification.add(name, f"is of {result.trial_id} at rate {result.lr}, should be at {trial.lr}")


def _check_trials(run: RunFolder, found: RunResults, verification: Verification) -> None:
    """Hold what each trial says it reached on validation against its predictions and its own log of epochs."""
    sign = -1 if found.metric in LOWER_IS_BETTER else 1
    for trial_id, result in found.results.items():
        if result.state != "done":
            continue
        folder, metrics = run.trial(trial_id), found.scores[trial_id, "val"].metrics
        says = {"val_accuracy": result.val_accuracy, "val_loss": result.val_loss}
        should_be = {"val_accuracy": metrics.accuracy, "val_loss": metrics.log_loss}
        if result.val_score is not None:
            says["val_score"], should_be["val_score"] = result.val_score, sign * float(getattr(metrics, found.metric))
        name = folder.result.relative_to(run.path).as_posix()
        verification.compare(name, "", says, should_be)
        if folder.metrics.exists():
            log = read_damaged_text(folder.metrics, verification)
            if log is None:
                continue
            epochs = list(csv.DictReader(io.StringIO(log)))
            verification.compare(name, "epochs", result.epochs, len(epochs))
            best = epochs[result.best_epoch] if 0 <= result.best_epoch < len(epochs) else {}
            at_best = {key: _number(best[key]) for key in ("val_accuracy", "val_loss") if key in best}
            verification.compare(name, "best_epoch", says | at_best, says)


def _check_predictions(run: RunFolder, manifest: Manifest, verification: Verification) -> None:
    """Hold each table against the manifest, and against what its trial wrote itself where that is still there."""
    name = run.predictions.name
    try:
        planned = {trial.trial_id for trial in planned_trials(run)}
        for predictions in read_predictions(run.predictions):
            source = predictions.source
            if source.run != run.run_id or source.key.id not in planned or source.split not in ("val", "test"):
                verification.add(name, f"is of run {source.run}, and not of this run's plan", str(source))
                continue
            images = manifest.images(source.key)
            problem = _problem_of(predictions, images, [images.image_ids[row] for row in images.rows(source.split)])
            verification.num_figures += predictions.logits.size
            if problem:
                verification.add(name, problem, str(source))
            else:
                _compare_with_trial(run, predictions, images, verification)
    except DAMAGE as error:
        verification.add(name, sentence_of(error))


def _problem_of(predictions: Predictions, images: ImageTable, expected: Sequence[str]) -> str:
    """Return why a table is not the manifest's images of its split, each once and in order; empty where it is."""
    try:
        predictions.check_complete(images, predictions.source.split)
    except TransferlibError as error:
        return sentence_of(error)
    for row, (image_id, other) in enumerate(zip(predictions.image_ids, expected, strict=True)):
        if image_id != other:
            return f"row {row} is image {image_id}, should be {other}"
    return ""


def _compare_with_trial(
    run: RunFolder, predictions: Predictions, images: ImageTable, verification: Verification
) -> None:
    source = predictions.source
    path = run.trial(source.key.id).predictions(source.split)
    if not path.exists():
        return
    name = path.relative_to(run.path).as_posix()
    try:
        own = Predictions.load(path)
        own.check_complete(images, source.split)
    except DAMAGE as error:
        verification.add(name, sentence_of(error))
        return
    if own.source != Source(run.run_id, source.key, source.split):
        verification.add(name, f"holds the {own.source}")
        return
    differs = (own.in_order_of(images).logits != predictions.logits).any(axis=1)
    if differs.any():
        places = [predictions.image_ids[row] for row in np.flatnonzero(differs).tolist()]
        problem = f"logits of {len(places)} images are not what the trial wrote to {name}, the first {places[0]}"
        verification.add(run.predictions.name, problem, str(source))


def _read_with_choice(run: RunFolder, verification: Verification) -> tuple[RunResults, Choice]:
    """Read what there is, choose anew, and hold the saved choice against that."""
    saved = read_damaged_json(run.choice, verification)
    try:
        chosen = [str(trial["trial_id"]) for trial in saved["chosen"]] if saved is not None else []
        read_choice(run)
    except DAMAGE as error:
        verification.add(run.choice.name, f"cannot be read: {sentence_of(error)}")
        saved, chosen = None, []
    found = read_final_results(run, chosen)
    choice = choose_from(found)
    if saved is not None:
        verification.compare(run.choice.name, "", *_comparable(saved, choice))
    with_test = {key for key, split in found.scores if split == "test"}
    for trial_id in sorted(with_test - set(choice.trial_ids)):
        problem = "has test predictions, but was not to be chosen on validation"
        verification.add(run.predictions.name, problem, trial_id)
    if set(choice.trial_ids) - set(chosen):
        found = read_final_results(run, choice.trial_ids)
    return found, choice


def _comparable(saved: Plain, choice: Choice) -> tuple[Plain, Plain]:
    """Return a saved choice and the right one as what both can say; schema 1 had fewer figures."""
    if saved.get("schema") == CHOICE_SCHEMA:
        return saved, json.loads(json.dumps(choice.to_plain()))
    plain = [dict(each.to_plain()) for each in (Choice.from_plain(saved), choice)]
    for each in plain:
        del each["candidates"], each["selected_by"], each["model"]
        each["chosen"] = [{key: trial[key] for key in trial if key != "num_parameters"} for trial in each["chosen"]]
    return plain[0], plain[1]


def _check_leaderboard(run: RunFolder, comparison: Comparison, verification: Verification) -> None:
    saved = read_damaged_json(run.leaderboard("json"), verification)
    if saved is not None:
        should_be = json.loads(json.dumps(comparison.to_plain()))
        verification.compare(run.leaderboard("json").name, "", saved, should_be)
    says = read_damaged_text(run.leaderboard("csv"), verification)
    if says is not None:
        cells = zip_longest(_csv_cells(says), _csv_cells(tables.to_csv(comparison.arms)))
        for one, other in cells:
            place = (other or one)[0]
            verification.compare(run.leaderboard("csv").name, place, one and one[1], other and other[1])
    says = read_damaged_text(run.leaderboard("md"), verification)
    if says is not None:
        compare_lines(says, tables.to_markdown(comparison), run.leaderboard("md").name, verification)


def _csv_cells(text: str) -> Iterator[tuple[str, Any]]:
    """Yield each cell with its place: arm and column."""
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    yield "header", ",".join(header)
    for row in rows:
        for column, cell in zip_longest(header, row, fillvalue=""):
            yield f"{row[0] if row else ''}.{column}", _number(cell)


def _number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def _check_model(run: RunFolder, choice: Choice, verification: Verification) -> None:
    """Hold the model handed over against the trial's own and the sha256 that it left; of a run in a storage, neither.

    They are one file as a rule.
    """
    submission = Submission.load(run)
    if choice.model is None or (submission is not None and submission.storage is not None):
        return
    if not has_content(run.model):
        again = f"`submit {run.verb} --resume {run.run_id}` makes it again"
        verification.add(RunFolder.MODEL, f"is {'empty' if run.model.is_file() else 'missing'}; {again}")
        return
    folder = run.trial(choice.model.trial_id)
    result = folder.read_result()
    recorded = "" if result is None else result.files.get(folder.best.name, "")
    is_other = bool(recorded) and file_sha256(run.model) != recorded
    if folder.best.is_file() and not run.model.samefile(folder.best):
        is_other = is_other or not filecmp.cmp(run.model, folder.best, shallow=False)
    if is_other:
        verification.add(RunFolder.MODEL, f"is not the model of {folder.path.name}, which is best on validation")
