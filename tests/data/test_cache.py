from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from transferlib.data import file_index, shard_index, shards
from transferlib.data.cache import DecodedCache, ImageFacts, MissingPixelsError, default_cache_dir
from transferlib.data.decode import Limits, decode_image
from transferlib.data.facts import inspect_files
from transferlib.errors import DataError

LIMITS = Limits(max_pixels=1_000_000, max_file_bytes=1_000_000)


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    """Forget what this process knows of caches, as a new process would."""
    shard_index.shard_index.cache_clear()
    file_index.file_index.cache_clear()


def png(seed: int, height: int = 30, width: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def photos(folder: Path, number: int, first: int = 0) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{place}.png" for place in range(first, first + number)]
    for path in paths:
        path.write_bytes(png(int(path.stem)))
    return [str(path) for path in paths]


def cache_in(tmp_path: Path, short_side: int = 16, limits: Limits = LIMITS) -> DecodedCache:
    return DecodedCache(tmp_path / "cache", short_side, limits)


def shard_files(cache: DecodedCache) -> list[Path]:
    return sorted((cache.folder / "pixels").glob("*.arrow"))


def good(found: list[ImageFacts | None]) -> list[ImageFacts]:
    assert all(facts is not None and facts.is_good for facts in found)
    return [facts for facts in found if facts is not None]


def flip_byte(path: Path, needle: bytes, keep_time: bool = False) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(needle)
    data[at] ^= 0xFF
    found = path.stat()
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_pixels_are_what_a_decode_gives(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 5)
    facts = cache.ingest(uris)
    reader = cache.reader()
    for uri, fact in zip(uris, facts, strict=True):
        data = Path(uri).read_bytes()
        assert fact == ImageFacts(hashlib.sha256(data).hexdigest(), 40, 30)
        assert np.array_equal(reader.pixels(fact.sha256), decode_image(data, short_side=16, limits=LIMITS).pixels)


def test_reading_copies_nothing_and_opens_no_file_per_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_in(tmp_path)
    facts = cache.ingest(photos(tmp_path / "in", 5))
    reader = cache.reader()
    monkeypatch.setattr(pa, "memory_map", lambda *_: pytest.fail("a shard was opened anew"))
    views = [reader.pixels(fact.sha256) for fact in facts]
    assert not any(view.flags.owndata or view.flags.writeable for view in views)
    assert np.shares_memory(views[0], reader.pixels(facts[0].sha256))


def test_shards_are_held_without_descriptors(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    for uri in photos(tmp_path / "in", 6):
        cache.ingest([uri])
    before = len(os.listdir("/proc/self/fd"))
    reader = cache.reader()
    assert len(shard_files(cache)) == 6
    assert len(os.listdir("/proc/self/fd")) == before
    assert reader.pixels(hashlib.sha256(png(0)).hexdigest()).shape == (16, 21, 3)


def test_shard_has_many_batches_and_memory_is_bounded_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_BYTES", 2500)
    cache = cache_in(tmp_path)
    facts = cache.ingest(photos(tmp_path / "in", 9))
    with pa.memory_map(str(shard_files(cache)[0])) as source:
        assert pa.ipc.open_file(source).num_record_batches == 3
    forget()
    reader = cache.reader()
    for seed, fact in enumerate(facts):
        expected = decode_image(png(seed), short_side=16, limits=LIMITS).pixels
        assert np.array_equal(reader.pixels(fact.sha256), expected)


def test_second_run_stats_files_and_reads_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 5)
    assert cache.known(uris) == [None] * 5
    facts = cache.ingest(uris)
    forget()
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
    assert cache.known(uris) == facts


def test_one_new_photo_adds_one_entry(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 5)
    cache.ingest(uris)
    size = cache.size_bytes()
    uris += photos(tmp_path / "in", 1, first=5)
    assert [facts is None for facts in cache.known(uris)] == [False] * 5 + [True]
    cache.ingest(uris[5:])
    good(cache.known(uris))
    assert len(shards.MappedShard(shard_files(cache)[-1])) == 1
    assert cache.size_bytes() - size < size


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 2)
    cache.ingest(uris)
    Path(uris[0]).write_bytes(png(99))
    os.utime(uris[0], ns=(1, 1))
    assert [facts is None for facts in cache.known(uris)] == [True, False]
    cache.ingest(uris[:1])
    assert good(cache.known(uris))[0].sha256 == hashlib.sha256(png(99)).hexdigest()


def test_content_is_kept_once_whatever_its_name(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    copies = [tmp_path / f"copy{place}.png" for place in range(4)]
    for copy in copies:
        copy.write_bytes(png(0))
    facts = cache.ingest([str(copy) for copy in copies[:3]])
    assert len(set(facts)) == 1
    assert cache.ingest([str(copies[3])]) == facts[:1]
    assert [len(shards.MappedShard(path)) for path in shard_files(cache)] == [1]


def test_bad_file_never_costs_its_neighbours(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 6)
    Path(uris[1]).write_bytes(b"")
    Path(uris[2]).write_bytes(png(2)[:-200])
    Path(uris[3]).write_bytes(b"no image at all")
    Path(uris[4]).unlink()
    facts = cache.ingest(uris)
    assert [fact.is_good for fact in facts] == [True, False, False, False, False, True]
    assert facts[1].reason == "empty file"
    assert "truncated" in facts[2].reason
    assert (facts[2].width, facts[2].height) == (40, 30)
    assert "no image of a known format" in facts[3].reason
    assert "file cannot be read" in facts[4].reason
    assert cache.reader().pixels(facts[5].sha256).shape == (16, 21, 3)
    assert cache.known(uris) == [*facts[:4], None, facts[5]]


def test_unreadable_file_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 1)
    real = open

    def refuse(path: object, *rest: object, **more: object) -> object:
        if path == uris[0]:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        assert cache.ingest(uris)[0].reason == "file cannot be read: permission denied"
    assert cache.known(uris) == [None]
    assert cache.ingest(uris)[0].is_good


def test_other_limits_judge_anew(tmp_path: Path) -> None:
    uris = [*photos(tmp_path / "in", 1), str(tmp_path / "large.png")]
    Path(uris[1]).write_bytes(png(1, 60, 60))
    strict, lax = (cache_in(tmp_path, limits=Limits(pixels, 10**6)) for pixels in (2000, 4000))
    assert [fact.is_good for fact in strict.ingest(uris)] == [True, False]
    assert [facts is None for facts in lax.known(uris)] == [False, True]
    assert lax.ingest(uris[1:])[0].is_good
    assert [facts is None for facts in strict.known(uris)] == [False, True]
    assert "over the limit" in strict.ingest(uris[1:])[0].reason


def test_file_over_the_size_limit_is_refused_unread_and_remembered(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path, limits=Limits(10**6, 100)), photos(tmp_path / "in", 1)
    facts = cache.ingest(uris)
    assert "over the limit" in facts[0].reason
    assert cache.known(uris) == facts


def test_damaged_pixels_are_found_and_rebuilt(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 4)
    facts = cache.ingest(uris)
    victim = decode_image(png(2), short_side=16, limits=LIMITS).pixels
    flip_byte(shard_files(cache)[0], victim.tobytes()[:64])
    forget()
    assert [found is None for found in cache.known(uris)] == [False, False, True, False]
    with pytest.raises(MissingPixelsError):
        cache.reader().pixels(facts[2].sha256)
    cache.ingest(uris[2:3])
    forget()
    good(cache.known(uris))
    assert np.array_equal(cache.reader().pixels(facts[2].sha256), victim)
    assert cache.damaged([fact.sha256 for fact in facts]) == []


def test_damage_that_leaves_no_trace_in_the_file_time_is_found_on_first_use(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 3)
    facts = cache.ingest(uris)
    victim = decode_image(png(1), short_side=16, limits=LIMITS).pixels
    flip_byte(shard_files(cache)[0], victim.tobytes()[:64], keep_time=True)
    forget()
    reader = cache.reader()
    reader.pixels(facts[0].sha256)
    with pytest.raises(MissingPixelsError):
        reader.pixels(facts[1].sha256)
    assert cache.ingest(uris[1:2]) == facts[1:2]
    assert np.array_equal(reader.pixels(facts[1].sha256), victim)


def test_damaged_says_what_is_missing_or_broken(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    facts = cache.ingest(photos(tmp_path / "in", 3))
    every = [fact.sha256 for fact in facts]
    cache.reader().pixels(every[0])
    victim = decode_image(png(0), short_side=16, limits=LIMITS).pixels
    flip_byte(shard_files(cache)[0], victim.tobytes()[:64], keep_time=True)
    forget()
    assert cache.damaged([*every, "00" * 32]) == [every[0], "00" * 32]


def test_any_flipped_byte_gives_right_pixels_or_none(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, short_side=8)
    facts = cache.ingest(photos(tmp_path / "in", 2))
    right = {fact.sha256: cache.reader().pixels(fact.sha256).copy() for fact in facts}
    shard = shard_files(cache)[0]
    data = shard.read_bytes()
    for at in range(0, len(data), 17):
        shard.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        forget()
        reader = cache.reader()
        for sha256, expected in right.items():
            try:
                found = reader.pixels(sha256)
            except MissingPixelsError:
                continue
            assert np.array_equal(found, expected)


def test_damaged_file_index_only_costs_reading_again(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 2)
    facts = cache.ingest(uris)
    for path in (cache.folder / "files").iterdir():
        path.write_bytes(b"damaged")
    forget()
    assert cache.known(uris) == [None, None]
    assert cache.ingest(uris) == facts
    assert len(shard_files(cache)) == 1
    assert good(cache.known(uris)) == facts


def ingest_elsewhere(cache: DecodedCache, uris: list[str]) -> subprocess.Popen[bytes]:
    code = "import pickle, sys; cache, uris = pickle.load(sys.stdin.buffer); cache.ingest(uris)"
    job = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert job.stdin is not None
    job.stdin.write(pickle.dumps((cache, uris)))
    job.stdin.close()
    return job


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 24)
    jobs = [ingest_elsewhere(cache, uris[start : start + 12]) for start in (0, 12)]
    cache.ingest(uris[6:18])
    assert [job.wait(60) for job in jobs] == [0, 0]
    found = good(cache.known(uris))
    reader = cache.reader()
    for seed, fact in enumerate(found):
        expected = decode_image(png(seed), short_side=16, limits=LIMITS).pixels
        assert np.array_equal(reader.pixels(fact.sha256), expected)
    assert not list(cache.folder.rglob("*.tmp"))


def test_reader_sees_what_another_process_added_since(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 2)
    first = cache.ingest(uris[:1])
    reader = cache.reader()
    reader.pixels(first[0].sha256)
    forget()
    cache.ingest(uris[1:])  # by an index of its own, as in another process
    assert reader.pixels(hashlib.sha256(png(1)).hexdigest()).shape == (16, 21, 3)


def test_failed_write_leaves_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be written: no space left on device.*--cache-dir"):
        cache.ingest(uris)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def test_nothing_new_writes_no_shard(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 2)
    cache.ingest(uris)
    cache.ingest(uris)
    cache.ingest([])
    assert len(shard_files(cache)) == 1


def test_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "transferlib"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "transferlib"


def test_inspection_without_a_cache_tells_the_same(tmp_path: Path) -> None:
    uris = photos(tmp_path / "in", 3)
    Path(uris[1]).write_bytes(png(1)[:-100])
    Path(uris[2]).unlink()
    assert inspect_files(uris, LIMITS) == cache_in(tmp_path).ingest(uris)
