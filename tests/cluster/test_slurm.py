"""The Slurm script, run by bash with stand-ins for Slurm's commands and for `ray` and `submit`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.manifests import CLUSTER, HEALTH

SCRIPT = CLUSTER / "slurm.sbatch"
# Long options of sbatch that the script may use, with what their values look like.
SBATCH_OPTIONS = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": r"1",
    "cpus-per-task": r"\d+",
    "time": r"\d\d:\d\d:\d\d",
    "output": r"[\w-]+%j\.log",
    "exclusive": r"",
    "signal": r"B:TERM@\d+",
}
RECORD = """\
import json, os, pathlib, sys, time
folder = pathlib.Path(os.environ["STAND_IN"])
name = pathlib.Path(sys.argv[0]).name
token = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"])
seen = {{"argv": sys.argv[1:], "environ": dict(os.environ)}}
seen |= {{"token": token.read_text(), "mode": token.stat().st_mode & 0o777}}
(folder / f"{{name}}.json").write_text(json.dumps(seen))
{then}
"""
RUN_THE_ENTRY = """\
import subprocess
done = subprocess.run(sys.argv[sys.argv.index("--") + 1 :])
{then}
sys.exit(done.returncode)
"""
# As `submit compare` does: a SIGTERM stops the job, and the code is then 5.
FOLLOW = """\
import signal
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))
(folder / "followed").touch()
time.sleep(60)
"""
STOP_RAY = """\
(folder / "stopping").touch()
while not (folder / "signalled").exists():
    time.sleep(0.02)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a batch job on two nodes, with stand-ins first in PATH."""
    programs = tmp_path / "venv/bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (tmp_path / "slurm").mkdir()
    write_program(tmp_path / "slurm/srun", 'while [[ "$1" == --* ]]; do shift; done\nexec "$@"', "/usr/bin/env bash")
    write_program(
        tmp_path / "slurm/scontrol", 'echo "$2 $3" > "$STAND_IN/scontrol"; echo node1; echo node2', "/usr/bin/env bash"
    )
    write_program(programs / "ray", RECORD.format(then="sys.exit(4)"))
    write_program(programs / "submit", RECORD.format(then=""))
    return {
        "PATH": f"{tmp_path / 'slurm'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "STAND_IN": str(tmp_path),
        "TRANSFERLIB_VENV": str(tmp_path / "venv"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": f"{os.getpid()}",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
    }


ASK_THE_CLUSTER = """\
import subprocess, urllib.error, urllib.request as web
def status(**headers):
    try:
        return web.urlopen(web.Request("http://127.0.0.1:8265/api/jobs/", headers=headers)).status
    except urllib.error.HTTPError as error:
        return error.code
import ray
health = subprocess.run([sys.executable, "-c", os.environ["HEALTH"]]).returncode
ray.init(address="auto", logging_level="ERROR")
seen = {"open": status(), "token": status(Authorization="Bearer " + token.read_text().strip()), "health": health}
(folder / "cluster.json").write_text(json.dumps(seen | ray.cluster_resources()))
sys.exit(4)
"""


def write_program(path: Path, text: str, interpreter: str = sys.executable) -> None:
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)


def seen_by(program: str, environment: dict[str, str]) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads((Path(environment["STAND_IN"]) / f"{program}.json").read_text())
    return seen


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_bash_can_read_the_script() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.cluster
def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck")
    assert program, "apt-get install shellcheck"
    done = subprocess.run([program, SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_sbatch_options_are_known_and_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    options = {number: line for number, line in enumerate(lines) if line.startswith("#SBATCH")}
    assert max(options) < first_command
    matches = [re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.*))?", line) for line in options.values()]
    given = {match[1]: match[2] or "" for match in matches if match}
    assert len(given) == len(options)
    assert set(given) == set(SBATCH_OPTIONS)
    assert all(re.fullmatch(SBATCH_OPTIONS[name], value) for name, value in given.items())


def test_ray_knows_every_option_of_symmetric_run_and_of_the_start_that_it_hands_on(environment: dict[str, str]) -> None:
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    run(environment, "--data", "/shared/photos")
    command, *arguments = seen_by("ray", environment)["argv"]
    assert command == "symmetric-run"
    before = arguments[: arguments.index("--")]
    own = symmetric_run.make_context("symmetric-run", list(before), resilient_parsing=True).params
    assert (own["address"], own["min_nodes"]) == ("node1:6379", 2)
    handed_on = curate_and_validate_ray_start_args(before)
    options = start.make_context("start", list(handed_on)).params
    assert (options["num_cpus"], options["num_gpus"]) == (8, 0)


def test_gpus_of_the_node_are_offered(environment: dict[str, str]) -> None:
    run({**environment, "SLURM_GPUS_ON_NODE": "4"})
    arguments = seen_by("ray", environment)["argv"]
    assert arguments[arguments.index("--num-gpus") + 1] == "4"


def test_the_job_is_the_command_line_on_the_head_with_what_was_typed(environment: dict[str, str]) -> None:
    write_program(Path(environment["TRANSFERLIB_VENV"]) / "bin/ray", RECORD.format(then=RUN_THE_ENTRY.format(then="")))
    write_program(Path(environment["TRANSFERLIB_VENV"]) / "bin/submit", RECORD.format(then="sys.exit(4)"))
    done = run(environment, "--data", "/shared/my photos", "--gpus", "4")
    assert done.returncode == 4, done.stderr
    assert seen_by("submit", environment)["argv"] == [
        *["compare", "--address", "http://127.0.0.1:8265", "--data", "/shared/my photos", "--gpus", "4"],
    ]


def test_ray_has_a_token_of_the_jobs_own_and_a_short_folder(environment: dict[str, str]) -> None:
    run(environment)
    first = seen_by("ray", environment)
    environ: dict[str, str] = first["environ"]
    assert first["mode"] == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", str(first["token"]))
    assert environ["RAY_AUTH_MODE"] == "token"
    assert len(environ["RAY_TMPDIR"]) < 30
    assert environ["SRUN_CPUS_PER_TASK"] == "8"
    run(environment)
    assert seen_by("ray", environment)["token"] != first["token"]


def test_nothing_is_left_behind(environment: dict[str, str]) -> None:
    run(environment)
    environ: dict[str, str] = seen_by("ray", environment)["environ"]
    assert not Path(environ["RAY_TMPDIR"]).exists()
    assert list((Path(environment["HOME"]) / ".transferlib").iterdir()) == []


def end_once(there: str, environment: dict[str, str], *arguments: str) -> int:
    """Return the exit code of a batch job whose time is up once a stand-in has left a file of that name."""
    folder = Path(environment["STAND_IN"])
    batch = subprocess.Popen(["bash", str(SCRIPT), *arguments], env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not (folder / there).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # As --signal=B:TERM does: the batch shell alone.
        batch.send_signal(signal.SIGTERM)
        (folder / "signalled").touch()
        return batch.wait(timeout=30)
    finally:
        if batch.poll() is None:
            os.killpg(batch.pid, signal.SIGKILL)
            batch.wait()


@pytest.mark.parametrize(
    "arguments", [["--spec", "exp.yaml"], ["--resume", "/shared/runs/20261125-014503-compare-3fa9"]]
)
def test_the_end_of_the_allocation_stops_its_own_job_cleanly_wherever_its_run_lies(
    environment: dict[str, str], arguments: list[str]
) -> None:
    write_program(Path(environment["TRANSFERLIB_VENV"]) / "bin/ray", RECORD.format(then=RUN_THE_ENTRY.format(then="")))
    write_program(Path(environment["TRANSFERLIB_VENV"]) / "bin/submit", RECORD.format(then=FOLLOW))
    assert end_once("followed", environment, *arguments) == 5


def test_the_end_of_the_allocation_after_that_of_the_job_changes_no_exit_code(environment: dict[str, str]) -> None:
    ray = RECORD.format(then=RUN_THE_ENTRY.format(then=STOP_RAY))
    write_program(Path(environment["TRANSFERLIB_VENV"]) / "bin/ray", ray)
    assert end_once("stopping", environment, "--data", "/x") == 0


def test_the_end_of_the_allocation_before_the_job_began_ends_the_step(environment: dict[str, str]) -> None:
    write_program(Path(environment["TRANSFERLIB_VENV"]) / "bin/ray", RECORD.format(then="time.sleep(60)"))
    assert end_once("ray.json", environment, "--data", "/x") == 128 + signal.SIGTERM
    assert not (Path(environment["STAND_IN"]) / "submit.json").exists()


@pytest.mark.cluster
@pytest.mark.ray
def test_the_script_runs_a_real_ray_and_leaves_none(environment: dict[str, str]) -> None:
    """On one node, alone in namespaces of processes and of the network: `ray stop` ends every Ray that it sees."""
    alone = ["unshare", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespaces of processes and of the network to be had here")
    folder = Path(environment["STAND_IN"])
    programs = folder / "venv/bin"
    (programs / "ray").unlink()
    (programs / "ray").symlink_to(Path(sys.executable).parent / "ray")
    write_program(programs / "submit", RECORD.format(then=ASK_THE_CLUSTER))
    write_program(folder / "slurm/scontrol", "echo 127.0.0.1", "/usr/bin/env bash")
    one_node = {"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "2", "HEALTH": HEALTH}
    command = (
        f"ip link set lo up && bash {SCRIPT} --data /shared/photos; code=$?; ps -e -o args > {folder}/ps; exit $code"
    )
    done = subprocess.run(
        [*alone, "bash", "-c", command],
        env=environment | one_node,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    seen = seen_by("cluster", environment)
    assert (seen["open"], seen["token"], seen["health"], seen["CPU"]) == (401, 200, 0, 2)
    assert "raylet" not in (folder / "ps").read_text()
