"""The most memory a trial has taken, although its process has run other trials before."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

_KIB = 1024


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak of what this process did before.

    Where the kernel does not allow it, a process that is used again reports its peak over all its trials.

    Args:
        device: Where the trial computes.
    """
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # alone, the next line is refused in a process that is new
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        # Source: proc_pid_clear_refs(5): 5 resets the peak resident set size.
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak since the reset: CUDA's allocator on a GPU, this process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
