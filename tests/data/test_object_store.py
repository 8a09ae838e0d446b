"""Images in an object store: the same listing, manifest and pixels as from the folder that was copied there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.storage.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from transferlib.data import facts as facts_module
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import BadImageError, Limits
from transferlib.data.facts import (
    FileStamp,
    UnreadableFileError,
    inspect_files,
    read_file,
    read_files,
    stamp_file,
    stamp_files,
)
from transferlib.data.listing import Listing
from transferlib.data.manifest import Manifest
from transferlib.data.source import PixelSource
from transferlib.data.sources import list_images
from transferlib.errors import DataError, ObjectNotFoundError, StorageError, StorageUnreachableError
from transferlib.spec import DataSpec
from transferlib.storage import objects
from transferlib.storage.locations import Location, open_location

LIMITS = Limits(max_pixels=1_000_000, max_file_bytes=100_000)


def put(bucket: str, *names: str) -> str:
    location = Location(bucket)
    for place, name in enumerate(names):
        location.write(name, f"content {place} of {name}".encode())
    return bucket


def copy_folder(folder: Path, location: Location) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            location.upload(path.relative_to(folder).as_posix(), path)


def ids(listing: Listing) -> list[str]:
    return [entry.image_id for entry in listing.entries]


def reasons(listing: Listing) -> dict[str, tuple[str, bool]]:
    return {skipped.image_id: (skipped.reason, skipped.is_bad) for skipped in listing.skipped}


def without_uris(listing: Listing, root: str) -> Listing:
    return replace(
        listing,
        root="",
        entries=tuple(replace(entry, uri=entry.uri.removeprefix(root)) for entry in listing.entries),
        skipped=tuple(skipped._replace(uri=skipped.uri.removeprefix(root)) for skipped in listing.skipped),
    )


TREES = {
    "class folders": ("ants/a.jpg", "ants/field/2019/b.jpg", "bees/c.png"),
    "split folders": ("train/ants/a.jpg", "train/bees/b.jpg", "Valid/ants/c.jpg", "test/bees/d.jpg", "raw/x/e.jpg"),
    "a class called train": ("bus/a.jpg", "train/b.jpg", "tram/c.jpg"),
    "hidden and system names": (
        "a/1.jpg",
        "b/2.jpg",
        ".DS_Store",
        "a/._1.jpg",
        "a/Thumbs.db",
        "a/.c/x.jpg",
        ".x/y.jpg",
    ),
    "files at the top": ("a/1.jpg", "b/2.jpg", "stray.JPG", "README.md"),
    "odd names": ("a/ü b?c=d#e%20@.jpg", "b/日本.png"),
}


@pytest.mark.parametrize("names", TREES.values(), ids=TREES)
def test_prefix_is_listed_as_the_folder_that_was_copied_there(
    s3_bucket: str, tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    copy_folder(tmp_path, Location(f"{s3_bucket}/my photos"))
    here = list_images(tmp_path)
    there = list_images(f"{s3_bucket}/my photos/")
    assert there.root == f"{s3_bucket}/my photos"
    assert there.entries[0].uri == f"{s3_bucket}/my photos/{there.entries[0].image_id}"
    assert without_uris(there, there.root) == without_uris(here, here.root)


def test_whole_bucket_can_be_listed(s3_bucket: str) -> None:
    assert ids(list_images(put(s3_bucket, "a/1.jpg", "b/2.jpg"))) == ["a/1.jpg", "b/2.jpg"]


def test_markers_of_folders_are_no_images_and_an_empty_class_is_told(s3_process: S3Server, s3_bucket: str) -> None:
    put(s3_bucket, "p/a/1.jpg", "p/b/2.jpg")
    for key in ("p/", "p/a/", "p/b/", "p/b/deeper/"):
        s3_process.put(f"{s3_bucket[5:]}/{key}", b"")
    listing = list_images(f"{s3_bucket}/p")
    assert (ids(listing), listing.skipped) == (["a/1.jpg", "b/2.jpg"], ())
    s3_process.put(f"{s3_bucket[5:]}/p/c/", b"")
    with pytest.raises(DataError, match=f"Class folders without images: 'c' in {s3_bucket}/p"):
        list_images(f"{s3_bucket}/p")


def test_keys_that_no_path_has_get_a_row_and_cost_nothing_else(s3_process: S3Server, s3_bucket: str) -> None:
    put(s3_bucket, "p/a/1.jpg", "p/b/2.jpg")
    for key in ("p/a//3.jpg", "p/../4.jpg", "p/b/./notes.txt"):
        s3_process.put(f"{s3_bucket[5:]}/{key}", b"x")
    listing = list_images(f"{s3_bucket}/p")
    assert ids(listing) == ["a/1.jpg", "b/2.jpg"]
    assert {name: is_bad for name, (_, is_bad) in reasons(listing).items()} == {
        "a//3.jpg": True,
        "../4.jpg": True,
        "b/./notes.txt": False,
    }
    assert "rename the object" in reasons(listing)["a//3.jpg"][0]


def test_what_is_no_source_is_told(s3_bucket: str) -> None:
    put(s3_bucket, "only/ants/1.jpg", "photos.zip")
    with pytest.raises(DataError, match=f"{s3_bucket}/nothing does not exist: no object's key begins with it"):
        list_images(f"{s3_bucket}/nothing")
    with pytest.raises(DataError, match=f"{s3_bucket}/photos.zip is neither a folder nor a manifest"):
        list_images(f"{s3_bucket}/photos.zip")
    with pytest.raises(DataError, match=r"one class only, 'ants'"):
        list_images(f"{s3_bucket}/only")
    with pytest.raises(ObjectNotFoundError, match="no such bucket"):
        list_images("s3://not-made/photos")
    with pytest.raises(ObjectNotFoundError, match=r"gone.csv does not exist"):
        list_images(f"{s3_bucket}/gone.csv")


def test_manifest_in_a_store_names_objects_relative_to_it_and_by_uri(s3_process: S3Server, s3_bucket: str) -> None:
    other = put(s3_process.make_bucket(), "bees/3.jpg")
    put(s3_bucket, "photos/ants/1.jpg", "elsewhere/2.jpg", "photos/4.jpg")
    rows = [
        "path,label,split",
        "ants/1.jpg,ant,train",
        "../elsewhere/2.jpg,ant,test",
        f"{other}/bees/3.jpg,bee,train",
        f"{s3_bucket}/photos/4.jpg,bee,test",
        "./4.jpg,bee,test",
        "gone.jpg,bee,test",
    ]
    Location(s3_bucket).write("photos/list.csv", "\n".join(rows).encode())
    listing = list_images(f"{s3_bucket}/photos/list.csv")
    assert {entry.image_id: entry.uri for entry in listing.entries} == {
        "ants/1.jpg": f"{s3_bucket}/photos/ants/1.jpg",
        "../elsewhere/2.jpg": f"{s3_bucket}/elsewhere/2.jpg",
        f"{other}/bees/3.jpg": f"{other}/bees/3.jpg",
        "4.jpg": f"{s3_bucket}/photos/4.jpg",
    }
    assert reasons(listing) == {"gone.jpg": ("object cannot be read: it is not there", True)}


def test_manifest_on_disk_names_files_and_objects(s3_bucket: str, tmp_path: Path) -> None:
    put(s3_bucket, "2.jpg")
    (tmp_path / "1.jpg").write_bytes(b"1")
    (tmp_path / "list.csv").write_text(f"path,label\n1.jpg,ant\n{s3_bucket}/2.jpg,bee\n")
    assert ids(list_images(tmp_path / "list.csv")) == ["1.jpg", f"{s3_bucket}/2.jpg"]


def test_paths_that_a_manifest_in_a_store_cannot_mean_are_told_by_line(s3_bucket: str) -> None:
    rows = ["path,label", "/data/1.jpg,a", "../../1.jpg,a", f"{s3_bucket},a", "s3://AKIA:hunter2@b/x.jpg,a"]
    Location(s3_bucket).write("p/list.csv", "\n".join(rows).encode())
    with pytest.raises(DataError) as caught:
        list_images(f"{s3_bucket}/p/list.csv")
    text = str(caught.value)
    assert "line 2: '/data/1.jpg' is a path on a disk, and the manifest is in an object store" in text
    assert "line 3: '../../1.jpg' leads out of the bucket" in text
    assert f"line 4: '{s3_bucket}' names a bucket; give an object" in text
    assert "line 5: s3://b/x.jpg: the URI was given with a user and password" in text
    assert "hunter2" not in text


def test_manifest_copied_with_its_photos_gives_the_same_ids(s3_bucket: str, tmp_path: Path) -> None:
    for name in ("in/1.jpg", "2.jpg"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(name.encode())
    (tmp_path / "p/list.jsonl").write_text(
        '{"path": "in/../in/1.jpg", "label": "a"}\n{"file_name": "2.jpg", "label": "b", "group": 7}\n'
    )
    copy_folder(tmp_path / "p", Location(f"{s3_bucket}/q"))
    here, there = list_images(tmp_path / "p/list.jsonl"), list_images(f"{s3_bucket}/q/list.jsonl")
    assert without_uris(there, f"{s3_bucket}/q") == without_uris(here, str(tmp_path / "p"))


@pytest.fixture(scope="module")
def store(s3_process: S3Server, image_folder: Path) -> Location:
    """Copy the tiny images to a prefix."""
    location = open_location(f"{s3_process.make_bucket()}/photos")
    copy_folder(image_folder, location)
    return location


def build(root: str | Path, cache: DecodedCache) -> Manifest:
    listing = list_images(root)
    read = cache.ingest([entry.uri for entry in listing.entries])
    return Manifest.build(listing, read, DataSpec(path=str(root), image_size=32))


@pytest.mark.parametrize("layout", ["split folders", "to be cut"])
def test_manifest_from_a_store_equals_the_one_from_the_folder_except_for_uris(
    s3_bucket: str, image_folder: Path, tmp_path: Path, layout: str
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(image_folder if layout == "split folders" else image_folder / "train", folder)
    some = next(folder.rglob("cat/*.png"))
    shutil.copy(some, some.parent.parent / "dog/copy.png")
    (some.parent / "broken.png").write_bytes(some.read_bytes()[:50])
    (some.parent / ".DS_Store").touch()
    copy_folder(folder, Location(f"{s3_bucket}/x"))
    here = build(folder, DecodedCache(tmp_path / "here", 37, LIMITS))
    there = build(f"{s3_bucket}/x", DecodedCache(tmp_path / "there", 37, LIMITS))
    assert there.sha256() == here.sha256()
    assert there.table.drop(["uri"]).equals(here.table.drop(["uri"]))
    assert there.table["uri"].to_pylist() == [
        uri.replace(str(folder), f"{s3_bucket}/x") for uri in here.table["uri"].to_pylist()
    ]
    assert (there.classes, there.notes, there.num_bad) == (here.classes, here.notes, here.num_bad)
    assert {"used", "skipped", "label_conflict"} == set(here.table["status"].to_pylist())
    assert np.array_equal(there.images().keys, here.images().keys)  # what the augmentation draws are keyed by


def test_pixels_are_the_same_from_store_and_folder_with_and_without_a_cache(
    store: Location, image_folder: Path, tmp_path: Path
) -> None:
    sources = []
    for name, root in (("here", image_folder), ("there", store.uri)):
        cache = DecodedCache(tmp_path / name, 37, LIMITS)
        build(root, cache).save(tmp_path / f"{name}.parquet")
        sources += [
            PixelSource(str(tmp_path / f"{name}.parquet"), where, 37, LIMITS) for where in (str(cache.root), None)
        ]
    rows = [5, 0, 17, 3, 40]
    first, *others = [source.open().pixels(rows) for source in sources]
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_second_run_asks_for_states_and_fetches_nothing(s3_process: S3Server, store: Location, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 37, LIMITS)
    uris = [store.uri_of(info.name) for info in store.list()]
    assert cache.known(uris) == [None] * len(uris)
    facts = cache.ingest(uris)
    before = len(s3_process.requests())
    assert DecodedCache(tmp_path, 37, LIMITS).known(uris) == facts
    asked = s3_process.requests()[before:]
    assert len(asked) == len(uris)
    assert all(line.startswith("HEAD ") for line in asked)


def test_images_of_a_store_and_of_a_folder_share_the_cache(store: Location, image_folder: Path, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 37, LIMITS)
    cache.ingest([entry.uri for entry in list_images(image_folder).entries])
    size = sum(path.stat().st_size for path in (cache.folder / "pixels").iterdir())
    cache.ingest([entry.uri for entry in list_images(store.uri).entries])
    assert sum(path.stat().st_size for path in (cache.folder / "pixels").iterdir()) == size


def test_evicted_pixels_are_made_again_from_the_store(store: Location, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache", 37, LIMITS)
    build(store.uri, cache).save(tmp_path / "manifest.parquet")
    source = PixelSource(str(tmp_path / "manifest.parquet"), str(cache.root), 37, LIMITS)
    before = source.open().pixels([1, 2])
    shutil.rmtree(cache.folder / "pixels")
    os.utime(tmp_path / "manifest.parquet", ns=(1, 1))  # another process would open it anew
    after = source.open().pixels([1, 2])
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_object_that_vanished_or_changed_ends_a_run_that_needs_it(
    s3_bucket: str, image_folder: Path, tmp_path: Path
) -> None:
    location = Location(f"{s3_bucket}/x")
    copy_folder(image_folder, location)
    manifest = build(location.uri, DecodedCache(tmp_path / "cache", 37, LIMITS))
    manifest.save(tmp_path / "manifest.parquet")
    source = PixelSource(str(tmp_path / "manifest.parquet"), None, 37, LIMITS).open()
    ids_ = manifest.images().image_ids
    location.delete(ids_[0])
    location.write(ids_[1], location.read(ids_[2]))
    with pytest.raises(DataError, match=f"{ids_[0]} changed since this run's manifest was made: .* it is gone"):
        source.pixels([2, 0])
    with pytest.raises(DataError, match=f"{ids_[1]} changed .* its content is another one"):
        source.pixels([1])


def test_object_that_vanishes_costs_itself_only_and_is_not_remembered(store: Location, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 37, LIMITS)
    some, gone = store.uri_of(store.list()[0].name), store.uri_of("cat/gone.png")
    good, bad = cache.ingest([some, gone])
    assert good.is_good
    assert bad.reason == "file cannot be read: it is gone, or no regular file"
    assert cache.known([gone]) == [None]


def test_object_over_the_limit_is_refused_unread_and_remembered(
    s3_process: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    location, cache = Location(s3_bucket), DecodedCache(tmp_path, 37, LIMITS)
    location.write("big.png", bytes(LIMITS.max_file_bytes + 1))
    uri = location.uri_of("big.png")
    facts = cache.ingest([uri])
    assert facts[0].reason == "file of 100,001 bytes is over the limit of 100,000"
    assert inspect_files([uri], LIMITS) == facts
    assert cache.known([uri]) == facts
    assert f"GET /{uri[5:]}" not in s3_process.requests()


def test_stamp_changes_with_the_object(s3_bucket: str) -> None:
    location = Location(s3_bucket)
    location.write("x", b"1")
    before = stamp_file(f"{s3_bucket}/x")
    assert before is not None
    assert (before.uri, before.size) == (f"{s3_bucket}/x", 1)
    location.write("x", b"22")
    assert stamp_file(f"{s3_bucket}/x") not in (None, before)
    assert stamp_files([f"{s3_bucket}/gone", f"{s3_bucket}/x", f"{s3_bucket}/../y", s3_bucket]) == [
        None,
        stamp_file(f"{s3_bucket}/x"),
        None,
        None,
    ]


def test_object_that_changes_while_it_is_read_is_not_taken(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location(s3_bucket)
    location.write("x", b"before")
    real: Callable[[str], bytes] = facts_module.read_object

    def read(uri: str) -> bytes:
        data = real(uri)
        location.write("x", b"after it")
        return data

    monkeypatch.setattr(facts_module, "read_object", read)
    with pytest.raises(UnreadableFileError, match="changed while it was read"):
        read_file(f"{s3_bucket}/x", LIMITS)


def test_files_and_objects_come_in_the_order_asked_for_and_each_error_is_its_own(
    s3_bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"local")
    location = Location(s3_bucket)
    names = [f"{index:02}" for index in range(20)]
    for name in names:
        location.write(name, name.encode())
    location.write("big", bytes(LIMITS.max_file_bytes + 1))
    uris = [*map(location.uri_of, names), str(tmp_path / "local"), f"{s3_bucket}/gone", f"{s3_bucket}/big"]
    *good, gone, big = read_files(uris, LIMITS)
    assert [reading[0].decode() for reading in good if isinstance(reading, tuple)] == [*names, "local"]
    assert isinstance(gone, UnreadableFileError)
    assert isinstance(big, BadImageError)


def test_what_is_fetched_ahead_is_bounded(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    location = Location(s3_bucket)
    for index in range(6):
        location.write(str(index), bytes(100))
    fetched: list[str] = []
    real = facts_module.read_object
    monkeypatch.setattr(facts_module, "read_object", lambda uri: (fetched.append(uri), real(uri))[1])
    monkeypatch.setattr(facts_module, "AHEAD_BYTES", 250)
    taken = 0
    for _ in read_files([location.uri_of(str(index)) for index in range(6)], LIMITS):
        taken += 1
        assert len(fetched) <= taken + 1
    assert taken == len(fetched) == 6


def test_store_that_does_not_answer_ends_the_reading_instead_of_skipping_every_image(
    store: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [store.uri_of(info.name) for info in store.list()[:3]]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageUnreachableError):
        DecodedCache(tmp_path, 37, LIMITS).ingest(uris)
    with pytest.raises(StorageUnreachableError):
        stamp_file(uris[0])


def test_one_object_that_is_refused_costs_itself_only(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [f"{put(s3_bucket, '1', '2', '3')}/{name}" for name in "123"]
    real = objects.connect(s3_bucket)

    class Picky:
        def get_file_info(self, asked: str | list[str]) -> object:
            if "2" in "".join(asked).rpartition("/")[2] or isinstance(asked, list):
                raise OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body.")
            return real.get_file_info(asked)

    monkeypatch.setattr(objects, "connect", lambda _: Picky())
    first, second, third = objects.find_objects(uris)
    assert isinstance(first, objects.ObjectInfo)
    assert isinstance(third, objects.ObjectInfo)
    assert isinstance(second, StorageError)
    assert "access is refused" in str(second)
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{uri},{int(uri[-1]) % 3 % 2}\n" for uri in uris))
    listing = list_images(tmp_path / "list.csv")
    assert ids(listing) == [uris[0], uris[2]]
    assert "object cannot be read: " in reasons(listing)[uris[1]][0]


def test_credentials_reach_neither_the_manifest_nor_the_cache(
    store: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-that-must-never-be-seen")
    cache = DecodedCache(tmp_path / "cache", 37, LIMITS)
    manifest = build(store.uri, cache)
    manifest.save(tmp_path / "manifest.parquet")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (ACCESS_KEY, SECRET_KEY, os.environ["AWS_SESSION_TOKEN"]):
                assert secret.encode() not in content, path
    assert isinstance(stamp_file(manifest.images().uris[0]), FileStamp)
