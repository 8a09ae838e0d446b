"""The one question that we ask NVIDIA's management library, which comes with the driver: how busy is a GPU?

Straight through ctypes, so that it is answered wherever there is a driver, without a package of bindings.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0


class _Utilisation(ctypes.Structure):
    """Source: nvmlUtilization_t in nvml.h: per cent of the last sample period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class Nvml:
    """Ask NVML.

    Args:
        library: Loaded, and not initialised yet.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._is_ready = library.nvmlInit_v2() == _SUCCESS
        self._handles: dict[str, ctypes.c_void_p] = {}

    @classmethod
    def load(cls) -> Nvml | None:
        """Return NVML; None where there is no driver."""
        with contextlib.suppress(OSError, AttributeError):
            return cls(ctypes.CDLL(_LIBRARY))
        return None

    def utilisation(self, uuid: str) -> float | None:
        """Return the share of the last sample period (up to a second) in which a GPU ran a kernel, 0 to 1.

        Args:
            uuid: Of the GPU, as NVML spells it: "GPU-8b0e7bd2-...".

        Returns:
            None where NVML does not tell: an unknown GPU, a part of one (MIG).
        """
        handle = self._handle(uuid)
        found = _Utilisation()
        if handle is None or self._library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(found)) != _SUCCESS:
            return None
        return int(found.gpu) / 100.0

    def _handle(self, uuid: str) -> ctypes.c_void_p | None:
        if not self._is_ready:
            return None
        if uuid not in self._handles:
            handle = ctypes.c_void_p()
            if self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != _SUCCESS:
                return None
            self._handles[uuid] = handle
        return self._handles[uuid]
