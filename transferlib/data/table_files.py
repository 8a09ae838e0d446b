"""CSV and JSONL manifests: rows of path (or file_name), label, and optional split and group."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from transferlib.data.folders import RealId, as_text, is_text
from transferlib.data.listing import Entry, Listing, SkippedFile
from transferlib.errors import DataError, unknown_name
from transferlib.names import SPLIT_ALIASES

TABLE_SUFFIXES = (".csv", ".jsonl")
PATH_COLUMNS = ("path", "file_name")
COLUMNS = (*PATH_COLUMNS, "label", "split", "group")
MOST_PROBLEMS_SHOWN = 10


def list_table(path: Path) -> Listing:
    """List the images that a manifest names; relative paths are relative to the manifest's folder.

    Args:
        path: Absolute path of a .csv or .jsonl file.

    Raises:
        DataError: Not readable, columns missing, or wrong rows: all of them at once, by line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _jsonl_rows(text)
    reading = _Reading(path.parent)
    for line, row in rows:
        reading.take(line, row)
    if reading.problems:
        shown = reading.problems[:MOST_PROBLEMS_SHOWN]
        more = len(reading.problems) - len(shown)
        raise DataError("\n".join([f"{path}:", *shown, *([f"... and {more} more."] if more else [])]))
    if not reading.entries:
        missing = reading.skipped[0] if reading.skipped else None
        seen = f"; the first, {missing.image_id}: {missing.reason}" if missing else " (it has no rows)"
        raise DataError(f"{path} names no file that exists{seen}. Relative paths are taken from {path.parent}.")
    return Listing(
        root=str(path),
        layout="manifest",
        entries=tuple(sorted(reading.entries, key=lambda entry: entry.image_id)),
        skipped=tuple(sorted(reading.skipped, key=lambda skipped: skipped.image_id)),
        notes=reading.notes(),
    )


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header = [(name or "").strip() for name in reader.fieldnames or []]
    if not {"label"} <= set(header) or not set(PATH_COLUMNS) & set(header):
        raise DataError(
            f"{path} has the columns {', '.join(map(repr, header)) or '(none)'}. "
            "Needed: path (or file_name) and label, separated by commas; optional: split, group."
        )
    reader.fieldnames = header
    try:
        for row in reader:
            if None in row or None in row.values():
                yield reader.line_num, "another number of cells than the header; quote cells that hold commas"
            else:
                yield reader.line_num, dict(row)
    except csv.Error as error:
        yield reader.line_num, f"not CSV: {error}"


def _jsonl_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg}"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


@dataclass
class _Reading:
    """Turn rows into entries, and keep every mistake with its line."""

    folder: Path
    entries: list[Entry] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    other_columns: set[str] = field(default_factory=set)
    _given: dict[str, tuple[int, tuple[str, str | None, str | None]]] = field(default_factory=dict)
    _sights: dict[tuple[RealId, str, str | None], str] = field(default_factory=dict)

    def take(self, line: int, row: dict[str, Any] | str) -> None:
        if isinstance(row, str):
            self.problems.append(f"line {line}: {row}.")
            return
        self.other_columns |= set(row) - set(COLUMNS)
        wrong: list[str] = []
        path = self._path(row, wrong)
        label = _label(row, wrong)
        split = _split(row, wrong)
        group = _text(row, "group", wrong) or None
        if wrong:
            self.problems += [f"line {line}: {problem}" for problem in wrong]
            return
        uri = os.path.normpath(self.folder / path)
        image_id = PurePath(os.path.relpath(uri, self.folder)).as_posix()
        first = self._given.setdefault(image_id, (line, (label, split, group)))
        if first[0] == line:
            self._look(image_id, uri, label, split, group)
        elif first[1] != (label, split, group):
            self.problems.append(
                f"line {line}: {image_id!r} was given in line {first[0]} with another label, split or group; "
                "an image has one of each."
            )

    def _look(self, image_id: str, uri: str, label: str, split: str | None, group: str | None) -> None:
        try:
            found = os.stat(uri)
        except (OSError, ValueError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            self._skip(image_id, uri, label, f"file cannot be read: {why}", split)
            return
        first = self._sights.setdefault(((found.st_dev, found.st_ino), label, split), image_id)
        if not stat.S_ISREG(found.st_mode):
            self._skip(image_id, uri, label, "not a regular file", split)
        elif first != image_id:
            self._skip(image_id, uri, label, f"the same file as {first}", split)
        elif not is_text(uri):
            self._skip(image_id, uri, label, "path is not UTF-8; rename the file", split)
        else:
            self.entries.append(Entry(image_id, uri, label, split, group))

    def _skip(self, image_id: str, uri: str, label: str, reason: str, split: str | None) -> None:
        self.skipped.append(SkippedFile(as_text(image_id), as_text(uri), label, reason, split))

    def _path(self, row: dict[str, Any], wrong: list[str]) -> str:
        given = [name for name in PATH_COLUMNS if row.get(name) not in (None, "")]
        if len(given) != 1:
            wrong.append(f"needs one of path and file_name, has {' and '.join(given) or 'neither'}.")
            return ""
        path = _text(row, given[0], wrong)
        if "://" in path or "\0" in path:
            wrong.append(f"{path!r} is no path on this machine; copy the images here and give their paths.")
        return path

    def notes(self) -> tuple[str, ...]:
        """Return what of the manifest is not used."""
        if not self.other_columns:
            return ()
        return (f"Columns that are not used: {', '.join(sorted(map(str, self.other_columns)))}.",)


def _text(row: dict[str, Any], name: str, wrong: list[str]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        wrong.append(f"{name} is {value!r}; give text or a whole number.")
        return ""
    return value.strip()


def _label(row: dict[str, Any], wrong: list[str]) -> str:
    before = len(wrong)
    label = _text(row, "label", wrong)
    if not label and len(wrong) == before:
        wrong.append("label is empty.")
    # Class names become folder names (exports, per-class pictures), so one must not lead out of its folder.
    if label in {".", ".."} or any(char in "/\\" or not char.isprintable() for char in label):
        wrong.append(f"label {label!r} cannot name a folder; use no slashes, no '..' and printable characters only.")
    return label


def _split(row: dict[str, Any], wrong: list[str]) -> str | None:
    given = _text(row, "split", wrong)
    if given and given.casefold() not in SPLIT_ALIASES:
        wrong.append(unknown_name("split", given, SPLIT_ALIASES))
    return SPLIT_ALIASES.get(given.casefold()) if given else None
