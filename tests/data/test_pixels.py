"""Rendered pixels against torchvision's own functional operations with the same parameters on the same image."""

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from transferlib.data.augment import Augmentation, evaluation_draws
from transferlib.data.pixels import render

S = 64
SEED = 3


def photograph(number: int, height: int = 73, width: int = 96) -> np.ndarray:
    """Return an image like a photograph: smooth random fields, a few hard edges, a little texture."""
    rng = np.random.default_rng(number)
    image = np.zeros((height, width, 3))
    for side, weight in ((3, 70), (7, 40), (15, 18), (31, 6)):
        field = rng.standard_normal((side, side, 3))
        image += weight * cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.uniform(70, 180, 3)
    for _ in range(3):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        color = tuple(float(c) for c in rng.integers(0, 255, 3))
        cv2.ellipse(image, center, (int(rng.integers(6, 22)), int(rng.integers(6, 22))), 30, 0, 360, color, -1)
    return np.clip(cv2.GaussianBlur(image, (5, 5), 0.9), 0, 255).astype(np.uint8)


def reference(image: np.ndarray, calls: list) -> np.ndarray:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for function, arguments in calls:
        options = {name: list(v) if isinstance(v, tuple) else v for name, v in arguments.items()}
        if function in ("resize", "resized_crop", "rotate", "affine"):
            options["interpolation"] = InterpolationMode.BILINEAR
        if function == "erase":
            options["v"] = torch.tensor(options["v"])[:, None, None]
        pixels = getattr(F, function)(pixels, **options)
    return pixels.permute(1, 2, 0).numpy()


def both(steps, number: int, epoch: int = 0, image_size: int = S) -> tuple[np.ndarray, np.ndarray, list]:
    image = photograph(number)
    augmentation = Augmentation.from_spec(steps, image_size)
    key, size = 1000 + number, image.shape[:2]
    draws = augmentation.draw(SEED, epoch, np.array([key], np.uint64), np.array([size]))
    calls = augmentation.calls(SEED, epoch, key, size)
    return render([image], draws, image_size)[0], reference(image, calls), calls


def away_from_edges(pixels: np.ndarray, calls: list, margin: int = 3) -> np.ndarray:
    """Return the pixels whose surroundings neither the picture's border nor a filled corner touches."""
    blacks = [call._replace(arguments=call.arguments | {"fill": 0}) for call in calls if "fill" in call.arguments]
    white = np.full(pixels.shape, 255, np.uint8)
    inside = np.zeros(pixels.shape[:2], np.uint8)
    inside[margin:-margin, margin:-margin] = 1
    inside[reference(white, [call for call in blacks if call.function != "pad"])[..., 0] < 255] = 0
    return cv2.erode(inside, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)).astype(bool)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


COLOR = {
    "brightness": {"ColorJitter": {"brightness": 0.6}},
    "contrast": {"ColorJitter": {"contrast": 0.6}},
    "saturation": {"ColorJitter": {"saturation": 0.8}},
    "hue": {"ColorJitter": {"hue": 0.5}},
    "greyscale": {"RandomGrayscale": {"p": 1}},
    "blur": {"GaussianBlur": {"kernel_size": [5, 3], "sigma": [0.3, 2.0]}},
    "erasing": {"RandomErasing": {"p": 1, "value": [10, 20, 30]}},
}
GEOMETRY = {
    "flip": {"RandomHorizontalFlip": {"p": 1}},
    "vertical flip": {"RandomVerticalFlip": {"p": 1}},
    "rotation": {"RandomRotation": {"degrees": 45}},
    "rotation about a corner": {"RandomRotation": {"degrees": 20, "center": [0, 0], "fill": [255, 0, 9]}},
    "affine": {"RandomAffine": {"degrees": 30, "translate": [0.2, 0.1], "scale": [0.9, 1.4], "shear": [-9, 9, -5, 5]}},
    "padded crop": {"RandomCrop": {"size": S, "padding": [7, 5], "fill": 128}},
    "crop": {"RandomCrop": {}},
}


@pytest.mark.parametrize("name", [*COLOR, *GEOMETRY])
def test_each_operation_alone_is_within_two_grey_levels_of_torchvision(name):
    for number in range(8):
        ours, theirs, calls = both([(COLOR | GEOMETRY)[name]], number)
        inside = away_from_edges(ours, calls)
        difference = np.abs(ours.astype(int) - theirs)[inside]
        assert inside.mean() > 0.2, (number, calls)
        assert difference.max() <= 2, (number, calls, difference.max())
        assert difference.mean() < 1


@pytest.mark.parametrize("name", ["flip", "vertical flip", "crop", "padded crop", "erasing"])
def test_operations_that_only_move_whole_pixels_are_exact(name):
    for number in range(6):
        ours, theirs, _ = both([(COLOR | GEOMETRY)[name]], number)
        np.testing.assert_array_equal(ours, theirs)


def test_enlarging_crop_is_within_two_grey_levels():
    for number in range(8):
        ours, theirs, calls = both([{"RandomResizedCrop": {"scale": [0.05, 0.4]}}], number)
        assert np.abs(ours.astype(int) - theirs)[away_from_edges(ours, calls)].max() <= 2


BLUR = {"GaussianBlur": {"kernel_size": 3}}
JITTER = {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}}


@pytest.mark.parametrize(
    "steps",
    [
        "standard",
        "strong",
        [{"RandomResizedCrop": {}}, JITTER, {"RandomHorizontalFlip": {}}, {"RandomRotation": {"degrees": 30}}, JITTER],
        [
            {"RandomRotation": {"degrees": 30, "fill": 90}},
            {"RandomResizedCrop": {}},
            {"GaussianBlur": {"kernel_size": 3}},
        ],
        [{"Resize": {"size": 120}}, {"RandomCrop": {"size": 112}}, {"Resize": {"size": [224, 224]}}, JITTER],
    ],
    ids=["standard", "strong", "colour before rotation", "rotation before crop", "resized twice"],
)
def test_compositions_reach_30_db_against_torchvision_on_photographs(steps):
    for number in range(8):
        image = photograph(number, 256, 320)
        augmentation = Augmentation.from_spec(steps, 224)
        draws = augmentation.draw(SEED, 0, np.array([number], np.uint64), np.array([image.shape[:2]]))
        ours = render([image], draws, 224)[0]
        theirs = reference(image, augmentation.calls(SEED, 0, number, image.shape[:2]))
        assert psnr(ours, theirs) >= 30, number


def test_geometry_is_one_sampling_and_color_before_geometry_begins_another():
    def num_passes(*steps):
        draws = Augmentation.from_spec(steps, S).draw(0, 0, np.zeros(1, np.uint64), np.array([[73, 90]]))
        return len(draws.passes)

    crop, flip, turn = {"RandomResizedCrop": {}}, {"RandomHorizontalFlip": {}}, {"RandomRotation": {"degrees": 9}}
    assert num_passes(crop, flip, turn, JITTER) == 1
    assert num_passes(crop, JITTER, {"RandomGrayscale": {}}, flip, turn) == 2


def test_contrast_is_about_the_mean_before_later_corners_come_in():
    white = np.full((73, 90, 3), 200, np.uint8)
    steps = [{"ColorJitter": {"contrast": [0.5, 0.5]}}, {"RandomRotation": {"degrees": [45, 45]}}]
    draws = Augmentation.from_spec(steps, S).draw(0, 0, np.zeros(1, np.uint64), np.array([[73, 90]]))
    pixels = render([white], draws, S)[0]
    assert (pixels[S // 2, S // 2] == 200).all()
    assert (pixels[0, 0] == 0).all()


def test_brightness_clips_before_the_next_operation_sees_it():
    bright = np.full((73, 90, 3), 250, np.uint8)
    steps = [{"ColorJitter": {"brightness": [2, 2]}}, {"ColorJitter": {"brightness": [0.5, 0.5]}}]
    draws = Augmentation.from_spec(steps, S).draw(0, 0, np.zeros(1, np.uint64), np.array([[73, 90]]))
    assert set(render([bright], draws, S).ravel().tolist()) <= {127, 128}  # 255 / 2, not 250


def test_crop_without_rotation_has_no_dark_border():
    white = np.full((73, 90, 3), 200, np.uint8)
    draws = Augmentation.from_spec([{"RandomResizedCrop": {"scale": [0.1, 0.2]}}], S).draw(
        0, 0, np.zeros(1, np.uint64), np.array([[73, 90]])
    )
    assert (render([white], draws, S) == 200).all()


@pytest.mark.parametrize(("height", "width"), [(73, 73), (73, 120), (101, 73), (74, 73)])
def test_evaluation_is_exactly_torchvisions_on_an_image_of_the_right_short_side(height, width):
    image = photograph(1, height, width)
    ours = render([image], evaluation_draws(np.array([[height, width]]), S), S)[0]
    pixels = F.resize(torch.from_numpy(image).permute(2, 0, 1), [73], antialias=True)
    np.testing.assert_array_equal(ours, F.center_crop(pixels, [S, S]).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("height", "width"), [(40, 60), (100, 130), (146, 146), (300, 240)])
def test_evaluation_of_other_sizes_resizes_with_antialiasing(height, width):
    image = photograph(2, height, width)
    ours = render([image], evaluation_draws(np.array([[height, width]]), S), S)[0]
    pixels = F.resize(torch.from_numpy(image).permute(2, 0, 1), [73], antialias=True)
    assert psnr(ours, F.center_crop(pixels, [S, S]).permute(1, 2, 0).numpy()) > 36


def test_shrinking_averages_fine_texture_away_as_torchvision_does():
    texture = np.random.default_rng(0).integers(0, 256, (219, 219, 3), dtype=np.uint8)
    ours = render([texture], evaluation_draws(np.array([[219, 219]]), S), S)[0]
    pixels = F.resize(torch.from_numpy(texture).permute(2, 0, 1), [73], antialias=True)
    theirs = F.center_crop(pixels, [S, S]).permute(1, 2, 0).numpy()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.15)  # without antialiasing: twice as much
    assert psnr(ours, theirs) > 30


def test_resize_there_and_back_loses_detail():
    texture = np.random.default_rng(0).integers(0, 256, (S, S, 3), dtype=np.uint8)
    there_and_back = Augmentation.from_spec([{"Resize": {"size": [16, 16]}}, {"Resize": {"size": [S, S]}}], S)
    pixels = render([texture], there_and_back.draw(0, 0, np.zeros(1, np.uint64), np.array([[S, S]])), S)
    assert pixels.std() < texture.std() / 2


def test_blur_mirrors_at_the_border_as_torchvision():
    for number in range(4):
        ours, theirs, _ = both([COLOR["blur"]], number)
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_pixels_do_not_depend_on_the_batch_or_the_thread():
    images = [photograph(number, 73, 73 + 9 * number) for number in range(9)]
    sizes = np.array([image.shape[:2] for image in images])
    keys = np.arange(9).astype(np.uint64)
    augmentation = Augmentation.from_spec("strong", S)
    whole = render(images, augmentation.draw(1, 2, keys, sizes), S)

    def alone(n):
        return render([images[n]], augmentation.draw(1, 2, keys[n : n + 1], sizes[n : n + 1]), S)[0]

    with ThreadPoolExecutor(3) as threads:
        parts = list(threads.map(alone, [*range(9)] * 3))
    for n, part in enumerate(parts):
        np.testing.assert_array_equal(part, whole[n % 9])


def test_sources_are_left_alone_and_may_be_read_only():
    image = photograph(5)
    image.flags.writeable = False
    before = image.copy()
    for steps in ("none", "standard", "strong", [{"RandomErasing": {"p": 1}}], [{"RandomCrop": {"padding": 4}}]):
        draws = Augmentation.from_spec(steps, S).draw(0, 0, np.zeros(1, np.uint64), np.array([image.shape[:2]]))
        pixels = render([image], draws, S)
        assert pixels.flags.writeable
        assert not np.shares_memory(pixels, image)
    np.testing.assert_array_equal(image, before)


def test_no_images_give_an_empty_batch():
    draws = Augmentation.from_spec("standard", S).draw(0, 0, np.zeros(0, np.uint64), np.zeros((0, 2), np.int64))
    assert render([], draws, S).shape == (0, S, S, 3)


def test_images_and_draws_must_be_as_many():
    draws = evaluation_draws(np.array([[73, 73]]), S)
    with pytest.raises(ValueError, match="2 images and draws for 1"):
        render([photograph(0), photograph(1)], draws, S)
