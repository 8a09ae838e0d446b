"""Predictions: what a model said about each image of a split, as a table that is checked, saved and joined."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError, RunFolderError, TrialError
from transferlib.evaluation.completeness import completeness_problems, some_of
from transferlib.records import TrialKey
from transferlib.runs import RunFolder, TrialFolder, read_json, write_atomic

if TYPE_CHECKING:
    import numpy.typing as npt

CLASSES_KEY = b"classes"

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("candidate", pa.int64()),
        ("split", pa.string()),
        ("image_id", pa.string()),
        ("label", pa.int64()),
        ("logits", pa.list_(pa.float32())),
    ]
)
"""The columns of `predictions.parquet`, in order; `classes` (a JSON list, by label index) is in the file's metadata.
Where images are cut into folds, `fold` stands after `seed`."""
WITH_FOLD = SCHEMA.insert(3, pa.field("fold", pa.int64()))


class Source(NamedTuple):
    """Say which trial and split a table of predictions comes from."""

    run: str
    key: TrialKey
    split: str

    def __str__(self) -> str:
        return f"{self.split} predictions of {self.key.arm}, {self.key.training}, candidate {self.key.candidate}"


@dataclass(frozen=True)
class Predictions:
    """Hold the logits of one trial on one split, a row an image.

    Attributes:
        source: The trial and split.
        image_ids: N relative paths.
        labels: int64 [N], indices into `classes`.
        logits: float32 [N, K], finite.
        classes: K names in label order.
    """

    source: Source
    image_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    classes: tuple[str, ...]

    @classmethod
    def from_arrays(
        cls,
        run: str,
        key: TrialKey,
        split: str,
        image_ids: Sequence[str],
        labels: npt.ArrayLike,
        logits: npt.ArrayLike,
        classes: Sequence[str],
    ) -> Self:
        """Check arrays and make a table of them.

        Args:
            run: Run id.
            key: Of the trial.
            split: train, val or test.
            image_ids: N relative paths.
            labels: int [N], indices into `classes`.
            logits: float [N, K].
            classes: K names in label order.

        Raises:
            DataError: Shapes that do not fit each other, or a label outside the classes.
            TrialError: Logits that are not finite.
        """
        source = Source(run, key, split)
        label_array = np.ascontiguousarray(labels, dtype=np.int64)
        logit_array = np.ascontiguousarray(logits, dtype=np.float32)
        expected = (len(image_ids), len(classes))
        if label_array.shape != expected[:1] or logit_array.shape != expected:
            raise DataError(
                f"{source}: {expected[0]} image ids and {expected[1]} classes, but labels of shape "
                f"{list(label_array.shape)} and logits of shape {list(logit_array.shape)}."
            )
        if label_array.size and (label_array.min() < 0 or label_array.max() >= len(classes)):
            raise DataError(
                f"{source}: labels from {label_array.min()} to {label_array.max()}, "
                f"but classes 0 to {len(classes) - 1}."
            )
        bad = np.flatnonzero(~np.isfinite(logit_array).all(axis=1))
        if bad.size:
            shown = some_of([image_ids[row] for row in bad.tolist()])
            raise TrialError(f"{source}: logits of {bad.size} of {expected[0]} images are not finite: {shown}.")
        return cls(source, tuple(image_ids), label_array, logit_array, tuple(classes))

    def __len__(self) -> int:
        return len(self.image_ids)

    def to_table(self) -> pa.Table:
        """Return the table of `SCHEMA` (with the fold where there is one), classes in its metadata."""
        rows, num_classes = self.logits.shape
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * num_classes)
        run, key, split = self.source
        of_trial = (key.arm, key.seed, *((key.fold,) if key.fold else ()), key.candidate)
        constant = [pa.repeat(pa.scalar(value), rows) for value in (run, *of_trial, split)]
        columns = [
            *constant,
            pa.array(self.image_ids, pa.string()),
            pa.array(self.labels),
            pa.ListArray.from_arrays(offsets, pa.array(self.logits.ravel())),
        ]
        return pa.Table.from_arrays(columns, schema=schema_with(self.classes, has_fold=bool(key.fold)))

    def save(self, path: Path) -> None:
        """Write the table as parquet, by rename."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.to_table(), sink, compression="zstd", write_page_checksum=True)
        write_atomic(path, sink.getvalue().to_pybytes())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that holds one trial's predictions on one split.

        Raises:
            DataError: Missing, not such a table, or of several trials or splits.
        """
        found = list(read_predictions(path))
        if len(found) != 1:
            raise DataError(f"{path} holds predictions of {len(found)} trials and splits; expected one.")
        only = found[0]
        return cls(only.source, only.image_ids, only.labels, only.logits, only.classes)

    @classmethod
    def _from_table(cls, table: pa.Table, path: Path) -> Self:
        names = table.schema.names[: table.schema.get_field_index("image_id")]
        keys = [table[name].unique().to_pylist() for name in names]
        classes = tuple(json.loads(table.schema.metadata[CLASSES_KEY]))
        if any(len(values) != 1 for values in keys):
            raise DataError(f"{path}: one row group holds rows of several trials or splits: {keys}.")
        lists = table["logits"].combine_chunks()
        if isinstance(lists, pa.ChunkedArray):
            lists = pa.concat_arrays(lists.chunks)
        flat = lists.flatten().to_numpy()
        if lists.null_count or flat.size != table.num_rows * len(classes):
            raise DataError(f"{path}: logits are not {len(classes)} values an image.")
        of = {name: values[0] for name, values in zip(names, keys, strict=True)}
        return cls.from_arrays(
            run=of["run"],
            key=TrialKey.of_arm(of["arm"], of["seed"], of["candidate"], of.get("fold", 0)),
            split=of["split"],
            image_ids=table["image_id"].to_pylist(),
            labels=table["label"].to_numpy(),
            logits=flat.reshape(table.num_rows, len(classes)),
            classes=classes,
        )

    def in_order_of(self, images: ImageTable) -> Self:
        """Return the same rows in the manifest's order; call `check_complete` first."""
        row_of = {image_id: row for row, image_id in enumerate(self.image_ids)}
        order = [row_of[images.image_ids[row]] for row in images.rows(self.source.split)]
        return type(self)(
            self.source,
            tuple(self.image_ids[row] for row in order),
            self.labels[order],
            self.logits[order],
            self.classes,
        )

    def check_complete(self, images: ImageTable, split: str) -> None:
        """Check that the rows are exactly the manifest's images of a split, each once, with its label.

        Args:
            images: The manifest's used images.
            split: train, val or test.

        Raises:
            DataError: Another split or other classes; images that are missing, twice there or foreign; other labels.
        """
        if self.source.split != split:
            raise DataError(f"{self.source}: expected the split {split}.")
        if self.classes != images.classes:
            raise DataError(
                f"{self.source}: classes {list(self.classes)} are not the manifest's {list(images.classes)}."
            )
        expected = {images.image_ids[row]: int(images.labels[row]) for row in images.rows(split)}
        problems = completeness_problems(self.image_ids, self.labels.tolist(), expected)
        if problems:
            raise DataError(
                f"{self.source} are not the manifest's {len(expected)} {split} images: {'; '.join(problems)}. "
                "No metric is computed from them."
            )


def schema_with(classes: Sequence[str], *, has_fold: bool = False) -> pa.Schema:
    """Return `SCHEMA` with the class names in its metadata, and with a fold where there are folds."""
    return (WITH_FOLD if has_fold else SCHEMA).with_metadata({CLASSES_KEY: json.dumps(list(classes)).encode()})


def read_predictions(path: Path) -> Iterator[Predictions]:
    """Read a predictions file one trial and split at a time, so that memory is bounded by the largest of them.

    Args:
        path: `predictions.parquet` of a run or `predictions-<split>.parquet` of a trial.

    Yields:
        Predictions in the file's order.

    Raises:
        DataError: Missing, damaged, other columns, or a trial and split whose rows are not together.
    """
    try:
        yield from _read_predictions(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing, so its metrics cannot be computed.") from None
    except _DAMAGE as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} is damaged ({what[:200]}). Remove it: `--resume` makes it again from what the trials left."
        ) from None


_DAMAGE = (OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, MemoryError)
"""What a flipped bit in a table's header ends in; pages have checksums."""


def _read_predictions(path: Path) -> Iterator[Predictions]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        schema = file.schema_arrow
        if not (schema.equals(SCHEMA) or schema.equals(WITH_FOLD)) or CLASSES_KEY not in (schema.metadata or {}):
            raise DataError(f"{path} is not a predictions table: its columns are {schema.names}.")
        seen: set[Source] = set()
        for group in range(file.num_row_groups):
            predictions = Predictions._from_table(file.read_row_group(group), path)
            if predictions.source in seen:
                raise DataError(f"{path} holds the {predictions.source} twice.")
            seen.add(predictions.source)
            yield predictions


def merge_predictions(run: RunFolder) -> None:
    """Join the trials' tables into `predictions.parquet`: validation of every trial that is done, test of the chosen.

    Rows are in the order of arm, fold, seed, candidate and split, then of the manifest. One table is in memory at a
    time.

    Args:
        run: Holds the manifest, `choice.json` and the trials.

    Raises:
        DataError: A table is missing or is not exactly the manifest's images, or a trial that was not chosen has read
            the test set.
        RunFolderError: No choice is saved yet.
    """
    choice = read_json(run.choice)
    if choice is None:
        raise RunFolderError(f"{run.choice} is missing: predictions are joined after the choice on validation.")
    manifest = Manifest.load(run.manifest)
    schema = schema_with(manifest.classes, has_fold=manifest.folds is not None)
    sources = list(_sources(run, {trial["trial_id"] for trial in choice["chosen"]}))
    temporary = run.predictions.with_name(f".{run.predictions.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            for path, source in sources:
                table = _trial_table(path, source, manifest.images(source.key))
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, run.predictions)
    finally:
        temporary.unlink(missing_ok=True)


def _sources(run: RunFolder, chosen: Collection[str]) -> Iterator[tuple[Path, Source]]:
    """Yield the tables that belong into `predictions.parquet`, in its order."""
    ended = [TrialFolder(path.parent).read_result() for path in run.path.glob("trials/*/result.json")]
    done = [result for result in ended if result is not None and result.state == "done"]
    for result in sorted(done, key=lambda r: r.key):
        folder = run.trial(result.trial_id)
        yield folder.predictions("val"), Source(run.run_id, result.key, "val")
        if result.trial_id in chosen:
            yield folder.predictions("test"), Source(run.run_id, result.key, "test")
        elif folder.predictions("test").exists():
            raise DataError(f"{folder.predictions('test')} exists, but {result.trial_id} was not chosen on validation.")


def _trial_table(path: Path, source: Source, images: ImageTable) -> pa.Table:
    """Return one trial's table, checked, in the manifest's order."""
    predictions = Predictions.load(path)
    if predictions.source != source:
        raise DataError(
            f"{path} holds the {predictions.source} of run {predictions.source.run}; expected the {source}."
        )
    predictions.check_complete(images, source.split)
    return predictions.in_order_of(images).to_table()
