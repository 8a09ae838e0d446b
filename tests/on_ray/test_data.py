import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import cv2
import numpy as np
import pytest

from transferlib.data.augment import Augmentation
from transferlib.data.batches import Batch, LocalStream, Renderer
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits
from transferlib.data.depth_scale import DepthScale
from transferlib.data.facts import inspect_files
from transferlib.data.manifest import Manifest
from transferlib.data.schedule import START, Position, Schedule, StepShare
from transferlib.data.source import PixelSource
from transferlib.data.sources import list_images
from transferlib.errors import DataError, StoppedError
from transferlib.spec import DataSpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_instance")]

MakeRenderer = Callable[..., Renderer]
EPOCHS = 3


def make_steps(renderer: Renderer, rank: int, world_size: int, start: Position = START) -> Iterator[StepShare]:
    images = renderer.source.open().images
    return Schedule(images, renderer.seed, 8, 5, EPOCHS).steps(rank, world_size, start)


def stream(
    renderer: Renderer, rank: int = 0, world_size: int = 1, start: Position = START, **options: float
) -> list[Batch]:
    from transferlib.on_ray.data import RayStream

    return list(RayStream(renderer, **options).open(make_steps(renderer, rank, world_size, start)))


def digests(batches: list[Batch]) -> list[str]:
    return [batch.digest() for batch in batches]


@pytest.fixture(scope="module")
def expected(make_renderer: MakeRenderer) -> list[str]:
    """Give the batches of a whole training, made without Ray."""
    renderer = make_renderer()
    return digests(list(LocalStream(renderer).open(make_steps(renderer, 0, 1))))


@pytest.mark.parametrize("rows_per_block", [None, 1000, 64, 7])
def test_ray_data_gives_the_batches_of_one_process_for_any_block_size(
    make_renderer: MakeRenderer, expected: list[str], rows_per_block: int | None
) -> None:
    assert digests(stream(make_renderer(), rows_per_block=rows_per_block)) == expected


def test_two_ranks_at_once_make_up_the_batches_of_one(make_renderer: MakeRenderer, expected: list[str]) -> None:
    from transferlib.on_ray.data import RayStream

    streams = [
        RayStream(make_renderer(), rows_per_block=16).open(make_steps(make_renderer(), rank, 2)) for rank in range(2)
    ]
    assert [Batch.join(parts).digest() for parts in zip(*streams, strict=True)] == expected


@pytest.mark.parametrize("start", [Position(1, 0), Position(1, 3), Position(2, 6)])
def test_a_restart_goes_on_with_the_same_batches(
    make_renderer: MakeRenderer, expected: list[str], start: Position
) -> None:
    rest = digests(stream(make_renderer(), start=start))
    assert rest == expected[-len(rest) :]
    assert 0 < len(rest) < len(expected)


def test_files_give_the_same_batches_as_the_cache(make_renderer: MakeRenderer, expected: list[str]) -> None:
    assert digests(stream(make_renderer(cache=False), lanes=2, rows_per_block=16)) == expected


def test_segments_change_nothing(
    make_renderer: MakeRenderer, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferlib.on_ray.data._SEGMENT_ROWS", (30, 90))
    assert digests(stream(make_renderer())) == expected


def test_shares_may_be_empty(make_renderer: MakeRenderer) -> None:
    from transferlib.on_ray.data import RayStream

    renderer = make_renderer()
    schedule = Schedule(renderer.source.open().images, 0, 8, 5, 1)
    ranks = [list(RayStream(renderer).open(schedule.evaluation("test", rank, 3))) for rank in range(3)]
    assert [len(batch.pixels) for batch in ranks[0]] == [1, 1, 0]
    whole = LocalStream(renderer).open(schedule.evaluation("test", 0, 1))
    assert [Batch.join(parts).digest() for parts in zip(*ranks, strict=True)] == digests(list(whole))


def test_a_stream_of_nothing_ends_at_once(make_renderer: MakeRenderer) -> None:
    assert stream(make_renderer(), start=Position(EPOCHS, 0)) == []


def test_a_trial_that_holds_every_cpu_is_served(make_renderer: MakeRenderer, expected: list[str]) -> None:
    import ray

    trial = ray.remote(num_cpus=2)(stream)
    assert digests(ray.get(trial.remote(make_renderer(), lanes=2))) == expected


def test_two_workers_that_hold_every_cpu_are_served(make_renderer: MakeRenderer, expected: list[str]) -> None:
    import ray

    worker = ray.remote(num_cpus=1)(stream)
    ranks = ray.get([worker.remote(make_renderer(), rank, 2) for rank in range(2)])
    assert [Batch.join(parts).digest() for parts in zip(*ranks, strict=True)] == expected


def test_closing_a_stream_early_frees_its_threads_and_cpus_and_keeps_the_worker_processes(
    make_renderer: MakeRenderer,
) -> None:
    import ray

    from transferlib.on_ray.data import RayStream

    stream(make_renderer())
    before = running_threads()
    workers = task_processes()
    batches = RayStream(make_renderer(), rows_per_block=4).open(make_steps(make_renderer(), 0, 1))
    assert len(list(islice(batches, 3))) == 3
    batches.close()
    unused = RayStream(make_renderer()).open(make_steps(make_renderer(), 0, 1))
    unused.close()
    assert running_threads() == before
    # A task that takes every CPU is served only when nothing of the streams is left.
    assert ray.get(ray.remote(num_cpus=2)(process_id).remote(), timeout=20)
    assert workers & task_processes()


def test_a_stream_says_nothing_on_the_terminal_and_leaves_ray_data_as_it_was(
    make_renderer: MakeRenderer, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.data import DataContext

    before = repr(DataContext.get_current())
    stream(make_renderer(), rows_per_block=16)
    assert repr(DataContext.get_current()) == before
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_stop_is_heard_where_no_batch_comes(
    make_renderer: MakeRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transferlib.on_ray.data import RayStream

    ends, flag = threading.Event(), tmp_path / "stop"

    def starve(*_: object, **__: object) -> Iterator[object]:
        ends.wait(30)
        yield from ()

    monkeypatch.setattr("transferlib.on_ray.data.run_lanes", starve)
    batches = RayStream(make_renderer(), stop_flag=flag).open(make_steps(make_renderer(), 0, 1))
    asker = threading.Timer(4.0, flag.touch)
    asker.start()
    began = time.monotonic()
    with pytest.raises(StoppedError, match="without a batch"), closing(batches):
        next(batches)
    assert 4.0 < time.monotonic() - began < 9.0, "within five seconds of the stop"
    ends.set()


@pytest.mark.parametrize("lanes", [1, 2])
def test_memory_stays_under_its_bound_however_many_epochs_come(make_renderer: MakeRenderer, lanes: int) -> None:
    from transferlib.on_ray.data import RayStream

    bound = 24 << 20
    renderer = replace(make_renderer(), augmentation=Augmentation.from_spec("none", 256), image_size=256)
    steps = Schedule(renderer.source.open().images, 0, 8, 8, 12).steps(0, 1)
    stored = [
        stored_bytes() for _ in RayStream(renderer, lanes=lanes, memory_bytes=bound).open(steps)
    ]  # 122 MiB of pixels
    assert max(kept for kept, _ in stored) <= bound
    assert stored[-1][1] == 0


@pytest.mark.parametrize("cache", [True, False])
def test_an_error_in_a_task_reaches_the_consumer_as_it_is(
    make_renderer: MakeRenderer, tmp_path: Path, capfd: pytest.CaptureFixture[str], cache: bool
) -> None:
    renderer = make_renderer(cache=False)
    source = replace(renderer.source, cache_dir=str(tmp_path) if cache else None)
    source = replace(source, limits=replace(source.limits, max_file_bytes=10))
    with pytest.raises(DataError, match=r"^\S+\.png changed since this run's manifest was made") as caught:
        stream(replace(renderer, source=source))
    assert type(caught.value) is DataError
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keep", [True, False])
def test_ingesting_returns_the_facts_of_each_file_in_order(image_folder: Path, tmp_path: Path, keep: bool) -> None:
    from transferlib.on_ray.data import ingest_images

    limits, uris = sample_files(image_folder, tmp_path)
    cache = DecodedCache(tmp_path / "cache", 37, limits) if keep else None
    told: list[tuple[int, int]] = []
    facts = ingest_images(cache, uris, limits, 2, lambda done, total: told.append((done, total)))
    assert facts == inspect_files(uris, limits)
    assert [fact.reason == "" for fact in facts].count(False) == 2
    assert told[-1] == (len(uris), len(uris))


def test_a_second_ingest_reads_only_what_is_new(image_folder: Path, tmp_path: Path) -> None:
    from transferlib.on_ray.data import ingest_images

    limits, uris = sample_files(image_folder, tmp_path)
    cache = DecodedCache(tmp_path / "cache", 37, limits)
    first = ingest_images(cache, uris[:-3], limits, 1)
    told: list[int] = []
    assert ingest_images(cache, uris, limits, 1, lambda done, _: told.append(done))[:-3] == first
    assert told == [len(uris)]
    assert [uri for uri, fact in zip(uris, cache.known(uris), strict=True) if fact is None] == [
        str(tmp_path / "gone.png")
    ]


@pytest.mark.parametrize("keep", [True, False])
def test_deep_images_come_out_the_same_from_any_number_of_tasks(tmp_path: Path, keep: bool) -> None:
    """Facts first, then pixels by the range that all of them gave, as a job does it."""
    from transferlib.on_ray.data import ingest_images

    generator = np.random.default_rng(0)
    for split, label, index in product(("train", "val", "test"), "ab", range(24)):
        folder = tmp_path / "photos" / split / label
        folder.mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 3000, (12, 12), dtype=np.uint16)
        values[0, 0] = 65535  # a hot pixel
        assert cv2.imwrite(str(folder / f"{index:02}.png"), values)
    listing = list_images(str(tmp_path / "photos"))
    uris, limits = [entry.uri for entry in listing.entries], Limits(10_000, 10_000)
    pixels, hashes = [], []
    for name, lanes in (("one", 1), ("two", 2)):
        cache = DecodedCache(tmp_path / name, 12, limits) if keep else None
        facts = ingest_images(cache, uris, limits, lanes)
        manifest = Manifest.build(listing, facts, DataSpec(path=listing.root))
        assert manifest.scale == DepthScale(whole=(0.0, 4095.0))
        if cache is not None:
            cache = replace(cache, scale=manifest.scale)
            assert cache.known(uris) == [None] * len(uris)
            assert ingest_images(cache, uris, limits, lanes) == facts
            assert cache.known(uris) == facts
        manifest.save(tmp_path / f"{name}.parquet")
        hashes.append(manifest.sha256())
        source = PixelSource(str(tmp_path / f"{name}.parquet"), str(tmp_path / name) if keep else None, 12, limits)
        pixels.append(np.stack(source.open().pixels(range(len(uris)))))
    assert hashes[0] == hashes[1]
    assert np.array_equal(*pixels)


def sample_files(image_folder: Path, folder: Path) -> tuple[Limits, list[str]]:
    """Return all images in an order of their own, with a broken and a missing file among them."""
    broken = folder / "broken.png"
    broken.write_bytes(b"no image")
    uris = sorted(map(str, image_folder.rglob("*.png")), key=lambda uri: uri[::-1])
    uris.insert(5, str(broken))
    uris.insert(40, str(folder / "gone.png"))
    return Limits(1_000_000, 1_000_000), uris


def running_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith("ray_")}


def task_processes() -> set[int]:
    import ray

    return set(ray.get([ray.remote(num_cpus=0.5)(process_id).remote() for _ in range(8)]))


def process_id() -> int:
    import os

    return os.getpid()


def stored_bytes() -> tuple[int, int]:
    """Return the bytes that the object store must keep now, and those that it had to spill to disk so far."""
    from ray._private.internal_api import get_memory_info_reply
    from ray._private.state import state

    stats = get_memory_info_reply(state).store_stats
    return int(stats.object_store_bytes_primary_copy), int(stats.spilled_bytes_total)
