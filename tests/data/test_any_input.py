"""Whatever lies in a folder or stands in a table: a row, a sentence or a picture, the same one each time."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from transferlib.data.decode import BadImageError, Limits, decode_image
from transferlib.data.sources import list_images
from transferlib.errors import DataError

MANY = settings(
    max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
CELL = st.one_of(
    st.sampled_from(
        ["path", "label", "split", "group", "a.jpg", "b.jpg", "cat", "dog", "train", "test", "", '"', "..", "/"]
    ),
    st.text(max_size=6),
)
NAME = st.one_of(
    st.sampled_from(
        ["train", "test", "val", "Training", "test_set", "cat", "dog", "Cat", "1", "1.0", "images", ".git"]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
        lambda name: name not in (".", "..")
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELL, inner, max_size=4),
    max_leaves=8,
)


def table(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.jpg", "b.jpg"):
            (Path(folder) / name).write_bytes(name.encode())
        path = Path(folder) / f"m{suffix}"
        path.write_bytes(data)
        try:
            listing = list_images(path)
        except DataError as error:
            assert str(error)  # noqa: PT017
            return
        assert len(listing.classes) > 1
        assert {entry.image_id for entry in listing.entries} <= {"a.jpg", "b.jpg"}


@MANY
@given(
    st.lists(st.lists(CELL, max_size=5), max_size=5),
    st.sampled_from([",", ";", " , ", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_table_of_any_cells_is_read_or_refused(rows: list[list[str]], comma: str, end: str) -> None:
    table(end.join(comma.join(row) for row in rows).encode("utf-8", "surrogatepass"), ".csv")


@MANY
@given(st.binary(max_size=120))
def test_a_table_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    table(b"path,label\n" + data, ".csv")
    table(data, ".jsonl")


@MANY
@given(st.lists(JSON, max_size=4))
def test_json_lines_of_any_values_are_read_or_refused(values: list[object]) -> None:
    table("\n".join(json.dumps(value) for value in values).encode(), ".jsonl")


@MANY
@given(st.lists(st.lists(NAME, min_size=1, max_size=4), min_size=1, max_size=12), st.sampled_from([None, 1, 2]))
def test_every_file_of_any_folder_is_an_entry_or_a_row(paths: list[list[str]], class_level: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, written = Path(folder) / "root", set()
        root.mkdir()
        for number, parts in enumerate(paths):
            path = root.joinpath(*parts[:-1], f"{parts[-1]}{number}.jpg")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(str(number).encode())
            except OSError:
                continue  # a name that this disk does not take
            written.add(path.relative_to(root).as_posix())
        try:
            listing = list_images(root, class_level)
        except DataError as error:
            assert str(error)  # noqa: PT017
            return
        told = [entry.image_id for entry in listing.entries] + [skipped.image_id for skipped in listing.skipped]
        assert len(told) == len(set(told))
        hidden = tuple(name for name in told if name not in written)
        assert all(name in told or name.startswith(hidden) for name in written)
        assert listing == list_images(root, class_level)


def files() -> dict[str, bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8))
    found = {}
    for kind, options in {
        "JPEG": {},
        "PNG": {},
        "WEBP": {},
        "BMP": {},
        "GIF": {},
        "TIFF": {},
        "TIFF-lzw": {"compression": "tiff_lzw"},
        "AVIF": {},
        "JPEG2000": {},
    }.items():
        file = io.BytesIO()
        picture.save(file, kind.partition("-")[0], **options)
        found[kind] = file.getvalue()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", files())
@MANY
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    st.floats(0.2, 1),
)
def test_a_changed_file_is_refused_or_the_same_picture_each_time(
    kind: str, changes: list[tuple[float, int]], share: float
) -> None:
    data = bytearray(files()[kind])
    for place, value in changes:
        data[int(place * len(data))] = value
    cut = bytes(data[: max(1, round(share * len(data)))])
    seen = []
    for _ in range(2):
        try:
            seen.append(decode_image(cut, short_side=8, limits=Limits(10**6, 10**6)).pixels)
        except BadImageError as error:
            assert str(error)  # noqa: PT017
            seen.append(None)
    one, other = seen
    assert (one is None) == (other is None)
    assert one is None or (one == other).all()
