"""What a training process holds of its machine now, for the live view; nothing here changes a result."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from transferlib.training.nvml import Nvml

_UTILISATION_EVERY_S = 1.0
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Vitals:
    """Hold one reading; None is what the machine does not tell."""

    memory_bytes: int | None
    """Resident memory of this process."""
    gpu_memory_bytes: int | None
    """GPU memory that torch's allocator holds for this process, cached blocks included."""
    gpu_utilisation: float | None
    """Share of the last moments in which the GPU ran a kernel, 0 to 1."""


class VitalSigns:
    """Read them, cheaply enough to do it twice a second beside training.

    Args:
        device: That this process trains on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._nvml = Nvml.load() if device.type == "cuda" else None
        self._utilisation: float | None = None
        self._utilisation_at = float("-inf")

    def read(self) -> Vitals:
        """Return what holds now; the GPU's utilisation is asked for at most once a second."""
        is_on_gpu = self._device.type == "cuda"
        return Vitals(
            memory_bytes=resident_bytes(),
            gpu_memory_bytes=torch.cuda.memory_reserved(self._device) if is_on_gpu else None,
            gpu_utilisation=self._read_utilisation() if self._nvml is not None else None,
        )

    def _read_utilisation(self) -> float | None:
        assert self._nvml is not None
        if time.monotonic() - self._utilisation_at >= _UTILISATION_EVERY_S:
            self._utilisation_at = time.monotonic()
            # The driver's own name of the GPU: its index here and there differ under CUDA_VISIBLE_DEVICES.
            self._utilisation = self._nvml.utilisation(f"GPU-{torch.cuda.get_device_properties(self._device).uuid}")
        return self._utilisation


def resident_bytes() -> int | None:
    """Return this process's resident memory; None where the system does not tell."""
    try:
        # Source: proc_pid_statm(5): the second number is the resident set, in pages.
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return None
