"""What a trial computes in, and that it computes the same each time."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""CPU capabilities that compute in bf16 (x86, x86, ARM); without one, bf16 is emulated and slower than fp32."""


def resolve_precision(asked: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """Return the precision that a spec's value means on a device; a run resolves once and saves the answer.

    Args:
        asked: auto takes bf16 where the hardware has it.
        device: Where the trial computes.
    """
    if asked != "auto":
        return asked
    return "bf16" if has_bf16(device) else "fp32"


def has_bf16(device: torch.device) -> bool:
    """Return whether the hardware itself computes in bf16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_BF16)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that forward passes run in."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def make_deterministic(threads: int, device: torch.device) -> None:
    """Set this process so that the same inputs give the same bits.

    Sums are split by thread, so the number of threads is part of the result. TF32 is left off: "fp32" means it.

    Args:
        threads: torch threads of this process.
        device: Where the trial computes.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling new memory guards against reading it unset; nothing here does, and it costs a pass over every output.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        # cuBLAS reads it when its first handle is made. Source: CUDA toolkit documentation, cuBLAS, reproducibility.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
