from __future__ import annotations

import pytest
import torch

from transferlib.training import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"architecture": "aarch64", "bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.resolve_precision("auto", CPU) == expected


def test_what_was_asked_for_is_kept_whatever_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert precision.resolve_precision("bf16", CPU) == "bf16"
    assert precision.resolve_precision("fp32", CPU) == "fp32"


def test_bf16_is_autocast_and_fp32_is_not() -> None:
    layer, images = torch.nn.Linear(4, 2), torch.zeros(1, 4)
    with precision.autocast("bf16", CPU):
        assert layer(images).dtype == torch.bfloat16
    with precision.autocast("fp32", CPU):
        assert layer(images).dtype == torch.float32


def test_a_deterministic_process_has_its_threads_set() -> None:
    precision.make_deterministic(1, CPU)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
