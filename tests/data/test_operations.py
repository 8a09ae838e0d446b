"""What operations draw has torchvision's own distribution."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from transferlib.data.augment import OPERATIONS, Augmentation
from transferlib.data.draws import uniforms
from transferlib.data.parameters import Parameters

COUNT = 800
IMAGES = {"landscape": (73, 110), "square": (73, 73), "panorama": (73, 400), "portrait": (240, 73)}


def operation(name, **parameters):
    return OPERATIONS[name].read(Parameters("test", parameters), 64)


def our_calls(drawn, height, width):
    return [drawn.calls(uniforms(0, 0, key, drawn.num_uniforms), height, width)[-1] for key in range(COUNT)]


def their_params(transform, height, width):
    torch.manual_seed(0)
    image = [torch.zeros(3, height, width, dtype=torch.uint8)]
    return [transform.make_params(image) for _ in range(COUNT)]


def assert_same_distribution(ours, theirs):
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize("image", IMAGES)
def test_random_resized_crop_draws_as_torchvision(image):
    height, width = IMAGES[image]
    ours = [call.arguments for call in our_calls(operation("RandomResizedCrop"), height, width)]
    theirs = their_params(v2.RandomResizedCrop(64), height, width)
    for name in ("top", "left", "height", "width"):
        assert_same_distribution([o[name] for o in ours], [t[name] for t in theirs])
    assert_same_distribution([o["height"] * o["width"] for o in ours], [t["height"] * t["width"] for t in theirs])
    assert all(o["top"] + o["height"] <= height and o["left"] + o["width"] <= width for o in ours)


@pytest.mark.parametrize(("height", "width"), [(40, 400), (400, 40), (60, 61)])
def test_random_resized_crop_falls_back_to_torchvisions_central_part(height, width):
    too_large = {"scale": (2.0, 2.0)}
    (call,) = operation("RandomResizedCrop", **too_large).calls([0.3] * 22, height, width)
    theirs = their_params(v2.RandomResizedCrop(64, **too_large), height, width)[0]
    assert {name: call.arguments[name] for name in theirs} == theirs


@pytest.mark.parametrize("padding", [None, 5, [3, 8], [1, 2, 3, 4]])
def test_random_crop_draws_as_torchvision(padding):
    drawn = operation("RandomCrop", padding=padding, pad_if_needed=True)
    transform = v2.RandomCrop(64, padding=padding, pad_if_needed=True)
    for height, width in ((73, 90), (50, 70)):
        ours = [call.arguments for call in our_calls(drawn, height, width)]
        theirs = their_params(transform, height, width)
        for name in ("top", "left"):
            assert_same_distribution([o[name] for o in ours], [t[name] for t in theirs])
        assert max(o["top"] for o in ours) == max(t["top"] for t in theirs)


def test_random_affine_draws_as_torchvision():
    parameters = {"degrees": (-10, 30), "translate": (0.1, 0.3), "scale": (0.5, 2.0), "shear": (-5, 5, 3, 9)}
    ours = [call.arguments for call in our_calls(operation("RandomAffine", **parameters), 73, 90)]
    theirs = their_params(v2.RandomAffine(**parameters), 73, 90)
    for name in ("angle", "scale"):
        assert_same_distribution([o[name] for o in ours], [t[name] for t in theirs])
    for name in ("translate", "shear"):
        for axis in (0, 1):
            assert_same_distribution([o[name][axis] for o in ours], [t[name][axis] for t in theirs])


@pytest.mark.parametrize("given", [0.4, 1.5, (0.2, 0.9)])
def test_color_jitter_draws_as_torchvision(given):
    drawn = operation("ColorJitter", brightness=given, saturation=0.1, hue=0.2)
    theirs = their_params(v2.ColorJitter(brightness=given, saturation=0.1, hue=0.2), 73, 73)
    ours = [drawn.calls(uniforms(0, 0, key, 8), 73, 73) for key in range(COUNT)]
    for name in ("brightness", "saturation", "hue"):
        factors = [c.arguments[f"{name}_factor"] for calls in ours for c in calls if c.function == f"adjust_{name}"]
        assert_same_distribution(factors, [t[f"{name}_factor"] for t in theirs])
    assert {len(calls) for calls in ours} == {3}


def test_random_erasing_draws_as_torchvision():
    for height, width in ((73, 73), (40, 90)):
        ours = [call.arguments for call in our_calls(operation("RandomErasing", p=1, scale=(0.1, 0.9)), height, width)]
        theirs = [p for p in their_params(v2.RandomErasing(p=1, scale=(0.1, 0.9)), height, width) if p["v"] is not None]
        ours = [o for o in ours if o]
        assert len(ours) == pytest.approx(len(theirs), abs=4 * math.sqrt(COUNT))
        for name in ("i", "j", "h", "w"):
            assert_same_distribution([o[name] for o in ours], [t[name] for t in theirs])


@pytest.mark.parametrize(
    ("name", "span"), [("RandomRotation", (-30.0, 10.0)), ("RandomRotation", 15), ("GaussianBlur", (0.2, 3.0))]
)
def test_single_numbers_are_drawn_evenly(name, span):
    parameters = {"degrees": span} if name == "RandomRotation" else {"kernel_size": 3, "sigma": span}
    calls = our_calls(operation(name, **parameters), 73, 73)
    numbers = [c.arguments["angle"] if name == "RandomRotation" else c.arguments["sigma"][0] for c in calls]
    low, high = span if isinstance(span, tuple) else (-span, span)
    assert stats.kstest(numbers, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomGrayscale", "RandomErasing"])
def test_probabilities_are_kept(name):
    for p in (0.0, 0.3, 1.0):
        calls = our_calls(operation(name, p=p), 73, 73)
        share = np.mean([call.function not in ("unmoved", "unchanged") for call in calls])
        assert share == pytest.approx(p, abs=0.05 if 0 < p < 1 else 0)


def test_every_operation_takes_as_many_numbers_as_it_says():
    required = {"Resize": {"size": 64}, "RandomRotation": {"degrees": 5}, "RandomAffine": {"degrees": 5}}
    required |= {"GaussianBlur": {"kernel_size": 3}, "ColorJitter": {"hue": 0.1}}
    for name in OPERATIONS:
        drawn = operation(name, **required.get(name, {}))
        assert drawn.calls([0.999] * drawn.num_uniforms, 80, 90)
        if drawn.num_uniforms:
            with pytest.raises((IndexError, ValueError)):
                drawn.calls([], 80, 90)


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (64, 64), (65, 300), (30, 30)])
def test_resize_and_center_crop_size_as_torchvision(height, width):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    (call,) = operation("Resize", size=50).calls([], height, width)
    assert call.arguments["size"] == list(v2.functional.resize(image, [50]).shape[1:])
    augmentation = Augmentation.from_spec([{"CenterCrop": {}}], 64)
    for function, arguments in augmentation.calls(0, 0, 0, (height, width)):
        options = arguments | ({"fill": 0} if function == "pad" else {})
        image = getattr(v2.functional, function)(image, **options)
    assert image.shape == (3, 64, 64)
