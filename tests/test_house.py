"""The house keeps its own rules: who may import what, who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "transferlib").rglob("*.py"))
OWNERS = {"ray": "on_ray", "click": "cli", "prometheus_client": "telemetry"}


def imported_packages(source: str) -> set[str]:
    """Return the top-level packages a file imports anywhere, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_imported_packages_sees_imports_inside_functions() -> None:
    assert imported_packages("def f():\n    import ray.data\n    from click import echo") == {"ray", "click"}


@pytest.mark.slow
@pytest.mark.parametrize("package", OWNERS)
def test_each_framework_has_one_room(package: str) -> None:
    strangers = [
        str(path.relative_to(ROOT))
        for path in PACKAGE
        if package in imported_packages(path.read_text()) and path.relative_to(ROOT).parts[1] != OWNERS[package]
    ]
    assert strangers == []


def test_imports_go_downward_only() -> None:
    lint = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert lint.returncode == 0, lint.stdout


def test_jobs_are_run_and_never_imported() -> None:
    assert not list((ROOT / "jobs").rglob("__init__.py"))
    importers = [str(path) for path in PACKAGE if "jobs" in imported_packages(path.read_text())]
    assert importers == []


def test_job_scripts_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "jobs").glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 40} == {}


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert [str(path) for path in PACKAGE if path.stem in drawers] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [str(path) for path in PACKAGE if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_every_verb_that_starts_a_job_has_its_script() -> None:
    from transferlib.jobs_folder import job_script
    from transferlib.runs import RUN_ID, RunFolder

    for verb in ("compare", "train"):
        run = RunFolder(Path(f"20261125-014503-{verb}-3fa9"))
        assert RUN_ID.fullmatch(run.run_id)
        assert run.verb == verb
        assert job_script(f"{run.verb}.py").is_file()


@pytest.mark.slow
def test_judging_runs_where_neither_torch_nor_ray_is_installed(tmp_path: Path) -> None:
    from tests.synthetic_run import Story, write_run

    run = write_run(tmp_path, Story(seeds=(0, 1, 2)))
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'ray')));"
        "from pathlib import Path; from transferlib.runs import RunFolder;"
        "import transferlib.comparison.leaderboard as board;"
        f"print(board.write_leaderboard(RunFolder(Path({str(run.path)!r}))).verdict.state)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("separated", "good_enough", "open")


@pytest.mark.slow
def test_judging_knows_nothing_of_planning() -> None:
    modules = [path for path in PACKAGE if path.relative_to(ROOT).parts[1] == "comparison"]
    assert [str(path) for path in modules if "transferlib.planning" in path.read_text()] == []
