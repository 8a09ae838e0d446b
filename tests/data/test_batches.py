import pickle
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from transferlib.data.batches import Batch, LocalStream, Renderer
from transferlib.data.schedule import START, Position, Schedule
from transferlib.errors import DataError

MakeRenderer = Callable[..., Renderer]


def make_schedule(renderer: Renderer) -> Schedule:
    return Schedule(renderer.source.open().images, renderer.seed, 8, 5, 3)


def read(
    renderer: Renderer, rank: int = 0, world_size: int = 1, start: Position = START, threads: int = 0
) -> list[Batch]:
    steps = make_schedule(renderer).steps(rank, world_size, start)
    return list(LocalStream(renderer, threads).open(steps))


def digests(batches: list[Batch]) -> list[str]:
    return [batch.digest() for batch in batches]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_shares_of_all_ranks_make_up_the_same_batches(make_renderer: MakeRenderer, world_size: int) -> None:
    renderer = make_renderer()
    ranks = [read(renderer, rank, world_size) for rank in range(world_size)]
    joined = [Batch.join(parts) for parts in zip(*ranks, strict=True)]
    assert digests(joined) == digests(read(renderer))


def test_files_and_cache_give_the_same_batches(make_renderer: MakeRenderer) -> None:
    assert digests(read(make_renderer(cache=False))) == digests(read(make_renderer(cache=True)))


@pytest.mark.parametrize("start", [Position(1, 0), Position(1, 4), Position(2, 6)])
def test_a_restart_goes_on_with_the_same_batches(make_renderer: MakeRenderer, start: Position) -> None:
    whole, rest = digests(read(make_renderer())), digests(read(make_renderer(), start=start))
    assert rest == whole[-len(rest) :]
    assert 0 < len(rest) < len(whole)


def test_threads_change_nothing(make_renderer: MakeRenderer) -> None:
    assert digests(read(make_renderer(), threads=3)) == digests(read(make_renderer()))


def test_an_image_looks_the_same_whatever_batch_it_is_in(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    rows = renderer.source.open().images.rows("train")
    together = renderer.render("train", 1, rows[::-1])
    alone = np.concatenate([renderer.render("train", 1, rows[i : i + 1]) for i in range(len(rows))])
    assert np.array_equal(together[::-1], alone)


def test_training_images_change_from_epoch_to_epoch_and_from_seed_to_seed(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    rows = renderer.source.open().images.rows("train")
    first = renderer.render("train", 0, rows)
    assert not np.array_equal(first, renderer.render("train", 1, rows))
    assert not np.array_equal(first, make_renderer(seed=6).render("train", 0, rows))


def test_validation_images_are_the_same_in_all_epochs_and_under_all_augmentations(make_renderer: MakeRenderer) -> None:
    rows = make_renderer().source.open().images.rows("val")
    seen = make_renderer().render("val", 0, rows)
    assert np.array_equal(seen, make_renderer().render("val", 2, rows))
    assert np.array_equal(seen, make_renderer(seed=9, augmentation="none").render("val", 0, rows))
    assert seen.shape == (13, 32, 32, 3)


def test_labels_follow_their_rows(make_renderer: MakeRenderer) -> None:
    images = make_renderer().source.open().images
    for batch in read(make_renderer()):
        ids = [images.image_ids[row] for row in batch.share.rows]
        assert [images.classes[label] for label in batch.labels] == [name.split("/")[1] for name in ids]


def test_a_share_may_be_empty(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    shares = make_schedule(renderer).evaluation("test", 0, 3)  # 11 images in steps of 5: the last one is for rank 2
    *_, last = LocalStream(renderer).open(shares)
    assert last.pixels.shape == (0, 32, 32, 3)
    assert last.labels.shape == (0,)


def test_arrays_are_read_only_since_other_streams_share_memory(make_renderer: MakeRenderer) -> None:
    batch = read(make_renderer())[0]
    assert not batch.pixels.flags.writeable
    assert not batch.labels.flags.writeable


def test_a_digest_notices_every_part_of_a_batch(make_renderer: MakeRenderer) -> None:
    batch = read(make_renderer())[0]
    share = batch.share
    pixels = batch.pixels.copy()
    pixels[0, 0, 0, 0] ^= 1
    others = [
        replace(batch, pixels=pixels),
        replace(batch, labels=1 - batch.labels),
        replace(batch, share=replace(share, epoch=1)),
        replace(batch, share=replace(share, step_images=99)),
        replace(batch, share=replace(share, rows=share.rows[::-1])),
    ]
    assert len({other.digest() for other in [batch, *others]}) == 6


def test_parts_of_different_steps_do_not_join(make_renderer: MakeRenderer) -> None:
    first, second = read(make_renderer(), 0, 2), read(make_renderer(), 1, 2)
    with pytest.raises(ValueError, match="does not follow"):
        Batch.join([first[0], second[1]])
    with pytest.raises(ValueError, match="does not follow"):
        Batch.join([second[0], first[0]])


def test_closing_a_stream_early_ends_its_threads(make_renderer: MakeRenderer) -> None:
    renderer = make_renderer()
    before = set(threading.enumerate())
    batches = LocalStream(renderer, 2).open(make_schedule(renderer).steps(0, 1))
    assert len(list(islice(batches, 3))) == 3
    batches.close()
    assert set(threading.enumerate()) == before


def test_a_source_is_opened_once_a_process_and_again_when_its_manifest_changes(
    make_renderer: MakeRenderer, tmp_path: Path
) -> None:
    manifest = Path(shutil.copy(make_renderer().source.manifest, tmp_path))
    source = replace(make_renderer().source, manifest=str(manifest))
    opened = source.open()
    assert pickle.loads(pickle.dumps(source)).open() is opened
    manifest.rename(tmp_path / "old")
    shutil.copy(tmp_path / "old", manifest)
    assert source.open() is not opened


def test_a_missing_manifest_is_named(make_renderer: MakeRenderer, tmp_path: Path) -> None:
    source = replace(make_renderer().source, manifest=str(tmp_path / "none.parquet"))
    with pytest.raises(DataError, match=r"none\.parquet cannot be read"):
        source.open()


def test_what_the_cache_of_this_node_lacks_is_made_again(make_renderer: MakeRenderer, tmp_path: Path) -> None:
    renderer = make_renderer()
    empty = replace(renderer, source=replace(renderer.source, cache_dir=str(tmp_path / "cache")))
    assert digests(read(empty)) == digests(read(renderer))
    assert list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("what", ["other content", "broken", "gone"])
def test_a_file_that_changed_since_the_manifest_is_an_error_that_names_it(
    make_renderer: MakeRenderer, tmp_path: Path, use_cache: bool, what: str
) -> None:
    renderer = copied(make_renderer(), tmp_path, use_cache)
    images = renderer.source.open().images
    victim, other = Path(images.uris[0]), Path(images.uris[1])
    if what == "gone":
        victim.unlink()
    else:
        victim.write_bytes(other.read_bytes() if what == "other content" else b"no image")
    with pytest.raises(DataError, match=f"{victim.name} changed since this run's manifest was made"):
        renderer.render("train", 0, np.array([1, 0]))


def copied(renderer: Renderer, folder: Path, use_cache: bool) -> Renderer:
    """Give the images and the manifest a place of their own, and an empty cache."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(renderer.source.manifest)
    uris = []
    for index, uri in enumerate(table["uri"].to_pylist()):
        uris.append(str(folder / f"{index}-{Path(uri).name}"))
        shutil.copy(uri, uris[-1])
    where = table.schema.get_field_index("uri")
    pq.write_table(table.set_column(where, "uri", pa.array(uris)), folder / "manifest.parquet")
    cache = str(folder / "cache") if use_cache else None
    return replace(
        renderer, source=replace(renderer.source, manifest=str(folder / "manifest.parquet"), cache_dir=cache)
    )
