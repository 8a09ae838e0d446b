"""A folder of photos, and ways to call the command line with a job that only plays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
FAKE_JOB = Path(__file__).with_name("fake_job.py")
CALL = (
    "import sys; from pathlib import Path; import transferlib.cli.executor as executor;"
    f"executor.job_script = lambda name: Path({str(FAKE_JOB)!r});"
    "from transferlib.cli.main import main; main()"
)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder that holds photos/: 12 files in each of two classes (they are only listed)."""
    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(12):
            (tmp_path / "photos" / label / f"{index}.jpg").write_bytes(b"not opened")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("SLURM_CPUS_PER_TASK", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def call(work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Return a function that calls `submit` in this process, with the playing job."""
    from transferlib.cli import executor
    from transferlib.cli.main import main

    monkeypatch.setattr(executor, "job_script", lambda name: FAKE_JOB)

    def run(*args: str, job: str = "done") -> Answer:
        monkeypatch.setenv("FAKE_JOB", job)
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(args)
        captured = capfd.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(left.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def start(work: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Return a function that starts `submit` as a process of its own, with the playing job."""

    def run(*args: str, job: str, **popen: object) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "FAKE_JOB": job, **popen.pop("env", {})}  # type: ignore[dict-item]
        return subprocess.Popen([sys.executable, "-c", CALL, *args], env=environ, cwd=work, **popen)  # type: ignore[call-overload,no-any-return]

    return run
