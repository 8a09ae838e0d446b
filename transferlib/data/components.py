"""What must stay on one side of a split: images joined by a group or by the same content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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


def find_components(sha256: Sequence[str], groups: Sequence[str | None]) -> Components:
    """Join images by group and content, over any number of links.

    Args:
        sha256: N contents.
        groups: N groups; None: in none.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(token: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(token, token)
        while parent[token] != token:
            parent[token] = token = parent[parent[token]]
        return token

    for content, group in zip(sha256, groups, strict=True):
        found = root(("content", content))
        if group is not None:
            parent[found] = root(("group", group))
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
