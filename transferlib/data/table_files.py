"""CSV and JSONL manifests: rows of path (or file_name), label, and optional split and group."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from transferlib.data.health import MOST_NAME_CHARACTERS, printable
from transferlib.data.listing import Entry, Listing, SkippedFile
from transferlib.data.placement import as_text, class_name, is_text
from transferlib.data.row_places import RowPlace, place_row
from transferlib.errors import DataError, StorageError, UsageError, unknown_name
from transferlib.names import SPLIT_ALIASES, split_of
from transferlib.storage.locations import ObjectInfo
from transferlib.storage.objects import find_objects, is_object, read_object
from transferlib.words import first_of, shortened

TABLE_SUFFIXES = (".csv", ".jsonl")
PATH_COLUMNS = ("path", "file_name")
COLUMNS = (*PATH_COLUMNS, "label", "split", "group")
MOST_PROBLEMS_SHOWN = 10
_NOT_IN_NAMES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories: control characters, halves, ends of lines. Joiners and blanks of any width belong to names."""


def list_table(path: str) -> Listing:
    """List the images that a manifest names; relative paths are relative to the manifest's folder.

    Args:
        path: Absolute path or URI of a .csv or .jsonl file. Rows may hold URIs in either.

    Raises:
        DataError: Not readable, columns missing, or wrong rows: all of them at once, by line.
        StorageError: The store of a URI cannot be used.
    """
    try:
        text = (read_object(path) if is_object(path) else Path(path).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text ({error.reason}). Save the table as UTF-8 (spreadsheets: CSV UTF-8)."
        ) from None
    rows = _csv_rows(path, text) if path.lower().endswith(".csv") else _jsonl_rows(text)
    folder = path.rpartition("/")[0] or "/"
    reading = _Reading(folder)
    for line, row in rows:
        reading.take(line, row)
    if reading.problems:
        shown = reading.problems[:MOST_PROBLEMS_SHOWN]
        more = len(reading.problems) - len(shown)
        raise DataError("\n".join([f"{path}:", *shown, *([f"... and {more} more."] if more else [])]))
    reading.look()
    if not reading.entries:
        missing = reading.skipped[0] if reading.skipped else None
        seen = f"; the first, {missing.image_id}: {missing.reason}" if missing else " (it has no rows)"
        slashes = " Write paths with /, not with a backslash." if missing and "\\" in missing.image_id else ""
        raise DataError(f"{path} names no file that exists{seen}. Relative paths are taken from {folder}.{slashes}")
    reasons = {skipped.label: f"{skipped.image_id}: {skipped.reason}" for skipped in reversed(reading.skipped)}
    if lost := sorted(reasons.keys() - {entry.label for entry in reading.entries}):
        told = first_of(
            [f"Class {printable(label)!r} has no file that exists ({reasons[label]})." for label in lost], "classes"
        )
        raise DataError("\n".join([f"{path}:", *told, "Bring their files, or leave their rows out."]))
    return Listing(
        root=path,
        layout="manifest",
        entries=tuple(sorted(reading.entries, key=lambda entry: entry.image_id)),
        skipped=tuple(sorted(reading.skipped, key=lambda skipped: skipped.image_id)),
        notes=reading.notes(),
    )


def _csv_rows(path: str, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    limit = csv.field_size_limit(max(len(text), 1))  # a long cell in a column that nobody reads is no mistake
    try:
        header: list[str] | None = None
        for cells in reader:
            if not any(cells):
                continue  # spreadsheets write commas for rows that were emptied
            if header is None:
                header = _header(path, cells)
            elif len(cells) != len(header):
                yield reader.line_num, "another number of cells than the header; quote cells that hold commas"
            else:
                yield reader.line_num, dict(zip(header, cells, strict=True))
        if header is None:
            _header(path, [])
    except csv.Error as error:
        yield (
            reader.line_num,
            f'not CSV: {error}. Quotes (") stand at both ends of a cell, right beside the commas, doubled inside',
        )
    finally:
        csv.field_size_limit(limit)


def _header(path: str, cells: Sequence[str]) -> list[str]:
    """Return the names of the columns, those that are known in small letters.

    Raises:
        DataError: A needed one is missing, or a known one is there twice.
    """
    named = [cell.strip() for cell in cells]
    header = [name.casefold() if name.casefold() in COLUMNS else name for name in named]
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} {header.count(twice[0])} times. Keep one of them.")
    if not {"label"} <= set(header) or not set(PATH_COLUMNS) & set(header):
        other = next((mark for mark in (";", "\t", "|") if any(mark in name for name in header)), None)
        hint = f" It seems to be separated by {other!r}: save it with commas." if other else ""
        raise DataError(
            f"{path} has the columns {_shown(header)}. "
            f"Needed: path (or file_name) and label, separated by commas; optional: split, group.{hint}"
        )
    return header


def _shown(header: Sequence[str]) -> str:
    names = [repr(shortened(name, MOST_NAME_CHARACTERS)) for name in header[:MOST_PROBLEMS_SHOWN]]
    return ", ".join(names) + (", ..." if len(header) > len(names) else "") or "(none)"


def _jsonl_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except _TwiceError as error:
            yield number, f"has {str(error)!r} twice; keep one of them"
        except json.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg}"
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
            yield number, f"not JSON that can be read: {str(error).partition(';')[0]}"
        else:
            yield number, row if isinstance(row, dict) else "not a JSON object"


class _TwiceError(ValueError):
    """Report a name that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


class Unusable(NamedTuple):
    """Say why what a row names is no candidate."""

    reason: str


def _real_file(path: str) -> Hashable | Unusable:
    """Return what two names of one file have in common, or why it is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        return Unusable(f"file cannot be read: {why}")
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else Unusable("not a regular file")


def _real_object(uri: str, found: ObjectInfo | StorageError | None) -> Hashable | Unusable:
    if found is None:
        return Unusable("object cannot be read: it is not there")
    return Unusable(f"object cannot be read: {found}") if isinstance(found, StorageError) else uri


@dataclass
class _Reading:
    """Turn rows into entries, and keep every mistake with its line."""

    folder: str
    """Of the manifest, absolute path or URI."""
    entries: list[Entry] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    other_columns: set[str] = field(default_factory=set)
    _named: list[Entry] = field(default_factory=list)
    """Not looked for yet."""
    _given: dict[str, tuple[int, tuple[str, str | None, str | None]]] = field(default_factory=dict)

    def take(self, line: int, row: dict[str, Any] | str) -> None:
        if isinstance(row, str):
            self.problems.append(f"line {line}: {row}.")
            return
        self.other_columns |= {name for name in row if name and name not in COLUMNS}
        wrong: list[str] = []
        place = self._place(row, wrong)
        label = _label(row, wrong)
        split = _split(row, wrong)
        group = _text(row, "group", wrong) or None
        if wrong or place is None:
            self.problems += [f"line {line}: {problem}" for problem in wrong]
            return
        image_id = place.image_id
        first = self._given.setdefault(image_id, (line, (label, split, group)))
        if first[0] == line:
            self._named.append(Entry(image_id, place.uri, label, split, group))
        elif first[1] != (label, split, group):
            self.problems.append(
                f"line {line}: {image_id!r} was given in line {first[0]} with another label, split or group; "
                "an image has one of each."
            )

    def look(self) -> None:
        """Look for the files that were named; those that are not there, or there twice, become rows with a reason."""
        objects = [named.uri for named in self._named if is_object(named.uri)]
        found = dict(zip(objects, find_objects(objects), strict=True))
        sights: dict[tuple[Hashable, str, str | None], str] = {}
        for named in self._named:
            real = _real_object(named.uri, found[named.uri]) if named.uri in found else _real_file(named.uri)
            if isinstance(real, Unusable):
                self._skip(named, real.reason)
                continue
            first = sights.setdefault((real, named.label, named.split), named.image_id)
            if first != named.image_id:
                self._skip(named, f"the same file as {first}")
            elif not is_text(named.uri):
                self._skip(named, "path is not UTF-8; rename the file")
            else:
                self.entries.append(named)

    def _skip(self, named: Entry, reason: str) -> None:
        uri = as_text(named.uri)
        self.skipped.append(SkippedFile(as_text(named.image_id), uri, named.label, reason, named.split))

    def _place(self, row: dict[str, Any], wrong: list[str]) -> RowPlace | None:
        given = [name for name in PATH_COLUMNS if row.get(name) not in (None, "")]
        if len(given) != 1:
            wrong.append(f"needs one of path and file_name, has {' and '.join(given) or 'neither'}.")
            return None
        try:
            before = len(wrong)
            text = _text(row, given[0], wrong)
            return None if len(wrong) > before else place_row(self.folder, text)
        except (ValueError, UsageError) as error:
            wrong.append(str(error))
            return None

    def notes(self) -> tuple[str, ...]:
        """Return what of the manifest is not used."""
        if not self.other_columns:
            return ()
        return (f"Columns that are not used: {', '.join(sorted(map(printable, self.other_columns)))}.",)


def _text(row: dict[str, Any], name: str, wrong: list[str]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        wrong.append(f"{name} is {value!r}; give text or a whole number.")
        return ""
    if not is_text(value):
        wrong.append(f"{name} is {value!r}, which is half a character (a lone surrogate); write it anew.")
        return ""
    return value.strip()


def _label(row: dict[str, Any], wrong: list[str]) -> str:
    before = len(wrong)
    label = _text(row, "label", wrong)
    if len(wrong) > before:
        return ""
    if not label:
        wrong.append("label is empty.")
    # Class names become folder names (exports, per-class pictures), so one must not lead out of its folder.
    if label in {".", ".."} or any(char in "/\\" or unicodedata.category(char) in _NOT_IN_NAMES for char in label):
        wrong.append(f"label {label!r} cannot name a folder; use no slashes, no '..' and no control characters.")
    return class_name(label)


def _split(row: dict[str, Any], wrong: list[str]) -> str | None:
    given = _text(row, "split", wrong)
    split = split_of(given)
    if given and split is None:
        wrong.append(unknown_name("split", given, tuple(SPLIT_ALIASES)))
    return split
