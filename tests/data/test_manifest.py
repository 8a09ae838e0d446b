from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from transferlib.data.facts import ImageFacts
from transferlib.data.images import image_keys
from transferlib.data.listing import HIDDEN_REASON, Entry, Listing, SkippedFile
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError
from transferlib.spec import DataSpec

SPEC = DataSpec(path="photos")


def listing(*entries: Entry, skipped: tuple[SkippedFile, ...] = ()) -> Listing:
    return Listing("/photos", "class folders", tuple(sorted(entries, key=lambda e: e.image_id)), skipped)


def entries(classes: str, number: int, split: str | None = None) -> list[Entry]:
    prefix = f"{split}/" if split else ""
    return [
        Entry(f"{prefix}{c}/{i:03}.jpg", f"/photos/{prefix}{c}/{i:03}.jpg", c, split)
        for c in classes
        for i in range(number)
    ]


def fact(entry: Entry, content: str | None = None, reason: str = "") -> ImageFacts:
    sha256 = hashlib.sha256((content or entry.image_id).encode()).hexdigest()
    return ImageFacts(sha256, 40, 30, reason)


def built(of: Listing, spec: DataSpec = SPEC, **special: ImageFacts) -> Manifest:
    by_id = {key.replace("__", "/") + ".jpg": value for key, value in special.items()}
    return Manifest.build(of, [by_id.get(entry.image_id, fact(entry)) for entry in of.entries], spec)


def rows(manifest: Manifest) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in manifest.table.to_pylist()}


def test_every_file_seen_has_one_row_in_the_order_of_ids() -> None:
    skipped = (SkippedFile("a/.DS_Store", "/photos/a/.DS_Store", "a", HIDDEN_REASON, is_bad=False),)
    bad = ImageFacts("ab" * 32, 40, 30, "truncated")
    manifest = built(listing(*entries("ab", 5), skipped=skipped), a__001=bad)
    found = rows(manifest)
    assert list(found) == sorted(found)
    assert len(found) == 11
    added = ("near_group", "near_duplicate", "remarks")
    assert found["a/.DS_Store"] | {"uri": ""} == {
        **dict.fromkeys(("split", "group", "sha256", "width", "height", *added)),
        "image_id": "a/.DS_Store",
        "uri": "",
        "label": "a",
        "status": "skipped",
        "reason": HIDDEN_REASON,
    }
    assert (found["a/001.jpg"]["status"], found["a/001.jpg"]["reason"]) == ("skipped", "truncated")
    assert found["a/001.jpg"]["split"] is None
    assert found["b/000.jpg"]["status"] == "used"
    assert found["b/000.jpg"]["split"] in ("train", "val", "test")
    assert (found["b/000.jpg"]["width"], found["b/000.jpg"]["height"]) == (40, 30)


def test_order_of_the_listing_changes_nothing() -> None:
    of = listing(*entries("ab", 9))
    backwards = Listing(of.root, of.layout, tuple(reversed(of.entries)))
    assert built(backwards).table.equals(built(of).table)


def test_image_table_holds_the_used_images_only() -> None:
    manifest = built(listing(*entries("ab", 9)), a__001=ImageFacts("", 0, 0, "empty file"))
    images = manifest.images()
    assert len(images) == 17
    assert images.image_ids == tuple(sorted(images.image_ids))
    assert "a/001.jpg" not in images.image_ids
    assert images.labels.tolist() == [0] * 8 + [1] * 9
    assert (images.labels.dtype, images.splits.dtype, images.keys.dtype) == (np.int64, np.int8, np.uint64)
    together = np.concatenate([images.rows(split) for split in ("train", "val", "test")])
    assert sorted(together.tolist()) == list(range(17))
    assert all((np.diff(images.rows(split)) > 0).all() for split in ("train", "val", "test"))
    with pytest.raises(DataError, match="Unknown split 'tset'"):
        images.rows("tset")


def test_image_keys_are_the_head_of_the_ids_hash() -> None:
    expected = int.from_bytes(hashlib.sha256("ä/1.jpg".encode()).digest()[:8], "big")
    assert image_keys(["ä/1.jpg", "b"])[0] == expected
    assert image_keys([]).shape == (0,)


def test_manifest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    manifest = built(listing(*entries("ab", 5, "train"), *entries("ab", 2, "val")))
    manifest.save(tmp_path / "manifest.parquet")
    again = Manifest.load(tmp_path / "manifest.parquet")
    assert again.table.equals(manifest.table)
    assert (again.classes, again.notes, again.num_bad, again.root) == (manifest.classes, manifest.notes, 0, "/photos")
    assert again.cut == manifest.cut == "rank"
    assert again.sha256() == manifest.sha256()
    assert again.summary_lines() == manifest.summary_lines()


def test_saved_file_has_the_columns_that_others_read(tmp_path: Path) -> None:
    built(listing(*entries("ab", 5))).save(tmp_path / "manifest.parquet")
    schema = pq.read_schema(tmp_path / "manifest.parquet")
    assert schema.names == [
        "image_id",
        "uri",
        "label",
        "split",
        "group",
        "sha256",
        "width",
        "height",
        "status",
        "reason",
        "near_group",
        "near_duplicate",
        "remarks",
    ]
    assert schema.metadata[b"schema"] == b"2"
    assert json.loads(schema.metadata[b"classes"]) == ["a", "b"]


def test_saved_file_says_how_it_was_cut_and_one_that_does_not_was_cut_by_thresholds(tmp_path: Path) -> None:
    of, path = listing(*entries("ab", 40)), tmp_path / "manifest.parquet"
    facts = [fact(entry) for entry in of.entries]
    new, old = Manifest.build(of, facts, SPEC), Manifest.build(of, facts, SPEC, cut="threshold")
    assert new.sha256() != old.sha256()
    for manifest in (new, old):
        manifest.save(path)
        assert Manifest.load(path).cut == manifest.cut
    table = pq.read_table(path)
    metadata = {key: value for key, value in table.schema.metadata.items() if key not in (b"cut", b"sha256")}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert Manifest.load(path).cut == "threshold"
    assert Manifest.load(path).sha256() == old.sha256()


@pytest.mark.slow
def test_a_flipped_bit_is_told_or_changes_nothing(tmp_path: Path) -> None:
    """It became another data set in silence, or an error of another library."""
    path, manifest = tmp_path / "manifest.parquet", built(listing(*entries("ab", 9)))
    manifest.save(path)
    whole = path.read_bytes()
    outcomes = Counter[str]()
    for bit in range(0, 8 * len(whole), 61):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = Manifest.load(path)
        except DataError as error:
            is_cure_told = "Bring it back from a copy" in str(error) or "no manifest of schema" in str(error)
            outcomes["told" if is_cure_told else f"told without a cure: {error}"] += 1
        else:
            outcomes["as it was"] += 1
            assert found.table.equals(manifest.table), bit
            assert (found.classes, found.notes, found.root) == (manifest.classes, manifest.notes, manifest.root), bit
            assert (found.num_bad, found.cut, found.near) == (manifest.num_bad, manifest.cut, manifest.near), bit
    assert outcomes.keys() == {"told", "as it was"}
    assert outcomes["told"] > outcomes["as it was"]


@pytest.mark.parametrize("key", [b"classes", b"root", b"cut"])
def test_a_manifest_whose_metadata_was_changed_is_refused(key: bytes, tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    built(listing(*entries("ab", 9))).save(path)
    table = pq.read_table(path)
    changed = {**table.schema.metadata, key: b'["a", "c"]'}
    pq.write_table(table.replace_schema_metadata(changed), path)
    with pytest.raises(DataError, match=r"manifest\.parquet is damaged .*another sha256"):
        Manifest.load(path)


def test_another_file_is_refused_as_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        Manifest.load(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        Manifest.load(path)
    pq.write_table(built(listing(*entries("ab", 5))).table, path)
    with pytest.raises(DataError, match="no manifest of schema 2"):
        Manifest.load(path)


def test_hash_tells_content_and_use_not_the_place_on_a_machine() -> None:
    of = listing(*entries("ab", 9))
    moved = listing(*(Entry(e.image_id, f"/elsewhere/{e.image_id}", e.label) for e in of.entries))
    assert built(moved).sha256() == built(of).sha256()
    assert built(of, a__000=ImageFacts("cd" * 32, 40, 30)).sha256() != built(of).sha256()
    assert built(of, SPEC.model_copy(update={"split": SPEC.split.model_copy(update={"seed": 5})})).sha256() != (
        built(of).sha256()
    )


def test_fail_stops_at_bad_files_and_names_them_all_but_not_system_files() -> None:
    strict = DataSpec(path="photos", on_bad_image="fail")
    hidden = SkippedFile("a/.DS_Store", "/photos/a/.DS_Store", "a", HIDDEN_REASON, is_bad=False)
    link = SkippedFile("a/loop", "/photos/a/loop", "a", "the same folder as a, which is read already")
    assert built(listing(*entries("ab", 5), skipped=(hidden,)), strict).num_bad == 0
    with pytest.raises(DataError) as caught:
        built(listing(*entries("ab", 5), skipped=(hidden, link)), strict, a__001=ImageFacts("", 0, 0, "empty file"))
    assert "2 files in /photos" in str(caught.value)
    assert "a/001.jpg: empty file" in str(caught.value)
    assert "a/loop" in str(caught.value)
    assert ".DS_Store" not in str(caught.value)


def test_class_that_loses_everything_is_refused_with_a_reason() -> None:
    with pytest.raises(DataError, match=r"Class 'b' has no image that can be used \(2 files; empty file\)"):
        built(
            listing(*entries("a", 9), *entries("b", 2)),
            b__000=ImageFacts("", 0, 0, "empty file"),
            b__001=ImageFacts("", 0, 0, "empty file"),
        )


def test_summary_counts_and_names_what_was_left_out() -> None:
    lines = built(
        listing(*entries("ab", 5, "train"), *entries("ab", 2, "val"), *entries("ab", 3, "test")),
        train__a__001=ImageFacts("", 0, 0, "empty file"),
        train__b__002=fact(entries("b", 1, "test")[0]),
    ).summary_lines()
    assert lines[0] == "18 images of 2 classes from /photos"
    assert [line.split() for line in lines[1:5]] == [
        ["train", "val", "test"],
        ["a", "4", "2", "3"],
        ["b", "4", "2", "3"],
        ["all", "classes", "8", "4", "6"],
    ]
    assert "Left out: 1 duplicate, 1 skipped" in lines
    assert "  train/a/001.jpg: empty file" in lines
    assert "  train/b/002.jpg: the same content as test/b/000.jpg, which is in test" in lines


def test_more_than_one_percent_bad_warns_loudly_and_less_does_not() -> None:
    bad = ImageFacts("", 0, 0, "empty file")
    few = built(listing(*entries("ab", 100)), a__000=bad, a__001=bad)
    many = built(listing(*entries("ab", 100)), a__000=bad, a__001=bad, a__002=bad)
    assert not [line for line in few.summary_lines() if line.startswith("warning")]
    warned = [line for line in many.summary_lines() if line.startswith("warning")]
    assert warned == ["warning: 3 of 200 files (1.5 %) cannot serve as images; is the copy complete?"]


def test_system_files_raise_no_alarm_and_are_not_listed() -> None:
    hidden = tuple(
        SkippedFile(f"a/{i}/.DS_Store", f"/photos/a/{i}/.DS_Store", "a", HIDDEN_REASON, is_bad=False) for i in range(50)
    )
    lines = built(listing(*entries("ab", 5), skipped=hidden)).summary_lines()
    assert not any("DS_Store" in line or line.startswith(("warning", "Left out")) for line in lines)


def test_label_conflict_is_said_loudly() -> None:
    twin = fact(Entry("x", "x", "x"))
    manifest = built(listing(*entries("ab", 9)), a__000=twin, b__000=twin)
    assert {row["status"] for row in rows(manifest).values()} == {"used", "label_conflict"}
    assert any(line.startswith("warning: 2 files have the same content") for line in manifest.summary_lines())


def test_uneven_classes_name_the_option() -> None:
    lines = built(listing(*entries("a", 120), *entries("b", 6))).summary_lines()
    assert any(line.startswith("warning: class a has") and "--class-weights balanced" in line for line in lines)


def test_held_out_set_that_becomes_test_is_told() -> None:
    manifest = built(listing(*entries("ab", 20, "train"), *entries("ab", 2, "val")))
    assert any("val is the test set" in line for line in manifest.summary_lines())
    assert manifest.count_by_split_and_class()["test"] == {"a": 2, "b": 2}
    assert all(row["split"] == "test" for row in rows(manifest).values() if row["image_id"].startswith("val/"))


def test_a_name_cannot_steer_the_terminal() -> None:
    evil = Entry("a/\x1b[2Jx.jpg", "/photos/a/evil", "a")
    manifest = Manifest.build(
        of := listing(*entries("ab", 5), evil),
        [fact(e, reason="empty file" if e is evil else "") for e in of.entries],
        SPEC,
    )
    assert "\x1b" not in "\n".join(manifest.summary_lines())


def test_many_classes_are_told_by_the_smallest_and_largest() -> None:
    names = [Entry(f"c{k:02}/{i}.jpg", "/x", f"c{k:02}") for k in range(40) for i in range(4 + k)]
    lines = built(listing(*names)).summary_lines()
    assert len(lines) < 10
    assert any(line.strip().startswith("c39") for line in lines)


def test_a_class_of_120_characters_leaves_the_table_as_narrow_as_a_terminal() -> None:
    name = "a" * 60 + "z" * 60
    manifest = built(listing(*(Entry(f"{label}/{i}.jpg", "/x", label) for label in (name, "ant") for i in range(10))))
    lines = manifest.summary_lines()
    assert max(map(len, lines)) <= 80
    assert sum("aaa…zzz" in line for line in lines) == 1
    assert name in manifest.table["label"].to_pylist()


def test_package_loads_its_public_few_on_first_use() -> None:
    import transferlib.data as data

    assert data.Manifest is Manifest
    assert "list_images" in dir(data)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        data.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "is_bad"), [("a/1.xml", False), ("a/1", False), ("a/1.txt", False), ("a/1.JFIF", True)]
)
def test_a_side_car_file_is_a_row_and_no_alarm(name: str, is_bad: bool) -> None:
    entries = [Entry(f"{label}/{i}.jpg", f"/photos/{label}/{i}.jpg", label) for label in "ab" for i in range(10)]
    entries.append(Entry(name, f"/photos/{name}", "a"))
    entries.sort(key=lambda entry: entry.image_id)
    facts = [
        ImageFacts("", 0, 0, "no image of a known format")
        if entry.image_id == name
        else ImageFacts(entry.uri, 8, 8, "")
        for entry in entries
    ]
    listing = Listing("/photos", "class folders", tuple(entries))
    manifest = Manifest.build(listing, facts, DataSpec(path="/photos"))
    assert manifest.num_bad == is_bad
    (row,) = [row for row in manifest.table.to_pylist() if row["image_id"] == name]
    assert (row["status"], row["reason"]) == ("skipped", "no image of a known format")
    strict = DataSpec(path="/photos", on_bad_image="fail")
    if is_bad:
        with pytest.raises(DataError, match="cannot serve as images"):
            Manifest.build(listing, facts, strict)
    else:
        Manifest.build(listing, facts, strict)
