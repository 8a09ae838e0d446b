"""What this machine offers to a job, read without torch or Ray.

Ray looks at neither CPU affinity nor cgroups nor SLURM, so the usable CPUs are found here and handed to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NVIDIA_SMI_TIMEOUT_S = 10.0
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Of /proc/cpuinfo, on x86 and ARM."""


@dataclass(frozen=True)
class Node:
    """Say what one node of a cluster gives to Ray."""

    name: str
    cpus: int
    """Logical CPUs."""
    gpus: int


@dataclass(frozen=True)
class Machine:
    """Say what a job may plan with: one machine, or a whole cluster."""

    cpus: int
    """Usable CPUs: affinity, capped by the cgroup and by SLURM."""
    gpus: int
    """Visible NVIDIA GPUs."""
    memory_bytes: int
    """Main memory, capped by the cgroup."""
    disk_free_bytes: int
    """Free where run folders are made."""
    gpu_memory_bytes: int = 0
    """Of the smallest visible GPU; 0: unknown or none."""
    cache_free_bytes: int | None = None
    """Free where decoded images are kept; None: the same disk as the run folders."""
    has_bf16: bool = False
    """Whether the CPU computes in bfloat16 (much faster) by itself."""
    name: str = "this machine"
    """As sentences name it."""
    nodes: tuple[Node, ...] = ()
    """Of a cluster; empty: the machine itself is the only one."""


def detect_machine(
    runs_dir: Path, cache_dir: Path, *, root: Path = Path("/"), environ: Mapping[str, str] | None = None
) -> Machine:
    """Read what this machine offers to this process.

    Args:
        runs_dir: Where run folders will be made; need not exist yet.
        cache_dir: Where decoded images will be kept; need not exist yet.
        root: Where /proc and /sys are looked for (for tests).
        environ: Environment variables; None: this process's.
    """
    environ = os.environ if environ is None else environ
    gpu_memory = _gpu_memory(root, environ)
    runs_disk, cache_disk = _existing(runs_dir), _existing(cache_dir)
    same_disk = runs_disk.stat().st_dev == cache_disk.stat().st_dev
    return Machine(
        cpus=usable_cpus(root, environ),
        gpus=len(gpu_memory),
        memory_bytes=_memory(root),
        disk_free_bytes=shutil.disk_usage(runs_disk).free,
        gpu_memory_bytes=min(gpu_memory, default=0),
        cache_free_bytes=None if same_disk else shutil.disk_usage(cache_disk).free,
        has_bf16=not BF16_FLAGS.isdisjoint(_cpu_flags(root)),
    )


def usable_cpus(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> int:
    """Return the CPUs this process may use: affinity, capped by the cgroup's quota and SLURM_CPUS_PER_TASK."""
    environ = os.environ if environ is None else environ
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    caps = [float(affinity), *_cpu_quotas(root)]
    slurm = environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit():
        caps.append(int(slurm))
    return max(1, int(min(caps)))


def _existing(path: Path) -> Path:
    """Return the nearest folder above `path` (or itself) that exists."""
    path = path.absolute()
    # os.path.exists: False where a folder above cannot be looked into, Path.exists raises there (Python < 3.14)
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup for a controller, from its own up to the mount, version 2 first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controllers if controllers else mount
        own = base / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder == base or base in folder.parents)


def _numbers(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, "cpu"):
        match _numbers(folder / "cpu.max"):
            case [quota, period] if quota != "max":
                yield int(quota) / int(period)
        match _numbers(folder / "cpu.cfs_quota_us"), _numbers(folder / "cpu.cfs_period_us"):
            case [quota], [period] if int(quota) > 0:
                yield int(quota) / int(period)


def _memory(root: Path) -> int:
    meminfo = (root / "proc/meminfo").read_text().splitlines()
    limits = [int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemTotal:")]
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [int(value) for value in _numbers(folder / name) if value.isdigit()]
    return min(limits)


def _cpu_flags(root: Path) -> set[str]:
    for line in (root / "proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("flags", "features")):
            return set(line.split(":", 1)[1].split())
    return set()


def _gpu_memory(root: Path, environ: Mapping[str, str]) -> list[int]:
    """Return the memory of each visible GPU, bytes; 0 where it is not known."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return []
    memory = _nvidia_smi() if shutil.which("nvidia-smi") else None
    if memory is None:
        memory = [0] * len(list((root / "proc/driver/nvidia/gpus").glob("*")))
    if visible is None or not memory:
        return memory
    chosen = []
    for name in (name.strip() for name in visible.split(",")):
        if name.isdigit() and int(name) >= len(memory):
            break  # CUDA stops at the first index that does not exist
        chosen.append(memory[int(name)] if name.isdigit() else min(memory))
    return chosen


def _nvidia_smi() -> list[int] | None:
    """Ask nvidia-smi for each GPU's memory, bytes; None where it does not answer."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [int(line) * 2**20 if line.strip().isdigit() else 0 for line in answer.stdout.splitlines() if line.strip()]
