"""The picture of augmented training images."""

import numpy as np
from PIL import Image

from transferlib.data.augment import Augmentation, evaluation_draws, render
from transferlib.data.mosaic import mosaic_tiles, save_mosaic

IMAGES = [np.random.default_rng(n).integers(0, 256, (37, 40 + n, 3), dtype=np.uint8) for n in range(3)]
KEYS = np.array([7, 8, 9], np.uint64)
AUGMENTATION = Augmentation.from_spec("standard", 32)


def test_rows_are_images_and_columns_are_epochs_after_the_evaluation_view():
    tiles = mosaic_tiles(IMAGES, KEYS, AUGMENTATION, 5, 4)
    sizes = np.array([image.shape[:2] for image in IMAGES])
    assert tiles.shape == (3, 5, 32, 32, 3)
    np.testing.assert_array_equal(tiles[:, 0], render(IMAGES, evaluation_draws(sizes, 32), 32))
    np.testing.assert_array_equal(tiles[:, 3], render(IMAGES, AUGMENTATION.draw(5, 2, KEYS, sizes), 32))


def test_png_holds_the_tiles_and_is_the_same_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        save_mosaic(tmp_path / name, IMAGES, KEYS, AUGMENTATION, 5, num_epochs=4)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    tiles = mosaic_tiles(IMAGES, KEYS, AUGMENTATION, 5, 4)
    with Image.open(tmp_path / "a.png") as picture:
        sheet = np.asarray(picture)
    top, left = 14 + 4 + 2 * 36, 4 + 3 * 36
    np.testing.assert_array_equal(sheet[top : top + 32, left : left + 32], tiles[2, 3])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]
