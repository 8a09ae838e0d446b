"""Near duplicates: what is one, what is none, and what a manifest makes of them."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from transferlib.comparison.results import split_images
from transferlib.data import frequencies, lookalikes, partition
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits, decode_image
from transferlib.data.depth_scale import DepthScale
from transferlib.data.duplicates import NearRows, find_near_duplicates
from transferlib.data.facts import ImageFacts, inspect_files
from transferlib.data.frequencies import windows_of
from transferlib.data.likeness import show_the_same
from transferlib.data.listing import Entry, Listing
from transferlib.data.lookalikes import find_lookalikes
from transferlib.data.looks import Look, look_at, remarks
from transferlib.data.manifest import Manifest
from transferlib.data.partition import Parts, num_parts_of, sums_of
from transferlib.records import TrialKey
from transferlib.spec import DataSpec

LIMITS = Limits(1_000_000, 10_000_000)
Picture = npt.NDArray[np.uint8]


def photo(seed: int, height: int = 300, width: int = 400) -> Image.Image:
    """Return noise with a spectrum as photos have it: amplitudes fall with the frequency."""
    generator = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None] * width
    falling = 1 / np.maximum(np.hypot(down, across), 1.0) ** 1.2
    layers = [np.fft.ifft2(np.fft.fft2(generator.normal(size=(height, width))) * falling).real for _ in range(3)]
    both = np.stack([layers[0] + 0.3 * layer for layer in layers], axis=2)
    both = (both - both.mean()) / both.std() * 55 + 128
    return Image.fromarray(np.clip(both, 0, 255).astype(np.uint8))


def look_of(image: Image.Image, quality: int | None = None) -> Look:
    if quality is not None:
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        return look_at(decode_image(data.getvalue(), short_side=256, limits=LIMITS).pixels)
    return look_at(np.asarray(image.convert("RGB")))


def thumbnails_of(images: Sequence[Image.Image]) -> Picture:
    return np.stack([np.frombuffer(look_of(image).thumbnail, np.uint8).reshape(32, 32) for image in images])


def cropped(image: Image.Image, left: float, top: float, share: float = 0.9) -> Image.Image:
    width, height = image.size
    box = (left * width, top * height, (left + share) * width, (top + share) * height)
    return image.crop(tuple(map(round, box)))  # type: ignore[arg-type]


def next_frame(image: Image.Image) -> Image.Image:
    """Return it shifted, turned by a degree, brighter, noisier, and with something that moved."""
    moved = image.rotate(1.0, Image.Resampling.BILINEAR, translate=(5, -4))
    values = (
        np.asarray(moved).astype(np.float64) * 1.06 + 4 + np.random.default_rng(0).normal(0, 4, (*image.size[::-1], 3))
    )
    values[100:160, 150:220] = values[108:168, 158:228]
    return cropped(Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)), 0.02, 0.02, 0.96)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized": lambda image: image.resize((180, 140)),
    "cropped at the right and below": lambda image: cropped(image, 0, 0),
    "cropped all round": lambda image: cropped(image, 0.05, 0.05),
    "cropped unevenly": lambda image: cropped(image, 0.08, 0.03),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "a quarter to the left": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "a quarter to the right": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transversed": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    "cropped and turned": lambda image: cropped(image, 0.1, 0).transpose(Image.Transpose.ROTATE_90),
    "grey": lambda image: image.convert("L"),
    "the next frame of a burst": next_frame,
}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [photo(seed) for seed in range(12)]


def pairs_of(looks: Sequence[Look]) -> set[tuple[int, int]]:
    found = find_near_duplicates([f"{row:064}" for row in range(len(looks))], looks)
    return {(pair.first, pair.second) for pair in found}


@pytest.mark.slow
@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_nothing_else(photos: list[Image.Image], kind: str) -> None:
    originals = [look_of(image) for image in photos]
    copies = [look_of(COPIES[kind](image), quality=60) for image in photos]
    assert pairs_of([*originals, *copies]) == {(row, row + len(photos)) for row in range(len(photos))}


def weights(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return twelve of which none outweighs the others: a mix that is mostly one photo shows it."""
    return generator.choice([-1.0, 1.0], 12) * generator.uniform(0.5, 1, 12)


@pytest.mark.slow
def test_all_are_found_among_many_where_only_a_part_is_compared(photos: list[Image.Image]) -> None:
    generator = np.random.default_rng(0)
    small = [np.asarray(image.convert("L").resize((64, 64))).astype(np.float64) for image in photos]
    mixes = (sum(w * s for w, s in zip(weights(generator), small, strict=True)) for _ in range(2_100))
    others = [Image.fromarray(np.clip((m - m.mean()) / m.std() * 50 + 128, 0, 255).astype(np.uint8)) for m in mixes]
    copies = [cropped(image.transpose(Image.Transpose.ROTATE_90), 0.03, 0.06) for image in photos]
    looks = [look_of(image) for image in (*photos, *copies, *others)]
    found = {pair for pair in pairs_of(looks) if pair[0] < 24}
    assert found == {(row, row + 12) for row in range(12)}


def on_white(seed: int) -> Image.Image:
    """Return a thing of its own in the middle of a white background."""
    image = Image.new("RGB", (300, 300), "white")
    image.paste(photo(seed, 130, 90), (105, 85))
    return image


def framed(seed: int) -> Image.Image:
    image = Image.new("RGB", (300, 300), "black")
    image.paste(photo(seed, 240, 240), (30, 30))
    return image


def shape(seed: int) -> Image.Image:
    """Return a dark bar of its own length at its own place on an even sea: a ship."""
    image = Image.new("RGB", (300, 300), (120, 150, 190))
    left, length = 8 + seed % 6 * 11, 90 + seed // 6 * 12  # left of the middle: none is another one's mirror image
    ImageDraw.Draw(image).rectangle((left, 140, left + length, 154), fill=(40, 40, 50))
    return image


@pytest.mark.slow
@pytest.mark.parametrize("draw", [on_white, framed, shape])
def test_a_common_background_frame_or_shape_is_no_copy(draw: Callable[[int], Image.Image]) -> None:
    assert pairs_of([look_of(draw(seed)) for seed in range(30)]) == set()


@pytest.mark.parametrize("draw", [on_white, framed])
def test_a_copy_on_a_common_background_is_found(draw: Callable[[int], Image.Image]) -> None:
    looks = [look_of(draw(seed)) for seed in range(10)]
    copies = [look_of(draw(seed).transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=70) for seed in range(10)]
    assert pairs_of([*looks, *copies]) == {(row, row + 10) for row in range(10)}


def test_blank_images_are_no_copies_of_one_another() -> None:
    assert pairs_of([look_of(Image.new("RGB", (200, 200), (grey,) * 3)) for grey in (0, 1, 128, 254, 255)]) == set()


@pytest.mark.slow
@pytest.mark.parametrize("short_side", [64, 73, 256])
def test_scans_of_a_few_pixels_are_no_copies_of_one_another(short_side: int) -> None:
    """The demo's images: some pairs of ones differ in less than JPEG does."""
    datasets = pytest.importorskip("sklearn.datasets")
    scans = np.round(datasets.load_digits().images * (255 / 16)).astype(np.uint8)
    looks = []
    for scan in scans:
        data = io.BytesIO()
        Image.fromarray(scan).save(data, "PNG")
        looks.append(look_at(decode_image(data.getvalue(), short_side=short_side, limits=LIMITS).pixels))
    assert pairs_of(looks) == set()


def test_the_pairs_do_not_depend_on_the_order(photos: list[Image.Image]) -> None:
    images = [*photos, *(cropped(image, 0.05, 0.02) for image in photos[:6])]
    looks = [look_of(image) for image in images]
    ids, labels = [f"{row:03}" for row in range(18)], ["a"] * 18
    order = np.random.default_rng(0).permutation(18)
    one = NearRows.find(ids, looks, ids, labels)
    names = [ids[row] for row in order]
    other = NearRows.find(names, [looks[row] for row in order], names, labels)
    assert [other.groups[int(np.flatnonzero(order == row)[0])] for row in range(18)] == one.groups
    assert one.groups[:6] == one.groups[12:] == ids[:6]


@pytest.mark.parametrize("parts_from", [10_000, 8])
def test_the_pairs_do_not_depend_on_how_the_work_is_cut(
    photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch, parts_from: int
) -> None:
    images = [*photos, *(cropped(image, 0.05, 0.02).transpose(Image.Transpose.ROTATE_90) for image in photos)]
    images += [on_white(seed) for seed in range(30)]  # so many that are alike that only the best go on
    thumbnails = thumbnails_of(images)
    monkeypatch.setattr(partition, "_PARTS_FROM", parts_from)
    whole = find_lookalikes(thumbnails)
    assert len(whole.first) > 24
    for module, name, size in (
        (lookalikes, "_CHUNK", 5),
        (lookalikes, "_BLOCK", 300),
        (lookalikes, "_TILE", 7),
        (lookalikes, "_MOST_FINDS", 8),
        (partition, "_CHUNK", 5),
        (partition, "_BLOCK", 30),
        (frequencies, "_MOST_PRODUCTS", 2_000),
    ):
        monkeypatch.setattr(module, name, size)
    for one, other in zip(whole, find_lookalikes(thumbnails), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_search_says_how_far_it_is_and_ends_when_it_is_told(
    photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalikes, "_CHUNK", 4)
    looks = [look_of(image) for image in (*photos, *(cropped(image, 0, 0) for image in photos))]
    ids = [f"{row:064}" for row in range(24)]
    told: list[tuple[int, int]] = []
    find_near_duplicates(ids, looks, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert {(0, 24), (6, 24), (12, 24), (24, 24)} <= set(told)

    def stop(done: int, total: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        find_near_duplicates(ids, looks, stop)


def test_a_stop_is_heard_while_the_search_is_prepared(
    photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookalikes, "_CHUNK", 4)
    monkeypatch.setattr(partition, "_CHUNK", 40)
    monkeypatch.setattr(partition, "_PARTS_FROM", 8)
    told: list[int] = []
    find_lookalikes(thumbnails_of(photos), lambda done, total: told.append(done))
    for_windows, for_centres, for_members, before_the_first_asks = 3, 6 * 3, 3, 1
    assert told.count(0) == for_windows + for_centres + for_members + before_the_first_asks
    assert told == sorted(told)


def crowd(number: int) -> Picture:
    """Return thumbnails with noise in the middle of a background that no turn by quarters changes much."""
    line = np.linspace(-1, 1, 32)
    pictures = np.repeat((220 - 80 * (line[:, None] ** 2 + line**2))[None], number, axis=0)
    pictures[:, 11:21, 11:21] += np.random.default_rng(0).normal(0, 25, (number, 10, 10))
    return np.clip(pictures, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("parts_from", [10_000, 8])
def test_where_all_are_alike_a_picture_asks_for_the_most_alike_of_all(
    monkeypatch: pytest.MonkeyPatch, parts_from: int
) -> None:
    monkeypatch.setattr(partition, "_PARTS_FROM", parts_from)
    monkeypatch.setattr(partition, "_PROBED", 1_000)
    for name, size in (("_TILE", 60), ("_MOST_FINDS", 20)):  # so that much of the search knows how alike the best are
        monkeypatch.setattr(lookalikes, name, size)
    thumbnails = crowd(70)
    windows = windows_of(thumbnails)
    turns = [frequencies.turned(windows[:, 0], np.full(70, turn)) for turn in range(8)]
    alike = np.max([np.einsum("awf,bf->abw", windows, turned) for turned in turns], axis=(0, 3))
    np.fill_diagonal(alike, 0)
    assert (alike > 0.9 * frequencies.LENGTH**2).sum() > 60 * 69
    asked = {(a, int(b)) for a in range(70) for b in np.argsort(-alike[a], kind="stable")[:16]}
    pairs = find_lookalikes(thumbnails)
    found = [(int(a), int(b)) for a, b in zip(pairs.first, pairs.second, strict=True)]
    assert {tuple(sorted(pair)) for pair in found} == {tuple(sorted(pair)) for pair in asked}
    assert len(set(found)) == len(found)


def test_of_a_crowd_few_finds_are_kept_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of 200 pictures are alike in all windows and most orientations: 5 million finds, if none were dropped."""
    num_found: list[int] = []
    alike = lookalikes._alike

    def counting(*arguments: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.generic], ...]:
        found = alike(*arguments)  # type: ignore[arg-type]
        num_found.append(len(found[0]))
        return found

    monkeypatch.setattr(lookalikes, "_alike", counting)
    find_lookalikes(crowd(200))
    windows, of_a_tile = 200 * 16, 17
    assert max(num_found) <= windows * of_a_tile
    assert sum(num_found) < 2 * windows * of_a_tile


def test_what_many_ask_for_stays_with_all_of_them() -> None:
    """One picture may be the copy that each of many asks for: the cap is on what a picture asks for."""
    draws = np.random.default_rng(0)
    one = np.asarray(photo(0, 32, 32).convert("L")).astype(np.float64)
    others = np.stack([one + 0.45 * (np.asarray(photo(seed, 32, 32).convert("L")) - 128.0) for seed in range(1, 41)])
    thumbnails = np.clip(np.concatenate([one[None], others]) + draws.normal(0, 0.1, (41, 32, 32)), 0, 255)
    pairs = find_lookalikes(thumbnails.astype(np.uint8))
    of_the_one = (pairs.first == 0) | (pairs.second == 0)
    assert of_the_one.sum() > 30


def test_a_blank_picture_looks_like_nothing_in_any_window() -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8), 32 * 32).reshape(256, 32, 32)
    assert not windows_of(greys).any()
    faint = np.full((1, 32, 32), 128, np.uint8)
    faint[:, :, :16] += 2
    assert windows_of(faint).any(axis=2).all()


@pytest.mark.parametrize("parts_from", [10_000, 8])
def test_a_blank_picture_neither_asks_nor_is_asked_for(monkeypatch: pytest.MonkeyPatch, parts_from: int) -> None:
    monkeypatch.setattr(partition, "_PARTS_FROM", parts_from)
    thumbnails = crowd(40)
    thumbnails[::2] = 90
    windows = windows_of(thumbnails)
    parts = Parts.of(windows[:, 0])
    members = np.concatenate(parts.members)
    assert sorted(members) == [row * 8 + turn for row in range(1, 40, 2) for turn in range(8)]
    asking = np.unique(np.concatenate(parts.askers(windows.reshape(-1, windows.shape[2]))))
    assert sorted(asking) == [row * 16 + window for row in range(1, 40, 2) for window in range(16)]
    nothing = windows_of(np.full((20, 32, 32), 90, np.uint8))[:, 0]
    assert sum(map(len, Parts.of(nothing).members)) == 0
    assert len(find_lookalikes(np.full((20, 32, 32), 90, np.uint8)).first) == 0


def test_sums_of_centres_are_exact_in_any_order() -> None:
    draws = np.random.default_rng(0)
    vectors = draws.integers(2_001, 4_000, (20_000, 3)).astype(np.float32)  # float32 is past 2^24 after 6,000
    groups = draws.integers(0, 2, 20_000)
    order = draws.permutation(20_000)
    expected = [vectors[groups == group].astype(np.int64).sum(axis=0) for group in (0, 1)]
    np.testing.assert_array_equal(sums_of(groups, vectors, 2), expected)
    np.testing.assert_array_equal(sums_of(groups[order], vectors[order], 2), expected)


def test_there_are_no_more_parts_than_16_bits_can_number() -> None:
    assert [num_parts_of(number) for number in (1_000, 1_000_000)] == [128, 4_096]
    assert num_parts_of(10**10) <= 1 << 16


def test_products_with_all_centres_are_never_held_at_once() -> None:
    """A million pictures have 131,072 sampled vectors and 4,096 centres: 2 GB."""
    draws = np.random.default_rng(0)
    vectors = np.rint(draws.normal(0, 600, (7_300, 35))).astype(np.float32)
    tracemalloc.start()
    Parts.of(vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    products = 32 * num_parts_of(7_300) * num_parts_of(7_300) * 4
    assert peak < products / 2


def test_none_and_one_image_have_no_pairs(photos: list[Image.Image]) -> None:
    assert pairs_of([]) == pairs_of([look_of(photos[0])]) == set()
    nothing = np.zeros((0, 32, 32), np.uint8)
    assert len(show_the_same(nothing, find_lookalikes(nothing))) == 0


# What a manifest makes of them.

SPEC = DataSpec(path="/photos")


def listing(splits: dict[str, str | None] | None = None, number: int = 12) -> Listing:
    ids = [f"{label}/{row:02}.jpg" for label in "ab" for row in range(number)]
    return Listing(
        "/photos",
        "class folders",
        tuple(Entry(one, f"/photos/{one}", one[0], (splits or {}).get(one)) for one in ids),
    )


def facts_with(copies: dict[str, str], of: Listing, pictures: Sequence[Look]) -> list[ImageFacts]:
    """Return facts of images that all look their own way but for the copies, which have their own bytes."""
    places = {entry.image_id: row for row, entry in enumerate(of.entries)}
    looks = {name: pictures[row] for name, row in places.items()}
    looks |= {copy: looks[original] for copy, original in copies.items()}
    return [ImageFacts(f"{row:064x}", 400, 300, look=looks[name]) for name, row in places.items()]


@pytest.fixture(scope="module")
def pictures() -> list[Look]:
    return [look_of(photo(seed, 128, 160)) for seed in range(24)]


def test_near_duplicates_fall_on_one_side_and_count_as_one(pictures: list[Look]) -> None:
    copies = {"a/05.jpg": "a/00.jpg", "a/06.jpg": "a/00.jpg", "b/03.jpg": "b/02.jpg"}
    of = listing()
    for seed in range(6):
        spec = SPEC.model_copy(update={"split": SPEC.split.model_copy(update={"seed": seed})})
        manifest = Manifest.build(of, facts_with(copies, of, pictures), spec)
        split = dict(zip(manifest.table["image_id"].to_pylist(), manifest.table["split"].to_pylist(), strict=True))
        assert all(split[copy] == split[original] for copy, original in copies.items())
        groups = [
            part.image_ids[row]
            for name in ("val", "test")
            for part in (split_images(manifest, manifest.images(), name),)
            for row in np.unique(part.groups, return_index=True)[1]
        ]
        held_out = [name for name in split if split[name] != "train"]
        assert len(groups) == len(held_out) - sum(copy in held_out for copy in copies)
    assert any("5 images in 2 groups that show the same" in line for line in manifest.summary_lines())
    assert not any(line.startswith("warning") for line in manifest.summary_lines())


def test_near_duplicates_and_groups_join_over_any_number_of_links(pictures: list[Look]) -> None:
    of = listing()
    grouped = [replace(e, group="one" if e.image_id in ("a/00.jpg", "a/04.jpg") else None) for e in of.entries]
    of = replace(of, entries=tuple(grouped))
    facts = facts_with({"a/05.jpg": "a/00.jpg", "a/06.jpg": "a/04.jpg"}, of, pictures)
    together = ["a/00.jpg", "a/04.jpg", "a/05.jpg", "a/06.jpg"]
    for seed in range(6):
        spec = SPEC.model_copy(update={"split": SPEC.split.model_copy(update={"seed": seed})})
        rows = Manifest.build(of, facts, spec).table.to_pylist()
        assert len({row["split"] for row in rows if row["image_id"] in together}) == 1


def test_near_duplicates_are_in_one_fold(pictures: list[Look]) -> None:
    of = listing()
    copies = {"a/05.jpg": "a/00.jpg", "b/03.jpg": "b/02.jpg"}
    spec = SPEC.model_copy(update={"split": SPEC.split.model_copy(update={"folds": 4})})
    manifest = Manifest.build(of, facts_with(copies, of, pictures), spec)
    for seed, fold in itertools.product(range(3), range(1, 5)):
        images = manifest.images(TrialKey("resnet18", "full", fold, seed, 0))
        split = dict(zip(images.image_ids, images.splits.tolist(), strict=True))
        assert all(split[copy] == split[original] for copy, original in copies.items())


def test_told_only_they_are_cut_as_if_there_were_none(pictures: list[Look]) -> None:
    of = listing()
    copies = {"a/05.jpg": "a/00.jpg", "a/06.jpg": "a/00.jpg"}
    told = Manifest.build(of, facts_with(copies, of, pictures), SPEC.model_copy(update={"near_duplicates": "tell"}))
    off = Manifest.build(of, facts_with(copies, of, pictures), SPEC.model_copy(update={"near_duplicates": "off"}))
    none = Manifest.build(of, facts_with({}, of, pictures), SPEC)
    assert told.sha256() == off.sha256() == none.sha256()
    assert told.near_groups is None
    assert any("show the same" in line for line in told.summary_lines())
    assert off.table["near_group"].null_count == off.table.num_rows


def test_a_copy_across_given_splits_is_told_and_stays(pictures: list[Look]) -> None:
    places = itertools.cycle(["train", "train", "val", "test"])
    splits: dict[str, str | None] = {entry.image_id: next(places) for entry in listing().entries}
    of = listing(splits)
    manifest = Manifest.build(of, facts_with({"a/03.jpg": "a/00.jpg", "a/07.jpg": "a/02.jpg"}, of, pictures), SPEC)
    rows = {row["image_id"]: row for row in manifest.table.to_pylist()}
    assert {name: row["split"] for name, row in rows.items()} == splits
    assert (rows["a/03.jpg"]["near_duplicate"], rows["a/00.jpg"]["near_duplicate"]) == ("a/00.jpg", "a/03.jpg")
    warned = [line for line in manifest.summary_lines() if line.startswith("warning")]
    assert len(warned) == 1
    assert "1 of 6 test images (16.7 %) show the same as a training image" in warned[0]


def test_train_that_val_is_cut_from_keeps_its_own_together_beside_a_leak(pictures: list[Look]) -> None:
    splits: dict[str, str | None] = {
        entry.image_id: "test" if entry.image_id.endswith("11.jpg") else "train" for entry in listing().entries
    }
    of = listing(splits)
    copies = {"a/11.jpg": "a/00.jpg", "a/01.jpg": "a/00.jpg", "a/02.jpg": "a/00.jpg"}
    for seed in range(5):
        spec = SPEC.model_copy(update={"split": SPEC.split.model_copy(update={"seed": seed})})
        manifest = Manifest.build(of, facts_with(copies, of, pictures), spec)
        split = dict(zip(manifest.table["image_id"].to_pylist(), manifest.table["split"].to_pylist(), strict=True))
        assert split["a/11.jpg"] == "test"
        assert len({split[f"a/0{row}.jpg"] for row in range(3)}) == 1


def test_a_copy_under_another_label_is_told(pictures: list[Look]) -> None:
    of = listing()
    manifest = Manifest.build(of, facts_with({"b/04.jpg": "a/04.jpg"}, of, pictures), SPEC)
    assert any("2 images show the same as an image of another class" in line for line in manifest.summary_lines())


def test_a_manifest_remembers_them(tmp_path: Path, pictures: list[Look]) -> None:
    of = listing()
    manifest = Manifest.build(of, facts_with({"a/05.jpg": "a/00.jpg"}, of, pictures), SPEC)
    manifest.save(tmp_path / "manifest.parquet")
    loaded = Manifest.load(tmp_path / "manifest.parquet")
    assert (loaded.sha256(), loaded.near, loaded.near_groups) == (manifest.sha256(), "group", manifest.near_groups)
    assert loaded.sha256() != Manifest.build(of, facts_with({}, of, pictures), SPEC).sha256()


def test_a_manifest_from_before_loads_and_goes_on_without_them(tmp_path: Path, pictures: list[Look]) -> None:
    of, path = listing(), tmp_path / "manifest.parquet"
    facts = facts_with({"a/05.jpg": "a/00.jpg"}, of, pictures)
    old = Manifest.build(of, facts, SPEC.model_copy(update={"near_duplicates": "off"}))
    old.save(path)
    table = pq.read_table(path)
    younger = (b"near_duplicates", b"sha256")
    metadata = {k: v for k, v in table.schema.metadata.items() if k not in younger} | {b"schema": b"1"}
    pq.write_table(table.select(table.schema.names[:10]).replace_schema_metadata(metadata), path)
    before = Manifest.load(path)
    assert (before.near, before.near_groups) == ("off", None)
    assert Manifest.build(of, facts, SPEC, cut=before.cut, before=before).sha256() == before.sha256()


# What is remembered of how an image looks.


def test_a_look_is_the_same_read_anew_from_the_index_and_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    photo(0).save(path, "JPEG", exif=_exif(6))
    cache = DecodedCache(tmp_path / "cache", 128, LIMITS)
    (first,) = cache.ingest([str(path)])
    (known,) = cache.known([str(path)])
    assert known is not None
    assert first.look is not None
    assert (known.look, first.look.orientation, first.look.mode) == (first.look, 6, "RGB")
    for index in (cache.folder / "files").iterdir():
        index.unlink()
    (again,) = DecodedCache(tmp_path / "cache", 128, LIMITS).ingest([str(path)])
    assert again.look is not None
    assert again.look.thumbnail == first.look.thumbnail
    whole = inspect_files([str(path)], LIMITS)[0].look
    assert whole is not None
    assert pairs_of([first.look, whole]) == {(0, 1)}


def test_a_deep_picture_looks_the_same_whatever_the_range_of_its_data_set(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), np.asarray(photo(0)).astype(np.uint16) * 8)
    looks = []
    for place, scale in (("one", None), ("two", DepthScale(whole=(0.0, 65535.0)))):
        (fact,) = DecodedCache(tmp_path / place, 128, LIMITS, scale).ingest([str(path)])
        assert fact.look is not None
        looks.append(fact.look.thumbnail)
    assert looks[0] == looks[1]


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def test_odd_looks_are_remarked() -> None:
    plain = look_of(photo(1))
    assert remarks(plain, 300) == []
    assert remarks(look_of(Image.new("RGB", (300, 300), (4, 4, 4))), 300) == ["blank", "dark"]
    assert remarks(look_of(Image.new("RGB", (300, 300), "white")), 300) == ["blank", "bright"]
    soft = look_of(photo(1, 30, 40).resize((400, 300), Image.Resampling.BICUBIC))
    assert remarks(soft, 300) == ["blurred"]
    assert remarks(soft, 30) == []  # small, and enlarged by us
    assert remarks(plain._replace(mode="CMYK", orientation=3), 300) == ["mode CMYK", "EXIF orientation 3"]
    assert ImageFacts("", 400, 300, look=soft).remarks == ["blurred"]


def test_the_same_drawing_in_another_colour_shows_something_else() -> None:
    """Traffic lights, shirts: the colour is what the classes are about. A grey copy is a copy all the same."""

    def drawing(colour: tuple[int, int, int], seed: int) -> npt.NDArray[np.uint8]:
        draws = np.random.default_rng(seed)
        canvas = Image.new("RGB", (128, 128), (240, 240, 240))
        for x, y, width in draws.integers(0, 100, (6, 3)).tolist():
            ImageDraw.Draw(canvas).ellipse((x, y, x + width // 3 + 8, y + width // 3 + 8), fill=colour)
        return np.asarray(canvas)

    red, green, blue = (drawing(colour, 3) for colour in ((200, 30, 30), (30, 110, 30), (60, 60, 220)))
    grey = np.asarray(Image.fromarray(red).convert("L").convert("RGB"))
    mirrored = np.ascontiguousarray(red[:, ::-1])
    looks = [look_at(pixels) for pixels in (red, green, blue, grey, mirrored)]
    found = {(pair.first, pair.second) for pair in find_near_duplicates(list("abcde"), looks)}
    assert {(0, 3), (0, 4)} <= found
    assert not found & {(0, 1), (0, 2), (1, 2), (1, 4), (2, 4)}
