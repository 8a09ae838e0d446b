"""Is the data fit to train on: what stops a job, what is said loudly, what is merely told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from transferlib.data.listing import HIDDEN_REASON, SkippedFile
from transferlib.data.near_notes import near_alarms
from transferlib.errors import DataError
from transferlib.words import count, first_of, shortened

BAD_SHARE_ALARM = 0.01
"""Share of bad files past which something is wrong with the whole copy, not with single files."""
CLASS_RATIO_ALARM = 10.0
"""Largest over smallest class of train past which plain accuracy misleads."""
MOST_SHOWN = 10
MOST_CLASSES_SHOWN = 20
MOST_NAME_CHARACTERS = 50
"""Of a class in the table of counts, which is to fit a terminal of 80."""


def check_strict(root: str, bad: Sequence[SkippedFile]) -> None:
    """Stop at bad files.

    Raises:
        DataError: There are any.
    """
    if bad:
        shown = [f"  {printable(file.image_id)}: {file.reason}" for file in sorted(bad)[:MOST_SHOWN]]
        more = [f"  ... and {len(bad) - MOST_SHOWN} more"] if len(bad) > MOST_SHOWN else []
        head = f"{count(len(bad), 'file')} in {root} cannot serve as images, and on_bad_image is 'fail':"
        raise DataError("\n".join([head, *shown, *more, "Repair or remove them, or use --on-bad-image skip."]))


def check_classes(classes: Sequence[str], good_labels: Sequence[str], bad: Sequence[SkippedFile]) -> None:
    """Stop at classes that lost every image.

    Args:
        classes: All class names.
        good_labels: Labels of the images that decode.
        bad: What cannot serve.

    Raises:
        DataError: There are such classes.
    """
    lost = sorted(set(classes) - set(good_labels))
    if lost:
        lines = []
        for label in lost:
            of_class = [file for file in bad if file.label == label]
            reason = of_class[0].reason if of_class else "no files"
            lines.append(f"Class {label!r} has no image that can be used ({count(len(of_class), 'file')}; {reason}).")
        raise DataError("\n".join([*first_of(lines, "classes"), "Repair or remove these classes."]))


def summarise(
    root: str,
    counts: Mapping[str, Mapping[str, int]],
    table: pa.Table,
    num_bad: int,
    notes: Sequence[str],
    whole: str,
) -> list[str]:
    """Return the lines a user reads before training; loud ones begin with "warning: ".

    Args:
        root: The source.
        counts: Used images by split and class.
        table: Of the manifest.
        num_bad: Files that were meant as images and are none.
        notes: How the source was read.
        whole: Where all of what is cut short here stands.
    """
    total = sum(sum(of.values()) for of in counts.values())
    classes = list(next(iter(counts.values())))
    lines = [f"{count(total, 'image')} of {count(len(classes), 'class')} from {root}", *_count_table(counts, classes)]
    lines += notes
    lines += _left_out(table, whole)
    lines += [f"warning: {line}" for line in _alarms(counts, classes, table, num_bad, total, whole)]
    return lines


def _count_table(counts: Mapping[str, Mapping[str, int]], classes: Sequence[str]) -> list[str]:
    names = {label: shortened(printable(label), MOST_NAME_CHARACTERS) for label in classes}
    width = max(len("all classes"), *map(len, names.values()))
    lines = [f"  {'':{width}}" + "".join(f"{split:>8}" for split in counts)]
    shown = classes
    if len(classes) > MOST_CLASSES_SHOWN:
        by_size = sorted(classes, key=lambda label: (sum(of[label] for of in counts.values()), label))
        shown = [by_size[0], by_size[-1]]
        lines[0] += "   (smallest and largest class)"
    lines += [f"  {names[label]:{width}}" + "".join(f"{of[label]:>8,}" for of in counts.values()) for label in shown]
    lines.append(f"  {'all classes':{width}}" + "".join(f"{sum(of.values()):>8,}" for of in counts.values()))
    return lines


def _left_out(table: pa.Table, whole: str) -> list[str]:
    rows = zip(*(table[name].to_pylist() for name in ("image_id", "status", "reason")), strict=True)
    out = [row for row in rows if row[1] != "used" and row[2] != HIDDEN_REASON]
    if not out:
        return []
    statuses = Counter(status for _, status, _ in out)
    lines = [f"Left out: {', '.join(f'{number:,} {status}' for status, number in sorted(statuses.items()))}"]
    lines += [f"  {printable(image_id)}: {reason}" for image_id, _, reason in out[:MOST_SHOWN]]
    if len(out) > MOST_SHOWN:
        lines.append(f"  ... and {len(out) - MOST_SHOWN:,} more; {whole} has all, with their reasons")
    return lines


def _alarms(
    counts: Mapping[str, Mapping[str, int]],
    classes: Sequence[str],
    table: pa.Table,
    num_bad: int,
    total: int,
    whole: str,
) -> list[str]:
    alarms = []
    statuses = Counter(table["status"].to_pylist())
    seen = total + num_bad + statuses["duplicate"] + statuses["label_conflict"]
    if num_bad > BAD_SHARE_ALARM * seen:
        share = 100 * num_bad / seen
        alarms.append(f"{num_bad:,} of {seen:,} files ({share:.1f} %) cannot serve as images; is the copy complete?")
    if conflicts := statuses["label_conflict"]:
        alarms.append(
            f"{conflicts:,} files have the same content as another under another label; all of them are left out. "
            "Decide which label is right and remove the others."
        )
    train = {label: counts["train"][label] for label in classes}
    largest, smallest = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    if train[largest] > CLASS_RATIO_ALARM * train[smallest]:
        alarms.append(
            f"class {printable(largest)} has {train[largest]:,} training images, {printable(smallest)} has "
            f"{train[smallest]:,}; --class-weights balanced makes them count alike, and balanced accuracy is the "
            "figure to read."
        )
    return [*alarms, *near_alarms(table, whole)]


def printable(name: str) -> str:
    """Return a name without what could steer a terminal."""
    return name if name.isprintable() else ascii(name)[1:-1]
