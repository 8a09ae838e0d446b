"""What must stay on one side of a split: images joined by a group, by the same content or by showing the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transferlib.names import SPLITS

TRAIN, VAL, TEST = range(3)
"""Index into `names.SPLITS`."""
OUT = -1
"""In no split; of a component: still to be cut."""


@dataclass(frozen=True, eq=False)
class Components:
    """Partition N images into C components."""

    of_row: npt.NDArray[np.int64]
    """[N], component of each image."""
    keys: list[str]
    """[C], what a component's place is hashed from: its first group by name, or its content where it has no group.
    So an image that joins a group, or one more copy of a photo, leaves the place as it is."""
    names: list[str]
    """[C], for messages: its groups, or its content."""

    def images_by_class(self, codes: npt.NDArray[np.int64], num_classes: int) -> list[dict[int, int]]:
        """Return how many images of which classes each component has, C dicts by class index.

        Args:
            codes: [N], class index.
            num_classes: K.
        """
        found: list[dict[int, int]] = [{} for _ in self.keys]
        number = max(num_classes, 1)
        pairs, counts = np.unique(self.of_row * number + codes, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            component, code = divmod(pair, number)
            found[component][code] = count
        return found


def find_components(
    sha256: Sequence[str], groups: Sequence[str | None], near: Sequence[str | None] | None = None
) -> Components:
    """Join images by group, content and near duplicates, over any number of links.

    Args:
        sha256: N contents.
        groups: N groups; None: in none.
        near: N names, equal for near duplicates; None: there is none. None in place of all: as if there were none.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(token: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(token, token)
        while parent[token] != token:
            parent[token] = token = parent[parent[token]]
        return token

    for content, group, shown in zip(sha256, groups, near or [None] * len(sha256), strict=True):
        root(("content", content))
        for kind, name in (("group", group), ("near", shown)):
            if name is not None:
                parent[root(("content", content))] = root((kind, name))
    members: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for token in sorted(parent):
        members.setdefault(root(token), []).append(token)
    number = {top: place for place, top in enumerate(members)}
    keys, names = [], []
    for tokens in members.values():
        of_groups = [name for kind, name in tokens if kind == "group"]
        keys.append(f"group:{of_groups[0]}" if of_groups else f"content:{tokens[0][1]}")
        names.append(" + ".join(map(repr, of_groups)) or tokens[0][1])
    rows = [number[root(("content", content))] for content in sha256]
    return Components(np.array(rows, dtype=np.int64).reshape(len(rows)), keys, names)


@dataclass(frozen=True, eq=False)
class ToCut:
    """Hold what a cut begins with: N images in C components, and what is settled already."""

    components: Components
    codes: npt.NDArray[np.int64]
    """[N], class index."""
    classes: Sequence[str]
    """Class names."""
    fixed: npt.NDArray[np.int8]
    """[C], the part that given splits put a component in; OUT: to be cut."""
    shares: Mapping[int, float]
    """Share of each part that is cut, train the last; they add up to 1."""
    needed: Mapping[int, Sequence[int]]
    """By class index: parts without a given image, which the cut has to give one; classes that cannot be cut are left
    out."""
    seed: int
    """Of the cut."""

    def places(self) -> npt.NDArray[np.float64]:
        """Return where each component stands in hash order, [C], from 0 to 1."""
        return np.array([hash_place(self.seed, key) for key in self.components.keys], dtype=np.float64)

    def images_by_class(self) -> list[dict[int, int]]:
        """Return how many images of which classes each component has, C dicts by class index."""
        return self.components.images_by_class(self.codes, len(self.classes))

    def tied_up(self, code: int, part: int) -> str:
        """Return the sentence for a class that no move can give an image in a part."""
        return (
            f"Class {self.classes[code]!r} cannot have images in {SPLITS[part]}: its groups hold other classes' last "
            "images too. Use smaller groups, or give the splits yourself."
        )


def hash_place(seed: int, key: str) -> float:
    """Return a component's place in [0, 1): the first 8 bytes of sha256 of seed and key, as a fraction.

    It depends on nothing else: not on the other images, their order, or the machine.

    Args:
        seed: Of the cut.
        key: Of the component.
    """
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
