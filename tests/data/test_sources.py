from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from transferlib.data.sources import Entry, Listing, list_images
from transferlib.errors import DataError, SpecError
from transferlib.spec import JobSpec


def put(root: Path, *paths: str) -> Path:
    for place, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(f"content {place} of {path}".encode())
    return root


def placed(listing: Listing) -> dict[str, tuple[str, str | None]]:
    return {entry.image_id: (entry.label, entry.split) for entry in listing.entries}


def reasons(listing: Listing) -> dict[str, str]:
    return {skipped.image_id: skipped.reason for skipped in listing.skipped}


def test_class_is_the_top_folder_however_deep_the_image(tmp_path: Path) -> None:
    put(tmp_path, "ants/a.jpg", "ants/field/2019/b.jpg", "bees/c.png")
    listing = list_images(tmp_path)
    assert listing.layout == "class folders"
    assert placed(listing) == {
        "ants/a.jpg": ("ants", None),
        "ants/field/2019/b.jpg": ("ants", None),
        "bees/c.png": ("bees", None),
    }
    assert listing.entries[0].uri == str(tmp_path / "ants/a.jpg")
    assert listing.classes == ("ants", "bees")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Valid"])
def test_split_folders_give_split_and_class(tmp_path: Path, name: str) -> None:
    put(tmp_path, "train/ants/a.jpg", "train/bees/deep/b.jpg", f"{name}/ants/c.jpg", "test/bees/d.jpg")
    listing = list_images(tmp_path)
    assert listing.layout == "split folders"
    assert placed(listing) == {
        "train/ants/a.jpg": ("ants", "train"),
        "train/bees/deep/b.jpg": ("bees", "train"),
        f"{name}/ants/c.jpg": ("ants", "val"),
        "test/bees/d.jpg": ("bees", "test"),
    }
    assert listing.count_by_split_and_class() == {
        "train": {"ants": 1, "bees": 1},
        "val": {"ants": 1},
        "test": {"bees": 1},
    }


def test_a_class_called_train_makes_no_split_folder(tmp_path: Path) -> None:
    listing = list_images(put(tmp_path, "bus/a.jpg", "train/b.jpg", "tram/c.jpg"))
    assert (listing.layout, listing.classes) == ("class folders", ("bus", "train", "tram"))


def test_other_folder_beside_split_folders_is_left_out_with_a_note(tmp_path: Path) -> None:
    put(tmp_path, "train/ants/a.jpg", "train/bees/b.jpg", "test/ants/c.jpg", "test/bees/d.jpg", "raw/x/e.jpg")
    listing = list_images(tmp_path)
    assert "raw/x/e.jpg" not in placed(listing)
    assert reasons(listing)["raw/x/e.jpg"] == "not inside a class folder"
    assert any("'raw'" in note for note in listing.notes)


def test_hidden_and_system_files_get_a_row_but_no_alarm(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg", ".DS_Store", "a/.DS_Store", "a/Thumbs.db", "a/._1.jpg", "a/.cache/x.jpg")
    listing = list_images(tmp_path)
    assert set(placed(listing)) == {"a/1.jpg", "b/2.jpg"}
    hidden = {".DS_Store", "a/.DS_Store", "a/Thumbs.db", "a/._1.jpg", "a/.cache"}
    assert set(reasons(listing)) == hidden
    assert not any(skipped.is_bad for skipped in listing.skipped)


def test_what_has_no_class_or_is_there_twice_is_no_alarm(tmp_path: Path) -> None:
    """Whole data sets stopped over unlabelled test images, links to listed ones, and folders left out with a note."""
    put(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg", "test/b/4.jpg", "stray.JPG", "README.md")
    put(tmp_path, "test/unlabelled.jpg", "extra/5.jpg")
    (tmp_path / "train/a/link.jpg").symlink_to(tmp_path / "train/a/1.jpg")
    (tmp_path / "train/a/all").symlink_to(tmp_path / "train")
    (tmp_path / "train/a/up").symlink_to(tmp_path.parent)
    listing = list_images(tmp_path)
    assert len(listing.skipped) == 7
    assert not any(skipped.is_bad for skipped in listing.skipped)


def test_a_link_that_leads_nowhere_is_an_alarm(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [skipped.is_bad for skipped in list_images(tmp_path).skipped] == [True]


def test_link_loop_ends_and_no_file_is_met_twice(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", "a/1.jpg", "b/2.jpg")
    (root / "a/loop").symlink_to(root)
    (root / "a/up").symlink_to(tmp_path)
    (root / "a/self").symlink_to(root / "a/self")
    (root / "a/nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    listing = list_images(root)
    assert set(placed(listing)) == {"a/1.jpg", "b/2.jpg"}
    found = reasons(listing)
    assert "read already" in found["a/loop"]
    assert "above" in found["a/up"]
    assert found["a/self"].startswith("link leads nowhere")
    assert found["a/nowhere.jpg"].startswith("link leads nowhere")


def test_a_photo_keeps_its_real_path_and_its_links_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a/z.jpg", "b/2.jpg")
    (tmp_path / "a/0_link.jpg").symlink_to(tmp_path / "a/z.jpg")
    os.link(tmp_path / "b/2.jpg", tmp_path / "b/3.jpg")
    listing = list_images(tmp_path)
    assert set(placed(listing)) == {"a/z.jpg", "b/2.jpg"}
    assert reasons(listing) == {"a/0_link.jpg": "the same file as a/z.jpg", "b/3.jpg": "the same file as b/2.jpg"}


def test_one_file_linked_into_two_classes_stays_twice_for_the_conflict_to_show(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "b/1.jpg").symlink_to(tmp_path / "a/1.jpg")
    assert placed(list_images(tmp_path))["b/1.jpg"] == ("b", None)


def test_linked_folder_outside_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/1.jpg", "photos/b/2.jpg")
    (tmp_path / "photos/a").symlink_to(tmp_path / "elsewhere")
    assert set(placed(list_images(tmp_path / "photos"))) == {"a/1.jpg", "b/2.jpg"}


def test_unreadable_folder_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "a/locked/2.jpg", "b/3.jpg")
    real = os.scandir

    def scandir(path: str) -> os._ScandirIterator[str]:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = list_images(tmp_path)
    assert set(placed(listing)) == {"a/1.jpg", "b/3.jpg"}
    assert reasons(listing) == {"a/locked": "folder cannot be read: permission denied"}


def test_pipe_is_named_and_never_opened(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    assert "neither a file nor a folder" in reasons(list_images(tmp_path))["a/pipe.jpg"]


def test_name_that_is_no_utf8_gets_a_row(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.jpg"))).write_bytes(b"x")
    assert reasons(list_images(tmp_path)) == {"a/\\xff.jpg": "name is not UTF-8; rename the file"}


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["a/1.jpg"], "one class only, 'a'"),
        (["1.jpg", "2.jpg"], "no images in class folders"),
        (["a/1.jpg", "b/2.jpg", "c/.keep"], "without images: 'c'"),
        (["set/train/a/1.jpg", "set/test/a/1.jpg"], "folders test, train: did you mean --data"),
    ],
)
def test_source_without_classes_is_refused(tmp_path: Path, paths: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        list_images(put(tmp_path, *paths))


def test_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "nothing")
    with pytest.raises(DataError, match="neither a folder nor a manifest"):
        list_images(put(tmp_path, "photo.jpg") / "photo.jpg")


def test_csv_manifest_reads_paths_relative_to_itself(tmp_path: Path) -> None:
    put(tmp_path, "set/img/1.jpg", "set/img/2, odd.jpg", "other/3.jpg")
    table = tmp_path / "set/labels.csv"
    table.write_text(
        "\ufefffile_name,label,split,group,camera\n"
        "img/1.jpg,ant,train,p1,x\n"
        '"img/./2, odd.jpg",bee,validation,,y\n'
        f"{tmp_path}/other/3.jpg,bee,,p2,z\n"
    )
    listing = list_images(table)
    assert listing.layout == "manifest"
    found = {e.image_id: (e.uri, e.label, e.split, e.group) for e in listing.entries}
    assert found == {
        "img/1.jpg": (str(tmp_path / "set/img/1.jpg"), "ant", "train", "p1"),
        "img/2, odd.jpg": (str(tmp_path / "set/img/2, odd.jpg"), "bee", "val", None),
        "../other/3.jpg": (str(tmp_path / "other/3.jpg"), "bee", None, "p2"),
    }
    assert listing.notes == ("Columns that are not used: camera.",)


def test_jsonl_manifest_equals_the_csv_one(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "m.csv").write_text("path,label,split\n1.jpg,7,train\n2.jpg,8,\n")
    rows = [{"path": "1.jpg", "label": 7, "split": "train"}, {"path": "2.jpg", "label": "8", "split": None}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert list_images(tmp_path / "m.jsonl").entries == list_images(tmp_path / "m.csv").entries


def test_every_wrong_row_is_told_with_its_line(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg")
    rows = [
        {"path": "1.jpg", "label": "ant"},
        {"path": "1.jpg", "label": "bee"},
        {"path": "2.jpg", "label": ""},
        {"label": "ant"},
        {"path": "2.jpg", "label": "../../etc"},
        {"path": "2.jpg", "label": "ant", "split": "tets"},
        {"path": "http://host/2.jpg", "label": "ant"},
        {"path": "2.jpg", "label": 1.5},
        ["2.jpg"],
    ]
    (tmp_path / "m.jsonl").write_text("\n".join([*map(json.dumps, rows), "{broken"]))
    with pytest.raises(DataError) as caught:
        list_images(tmp_path / "m.jsonl")
    text = str(caught.value)
    assert "line 2: '1.jpg' was given in line 1 with another label" in text
    assert "line 3: label is empty" in text
    assert "line 4: needs one of path and file_name" in text
    assert "line 5: label '../../etc' cannot name a folder" in text
    assert "line 6: Unknown split 'tets'. Did you mean 'test'?" in text
    assert "line 7: http:// is not supported. Known: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a path" in text
    assert "line 8: label is 1.5" in text
    assert "line 9: not a JSON object" in text
    assert "line 10: not JSON" in text


@pytest.mark.parametrize("label", ["..", ".", "a/b", "a\\b", "a\0b", "a\nb"])
def test_class_name_cannot_leave_its_folder(tmp_path: Path, label: str) -> None:
    put(tmp_path, "1.jpg", "2.jpg")
    rows = [{"path": "1.jpg", "label": label}, {"path": "2.jpg", "label": "fine"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="cannot name a folder"):
        list_images(tmp_path / "m.jsonl")


def test_manifest_row_without_file_gets_a_row_and_costs_no_other(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "m.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\ngone.jpg,a\n1.jpg,a\n")
    listing = list_images(tmp_path / "m.csv")
    assert set(placed(listing)) == {"1.jpg", "2.jpg"}
    assert reasons(listing) == {"gone.jpg": "file cannot be read: no such file or directory"}


def test_csv_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image;label\nx;y\n")
    with pytest.raises(DataError, match=r"has the columns 'image;label'.*Needed: path"):
        list_images(tmp_path / "m.csv")
    (tmp_path / "n.csv").write_text("path,label\nx,y,z\n")
    with pytest.raises(DataError, match="line 2: another number of cells"):
        list_images(tmp_path / "n.csv")


def test_manifest_that_names_no_file_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\nx.jpg,a\ny.jpg,b\n")
    with pytest.raises(DataError, match="Relative paths are taken from"):
        list_images(tmp_path / "m.csv")


def test_plan_counts_follow_what_the_splits_are_for(tmp_path: Path) -> None:
    put(tmp_path / "free", *(f"{c}/{i}.jpg" for c in "ab" for i in range(50)))
    assert list_images(tmp_path / "free").planned_counts(0.15, 0.15) == {"train": 70, "val": 14, "test": 16}
    put(tmp_path / "two", *(f"train/{c}/{i}.jpg" for c in "ab" for i in range(50)), "val/a/0.jpg", "val/b/0.jpg")
    assert list_images(tmp_path / "two").planned_counts(0.15, 0.15) == {"train": 84, "val": 16, "test": 2}


def listing_of(*entries: tuple[str | None, str]) -> Listing:
    made = tuple(Entry(f"{i}.png", f"/{i}.png", label, split, None) for i, (split, label) in enumerate(entries))
    return Listing(root="/", layout="manifest", entries=made)


def test_counts_that_no_cut_can_serve_are_refused_before_any_file_is_read() -> None:
    listing_of(*[(None, "a")] * 3, *[(None, "b")] * 3).check_counts()
    listing_of(*[("train", "a")] * 2, *[("train", "b")] * 2, ("val", "a"), ("val", "b")).check_counts()
    with pytest.raises(DataError, match="Class 'b' has 2 to be cut"):
        listing_of(*[(None, "a")] * 3, *[(None, "b")] * 2).check_counts()
    with pytest.raises(DataError, match="Class 'b' has 1 train images; train and val are cut from them and need 2"):
        listing_of(*[("train", "a")] * 2, ("train", "b"), ("val", "a"), ("val", "b")).check_counts()
    with pytest.raises(DataError, match="Class 'c' has 0 train images"):
        listing_of(*[("train", "a")] * 3, ("test", "a"), ("test", "c")).check_counts()
    with pytest.raises(DataError, match="Class 'b' has 1 in train, 1 in val, and none for test"):
        listing_of(*[(s, "a") for s in ("train", "val", "test")], ("train", "b"), ("val", "b")).check_counts()


def test_the_same_mistake_of_300_classes_is_not_300_lines(tmp_path: Path) -> None:
    listing = list_images(put(tmp_path, *(f"{number:03}/{i}.jpg" for number in range(300) for i in range(2))))
    with pytest.raises(DataError) as error:
        listing.check_counts()
    lines = str(error.value).splitlines()
    assert len(lines) == 12
    assert lines[10] == "... and 290 more classes."


def test_groups_are_read_off_paths(tmp_path: Path) -> None:
    put(tmp_path, *(f"{label}/p{number}_{view}.jpg" for label in "ab" for number in range(3) for view in "xy"))
    (tmp_path / "a/other.jpg").write_bytes(b"other")
    listing = list_images(tmp_path, group_regex=r"/(p\d+)_")
    groups = {entry.image_id: entry.group for entry in listing.entries}
    assert groups["a/p1_x.jpg"] == groups["b/p1_y.jpg"] == "p1"
    assert groups["a/other.jpg"] is None
    assert listing.notes[-1] == "--group-regex: 12 of 13 images in 3 groups."
    by_folder = list_images(tmp_path, group_regex=r"([^/]+)/[^/]+$")
    assert {entry.group for entry in by_folder.entries} == {"a", "b"}


def test_a_group_of_the_table_comes_before_one_of_the_name_and_no_match_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "p1.jpg", "p2.jpg")
    (tmp_path / "m.csv").write_text("path,label,group\np1.jpg,cat,mine\np2.jpg,dog,\n")
    listing = list_images(tmp_path / "m.csv", group_regex=r"(p\d)")
    assert [entry.group for entry in listing.entries] == ["mine", "p2"]
    with pytest.raises(DataError, match=r"--group-regex '\(x\)' matches no image's path; the first is 'p1.jpg'"):
        list_images(tmp_path / "m.csv", group_regex="(x)")


@pytest.mark.parametrize(
    ("regex", "says"), [("(", "is no regular expression"), ("a", "0 brackets"), ("(a)(b)", "2 br")]
)
def test_a_regex_that_cannot_say_a_group_is_refused(regex: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        JobSpec.from_mapping({"data": {"path": "/photos", "group_regex": regex}})
