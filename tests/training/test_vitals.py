from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any

import pytest
import torch

from transferlib.training import vitals
from transferlib.training.nvml import Nvml
from transferlib.training.vitals import Vitals, VitalSigns, resident_bytes

NOT_SUPPORTED = 3


class FakeLibrary:
    """Answer as libnvidia-ml does, for one GPU."""

    def __init__(self, *, init: int = 0, rates: int = 0) -> None:
        self._init = init
        self._rates = rates
        self.num_lookups = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self._init

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        self.num_lookups += 1
        handle._obj.value = 77
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, found: Any) -> int:  # noqa: N802
        assert handle.value == 77
        found._obj.gpu = 65
        return self._rates


def test_utilisation_is_a_share_and_the_gpu_is_looked_up_once() -> None:
    library = FakeLibrary()
    nvml = Nvml(library)
    assert [nvml.utilisation("GPU-1"), nvml.utilisation("GPU-1")] == [0.65, 0.65]
    assert library.num_lookups == 1


@pytest.mark.parametrize(
    ("library", "uuid"),
    [
        pytest.param(FakeLibrary(init=9), "GPU-1", id="no driver loaded"),
        pytest.param(FakeLibrary(), "GPU-2", id="a GPU it does not know"),
        pytest.param(FakeLibrary(rates=NOT_SUPPORTED), "GPU-1", id="part of a GPU"),
    ],
)
def test_where_nvml_does_not_tell_there_is_no_number(library: FakeLibrary, uuid: str) -> None:
    assert Nvml(library).utilisation(uuid) is None


def test_without_nvidias_library_there_is_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferlib.training.nvml._LIBRARY", "libnvidia-ml-not-here.so.1")
    assert Nvml.load() is None


def test_on_a_cpu_only_memory_is_told() -> None:
    read = VitalSigns(torch.device("cpu")).read()
    assert read == Vitals(read.memory_bytes, None, None)
    assert read.memory_bytes is not None


def test_resident_memory_is_of_now() -> None:
    before = resident_bytes()
    held = mmap.mmap(-1, 64 << 20)  # new pages: an array might get memory that the process has already
    held.write(b"x" * len(held))
    with_it = resident_bytes()
    assert before is not None
    assert with_it is not None
    assert with_it - before > 0.9 * len(held)


def test_a_system_without_proc_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vitals, "_STATM", tmp_path / "statm")
    assert resident_bytes() is None
