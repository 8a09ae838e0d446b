"""K parts of equal size, for `--folds K`: each is the test set once, so every image is predicted once a seed.

Fold f (from 1) tests on part f and chooses on the part after it; the others are for training. Each seed cuts anew, so
that means over seeds are means over cuts too. What must stay together is in one part, as in a split.

Source: Kohavi 1995, A Study of Cross-Validation and Bootstrap (stratified); Bouckaert and Frank 2004, Evaluating the
Replicability of Significance Tests (repeated).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from transferlib.data.components import TEST, TRAIN, VAL, Components, hash_place
from transferlib.data.listing import fold_counts
from transferlib.errors import DataError
from transferlib.words import count, first_of


class Folds(NamedTuple):
    """Say how images are cut into parts."""

    num: int
    """K, 3 or more."""
    seed: int
    """Of the cut (`--split-seed`)."""

    def parts(
        self, components: Components, codes: npt.NDArray[np.int64], classes: Sequence[str], repeat: int
    ) -> npt.NDArray[np.int8]:
        """Return the part of each image, [N], 0 to K - 1.

        Components of several images come first, the largest first, each to the part that lacks most of what it holds;
        single images fill up what is missing, class by class in hash order. So a part has of each class what it should,
        to within a component.

        Args:
            components: Of the N images.
            codes: [N], class index.
            classes: Class names.
            repeat: Which cut: the training seed.

        Raises:
            DataError: A class cannot have images in every part.
        """
        images = components.images_by_class(codes, len(classes))
        places = [hash_place(self.seed, f"repeat {repeat}\n{key}") for key in components.keys]
        order = sorted(range(len(places)), key=lambda component: (places[component], components.keys[component]))
        missing = np.array(fold_counts(np.bincount(codes, minlength=len(classes)).tolist(), self.num), dtype=np.int64)
        placed = np.zeros(len(places), dtype=np.int8)
        alone: dict[int, list[int]] = defaultdict(list)
        large = []
        for component in order:
            if sum(images[component].values()) == 1:
                alone[next(iter(images[component]))].append(component)
            else:
                large.append(component)
        for component in sorted(large, key=lambda component: -sum(images[component].values())):
            of, numbers = list(images[component]), list(images[component].values())
            lacking = missing[:, of] @ np.array(numbers)
            part = int(np.lexsort((-missing.sum(axis=1), -lacking))[0])
            missing[part, of] -= numbers
            placed[component] = part
        for code, single in alone.items():
            placed[single] = np.repeat(np.arange(self.num), _shared_out(missing[:, code], len(single)))
        self._fill(placed, images, order)
        parts: npt.NDArray[np.int8] = placed[components.of_row]
        self._check(parts, codes, classes, components, repeat)
        return parts

    def _fill(self, placed: npt.NDArray[np.int8], images: Sequence[dict[int, int]], order: Sequence[int]) -> None:
        """Move components to parts that have none of a class, from parts that keep one of each class they hold.

        Args:
            placed: [C], part of each component; changed in place.
            images: Images by class, of each component.
            order: Components, in hash order.
        """
        num_classes = 1 + max((code for of in images for code in of), default=0)
        number = np.zeros((self.num, num_classes), dtype=np.int64)
        for component, of in enumerate(images):
            number[placed[component], list(of)] += 1
        for code in range(num_classes):
            for part in np.flatnonzero(number[:, code] == 0).tolist():
                donors = [c for c in order if code in images[c] and (number[placed[c], list(images[c])] > 1).all()]
                if donors:
                    donor = min(donors, key=lambda c: sum(images[c].values()))
                    number[placed[donor], list(images[donor])] -= 1
                    number[part, list(images[donor])] += 1
                    placed[donor] = part

    def splits(self, parts: npt.NDArray[np.int8], fold: int) -> npt.NDArray[np.int8]:
        """Return the split of each image in one fold, [N], index into `names.SPLITS`.

        Args:
            parts: As `parts` returns them.
            fold: 1 to K.
        """
        splits = np.full(len(parts), TRAIN, dtype=np.int8)
        splits[parts == fold - 1] = TEST
        splits[parts == fold % self.num] = VAL
        return splits

    def _check(
        self,
        parts: npt.NDArray[np.int8],
        codes: npt.NDArray[np.int64],
        classes: Sequence[str],
        components: Components,
        repeat: int,
    ) -> None:
        problems = []
        for code, label in enumerate(classes):
            rows = codes == code
            if len(np.unique(parts[rows])) == self.num:
                continue
            number = len(np.unique(components.of_row[rows]))
            if number < self.num:
                problems.append(
                    f"Class {label!r} has {count(number, 'separate image')} (copies and groups count "
                    "as one, near duplicates too, but not under --near-duplicates tell); "
                    f"--folds {self.num} needs {self.num} of each class. Use fewer folds, or add images."
                )
            else:
                problems.append(
                    f"No cut was found for seed {repeat} that gives class {label!r} images in {self.num} folds: its "
                    "groups are too few, or hold other classes' images too. Use fewer folds, smaller groups or "
                    "another --split-seed."
                )
        if problems:
            raise DataError("\n".join(first_of(problems, "problems")))


def _shared_out(missing: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """Return how many single images each part gets, [K]: what it lacks, less where groups took more than their share.

    Args:
        missing: [K], what each part lacks; below 0 where a group is larger than the part.
        number: Of single images, what is missing in all.
    """
    given = np.maximum(missing, 0)
    while given.sum() > number:
        given[int(np.argmax(given))] -= 1
    return given
