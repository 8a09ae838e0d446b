"""The cut: of each class's components, in hash order, the first go to test, the last to val, those between to train.

How many images of a class a part gets is `part_counts`, known before any file is read; the hash decides which. With
test and val at the two ends one more photo moves the fewest others: what it pushes over one edge goes to train or comes
from there, and the other edge does not feel it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from transferlib.data.components import OUT, TEST, TRAIN, VAL, ToCut
from transferlib.data.listing import part_counts
from transferlib.names import SPLITS


class RankCut:
    """Place components by rank so that each class has in each part what it should, to within one component.

    Components of several classes come first: all of them by rank over their images. Where a part then has too many of a
    class, by more than half a component, each in turn goes where it disturbs the counts least. (Asking for less would
    let one more photo move several times as many others.) The components of one class make up what is missing.

    Args:
        to_cut: The components.
    """

    def __init__(self, to_cut: ToCut) -> None:
        self.to_cut = to_cut
        self.problems: list[str] = []
        self._images = to_cut.images_by_class()
        places = to_cut.places()
        free = [component for component in range(len(self._images)) if to_cut.fixed[component] == OUT]
        self._order = sorted(free, key=lambda component: (places[component], to_cut.components.keys[component]))
        self._wanted = self._wanted_counts()
        self._counts = np.zeros_like(self._wanted)
        """[parts, classes], images that are cut, not the given ones."""
        self._largest = [0] * len(to_cut.classes)
        """By class, images of it in its largest component."""
        for component in free:
            for code, images in self._images[component].items():
                self._largest[code] = max(self._largest[code], images)

    def place(self) -> npt.NDArray[np.int8]:
        """Return the part of each component, [C]."""
        placed = self.to_cut.fixed.copy()
        several = [component for component in self._order if len(self._images[component]) > 1]
        sizes = {component: sum(self._images[component].values()) for component in several}
        for component, part in by_rank(several, sizes, self._shared_out(sum(sizes.values()))).items():
            self._put(component, part, placed)
        self._settle(several, placed)
        of_class: dict[int, list[int]] = defaultdict(list)
        for component in self._order:
            if len(self._images[component]) == 1:
                of_class[next(iter(self._images[component]))].append(component)
        for code, alone in of_class.items():
            sizes = {component: self._images[component][code] for component in alone}
            missing = {part: int(self._wanted[part, code] - self._counts[part, code]) for part in self.to_cut.shares}
            for component, part in by_rank(alone, sizes, missing).items():
                self._put(component, part, placed)
        self._fill(placed)
        return placed

    def _wanted_counts(self) -> npt.NDArray[np.int64]:
        """Return how many images that are cut each part should have of each class, [parts, classes]."""
        number = [0] * len(self.to_cut.classes)
        for component in self._order:
            for code, images in self._images[component].items():
                number[code] += images
        wanted = np.zeros((len(SPLITS), len(number)), dtype=np.int64)
        for code, images in enumerate(number):
            for part, count in self._shared_out(images, self.to_cut.needed.get(code, ())).items():
                wanted[part, code] = count
        return wanted

    def _shared_out(self, images: int, needed: Sequence[int] = ()) -> dict[int, int]:
        shares = {SPLITS[part]: share for part, share in self.to_cut.shares.items()}
        counts = part_counts(images, shares, [SPLITS[part] for part in needed])
        return {SPLITS.index(part): count for part, count in counts.items()}

    def _put(self, component: int, part: int, placed: npt.NDArray[np.int8]) -> None:
        for code, images in self._images[component].items():
            if placed[component] != OUT:
                self._counts[placed[component], code] -= images
            self._counts[part, code] += images
        placed[component] = part

    def _settle(self, several: Sequence[int], placed: npt.NDArray[np.int8]) -> None:
        """Move components of several classes while that lessens what parts have too many."""
        moved = True
        while moved:  # ends: each move lessens a sum of whole numbers
            moved = False
            for component in several:
                here = int(placed[component])
                change, part = min((self._change(component, here, to, self._excess), to) for to in self.to_cut.shares)
                if change < 0:
                    self._put(component, part, placed)
                    moved = True

    def _excess(self, code: int, over: int) -> int:
        return max(2 * over - self._largest[code], 0) ** 2

    def _deviation(self, code: int, over: int) -> int:
        return over**2

    def _change(self, component: int, here: int, to: int, measure: Callable[[int, int], int]) -> int:
        """Return how a move changes a measure of each class and of how many of it a part has over what is wanted."""
        if here == to:
            return 0
        change = 0
        for code, images in self._images[component].items():
            for part, moved in ((here, -images), (to, images)):
                over = int(self._counts[part, code] - self._wanted[part, code])
                change += measure(code, over + moved) - measure(code, over)
        return change

    def _fill(self, placed: npt.NDArray[np.int8]) -> None:
        """Give each part that has none of a class, because its components are large, the one that disturbs least."""
        of_class: dict[int, list[int]] = defaultdict(list)
        number = np.zeros_like(self._counts)
        """[parts, classes], components."""
        for component, images in enumerate(self._images):
            number[placed[component], list(images)] += 1
        for component in self._order:
            for code in self._images[component]:
                of_class[code].append(component)
        for code, needed in self.to_cut.needed.items():
            for part in needed:
                if number[part, code]:
                    continue
                donors = [c for c in of_class[code] if all(number[placed[c], k] > 1 for k in self._images[c])]
                if not donors:
                    self.problems.append(self.to_cut.tied_up(code, part))
                    break
                donor = min(donors, key=lambda c: self._change(c, int(placed[c]), part, self._deviation))
                number[placed[donor], list(self._images[donor])] -= 1
                number[part, list(self._images[donor])] += 1
                self._put(donor, part, placed)


def by_rank(order: Sequence[int], sizes: Mapping[int, int], wanted: Mapping[int, int]) -> dict[int, int]:
    """Return the part of each component: test from the front, val from the back, train what is left.

    Args:
        order: Components, in hash order.
        sizes: Images of each.
        wanted: Images that each part should have.
    """
    parts = dict.fromkeys(order, TRAIN)
    for part, along in ((TEST, order), (VAL, order[::-1])):
        left = (component for component in along if parts[component] == TRAIN)
        parts.update(dict.fromkeys(_first(left, sizes, wanted.get(part, 0)), part))
    return parts


def _first(order: Iterable[int], sizes: Mapping[int, int], wanted: int) -> list[int]:
    """Return the first components up to where one more would not bring their images nearer to what is wanted."""
    taken, number = [], 0
    for component in order:
        if sizes[component] >= 2 * wanted:
            continue  # too large for the part even alone: the next may do
        if 2 * number + sizes[component] >= 2 * wanted:
            break
        taken.append(component)
        number += sizes[component]
    return taken
