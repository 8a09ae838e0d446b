"""The versions of Python, Ray, torch, uv and transferlib that the files for machines name are those of the lock."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.cluster import manifests
from tests.cluster.dockerfile import instructions
from tests.cluster.manifests import CLUSTER, RAY_UP, ROOT
from transferlib.cli.doctor import TESTED_RAY

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
MAKEFILE = (ROOT / "Makefile").read_text()
MACHINE_FILES = [
    ROOT / "Dockerfile",
    *sorted(path for path in CLUSTER.rglob("*") if path.suffix in {".yaml", ".sbatch", ".md"}),
]


def one_of(pattern: str, text: str) -> str:
    """Return what a pattern's group matches, everywhere the same."""
    found = set(re.findall(pattern, text))
    assert len(found) == 1, f"{pattern}: {sorted(found)}"
    return str(found.pop())


def lowest_python() -> str:
    """Return the Python that the requirements were locked for, e.g. "3.11"."""
    return one_of(r"--python-version (\d+\.\d+)", MAKEFILE)


def names_of(requirement: str) -> Requirement:
    return Requirement(requirement)


@pytest.mark.parametrize("name", ["ray", "torch", "torchvision"])
def test_the_lock_is_within_what_the_project_asks_for(name: str) -> None:
    asked = {names_of(text).name: names_of(text).specifier for text in PROJECT["project"]["dependencies"]}
    assert LOCKED[name] in asked[name]


def test_ray_is_kept_to_the_minor_version_that_was_tested() -> None:
    (asked,) = (names_of(text) for text in PROJECT["project"]["dependencies"] if names_of(text).name == "ray")
    major, minor = map(int, TESTED_RAY.split("."))
    assert f"{TESTED_RAY}.99" in asked.specifier
    assert f"{major}.{minor + 1}.0" not in asked.specifier
    assert f"{major}.{minor - 1}.0" not in asked.specifier
    assert LOCKED["ray"].startswith(f"{TESTED_RAY}.")


def test_python_is_the_same_everywhere() -> None:
    python = lowest_python()
    assert python in SpecifierSet(PROJECT["project"]["requires-python"])
    assert PROJECT["tool"]["mypy"]["python_version"] == python
    assert one_of(r"python:(\d+\.\d+)\.\d+-slim", (ROOT / "Dockerfile").read_text()) == python
    for path in RAY_UP:
        assert one_of(r"uv venv --python (\S+)", path.read_text()) == python


def test_ray_on_kubernetes_is_the_locked_one() -> None:
    assert manifests.kuberay("RayCluster")["spec"]["rayVersion"] == LOCKED["ray"]


def test_uv_is_the_same_everywhere() -> None:
    locker = one_of(r"uv==(\S+)", MAKEFILE)
    for path in (ROOT / "Dockerfile", *RAY_UP):
        assert one_of(r"uv==([\d.]+)", path.read_text()) == locker


def test_the_image_is_tagged_with_the_projects_version_wherever_it_is_named() -> None:
    named = re.compile(r"\btransferlib:(\d[\w.]*?)(?:-cpu)?(?=[\s\"'`]|$)", re.MULTILINE)
    version = PROJECT["project"]["version"]
    found = {path.name: set(named.findall(path.read_text())) for path in MACHINE_FILES}
    assert {"Dockerfile", "compose.yaml", "raycluster.yaml"} <= {name for name, versions in found.items() if versions}
    assert set().union(*found.values()) == {version}


def other_versions(text: str) -> set[tuple[str, str]]:
    """Return (name, version) of what is pinned to another version than the lock's."""
    pinned = re.findall(r"\b(ray|torch|torchvision)(?:\[[\w,]+\])?\s*==\s*([\d.]+)", text)
    return {(name, version) for name, version in pinned if version != LOCKED[name]}


def test_no_file_names_another_ray_or_torch() -> None:
    assert other_versions(f"ray[default,tune]==2.1.0 torch == {LOCKED['torch']}") == {("ray", "2.1.0")}
    assert {path.name: found for path in MACHINE_FILES if (found := other_versions(path.read_text()))} == {}


def test_every_install_is_of_the_lock_by_its_hashes() -> None:
    commands = {
        "Dockerfile": [one.command for one in instructions(ROOT / "Dockerfile") if one.word == "RUN"],
        **{path.name: manifests.document(path)["setup_commands"] for path in RAY_UP},
    }
    for name, lines in commands.items():
        text = "\n".join(lines)
        assert re.search(r"uv pip install .*--require-hashes -r \S*requirements\.txt", text), name
        # The rest is uv itself, pinned, transferlib, and the CPU builds of torch, whose versions the lock gives.
        others = [line for line in re.findall(r"pip install ([^;&|\n]+)", text) if "--require-hashes" not in line]
        assert all(re.search(r"uv==|--no-deps", line) for line in others), name
