"""ImageTable: the used images of a manifest as columns, in the order that every row number refers to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from transferlib.data.depth_scale import DepthScale
from transferlib.errors import DataError, unknown_name
from transferlib.names import SPLITS


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Hold the used images in the order of their ids; a *row* everywhere else is an index into this table."""

    image_ids: tuple[str, ...]
    uris: tuple[str, ...]
    """Absolute paths, or URIs of objects."""
    sha256: tuple[str, ...]
    """Of the files' bytes, hexadecimal."""
    labels: npt.NDArray[np.int64]
    """[N], index into `classes`."""
    splits: npt.NDArray[np.int8]
    """[N], index into `names.SPLITS`: 0 train, 1 val, 2 test."""
    keys: npt.NDArray[np.uint64]
    """[N], see `image_keys`."""
    classes: tuple[str, ...]
    """Class names, sorted."""
    scale: DepthScale | None = None
    """What deep pictures are scaled by; None: there are none."""

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of which images are used for what: ids, contents, labels, splits and scale; hexadecimal."""
        whole = hashlib.sha256()
        for ids in (self.image_ids, self.sha256, self.classes):
            whole.update("\n".join(ids).encode() + b"\0")
        whole.update(self.labels.tobytes() + self.splits.tobytes())
        if self.scale is not None:
            whole.update(json.dumps(self.scale.to_plain()).encode())
        return whole.hexdigest()

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the rows of a split, ascending.

        Args:
            split: train, val or test.

        Raises:
            DataError: Another name.
        """
        if split not in SPLITS:
            raise DataError(unknown_name("split", split, SPLITS))
        return np.flatnonzero(self.splits == SPLITS.index(split)).astype(np.int64)


def image_keys(image_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the number that keys each image's augmentation draws: the first 8 bytes of sha256(id), big endian.

    Args:
        image_ids: N ids.

    Returns:
        [N], the same on every machine.
    """
    digests = b"".join(hashlib.sha256(image_id.encode()).digest()[:8] for image_id in image_ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)
