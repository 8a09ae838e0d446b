"""One range for all deep images of a data set: a scene value is one grey level in all; a hot pixel moves nothing."""

from __future__ import annotations

import io
import itertools
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits, decode_image
from transferlib.data.depth import Samples
from transferlib.data.depth_scale import DepthFacts, DepthScale, Kind, full_scale, settle_range, settle_scale
from transferlib.data.facts import ImageFacts, inspect_files
from transferlib.data.manifest import Manifest
from transferlib.data.source import PixelSource
from transferlib.data.sources import list_images
from transferlib.errors import DataError, SpecError
from transferlib.spec import DataSpec, JobSpec, SplitSpec

LIMITS = Limits(10**7, 10**7)
Values = npt.NDArray[Any]
HOT = (4095, 4096, 32767, 65535)


def flat(value: int, hot: int | None = None, size: int = 24) -> npt.NDArray[np.uint16]:
    """A grey scene of one value with a patch of half of it, perhaps with one hot pixel."""
    values = np.full((size, size), value, np.uint16)
    values[: size // 4, : size // 4] = value // 2
    if hot is not None:
        values[-1, -1] = hot
    return values


def png(values: Values) -> bytes:
    done, data = cv2.imencode(".png", values)
    assert done
    return data.tobytes()


def tiff(values: Values, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, photometric=options.pop("photometric", "minisblack"), **options)
    return file.getvalue()


def with_significant_bits(data: bytes, bits: int) -> bytes:
    """Put a PNG's sBIT chunk behind its header."""
    body = b"sBIT" + bytes([bits])
    return data[:33] + struct.pack(">I", 1) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def twelve_bit_tiff(values: npt.NDArray[np.uint16]) -> bytes:
    """Write grey values in 12 bits each, packed."""
    height, width = values.shape
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=2)[:, :, 4:]
    body = np.packbits(bits.reshape(height, -1), axis=1).tobytes()
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (279, len(body)))]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


class Photos:
    """A data set on disk, ingested as a job does it: facts first, then the deep images by the range that they gave."""

    def __init__(self, root: Path, **spec: Any) -> None:
        self.root = root
        self.spec = DataSpec(path=str(root / "in"), **spec)
        self.cache = DecodedCache(root / "cache", 24, LIMITS, DepthScale.given(self.spec.depth_range))

    def add(self, split: str, *files: bytes) -> None:
        """Add images of two classes in turn, no two of one content: what follows a picture's end is not looked at."""
        for data in files:
            folder = self.root / "in" / split / "ab"[sum(1 for _ in (self.root / "in").rglob("*.*")) % 2]
            folder.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in (self.root / "in").rglob("*.*"))
            (folder / f"{number:03}.img.png").write_bytes(data + b"%d" % number)

    def uris(self) -> list[str]:
        return [entry.uri for entry in list_images(str(self.root / "in")).entries]

    def ingest(self, *, keep: bool = True, in_turn: Callable[[list[str]], list[list[str]]] | None = None) -> Manifest:
        listing = list_images(str(self.root / "in"))
        facts = self._read(self.uris(), in_turn) if keep else inspect_files(self.uris(), LIMITS)
        manifest = Manifest.build(listing, facts, self.spec)
        if keep and manifest.scale is not None:
            deep = [uri for uri, fact in zip(self.uris(), facts, strict=True) if fact.depth]
            replace(self.cache, scale=manifest.scale).ingest(deep)
        manifest.save(self.root / "manifest.parquet")
        return manifest

    def _read(self, uris: list[str], in_turn: Callable[[list[str]], list[list[str]]] | None) -> list[ImageFacts]:
        known = dict(zip(uris, self.cache.known(uris), strict=True))
        missing = [uri for uri in uris if known[uri] is None]
        for part in in_turn(missing) if in_turn else [missing]:
            known |= dict(zip(part, self.cache.ingest(part), strict=True))
        return [fact for uri in uris if (fact := known[uri]) is not None]

    def pixels(self, *, cache: bool = True) -> dict[str, npt.NDArray[np.uint8]]:
        source = PixelSource(
            str(self.root / "manifest.parquet"), str(self.cache.root) if cache else None, 24, LIMITS
        ).open()
        rows = list(range(len(source.images)))
        return dict(zip(source.images.image_ids, source.pixels(rows), strict=True))


def rendered(values: Values, scale: DepthScale) -> npt.NDArray[np.uint8]:
    return decode_image(png(values), short_side=None, limits=LIMITS, scale=scale).pixels[:, :, 0]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("make", [png, tiff])
def test_a_scene_value_is_one_grey_level_whatever_the_brightest_pixel(
    tmp_path: Path, make: Callable[[Values], bytes], cache: bool
) -> None:
    """It was 125, 62, 16 and 8."""
    photos = Photos(tmp_path)
    for split in ("train", "val", "test"):
        photos.add(split, *(make(flat(2000 + number, hot)) for number, hot in enumerate(HOT)))
    manifest = photos.ingest(keep=cache)
    assert manifest.scale == DepthScale(whole=(0.0, 2047.0))
    found = photos.pixels(cache=cache)
    assert len(found) == 12
    for pixels in found.values():
        assert abs(int(pixels[12, 12, 0]) - 2000 * 255 / 2047) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))),
        min_size=1,
        max_size=4,
    )
)
def test_white_is_the_smallest_full_scale_above_the_percentile(pictures: list[npt.NDArray[np.uint16]]) -> None:
    facts = [Samples(values, 16).facts for values in pictures]
    brightest = np.concatenate([values.max(axis=2).ravel() for values in pictures])
    outside = min(max(-(-(len(brightest) - 1) // 10_000), len(pictures)), len(brightest) - 1)
    percentile = int(np.sort(brightest)[-1 - outside])
    expected = 2 ** percentile.bit_length() - 1 if percentile else 1
    for order in itertools.islice(itertools.permutations(facts), 6):
        assert settle_range("whole", order) == ((0.0, expected), [])


def test_of_many_pixels_the_percentile_is_numpys() -> None:
    values = np.random.default_rng(0).lognormal(7, 0.8, (5, 200, 300, 1)).clip(0, 65535).astype(np.uint16)
    facts = [Samples(picture, 16).facts for picture in values]
    percentile = int(np.percentile(values, 99.99, method="lower"))
    assert settle_range("whole", facts)[0] == (0.0, 2 ** percentile.bit_length() - 1)


@settings(max_examples=80, deadline=None)
@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6, allow_subnormal=False)))
def test_fractions_and_signs_are_scaled_by_powers_of_two(values: Values) -> None:
    (low, high), _ = settle_range("fraction", [Samples(values.reshape(1, -1, 1), 64).facts])
    top = np.percentile(values, 99.99, method="lower")
    bottom = -np.percentile(-values, 99.99, method="lower")
    if top > 0:
        wanted = 2.0 ** np.ceil(np.log2(top)) if top <= 128 else 2.0 ** np.ceil(np.log2(top + 1)) - 1
        assert high == pytest.approx(wanted)
    if bottom < 0:
        assert low == pytest.approx(-(2.0 ** np.ceil(np.log2(-bottom))))
    else:
        assert low == 0.0
    assert low < high


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint16, (5, 5, 1)), st.floats(0, 60_000), st.floats(1, 70_000))
def test_brighter_is_never_darker(values: npt.NDArray[np.uint16], low: float, width: float) -> None:
    seen = Samples(values, 16).render(DepthScale(whole=(low, low + width)))[:, :, 0].ravel()
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(seen[order].astype(int)) >= 0).all()
    assert (seen[values.ravel() >= low + width] == 255).all()
    assert (seen[values.ravel() <= low] == 0).all()


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint16, st.tuples(st.integers(2, 30), st.integers(2, 30)), elements=st.integers(0, 3000)), st.data())
def test_one_hot_pixel_moves_nothing(values: npt.NDArray[np.uint16], data: st.DataObject) -> None:
    """Not even where there are fewer than ten thousand pixels; in colour it is hot in three channels."""
    brightest = np.sort(values.ravel())
    hot = np.repeat(values[:, :, None], 3, axis=2)
    hot.reshape(-1, 3)[int(values.argmax())] = data.draw(st.integers(int(brightest[-1]), 65535))
    cold = np.repeat(values[:, :, None], 3, axis=2)
    assert settle_range("whole", [Samples(hot, 16).facts]) == settle_range("whole", [Samples(cold, 16).facts])


@pytest.mark.parametrize(
    ("kind", "level", "white"),
    [
        ("whole", 0, 1),
        ("whole", 8, 255),
        ("whole", 12, 4095),
        ("whole", 16, 65535),
        ("fraction", 0, 1),
        ("fraction", -9, 2**-9),
        ("fraction", 1, 2),
        ("fraction", 8, 255),
        ("whole", -1001, 0),
    ],
)
def test_full_scales(kind: Kind, level: int, white: float) -> None:
    assert full_scale(kind, level) == white


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64, np.float16, np.float64]
    ).flatmap(lambda kind: arrays(kind, (3, 4, 1)))
)
def test_whatever_the_numbers_there_is_a_picture_or_a_reason(values: Values) -> None:
    """Subnormal and huge ones too: nothing overflows, and every picture uses black to white alone."""
    bits = 8 * values.dtype.itemsize
    if not np.isfinite(values).all():
        with pytest.raises(ValueError, match="not finite"):
            Samples(values, bits)
        return
    samples = Samples(values, bits)
    low, high = settle_range(samples.kind, [samples.facts])[0]
    assert low < high
    assert DepthFacts.from_text(samples.facts.to_text()) == samples.facts
    seen = samples.render(None)
    assert (seen == samples.render(DepthScale.given((low, high)))).all()
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(seen[:, :, 0].ravel()[order].astype(int)) >= 0).all()


def test_facts_travel_as_text() -> None:
    for values in (flat(2000)[:, :, None], (flat(2000)[:, :, None] - 1500.0).astype(np.float32)):
        facts = replace(Samples(values, 16).facts, significant=12, limits=(0.0, 4000.5))
        assert DepthFacts.from_text(facts.to_text()) == facts


def fact_of(data: bytes) -> DepthFacts:
    facts = decode_image(data, short_side=None, limits=LIMITS).depth
    assert facts is not None
    return facts


def test_what_a_file_declares_goes_over_what_it_holds() -> None:
    dark = flat(100)
    declared = [
        twelve_bit_tiff(dark),
        with_significant_bits(png(dark), 12),
        tiff(dark, extratags=[(341, "H", 1, 4095, True)]),
    ]
    for data in declared:
        assert settle_range("whole", [fact_of(data)])[0] == (0.0, 4095.0)
    assert settle_range("whole", [fact_of(data) for data in declared])[0] == (0.0, 4095.0)
    assert settle_range("whole", [fact_of(png(dark))])[0] == (0.0, 127.0)


def test_significant_bits_may_be_stretched_over_sixteen_as_the_specification_has_it() -> None:
    stored = flat(3000)
    as_they_are, stretched = with_significant_bits(png(stored), 12), with_significant_bits(png(stored << 4), 12)
    assert settle_range("whole", [fact_of(as_they_are)])[0] == (0.0, 4095.0)
    assert settle_range("whole", [fact_of(stretched)])[0] == (0.0, 65535.0)


def test_jpeg_2000_declares_its_bits() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 4096
    file = io.BytesIO()
    # Twelve bits are stored around 2048, sixteen around 32768.
    Image.fromarray(values + np.uint16(32768 - 2048)).save(file, "JPEG2000", irreversible=False)
    data = bytearray(file.getvalue())
    data[data.find(b"\xff\x4f\xff\x51") + 42] = data[data.find(b"ihdr") + 14] = 11
    facts = fact_of(bytes(data))
    assert facts.bits == 12
    seen = decode_image(bytes(data), short_side=None, limits=LIMITS).pixels[:, :, 0]
    assert np.abs(seen - values * (255 / 4095)).max() <= 1


@pytest.mark.parametrize("bits", [0, 17, 255])
def test_significant_bits_that_cannot_be_count_for_nothing(bits: int) -> None:
    assert fact_of(with_significant_bits(png(flat(100)), bits)).significant == 0


@pytest.mark.parametrize(
    "tags",
    [
        [(341, "H", 1, 0, True)],
        [(340, "H", 1, 9, True), (341, "H", 1, 9, True)],
        [(341, "2I", 1, (1, 0), True)],
        [(281, "H", 1, 9000, True)],
    ],
)
def test_largest_values_that_cannot_be_count_for_nothing(tags: list[Any]) -> None:
    """Tag 281 is what the brightest pixel is, by TIFF's own word not to be looked at for that."""
    assert fact_of(tiff(flat(100), extratags=tags)).limits is None


def test_smallest_and_largest_values_may_be_declared_of_fractions() -> None:
    values = np.linspace(10, 20, 400, dtype=np.float32).reshape(20, 20)
    data = tiff(values, extratags=[(340, "f", 1, 10.0, True), (341, "f", 1, 20.0, True)])
    assert settle_range("fraction", [fact_of(data)])[0] == (10.0, 20.0)
    nonsense = tiff(values, extratags=[(341, "f", 1, float("nan"), True)])
    assert settle_range("fraction", [fact_of(nonsense)])[0] == (0.0, 32.0)


def test_images_that_declare_different_bits_are_scaled_by_the_largest_and_it_is_said() -> None:
    facts = [replace(fact_of(png(flat(100))), bits=bits) for bits in (10, 12)]
    found, (note,) = settle_range("whole", facts)
    assert found == (0.0, 4095.0)
    assert note == "Images declare 10, 12 bits a sample; the largest holds for all of them."


def test_a_largest_value_that_differs_from_file_to_file_is_no_scale() -> None:
    """Some programs write there what the brightest pixel is: one hot pixel would move everything."""
    facts = [fact_of(tiff(flat(2000, hot), extratags=[(341, "H", 1, hot, True)])) for hot in HOT]
    found, (note,) = settle_range("whole", facts)
    assert found == (0.0, 2047.0)
    assert "SMaxSampleValue differs" in note


def test_files_that_declare_nothing_beside_ones_that_do_are_not_cut_off() -> None:
    quiet, loud = fact_of(png(flat(9000))), fact_of(with_significant_bits(png(flat(100)), 12))
    assert settle_range("whole", [quiet, loud])[0] == (0.0, 16383.0)
    assert settle_range("whole", [fact_of(png(flat(30))), loud])[0] == (0.0, 4095.0)


def test_bytes_floats_and_whole_numbers_stand_side_by_side(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    eight = flat(100).astype(np.uint8)
    for split, value in (("train", 3000), ("val", 2900), ("test", 2800)):
        photos.add(split, png(flat(value)), png(eight + (3000 - value) // 100), tiff(flat(value) / np.float32(4000)))
        photos.add(split, tiff(flat(value).astype(np.int32) - 1000))
    manifest = photos.ingest()
    assert manifest.scale == DepthScale(whole=(0.0, 4095.0), fraction=(0.0, 1.0))
    assert (
        "9 images have more than 8 bits a sample: for all of them, black is 0, white 4,095 for whole numbers"
        in "\n".join(manifest.notes)
    )
    seen = sorted(int(pixels[12, 12, 0]) for pixels in photos.pixels().values())
    wanted = [*(100, 101, 102), *(value * 255 / 4000 for value in (3000, 2900, 2800))]
    wanted += [value * 255 / 4095 for value in (3000, 2900, 2800, 2000, 1900, 1800)]
    assert np.abs(np.array(seen) - np.sort(wanted)).max() <= 1
    assert all(np.array_equal(photos.pixels()[key], pixels) for key, pixels in photos.pixels(cache=False).items())


def test_dark_bytes_stay_dark_in_every_layout() -> None:
    """Planar 8-bit colours went through the scaling of deep ones and came out twice as bright."""
    values = np.random.default_rng(0).integers(0, 100, (20, 30, 3), dtype=np.uint8)
    data = tiff(np.moveaxis(values, 2, 0), planarconfig="separate", photometric="rgb", extratags=[])
    decoded = decode_image(data, short_side=None, limits=LIMITS)
    assert decoded.depth is None
    assert np.array_equal(decoded.pixels, values)


def test_a_premultiplied_picture_is_scaled_as_one_that_is_not() -> None:
    share = np.linspace(0.2, 1, 30)[None, :].repeat(20, axis=0)
    colours = np.full((20, 30, 3), 3000.0)
    straight, multiplied = (
        tiff(np.dstack([values, share * 65535]).astype(np.uint16), photometric="rgb", extrasamples=(kind,))
        for values, kind in ((colours, "unassalpha"), (colours * share[:, :, None], "assocalpha"))
    )
    scale = DepthScale(whole=(500.0, 4095.0))
    a, b = (decode_image(data, short_side=None, limits=LIMITS, scale=scale).pixels for data in (straight, multiplied))
    assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_images_move_nothing_that_is_learnt(tmp_path: Path, split: str) -> None:
    photos = Photos(tmp_path)
    for given_split in ("train", "val", "test"):
        photos.add(given_split, *(png(flat(1000 + number)) for number in range(4)))
    photos.add(split, *(png(flat(60_000 + number)) for number in range(8)))
    assert photos.ingest().scale == DepthScale(whole=(0.0, 1023.0))
    assert max(int(pixels.max()) for pixels in photos.pixels().values()) == 255  # too bright: white


def test_a_kind_of_number_that_only_held_out_images_have_is_scaled_by_those(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    for split in ("train", "val", "test"):
        photos.add(split, *(png(flat(100 + number).astype(np.uint8)) for number in range(4)))
    photos.add("test", png(flat(1000)))
    assert photos.ingest().scale == DepthScale(whole=(0.0, 1023.0))


@pytest.mark.parametrize("num_seeds", [3])
def test_folds_and_seeds_see_one_scale(tmp_path: Path, num_seeds: int) -> None:
    from transferlib.records import TrialKey

    # All look the same but for their scale.
    photos = Photos(tmp_path, split=SplitSpec(folds=3), near_duplicates="off")
    for number in range(12):
        folder = tmp_path / "in" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(png(flat(2**number + 3)))
    manifest = photos.ingest()
    keys = [TrialKey("resnet18", "full", fold, seed, 0) for seed in range(num_seeds) for fold in (1, 2, 3)]
    assert {manifest.images(key).scale for key in keys} == {DepthScale(whole=(0.0, 4095.0))}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 100])
def test_neither_blocks_nor_their_order_nor_a_restart_move_anything(tmp_path: Path, size: int) -> None:
    def in_turn(uris: list[str]) -> list[list[str]]:
        mixed = sorted(uris, key=lambda uri: zlib.crc32(uri.encode()))
        return [mixed[at : at + size] for at in range(0, len(mixed), size)]

    whole, cut = Photos(tmp_path / "whole"), Photos(tmp_path / "cut")
    for photos in (whole, cut):
        for split in ("train", "val", "test"):
            photos.add(split, *(png(flat(2000 + number, hot)) for number, hot in enumerate(HOT)))
    first, second = whole.ingest(), cut.ingest(in_turn=in_turn)
    assert (first.sha256(), first.scale) == (second.sha256(), second.scale)
    again = cut.ingest()  # nothing is read again
    assert again.sha256() == first.sha256()
    found = cut.pixels()
    assert all(np.array_equal(found[key], pixels) for key, pixels in whole.pixels().items())


def shard_names(photos: Photos) -> set[str]:
    return {path.name for path in (photos.cache.folder / "pixels").iterdir()}


def test_a_photo_that_moves_the_range_leaves_no_pixels_of_the_old_one_and_reads_no_bytes_again(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    eight = [png(flat(50 + number).astype(np.uint8)) for number in range(3)]
    for split, data in zip(("train", "val", "test"), eight, strict=True):
        photos.add(split, data, *(png(flat(value)) for value in (900, 901, 902)))
    assert photos.ingest().scale == DepthScale(whole=(0.0, 1023.0))
    before = {key: pixels.copy() for key, pixels in photos.pixels().items()}
    held = shard_names(photos)
    photos.add("train", png(flat(3000)))
    assert photos.ingest().scale == DepthScale(whole=(0.0, 4095.0))
    after = photos.pixels()
    for key, pixels in before.items():
        factor = 1 if pixels[12, 12, 0] in (50, 51, 52) else 1023 / 4095
        assert abs(int(after[key][12, 12, 0]) - pixels[12, 12, 0] * factor) <= 1
    keys = [bytes.fromhex(sha256) for sha256 in Manifest.load(tmp_path / "manifest.parquet").images().sha256]
    from transferlib.data.shards import MappedShard

    new = [MappedShard(photos.cache.folder / "pixels" / name) for name in sorted(shard_names(photos) - held)]
    assert not {key for shard in new for key in shard.columns.sha256} & set(keys)  # only deep ones are made again


def test_another_range_is_another_entry_and_the_same_one_is_found_again(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    photos.add("train", *(png(flat(900 + number)) for number in range(3)))
    uris = photos.uris()
    ranges = [DepthScale.given((0.0, 1023.0)), DepthScale.given((0.0, 4095.0))]
    caches = [replace(photos.cache, scale=scale) for scale in ranges]
    facts = caches[0].ingest(uris)
    assert caches[0].known(uris) == facts
    assert caches[1].known(uris) == [None] * 3
    assert caches[1].ingest(uris) == facts
    held = shard_names(photos)
    assert [cache.known(uris) for cache in caches] == [facts, facts]
    for cache, level in zip(caches, (900 * 255 / 1023, 900 * 255 / 4095), strict=True):
        assert abs(int(cache.reader().pixels(facts[0].sha256)[12, 12, 0]) - level) <= 1
        assert cache.ingest(uris) == facts
    assert shard_names(photos) == held
    assert photos.cache.known(uris) == facts  # a run that has no range yet reads nothing either
    assert caches[0].damaged([fact.sha256 for fact in facts]) == []
    assert caches[0].evict(1, in_use=[fact.sha256 for fact in facts]) > 0  # of the other range
    assert caches[0].known(uris) == facts
    assert caches[1].known(uris) == [None] * 3


def test_the_job_makes_again_what_its_cache_has_lost(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    for split in ("train", "val", "test"):
        photos.add(split, *(png(flat(2000 + number)) for number in range(3)))
    photos.ingest()
    wanted = {key: pixels.copy() for key, pixels in photos.pixels().items()}
    for path in (photos.cache.folder / "pixels").iterdir():
        path.unlink()
    found = photos.pixels()
    assert all(np.array_equal(found[key], pixels) for key, pixels in wanted.items())


def test_the_users_range_goes_over_all_and_may_cut(tmp_path: Path) -> None:
    photos = Photos(tmp_path, depth_range="100:1000")
    photos.add("train", png(flat(50)), png(flat(550)), tiff(np.full((24, 24), 550, np.float32)), png(flat(5000)))
    for split in ("val", "test"):
        photos.add(split, png(flat(549 if split == "val" else 551)), png(flat(551 if split == "val" else 548)))
    manifest = photos.ingest()
    assert manifest.scale == DepthScale(whole=(100.0, 1000.0), fraction=(100.0, 1000.0))
    assert any("black is 100, white 1,000 (as --depth-range says)" in note for note in manifest.notes)
    assert sorted({int(pixels[12, 12, 0]) for pixels in photos.pixels().values()}) == [0, 127, 128, 255]


def test_a_range_for_no_deep_image_is_a_note(tmp_path: Path) -> None:
    photos = Photos(tmp_path, depth_range=(0, 4095))
    for split in ("train", "val", "test"):
        photos.add(split, *(png(flat(50 + number).astype(np.uint8)) for number in range(2)))
    manifest = photos.ingest()
    assert manifest.scale is None
    assert manifest.notes[-1] == "--depth-range 0:4095 acts on nothing: no image has more than 8 bits a sample."


@pytest.mark.parametrize(
    "wrong",
    [
        "4095",
        "0:0",
        "9:3",
        "5:-1",
        "-1:-5",
        "a:b",
        "",
        ":",
        "0:4095:1",
        "nan:1",
        "0:inf",
        "0:1e999",
        [1],
        7,
        [1, 2, 3],
        {},
    ],
)
def test_what_is_no_range_is_refused(wrong: object) -> None:
    with pytest.raises(SpecError, match=r"data\.depth_range: .*(as in 0:4095)"):
        JobSpec.from_mapping({"data": {"path": "/photos", "depth_range": wrong}})


def test_a_range_stands_in_the_spec(tmp_path: Path) -> None:
    spec = JobSpec.from_mapping({"data": {"path": "/photos", "depth_range": "0:4095"}})
    assert spec.data.depth_range == (0.0, 4095.0)
    assert JobSpec.from_yaml(spec.to_yaml()) == spec
    assert JobSpec.from_mapping({"data": {"path": "/photos"}}).data.depth_range is None


def without_a_word(path: Path) -> None:
    """Take the range out of a manifest, as older versions wrote it."""
    table = pq.read_table(path)
    metadata = {key: value for key, value in table.schema.metadata.items() if key not in (b"depth_range", b"sha256")}
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("cache", [True, False])
def test_an_older_manifest_is_read_and_its_deep_images_are_refused_with_a_sentence(tmp_path: Path, cache: bool) -> None:
    deep, plain = Photos(tmp_path / "deep"), Photos(tmp_path / "plain")
    for photos, kind in ((deep, np.uint16), (plain, np.uint8)):
        for split in ("train", "val", "test"):
            photos.add(split, *(png(flat(60 + 10 * len(split) + number).astype(kind)) for number in range(2)))
        saved = photos.ingest()
        without_a_word(photos.root / "manifest.parquet")
        old = Manifest.load(photos.root / "manifest.parquet")
        assert (old.scale, old.sha256() == saved.sha256()) == (None, photos is plain)
    assert len(plain.pixels(cache=cache)) == 6
    with pytest.raises(DataError, match="does not say which values are black and white"):
        deep.pixels(cache=cache)


def test_a_manifest_keeps_its_range(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    for split in ("train", "val", "test"):
        photos.add(split, png(flat(2000 + len(split))), tiff(flat(9, 10) / np.float32(7)))
    manifest = photos.ingest()
    read = Manifest.load(tmp_path / "manifest.parquet")
    assert read.scale == manifest.scale == DepthScale(whole=(0.0, 2047.0), fraction=(0.0, 2.0))
    assert read.sha256() == manifest.sha256()
    assert read.sha256() != replace(read, scale=DepthScale.given((0.0, 9.0))).sha256()
    assert read.images().fingerprint != replace(read.images(), scale=None).fingerprint
    plain = json.loads(pq.read_table(tmp_path / "manifest.parquet").schema.metadata[b"depth_range"])
    assert plain == {"whole": [0, 2047], "fraction": [0, 2]}


def test_settling_says_nothing_of_a_data_set_without_deep_images() -> None:
    nothing: Sequence[DepthFacts] = ()
    assert settle_scale(nothing, nothing, None) == (None, [])
