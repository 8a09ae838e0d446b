from pathlib import Path

import pytest
from torchvision.models import get_model_weights

from transferlib.errors import WeightsError
from transferlib.models.backbones import get_backbone
from transferlib.models.weight_names import WeightsChoice, resolve_weights
from transferlib.names import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_are_torchvisions_with_its_default_last(architecture: str) -> None:
    enum = get_model_weights(architecture)
    known = get_backbone(architecture).weights
    assert list(known) == [e.name for e in enum if e.name != "IMAGENET1K_FEATURES"]
    assert enum.DEFAULT.name == known[-1]
    assert resolve_weights("DEFAULT", architecture).value == enum.DEFAULT.name


def test_name_may_carry_its_enum_class() -> None:
    choice = resolve_weights("ResNet50_Weights.IMAGENET1K_V2", "resnet50")
    assert choice == WeightsChoice("torchvision", "IMAGENET1K_V2")


def test_none_is_none_only_when_said() -> None:
    assert resolve_weights("none", "resnet18").kind == "none"
    for weights in ("None", "", "no"):
        with pytest.raises(WeightsError, match="no such weights"):
            resolve_weights(weights, "resnet18")


def test_files_and_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    (tmp_path / "run").mkdir()
    assert resolve_weights("w.pth", "resnet18") == WeightsChoice("file", str(tmp_path / "w.pth"))
    assert resolve_weights("run", "resnet18") == WeightsChoice("folder", str(tmp_path / "run"))


def test_missing_file_is_told_from_a_wrong_name() -> None:
    with pytest.raises(WeightsError, match=r"no such file or folder \(/.*/there\.pth\)"):
        resolve_weights("not/there.pth", "resnet18")
    with pytest.raises(WeightsError, match="Did you mean 'IMAGENET1K_V1'"):
        resolve_weights("IMAGENET_V1", "resnet18")


def test_weights_that_another_architecture_has_are_refused_with_its_own() -> None:
    with pytest.raises(WeightsError, match=r"resnet18 can start from IMAGENET1K_V1 \(torchvision\), a \.pth"):
        resolve_weights("IMAGENET1K_V2", "resnet18")


def test_weights_without_a_classifier_are_refused_before_any_download() -> None:
    with pytest.raises(WeightsError, match="no classifier"):
        resolve_weights("IMAGENET1K_FEATURES", "vgg16")
