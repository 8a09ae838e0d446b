from __future__ import annotations

import numpy as np

from transferlib.report.confusion import ConfusedPair, confused_pairs

CONFUSION = np.array([[5, 3, 2], [0, 10, 0], [1, 0, 0]])
CLASSES = ("a", "b", "c")


def test_pairs_are_ordered_by_count_with_their_share_of_the_class() -> None:
    assert confused_pairs(CONFUSION, CLASSES) == [
        ConfusedPair("a", "b", 3, 0.3),
        ConfusedPair("a", "c", 2, 0.2),
        ConfusedPair("c", "a", 1, 1.0),
    ]
