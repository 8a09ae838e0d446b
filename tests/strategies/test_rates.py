import math
from itertools import pairwise

import pytest

from transferlib.errors import SpecError
from transferlib.names import ARCHITECTURES, OPTIMIZERS, STRATEGIES
from transferlib.spec import ComparisonSpec, JobSpec
from transferlib.strategies import base_lr, lr_candidates


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_arm_has_a_base_rate_and_a_plain_vgg_the_smallest(optimizer: str) -> None:
    for strategy in STRATEGIES:
        rates = {architecture: base_lr(architecture, strategy, optimizer) for architecture in ARCHITECTURES}
        assert all(1e-5 < rate <= 0.1 for rate in rates.values())
        assert rates["vgg16"] <= rates["vgg16_bn"] <= rates["resnet18"]


def test_frozen_features_take_the_largest_rate() -> None:
    for architecture in ARCHITECTURES:
        rates = [base_lr(architecture, strategy, "sgd") for strategy in ("feature_extraction", "last_layers", "full")]
        assert rates[0] > max(rates[1:])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_candidates_are_centred_on_the_base_rate_and_sqrt_10_apart(count: int) -> None:
    rates = lr_candidates(ComparisonSpec(lr_candidates=count), "resnet18", "full", "sgd")
    assert len(rates) == count
    assert math.prod(rates) ** (1 / count) == pytest.approx(base_lr("resnet18", "full", "sgd"))
    for slower, faster in pairwise(rates):
        assert faster / slower == pytest.approx(math.sqrt(10))


def test_base_rate_itself_is_the_middle_of_an_odd_count() -> None:
    three = ComparisonSpec(lr_candidates=3)
    assert lr_candidates(three, "resnet18", "full", "sgd")[1] == base_lr("resnet18", "full", "sgd")
    assert lr_candidates(ComparisonSpec(lr_candidates=3, base_lr=0.2), "vgg16", "full", "adamw")[1] == 0.2


def test_listed_rates_are_every_arms_own_in_ascending_order() -> None:
    spec = ComparisonSpec(lr_candidates=(0.1, 0.001, 0.01))
    for architecture in ("resnet18", "vgg16"):
        assert lr_candidates(spec, architecture, "full", "sgd") == (0.001, 0.01, 0.1)


def test_rate_listed_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"comparison.lr_candidates: 0\.1 is given twice"):
        JobSpec.from_mapping({"data": {"path": "x"}, "comparison": {"lr_candidates": [0.1, 0.01, 0.1]}})


def test_unknown_names_are_refused() -> None:
    for names in (("resnet1", "full", "sgd"), ("resnet18", "ful", "sgd"), ("resnet18", "full", "adam")):
        with pytest.raises(SpecError, match="Did you mean"):
            base_lr(*names)
