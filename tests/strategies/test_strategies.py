import pytest

from transferlib.errors import SpecError
from transferlib.models.backbones import stage_names
from transferlib.names import ARCHITECTURES, STRATEGIES
from transferlib.spec import StrategySpec
from transferlib.strategies import get_strategy

RESNET = stage_names("resnet18")
VGG = stage_names("vgg16")


def test_feature_extraction_trains_the_head_only() -> None:
    for stages in (RESNET, VGG):
        factors = get_strategy("feature_extraction").stage_factors(stages, StrategySpec())
        assert [stage for stage in stages if factors[stage]] == ["head"]


def test_last_layers_trains_the_last_stage_and_the_head_at_one_rate() -> None:
    factors = get_strategy("last_layers").stage_factors(RESNET, StrategySpec())
    assert factors == {"stem": 0, "layer1": 0, "layer2": 0, "layer3": 0, "layer4": 1, "head": 1}


def test_last_layers_counts_vggs_fully_connected_layers_as_its_last_stage() -> None:
    strategy = get_strategy("last_layers")
    one, two = (strategy.stage_factors(VGG, StrategySpec(last_stages=k)) for k in (1, 2))
    assert [stage for stage in VGG if one[stage]] == ["fully_connected", "head"]
    assert [stage for stage in VGG if two[stage]] == ["block5", "fully_connected", "head"]


def test_last_layers_of_more_stages_than_there_are_is_refused_with_their_names() -> None:
    strategy = get_strategy("last_layers")
    assert set(strategy.stage_factors(RESNET, StrategySpec(last_stages=5)).values()) == {1.0}
    with pytest.raises(SpecError, match=r"5 stages before the head \(stem, layer1.*Use at most 5"):
        strategy.stage_factors(RESNET, StrategySpec(last_stages=6))


def test_full_gives_each_stage_a_factor_of_the_next_ones_rate() -> None:
    factors = get_strategy("full").stage_factors(RESNET, StrategySpec(stage_lr_factor=0.5))
    assert factors == {"stem": 1 / 32, "layer1": 1 / 16, "layer2": 1 / 8, "layer3": 1 / 4, "layer4": 1 / 2, "head": 1}


def test_scratch_trains_everything_at_one_rate_without_the_source() -> None:
    strategy = get_strategy("scratch")
    assert strategy.stage_factors(RESNET, StrategySpec()) == dict.fromkeys(RESNET, 1.0)
    assert not strategy.uses_source


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_answers_for_every_stage_in_order_and_trains_the_head_at_its_rate(name: str) -> None:
    strategy = get_strategy(name)
    assert strategy.name == name
    assert strategy.uses_source == (name != "scratch")
    for architecture in ARCHITECTURES:
        factors = strategy.stage_factors(stage_names(architecture), StrategySpec())
        assert tuple(factors) == stage_names(architecture)
        assert factors["head"] == 1.0


def test_unknown_strategy_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"Unknown strategy 'last_layer'\. Did you mean 'last_layers'"):
        get_strategy("last_layer")
