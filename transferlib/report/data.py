"""What the report says of the images: counts, what was left out and why, and what the models saw."""

from __future__ import annotations

import base64
from typing import Any

import pyarrow.compute as pc

from transferlib.data.manifest import Manifest
from transferlib.runs import RunFolder, reading

MAX_LEFT_OUT = 100
"""Rows of the table; the manifest has all of them."""
MAX_MOSAIC_BYTES = 2_000_000


def data_content(run: RunFolder, manifest: Manifest, *, with_pictures: bool) -> dict[str, Any]:
    """Return counts by split and class, files left out, notes and the picture of augmented images.

    Args:
        run: The run.
        manifest: Its manifest.
        with_pictures: Whether the picture is wanted.
    """
    counts = manifest.count_by_split_and_class()
    out = manifest.table.filter(pc.not_equal(manifest.table["status"], "used"))
    columns = ("image_id", "status", "reason")
    return {
        "root": manifest.root,
        "classes": manifest.classes,
        "counts": counts,
        "totals": {split: sum(by_class.values()) for split, by_class in counts.items()},
        "num_left_out": out.num_rows,
        "left_out": out.select(columns).slice(0, MAX_LEFT_OUT).to_pylist(),
        # The terminal's table of counts is indented; the page has a table of its own.
        "lines": [line for line in manifest.summary_lines() if not line.startswith("  ")],
        "mosaic": _mosaic(run) if with_pictures else "",
    }


def _mosaic(run: RunFolder) -> str:
    if not run.mosaic.exists() or run.mosaic.stat().st_size > MAX_MOSAIC_BYTES:
        return ""
    with reading(run.mosaic):
        picture = run.mosaic.read_bytes()
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
