"""The cut of runs that began before cuts were made by rank, kept so that these runs resume with the split they have.

A component whose place is below the first threshold goes to test, below the second to val, above it to train. So the
counts are draws: of 60 images a class, with 9 planned for val, 2 to 19 came out over 1,000 classes.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from transferlib.data.components import OUT, TEST, TRAIN, VAL, ToCut
from transferlib.names import SPLITS


class ThresholdCut:
    """Place components by thresholds, then give a class that is short in a part the components nearest to it.

    Args:
        to_cut: The components.
    """

    def __init__(self, to_cut: ToCut) -> None:
        self.to_cut = to_cut
        self.problems: list[str] = []
        self._at = to_cut.places()
        self._edges: dict[int, tuple[float, float]] = {}
        edge = 0.0
        for part in (TEST, VAL):
            if part in to_cut.shares:
                self._edges[part] = (edge, edge + to_cut.shares[part])
                edge += to_cut.shares[part]
        self._edges[TRAIN] = (edge, 1.0)
        self._classes_of = [list(images) for images in to_cut.images_by_class()]
        self._components_of: dict[int, list[int]] = defaultdict(list)
        for component, codes in enumerate(self._classes_of):
            for code in codes:
                self._components_of[code].append(component)

    def place(self) -> npt.NDArray[np.int8]:
        """Return the part of each component, [C]."""
        fixed = self.to_cut.fixed
        placed = fixed.copy()
        for part, (low, high) in self._edges.items():
            placed[(fixed == OUT) & (self._at >= low) & (self._at < high)] = part
        counts = np.zeros((len(SPLITS), len(self.to_cut.classes)), dtype=np.int64)
        for component, codes in enumerate(self._classes_of):
            counts[placed[component], codes] += 1
        for code in self.to_cut.needed:
            self._fill(code, placed, counts)
        return placed

    def _fill(self, code: int, placed: npt.NDArray[np.int8], counts: npt.NDArray[np.int64]) -> None:
        """Move components of one class until each part has one; no move may leave another class short."""
        free = [component for component in self._components_of[code] if self.to_cut.fixed[component] == OUT]
        for part in self.to_cut.needed[code]:
            if counts[part, code]:
                continue
            donors = [c for c in free if all(counts[placed[c], k] > 1 for k in self._classes_of[c])]
            if not donors:
                self.problems.append(self.to_cut.tied_up(code, part))
                return
            nearest = min(donors, key=lambda c: (self._distance(c, part), self.to_cut.components.keys[c]))
            counts[placed[nearest], self._classes_of[nearest]] -= 1
            counts[part, self._classes_of[nearest]] += 1
            placed[nearest] = part

    def _distance(self, component: int, part: int) -> float:
        low, high = self._edges[part]
        return float(max(low - self._at[component], self._at[component] - high, 0.0))
