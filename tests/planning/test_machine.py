import os
from pathlib import Path

import pytest

from transferlib.planning import machine as module
from transferlib.planning.machine import Machine, detect_machine, usable_cpus


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the /proc of a machine with 64 CPUs, 100 GB, bf16 and no cgroup limits."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       100000000 kB\nMemFree: 5 kB\n")
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx512_bf16 sse\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    return tmp_path


def detect(root: Path, **environ: str) -> Machine:
    return detect_machine(root / "runs/new", root / "cache", root=root, environ=environ)


def test_machine_without_limits(root: Path) -> None:
    machine = detect(root)
    assert (machine.cpus, machine.gpus, machine.memory_bytes) == (64, 0, 100_000_000 * 1024)
    assert machine.has_bf16
    assert machine.cache_free_bytes is None
    assert machine.disk_free_bytes > 0


def test_slurm_caps_the_cpus(root: Path) -> None:
    assert usable_cpus(root, {"SLURM_CPUS_PER_TASK": "6"}) == 6


def test_cgroup_version_2_caps_cpus_and_memory_at_any_level(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/pod/box\n")
    inner = root / "sys/fs/cgroup/pod/box"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("8000000000\n")
    (inner.parent / "cpu.max").write_text("350000 100000\n")
    machine = detect(root)
    assert (machine.cpus, machine.memory_bytes) == (3, 8_000_000_000)


def test_cgroup_version_1_caps_cpus_and_memory(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("5:memory:/box\n3:cpu,cpuacct:/box\n")
    for controller, files in {
        "memory": {"memory.limit_in_bytes": "4000000000"},
        "cpu,cpuacct": {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
    }.items():
        folder = root / "sys/fs/cgroup" / controller / "box"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    machine = detect(root)
    assert (machine.cpus, machine.memory_bytes) == (1, 4_000_000_000)


def test_visible_gpus_are_counted_as_cuda_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(module, "_nvidia_smi", lambda: [80, 40, 80, 80])
    assert detect(root).gpus == 4
    assert detect(root).gpu_memory_bytes == 40
    assert detect(root, CUDA_VISIBLE_DEVICES="").gpus == 0
    assert detect(root, CUDA_VISIBLE_DEVICES="-1").gpus == 0
    assert detect(root, CUDA_VISIBLE_DEVICES="2,3").gpu_memory_bytes == 80
    assert detect(root, CUDA_VISIBLE_DEVICES="0,9,1").gpus == 1
    assert detect(root, CUDA_VISIBLE_DEVICES="GPU-5a").gpus == 1
