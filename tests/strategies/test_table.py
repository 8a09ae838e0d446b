import pytest

from transferlib.models.sizes import total_parameters
from transferlib.names import ARCHITECTURES, STRATEGIES
from transferlib.spec import StrategySpec
from transferlib.strategies.table import StageRow, format_strategy_table, strategy_table


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_table_has_every_stage_and_every_parameter(strategy: str) -> None:
    for architecture in ARCHITECTURES:
        rows = strategy_table(architecture, strategy, 5, 0.1, StrategySpec())
        assert sum(row.parameters for row in rows) == total_parameters(architecture, 5)
        assert rows[-1].stage == "head"
        assert rows[-1].lr == 0.1
        assert all((row.trained > 0) == (row.lr > 0) and row.trained in (0, row.parameters) for row in rows)


def test_table_of_feature_extraction_is_the_hands_count() -> None:
    rows = strategy_table("resnet18", "feature_extraction", 5, 0.1, StrategySpec())
    assert rows[0] == StageRow("stem", 9536, 0, 0.0)  # 3*64*7*7 weights, 64 scales, 64 shifts
    assert rows[-1] == StageRow("head", 512 * 5 + 5, 512 * 5 + 5, 0.1)


def test_table_prints_with_a_line_a_stage() -> None:
    rows = strategy_table("resnet18", "last_layers", 4, 0.03, StrategySpec())
    assert format_strategy_table("resnet18", "last_layers", rows).splitlines() == [
        "resnet18, last_layers: 8,395,780 of 11,178,564 parameters trained",
        "  stage              parameters      trained   peak rate",
        "  stem                    9,536            0      frozen",
        "  layer1                147,968            0      frozen",
        "  layer2                525,568            0      frozen",
        "  layer3              2,099,712            0      frozen",
        "  layer4              8,393,728    8,393,728        0.03",
        "  head                    2,052        2,052        0.03",
    ]
