import argparse
import collections
import fractions
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from transferlib.errors import WeightsError
from transferlib.models.backbones import is_head_key
from transferlib.models.matching import match_backbone
from transferlib.models.stages import empty_model
from transferlib.models.weights import DEFAULT_MEAN, DEFAULT_STD, SourceWeights, load_source_weights
from transferlib.models.zoo import build_model
from transferlib.names import BEYOND_VGG_AND_RESNET

ARCHITECTURE = "resnet18"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(build_model(ARCHITECTURE, 6, source=None, seed=5).state_dict())


@pytest.fixture
def load(tmp_path: Path) -> Callable[[object], SourceWeights]:
    def save_and_load(content: object) -> SourceWeights:
        torch.save(content, tmp_path / "w.pth")
        source = load_source_weights(str(tmp_path / "w.pth"), ARCHITECTURE)
        assert source is not None
        return source

    return save_and_load


def same_backbone(source: SourceWeights, state: State) -> bool:
    backbone = {key: tensor for key, tensor in state.items() if not is_head_key(key, ARCHITECTURE)}
    return source.state.keys() == backbone.keys() and all(
        torch.equal(tensor, source.state[k]) for k, tensor in backbone.items()
    )


class TestPth:
    def test_head_of_any_class_count_gives_its_backbone_with_imagenets_statistics(
        self, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        source = load(state)
        assert same_backbone(source, state)
        assert (source.mean, source.std) == (DEFAULT_MEAN, DEFAULT_STD)
        assert source.origin == "w.pth"
        assert any("ImageNet's mean and std" in note for note in source.notes)

    @pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
    def test_wrapping_of_training_scripts_comes_off(
        self, key: str, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        wrapped = {key: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
        assert same_backbone(load(wrapped), state)

    def test_half_precision_is_widened_and_said(self, state: State, load: Callable[[object], SourceWeights]) -> None:
        half = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
        source = load(half)
        assert source.state["conv1.weight"].dtype == torch.float32
        assert torch.equal(source.state["conv1.weight"], half["conv1.weight"].float())
        assert any("float16 were converted" in note for note in source.notes)

    @pytest.mark.slow
    @pytest.mark.parametrize("prefix", ["encoder_q.", "net.body."])
    def test_a_prefix_that_is_not_known_is_named(
        self, state: State, load: Callable[[object], SourceWeights], prefix: str
    ) -> None:
        with pytest.raises(WeightsError) as error:
            load({prefix + key: tensor for key, tensor in state.items()})
        assert f"there instead (122): {prefix}" in str(error.value)
        assert f"What is missing is there under {prefix!r}: save the state dict without that prefix." in str(
            error.value
        )

    def test_missing_head_is_no_matter_and_said(self, state: State, load: Callable[[object], SourceWeights]) -> None:
        source = load({key: t for key, t in state.items() if not is_head_key(key, ARCHITECTURE)})
        assert same_backbone(source, state)
        assert any("no head" in note for note in source.notes)

    def test_counters_that_old_files_lack_start_at_zero(
        self, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        source = load({key: t for key, t in state.items() if "num_batches_tracked" not in key})
        assert same_backbone(source, state)

    def test_everything_that_does_not_match_is_listed(
        self, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        wrong = {**state, "layer4.9.weight": torch.zeros(1), "bn1.weight": torch.zeros(3)}
        del wrong["layer4.1.bn2.bias"]
        with pytest.raises(WeightsError) as caught:
            load(wrong)
        text = str(caught.value)
        assert "missing (1): layer4.1.bn2.bias" in text
        assert "unexpected (1): layer4.9.weight" in text
        assert "of another shape or type (1): bn1.weight float32[3] instead of float32[64]" in text

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "head",
        [
            {"fc.weight": torch.zeros(6, 100), "fc.bias": torch.zeros(6)},
            {"fc.1.weight": torch.zeros(6, 512), "fc.1.bias": torch.zeros(6)},
            {"fc.0.weight": torch.zeros(9, 512), "fc.3.0.weight": torch.zeros(6, 9), "fc.3.0.bias": torch.zeros(6)},
            {"fc.weight": torch.full((6, 512), float("nan"))},
            {"classifier.1.weight": torch.zeros(6, 512)},
            {"head.weight": torch.zeros(6, 512), "head.norm.running_mean": torch.zeros(512)},
        ],
    )
    def test_the_head_is_whatever_is_no_backbone(
        self, head: State, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        """A Sequential in the place of `fc` was refused, though a new head is made in any case."""
        backbone = {key: tensor for key, tensor in state.items() if not is_head_key(key, ARCHITECTURE)}
        source = load({**backbone, **head})
        assert same_backbone(source, state)
        beside = [key for key in head if not key.startswith("fc.")]
        assert all(any(key in note for note in source.notes) for key in beside)

    def test_what_training_scripts_keep_beside_the_tensors_is_no_matter(
        self, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        """torchvision's own reference script keeps its arguments, others a best score of numpy's, or a path."""
        args = argparse.Namespace(data_path="/data", lr=0.1, output_dir=Path("out"), best=None)
        beside = {
            "args": args,
            "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
            "best_acc1": np.float32(71.5),
            "epoch": np.int64(3),
            "is_best": np.bool_(True),
            "where": Path("runs/1"),
            "on_windows": PureWindowsPath("C:/runs"),
            "history": collections.OrderedDict(loss=[1.0, np.float64(0.5)]),
        }
        assert same_backbone(load({"model": state, **beside}), state)

    def test_a_type_that_is_not_loaded_is_named(self, state: State, load: Callable[[object], SourceWeights]) -> None:
        with pytest.raises(WeightsError, match=r"holds a Python object of type fractions\.Fraction; .*can run code"):
            load({"model": state, "share": fractions.Fraction(1, 3)})

    def test_torchscript_is_called_so(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
        with pytest.raises(WeightsError, match="is a TorchScript program, not a file of tensors"):
            load_source_weights(str(tmp_path / "w.pt"), ARCHITECTURE)

    def test_long_lists_are_shortened_and_the_right_architecture_named(
        self, load: Callable[[object], SourceWeights]
    ) -> None:
        with pytest.raises(WeightsError, match=r"weights of a resnet34: use --arch resnet34") as caught:
            load(build_model("resnet34", 2, source=None, seed=0).state_dict())
        assert "and " in str(caught.value)
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_tensors_that_are_not_finite_are_refused(
        self, value: float, state: State, load: Callable[[object], SourceWeights]
    ) -> None:
        with pytest.raises(WeightsError, match=r"not finite .* in 1 of its .* tensors: layer1\.0\.bn1\.running_var"):
            load({**state, "layer1.0.bn1.running_var": torch.full((64,), value)})

    def test_vgg_without_a_classifier_is_refused(self, tmp_path: Path) -> None:
        shapes = empty_model("vgg11", 2).state_dict()
        features = {key: torch.zeros(t.shape) for key, t in shapes.items() if key.startswith("features")}
        torch.save(features, tmp_path / "features.pth")
        with pytest.raises(WeightsError, match=r"missing \(4\): classifier\.0\.weight, classifier\.0\.bias"):
            load_source_weights(str(tmp_path / "features.pth"), "vgg11")

    def test_pickled_model_is_never_run(self, load: Callable[[object], SourceWeights]) -> None:
        with pytest.raises(WeightsError, match="can run code"):
            load(nn.Linear(2, 2))

    @pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"state_dict": {"a": 1}}])
    def test_file_without_a_state_dict_is_refused(
        self, content: object, load: Callable[[object], SourceWeights]
    ) -> None:
        with pytest.raises(WeightsError, match="not a state dict"):
            load(content)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_damaged_file_is_refused(self, suffix: str, state: State, tmp_path: Path) -> None:
        path = tmp_path / f"w{suffix}"
        torch.save(state, path) if suffix == ".pth" else save_file(state, path)
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"not weights", b""):
            path.write_bytes(content)
            with pytest.raises(WeightsError, match="damaged"):
                load_source_weights(str(path), ARCHITECTURE)


def save_export(path: Path, state: State, **metadata: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})


class TestSafetensors:
    def test_metadata_gives_statistics_and_classes(self, state: State, tmp_path: Path) -> None:
        path = tmp_path / "best.safetensors"
        save_export(path, state, architecture=ARCHITECTURE, mean=[0.1, 0.2, 0.3], std=[1, 2, 3], classes=["a", "b"])
        source = load_source_weights(str(path), ARCHITECTURE)
        assert source is not None
        assert same_backbone(source, state)
        assert (source.mean, source.std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
        assert source.classes == ("a", "b")
        assert source.notes == ()

    def test_same_tensors_have_the_same_sha256_in_either_kind_of_file(self, state: State, tmp_path: Path) -> None:
        torch.save(state, tmp_path / "w.pth")
        save_export(tmp_path / "w.safetensors", state)
        pth, safe = (load_source_weights(str(tmp_path / name), ARCHITECTURE) for name in ("w.pth", "w.safetensors"))
        assert pth is not None
        assert safe is not None
        assert pth.sha256 == safe.sha256

    def test_file_of_another_architecture_is_refused_by_its_metadata(self, state: State, tmp_path: Path) -> None:
        save_export(tmp_path / "w.safetensors", state, architecture="resnet50")
        with pytest.raises(WeightsError, match="is a resnet50, not a resnet18"):
            load_source_weights(str(tmp_path / "w.safetensors"), ARCHITECTURE)

    @pytest.mark.parametrize("std", [[1, 2], "x", [1, 0, 1], [1, "a", 1]])
    def test_metadata_that_makes_no_sense_is_refused(self, std: object, state: State, tmp_path: Path) -> None:
        save_export(tmp_path / "w.safetensors", state, mean=[0, 0, 0], std=std)
        with pytest.raises(WeightsError, match="std"):
            load_source_weights(str(tmp_path / "w.safetensors"), ARCHITECTURE)


class TestTorchvision:
    """The enum's weights, from a cache folder of our own: nothing is downloaded here."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        return tmp_path / "hub" / "checkpoints"

    def test_cached_file_is_used_with_the_enums_statistics(self, state: State, cache: Path) -> None:
        cache.mkdir(parents=True)
        torch.save(state, cache / "resnet18-f37072fd.pth")
        source = load_source_weights("IMAGENET1K_V1", ARCHITECTURE)
        assert source is not None
        assert same_backbone(source, state)
        assert source.origin == "torchvision resnet18 IMAGENET1K_V1"
        assert (source.mean, source.std) == (DEFAULT_MEAN, DEFAULT_STD)
        assert len(source.classes) == 1000
        assert any("sha256 differs" in note for note in source.notes)

    def test_damaged_cached_file_names_itself_and_the_ways_out(self, cache: Path) -> None:
        cache.mkdir(parents=True)
        (cache / "resnet18-f37072fd.pth").write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(WeightsError, match=r"(?s)resnet18-f37072fd\.pth.*TORCH_HOME.*--weights FILE"):
            load_source_weights("IMAGENET1K_V1", ARCHITECTURE)

    @pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("timed out"), RuntimeError("invalid hash")])
    def test_download_that_fails_names_the_cache_and_the_two_ways_out(
        self, error: Exception, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr("torch.hub.download_url_to_file", fail)
        with pytest.raises(WeightsError) as caught:
            load_source_weights("IMAGENET1K_V1", ARCHITECTURE)
        for part in (str(cache / "resnet18-f37072fd.pth"), "TORCH_HOME", "--weights FILE", "--weights none"):
            assert part in str(caught.value)

    def test_download_goes_to_the_cache_with_its_hash_checked(
        self, state: State, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, str]] = []

        def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
            asked.append((url, hash_prefix))
            torch.save(state, path)

        monkeypatch.setattr("torch.hub.download_url_to_file", download)
        source = load_source_weights("IMAGENET1K_V1", ARCHITECTURE)
        assert source is not None
        assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]
        assert (cache / "resnet18-f37072fd.pth").is_file()


@pytest.mark.parametrize("architecture", BEYOND_VGG_AND_RESNET)
def test_weights_beyond_vgg_and_resnet_are_saved_and_loaded_whole(architecture: str, tmp_path: Path) -> None:
    model = build_model(architecture, 6, source=None, seed=5)
    save_export(
        tmp_path / "best.safetensors",
        dict(model.state_dict()),
        architecture=architecture,
        mean=[0.1, 0.2, 0.3],
        std=[1, 2, 3],
    )
    source = load_source_weights(str(tmp_path / "best.safetensors"), architecture)
    assert source is not None
    assert (source.mean, source.std, source.notes) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), ())
    again = build_model(architecture, 4, source=source, seed=3).state_dict()
    for key, tensor in model.state_dict().items():
        assert is_head_key(key, architecture) or torch.equal(tensor, again[key]), key
    with pytest.raises(WeightsError, match=f"is a {architecture}, not a resnet18"):
        load_source_weights(str(tmp_path / "best.safetensors"), "resnet18")


def filled(architecture: str) -> State:
    """Return a state dict in which no two tensors have the same values, without the cost of a random one."""
    shapes = empty_model(architecture, 6).state_dict()
    return {key: torch.full(t.shape, float(n)).to(t.dtype) for n, (key, t) in enumerate(shapes.items(), start=1)}


def test_densenets_published_names_are_brought_up_to_date() -> None:
    state = {key: tensor for key, tensor in filled("densenet121").items() if "num_batches_tracked" not in key}
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))", r"\1.", key): tensor for key, tensor in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old
    backbone, _ = match_backbone(old, "densenet121", "old.pth")
    assert backbone.keys() >= {key for key in state if not is_head_key(key, "densenet121")}
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.items() if key in state)
    with pytest.raises(WeightsError, match="These are weights of a densenet121: use --arch densenet121"):
        match_backbone(old, "resnet18", "old.pth")


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.0.weight", "classifier.4.1.weight"])
def test_any_layers_in_the_place_of_efficientnets_classifier_are_its_head(name: str) -> None:
    state = {key: t for key, t in filled("efficientnet_v2_s").items() if not is_head_key(key, "efficientnet_v2_s")}
    backbone, notes = match_backbone({**state, name: torch.zeros(6, 9)}, "efficientnet_v2_s", "w.pth")
    assert backbone.keys() == state.keys()
    assert notes == []


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("convnext_tiny", ["classifier.3.weight", "classifier.3.bias"]),  # a Dropout before the Linear
        ("convnext_tiny", ["classifier.2.1.weight", "classifier.10.weight"]),
        ("vgg11", ["classifier.6.weight", "classifier.8.weight"]),
    ],
)
def test_layers_from_the_heads_place_on_are_its_head(architecture: str, names: list[str]) -> None:
    state = {key: t for key, t in filled(architecture).items() if not is_head_key(key, architecture)}
    backbone, notes = match_backbone({**state, **dict.fromkeys(names, torch.zeros(6, 9))}, architecture, "w.pth")
    assert backbone.keys() == state.keys()
    assert notes == []


@pytest.mark.parametrize("name", ["classifier.1.weight", "classifier.norm.weight"])
def test_layers_before_the_heads_place_are_refused(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"unexpected \(1\): {re.escape(name)}"):
        match_backbone({**filled("convnext_tiny"), name: torch.zeros(3)}, "convnext_tiny", "w.pth")


@pytest.mark.parametrize("architecture", ["convnext_tiny", "efficientnet_v2_s"])
def test_a_network_is_known_by_its_backbone_whatever_its_head(architecture: str) -> None:
    state = {key: t for key, t in filled(architecture).items() if not is_head_key(key, architecture)}
    with pytest.raises(WeightsError, match=f"These are weights of a {architecture}: use --arch {architecture}"):
        match_backbone({**state, "classifier.3.weight": torch.zeros(6, 9)}, "resnet18", "w.pth")


def test_convnext_without_the_norm_before_its_head_is_refused() -> None:
    state = {key: tensor for key, tensor in filled("convnext_tiny").items() if not key.startswith("classifier.0.")}
    with pytest.raises(WeightsError, match=r"missing \(2\): classifier\.0\.weight, classifier\.0\.bias"):
        match_backbone(state, "convnext_tiny", "w.pth")


def test_none_is_no_weights() -> None:
    assert load_source_weights("none", ARCHITECTURE) is None
