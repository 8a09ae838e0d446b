"""What a plan reckons is still to be decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from transferlib.cli.preview import _count_cached
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits
from transferlib.data.depth_scale import DepthScale
from transferlib.data.manifest import Manifest
from transferlib.data.sources import list_images
from transferlib.spec import JobSpec


@pytest.mark.parametrize("given", [None, "0:4095"])
def test_deep_images_count_as_decoded_once_they_are_there_by_this_range(tmp_path: Path, given: str | None) -> None:
    for number in range(12):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / f"{number}.png"), np.full((9, 9), 2000 + number, np.uint16))
    where = {"path": str(tmp_path / "photos"), "cache": {"dir": str(tmp_path / "cache")}}
    spec = JobSpec.from_mapping({"data": {**where, "depth_range": given}})
    other = JobSpec.from_mapping({"data": {**where, "depth_range": "0:99"}})
    listing = list_images(spec.data.path)
    uris = [entry.uri for entry in listing.entries]
    cache = DecodedCache(tmp_path / "cache", spec.short_side, Limits(spec.data.max_pixels, spec.data.max_file_bytes))
    assert _count_cached(spec, listing) == 0
    facts = cache.ingest(uris)
    assert _count_cached(spec, listing) == 0
    scale = Manifest.build(listing, facts, spec.data).scale
    assert scale == DepthScale(whole=(0.0, 4095.0 if given else 2047.0))
    replace(cache, scale=scale).ingest(uris)
    assert _count_cached(spec, listing) == 12
    assert _count_cached(other, listing) == 0
