import copy
import math

import pytest
import torch
import torchvision
from torch import nn

from transferlib.models.backbones import HEAD, head_name, is_head_key
from transferlib.models.initialise import initialise_head
from transferlib.models.stages import empty_model, stage_modules
from transferlib.models.weights import DEFAULT_MEAN, DEFAULT_STD, SourceWeights, state_sha256
from transferlib.models.zoo import build_model
from transferlib.names import ARCHITECTURES, BEYOND_VGG_AND_RESNET


def source_of(model: nn.Module, architecture: str) -> SourceWeights:
    state = {key: t.clone() for key, t in model.state_dict().items() if not is_head_key(key, architecture)}
    return SourceWeights(state, state_sha256(state), DEFAULT_MEAN, DEFAULT_STD, "test")


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return build_model("resnet18", 6, source=None, seed=11)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_a_step_on_tiny_images(architecture: str) -> None:
    model = build_model(architecture, 3, source=None, seed=0).train()
    logits = model(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_backbone_is_the_sources_bit_for_bit_and_the_head_is_new(resnet18: nn.Module) -> None:
    source = source_of(resnet18, "resnet18")
    model = build_model("resnet18", 4, source=source, seed=3)
    state = model.state_dict()
    assert list(state) == list(resnet18.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in source.state.items())
    assert state["fc.weight"].shape == (4, 512)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in state.values())


def test_training_a_model_leaves_its_source_as_it_was(resnet18: nn.Module) -> None:
    source = source_of(resnet18, "resnet18")
    model = build_model("resnet18", 4, source=source, seed=3)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    assert state_sha256(source.state) == source.sha256


def test_head_depends_on_the_seed_alone_and_is_the_same_with_and_without_source(resnet18: nn.Module) -> None:
    source = source_of(resnet18, "resnet18")
    first = build_model("resnet18", 4, source=source, seed=3).state_dict()
    torch.rand(17)
    scratch = build_model("resnet18", 4, source=None, seed=3).state_dict()
    other_seed = build_model("resnet18", 4, source=source, seed=4).state_dict()
    for key in ("fc.weight", "fc.bias"):
        assert torch.equal(first[key], scratch[key])
        assert not torch.equal(first[key], other_seed[key])


def test_scratch_depends_on_the_seed_alone_and_moves_no_global_generator(resnet18: nn.Module) -> None:
    before = torch.get_rng_state()
    again = build_model("resnet18", 6, source=None, seed=11)
    assert torch.equal(before, torch.get_rng_state())
    assert state_sha256(again.state_dict()) == state_sha256(resnet18.state_dict())
    other_seed = build_model("resnet18", 6, source=None, seed=12)
    assert state_sha256(other_seed.state_dict()) != state_sha256(again.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet34", "vgg11_bn", *BEYOND_VGG_AND_RESNET])
def test_scratch_is_spread_as_torchvision_spreads_it(architecture: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torchvision.models.get_model(architecture, num_classes=10).state_dict()
    ours = build_model(architecture, 10, source=None, seed=0).state_dict()
    for key, tensor in theirs.items():
        if key == "classifier.1.weight" and architecture == "efficientnet_v2_s":
            continue  # its head is ours: theirs grows as classes become fewer
        if tensor.ndim in (2, 4):
            assert ours[key].std().item() == pytest.approx(tensor.std().item(), rel=0.1), key
            assert abs(ours[key].mean().item()) <= 0.1 * tensor.std().item(), key
        elif not is_head_key(key, architecture):  # constants: biases of 0, norms' 0, 1 and counters, layer scales
            assert torch.equal(ours[key], tensor), key


def test_head_is_spread_as_torchvision_spreads_it() -> None:
    resnet = build_model("resnet50", 1000, source=None, seed=0).state_dict()
    bound = 2048**-0.5
    for key in ("fc.weight", "fc.bias"):
        assert resnet[key].abs().max() <= bound
        assert resnet[key].std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("architecture", "deviation", "bias"),
    [
        ("densenet121", (3 * 1024) ** -0.5, 0.0),
        ("efficientnet_v2_s", (3 * 1280) ** -0.5, 0.0),
        ("convnext_tiny", 0.02, 0.0),
    ],
)
def test_new_heads_follow_their_own_networks_rule(architecture: str, deviation: float, bias: float) -> None:
    model = build_model(architecture, 1000, source=None, seed=0)
    weight, shift = (model.state_dict()[f"{head_name(architecture)}.{key}"] for key in ("weight", "bias"))
    assert weight.std().item() == pytest.approx(deviation, rel=0.01)
    assert torch.equal(shift, torch.full_like(shift, bias))


@pytest.mark.parametrize("architecture", ["resnet18", "vgg11_bn", *BEYOND_VGG_AND_RESNET])
def test_a_new_head_of_two_classes_begins_without_an_opinion(architecture: str) -> None:
    """Uniform within ±1/sqrt(K), as torchvision fills EfficientNet's, is ±0.71 here: a first loss of 5 and more."""
    model = empty_model(architecture, 2)
    (head,) = stage_modules(model, architecture)[HEAD]
    assert isinstance(head, nn.Linear)
    head.to_empty(device="cpu")
    initialise_head(model, architecture, seed=3)
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(256, head.in_features, generator=generator), torch.arange(256) % 2
    loss = nn.functional.cross_entropy(head(features), labels)
    assert loss.item() == pytest.approx(math.log(2), abs=0.3)


def test_plain_torchvision_loads_what_we_build(resnet18: nn.Module) -> None:
    exported = copy.deepcopy(resnet18.state_dict())
    plain = torchvision.models.resnet18(num_classes=6)
    plain.load_state_dict(exported)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), resnet18.eval()(images))


def test_fingerprint_sees_names_values_types_and_shapes_and_not_order_or_layout() -> None:
    base = {"a": torch.arange(6.0).reshape(1, 2, 3, 1), "b": torch.tensor(3)}
    same = {"b": base["b"], "a": base["a"].contiguous(memory_format=torch.channels_last)}
    assert state_sha256(base) == state_sha256(same)
    for changed in (
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].reshape(6), "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"], "b": torch.tensor(4)},
    ):
        assert state_sha256(changed) != state_sha256(base)
    assert len(state_sha256({"half": torch.zeros(3, dtype=torch.bfloat16), "empty": torch.zeros(0)})) == 64
