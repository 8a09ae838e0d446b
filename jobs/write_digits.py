"""Write scikit-learn's digits (real scans, 8 x 8) as image folders for the demo: `python jobs/write_digits.py DIR`.

DIR/source holds digits 0 to 5 with many images a class, DIR/target digits 6 to 9 with few: 10 a class to train on, 20
to choose on, and all others (about 150 a class) for the final figure.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

TASKS = {"source": (range(6), 120, 25), "target": (range(6, 10), 10, 20)}
"""By folder: its digits, and images a class for train and val."""


def main(folder: Path) -> None:
    """Write both folders; files that are there already are written again with the same bytes."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for name, (numerals, num_train, num_val) in TASKS.items():
        for digit in numerals:
            scans = pixels[digits.target == digit]
            # They come writer by writer: cut in that order, the test set would be other people's hands.
            scans = scans[np.random.default_rng(digit).permutation(len(scans))]
            ends = {"train": num_train, "val": num_train + num_val, "test": len(scans)}
            start = 0
            for split, end in ends.items():
                target = folder / name / split / str(digit)
                target.mkdir(parents=True, exist_ok=True)
                for index in range(start, end):
                    Image.fromarray(scans[index]).save(target / f"{index:03}.png")
                start = end


if __name__ == "__main__":
    main(Path(sys.argv[1]))
