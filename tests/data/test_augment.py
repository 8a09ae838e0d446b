"""Reading an augmentation from a spec."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
from torchvision.transforms import v2

from transferlib import names
from transferlib.data.augment import OPERATIONS, PRESETS, Augmentation, evaluation_short_side
from transferlib.errors import DataError, SpecError
from transferlib.spec import DataSpec, JobSpec


def problems_of(steps, image_size=64):
    with pytest.raises(SpecError) as caught:
        Augmentation.from_spec(steps, image_size)
    return tuple(map(str, caught.value.problems))


def test_presets_are_those_that_a_spec_offers():
    assert tuple(PRESETS) == names.AUGMENTATION_PRESETS
    for preset in PRESETS:
        augmentation = Augmentation.from_spec(preset, 224)
        assert augmentation == Augmentation.from_spec(list(PRESETS[preset]), 224)
        assert pickle.loads(pickle.dumps(augmentation)) == augmentation


def test_standard_is_crop_flip_rotation_and_jitter_without_hue():
    text = repr(Augmentation.from_spec("standard", 224))
    assert "RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333333333333333))" in text
    assert "RandomHorizontalFlip(p=0.5)" in text
    assert "RandomRotation(degrees=(-10.0, 10.0)" in text
    assert "ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=None)" in text


def test_none_is_what_evaluation_does():
    calls = Augmentation.from_spec("none", 224).calls(0, 0, 5, (256, 300))
    assert [name for name, _ in calls] == ["resize", "pad", "crop"]
    assert calls[-1].arguments == {"top": 16, "left": 38, "height": 224, "width": 224}


def test_short_side_is_the_specs():
    for size in (8, 32, 96, 100, 224, 299):
        assert evaluation_short_side(size) == JobSpec(data=DataSpec(path="x", image_size=size)).short_side


def test_list_from_a_spec_file_is_read():
    text = """
    data:
      path: photos
      image_size: 96
      augmentation:
        - RandomCrop: {padding: 4}
        - RandomHorizontalFlip: {}
        - ColorJitter: {brightness: [0.5, 1.5], hue: 0.1}
    """
    data = JobSpec.from_yaml(text).data
    augmentation = Augmentation.from_spec(data.augmentation, data.image_size)
    assert [type(o).__name__ for o in augmentation.operations] == ["RandomCrop", "RandomHorizontalFlip", "ColorJitter"]


def test_all_mistakes_are_named_at_once():
    problems = problems_of(
        [
            {"RandomResizeCrop": {}},
            {"RandomRotation": {"degrees": -3, "angle": 4}},
            {"ColorJitter": {"brightness": [1.2, 0.8], "hue": 0.7}},
            {"RandomHorizontalFlip": {"p": 1.5}},
        ]
    )
    assert len(problems) == 6
    assert problems[0].startswith("augmentation step 1: Unknown transform 'RandomResizeCrop'. Did you mean")
    assert "Known: CenterCrop, ColorJitter, GaussianBlur, Random" in problems[0]
    assert problems[1] == (
        "augmentation step 2, RandomRotation: degrees is -3; it must be a number from 0 on, or two in increasing order "
        "from -360 to 360."
    )
    assert "Unknown parameter 'angle'. Known: center, degrees, expand, fill, interpolation." in problems[2]
    assert "hue is 0.7" in problems[4]
    assert "p is 1.5; it must be a number from 0 to 1." in problems[5]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"RandomRotation": {}}, "degrees is missing"),
        ({"Resize": {}}, "size is missing"),
        (
            {"RandomRotation": {"degrees": 5, "interpolation": "nearest"}},
            "'bilinear' (every sampling here is bilinear)",
        ),
        ({"RandomRotation": {"degrees": 5, "expand": True}}, "expand is True"),
        ({"RandomAffine": {"degrees": 5, "translate": [0.1, 2]}}, "two numbers (x, y) from 0 to 1"),
        ({"RandomAffine": {"degrees": 5, "shear": [1, 2, 9, 3]}}, "shear is [1, 2, 9, 3]"),
        ({"RandomResizedCrop": {"size": 0}}, "size is 0"),
        ({"RandomResizedCrop": {"size": True}}, "size is True"),
        ({"RandomResizedCrop": {"ratio": 1}}, "two numbers in increasing order"),
        ({"RandomCrop": {"padding": [1, 2, 3]}}, "padding is [1, 2, 3]"),
        ({"RandomCrop": {"padding_mode": "reflect"}}, "padding_mode is 'reflect'"),
        ({"RandomErasing": {"value": "random"}}, "value is 'random'; it must be a number from 0 to 255"),
        ({"GaussianBlur": {"kernel_size": 4}}, "kernel_size is 4; it must be odd"),
        ({"ColorJitter": {"contrast": float("nan")}}, "contrast is nan"),
        ({"RandomResizedCrop": {"size": 32}}, "the list ends at 32x32; a model sees 64x64"),
        ({"Resize": {"size": 64}}, "ends at sizes that differ from image to image"),
    ],
)
def test_each_mistake_says_what_is_allowed(step, text):
    (problem,) = problems_of([step])
    assert text in problem


def test_list_without_a_size_works_on_the_evaluation_crop():
    calls = Augmentation.from_spec([{"RandomVerticalFlip": {"p": 1}}], 64).calls(0, 0, 0, (73, 80))
    assert [name for name, _ in calls] == ["resize", "pad", "crop", "vertical_flip"]


def test_parameters_are_named_as_torchvisions():
    ours = {name: {word.strip(" .") for word in _known_parameters(name).split(",")} for name in OPERATIONS}
    for name, known in ours.items():
        theirs = set(inspect.signature(getattr(v2, name).__init__).parameters) - {"self"}
        assert known == theirs, name


def _known_parameters(name):
    return next(p for p in problems_of([{name: {"?": 0}}]) if "Unknown parameter" in p).split("Known: ")[1]


def test_crop_that_does_not_fit_says_so():
    augmentation = Augmentation.from_spec([{"RandomCrop": {}}], 64)
    with pytest.raises(DataError, match="RandomCrop of 64x64 does not fit into an image of 40x90"):
        augmentation.draw(0, 0, np.zeros(1, np.uint64), np.array([[40, 90]]))


def test_drawing_and_rendering_load_no_torch():
    code = "import sys, transferlib.data.mosaic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
