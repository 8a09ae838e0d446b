"""The picture of augmented training images."""

import numpy as np
from PIL import Image, ImageDraw

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


def places_of(tile, sheet):
    """Return where a picture lies in another: (top, left) of each."""
    side = len(tile)
    corners = np.argwhere((sheet[: 1 - side, : 1 - side] == tile[0, 0]).all(axis=-1))
    return [(y, x) for y, x in corners.tolist() if (sheet[y : y + side, x : x + side] == tile).all()]


def saved(path, augmentation, names=("a", "b", "c")):
    save_mosaic(path, IMAGES, KEYS, augmentation, 5, names=names, num_epochs=4)
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_png_holds_the_tiles_and_is_the_same_each_time(tmp_path):
    sheet = saved(tmp_path / "a.png", AUGMENTATION)
    saved(tmp_path / "b.png", AUGMENTATION)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    tiles = mosaic_tiles(IMAGES, KEYS, AUGMENTATION, 5, 4)
    places = np.array([[places_of(tile, sheet)[0] for tile in row] for row in tiles])
    assert (places[:, :, 0] == places[:, :1, 0]).all(), "an image is a row"
    assert (places[:, :, 1] == places[:1, :, 1]).all(), "an epoch is a column"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_class_names_stand_before_the_rows_and_captions_stay_over_their_columns(tmp_path):
    short = saved(tmp_path / "a.png", AUGMENTATION)
    long = saved(tmp_path / "b.png", AUGMENTATION, names=("a", "hard-leaved pocket orchid of the hills", "c"))
    tile = mosaic_tiles(IMAGES, KEYS, AUGMENTATION, 5, 4)[1, 0]
    (top, left), (_, moved) = places_of(tile, short)[0], places_of(tile, long)[0]
    assert moved > left > 8
    assert (long[top : top + 32, 4 : moved - 4] != 255).any(), "the name"
    lefts = [places_of(found, short)[0][1] for found in mosaic_tiles(IMAGES, KEYS, AUGMENTATION, 5, 4)[0]]
    assert min(np.diff(lefts)) > ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength("evaluation")


def test_epochs_are_counted_from_one(tmp_path, monkeypatch):
    written = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda pen, xy, text, **how: (written.append(text), draw(pen, xy, text, **how))
    )
    saved(tmp_path / "a.png", AUGMENTATION)
    assert written == ["evaluation", "epoch 1", "epoch 2", "epoch 3", "epoch 4", "a", "b", "c"]


def test_without_augmentation_each_image_stands_there_once(tmp_path):
    plain = Augmentation.from_spec("none", 32)
    sheet = saved(tmp_path / "a.png", plain)
    places = [places_of(row[0], sheet) for row in mosaic_tiles(IMAGES, KEYS, plain, 5, 4)]
    assert [len(found) for found in places] == [1, 1, 1]
    assert len({found[0][0] for found in places}) == 1, "side by side"
