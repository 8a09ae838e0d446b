"""Starting and ending the processes of a local cluster, with a node that only plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transferlib.clusters import ClusterRecord, record_cluster, recorded_cluster
from transferlib.errors import ClusterUnreachableError, TransferlibError, UsageError
from transferlib.on_ray import cluster_state, local_cluster
from transferlib.on_ray.cluster_state import node_processes, read_state
from transferlib.on_ray.local_cluster import MARKER, node_environment, start_cluster, stop_cluster
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.processes import Process, read_process

SHARE = NodeShare("node-1", 2, ("3",), 1 << 30, 100 << 20)
RECORD = ClusterRecord("http://127.0.0.1:1", "127.0.0.1:2", "/tmp/tl-x/token", "/tmp/tl-x", [], 0.0)
SLEEPS = "import time; time.sleep(600)"
# The job leaves the node's session and loses its parent, as Ray's job drivers do.
STARTS_A_JOB = f"""
import subprocess, sys
from pathlib import Path
job = "import os, sys; os.fork() and os._exit(0); open(sys.argv[1], 'w').write(str(os.getpid())); {SLEEPS}"
subprocess.run([sys.executable, "-c", job, str(Path(__file__).with_name("job"))], start_new_session=True, check=True)
{SLEEPS}
"""


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that says what the process of a node does."""

    def use(text: str) -> None:
        script = tmp_path / "loopback_node.py"
        script.write_text(text)
        for module in (cluster_state, local_cluster):
            monkeypatch.setattr(module, "NODE_SCRIPT", script)

    return use


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[Path]]:
    """Return a function that lists the temporary folders of clusters."""
    base = tmp_path / "tmp"
    base.mkdir()
    monkeypatch.setattr(local_cluster, "mkdtemp", lambda prefix, dir: _made(base / f"{prefix}1"))
    return lambda: list(base.iterdir())


def _made(path: Path) -> str:
    path.mkdir(mode=0o700)
    return str(path)


@pytest.fixture
def stranger() -> Iterator[Process]:
    """Run a process that is no node."""
    with subprocess.Popen([sys.executable, "-c", SLEEPS]) as popen:
        _wait_until(lambda: (found := read_process(popen.pid)) is not None and found.command_line[-1:] == [SLEEPS])
        process = read_process(popen.pid)
        assert process is not None
        yield process
        popen.kill()


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _up(record: ClusterRecord, share: NodeShare = SHARE) -> ClusterRecord:
    """Start a playing node for a record, which never becomes a cluster."""
    Path(record.temp_dir).mkdir()
    record.node_pids.append(local_cluster._spawn(record, share, node_environment(os.environ, record, share)))
    record_cluster(record)
    return record


def _record(folder: Path) -> ClusterRecord:
    temp = folder / "tl-test"
    return ClusterRecord("http://127.0.0.1:1", "127.0.0.1:2", str(temp / "token"), str(temp), [], 0.0)


def test_a_node_that_dies_ends_the_start_with_its_last_words(
    play: Callable[[str], None], folders: Callable[[], list[Path]]
) -> None:
    play("print('no room on the disk'); raise SystemExit(1)")
    with pytest.raises(TransferlibError, match=r"(?s)node-1 of the cluster died.*no room on the disk") as caught:
        start_cluster([SHARE], local_cluster._free_port())
    assert caught.value.exit_code == 1
    assert recorded_cluster() is None
    assert folders() == []


def test_a_start_that_takes_too_long_is_ended_and_told(
    play: Callable[[str], None], folders: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(SLEEPS)
    started: list[int] = []
    monkeypatch.setattr(local_cluster, "record_cluster", lambda record: started.extend(record.node_pids))
    with pytest.raises(ClusterUnreachableError, match="its head does not listen"):
        start_cluster([SHARE], local_cluster._free_port(), timeout_s=0.3)
    assert [pid for pid in started if read_process(pid)] == []
    assert started
    assert folders() == []


def test_the_end_reaches_a_job_that_left_the_session_and_lost_its_parent(
    play: Callable[[str], None], tmp_path: Path
) -> None:
    play(STARTS_A_JOB)
    record = _up(_record(tmp_path))
    said = tmp_path / "job"
    _wait_until(lambda: said.exists() and said.read_text())
    job = read_process(int(said.read_text()))
    assert job is not None
    stop_cluster(record)
    assert not job.is_alive
    assert node_processes(record) == {}
    assert not Path(record.temp_dir).exists()
    assert recorded_cluster() is None


def test_a_node_that_ignores_the_polite_signal_is_ended_all_the_same(
    play: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cluster, "STOP_GRACE_S", 0.2)
    play(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEPS}")
    record = _up(_record(tmp_path))
    _wait_until((Path(record.temp_dir) / "node-1.log").read_text)
    stop_cluster(record)
    assert node_processes(record) == {}


def test_a_process_that_has_a_node_s_id_now_is_left_alone(stranger: Process, tmp_path: Path) -> None:
    record = _record(tmp_path)
    record.node_pids.append(stranger.pid)
    record_cluster(record)
    assert read_state(record).state == "gone"
    stop_cluster(record)
    assert stranger.is_alive
    assert recorded_cluster() is None


def test_a_node_of_another_cluster_is_not_taken_for_ours(play: Callable[[str], None], tmp_path: Path) -> None:
    play(SLEEPS)
    record = _up(_record(tmp_path))
    other = ClusterRecord(record.address, record.gcs_address, "/tmp/tl/token", "/tmp/tl", record.node_pids, 0.0)
    assert node_processes(other) == {}
    stop_cluster(record)


def test_a_second_start_is_refused_and_changes_nothing(play: Callable[[str], None], tmp_path: Path) -> None:
    play(SLEEPS)
    record = _up(_record(tmp_path))
    with pytest.raises(UsageError, match=f"runs already, at {record.address}"):
        start_cluster([SHARE], local_cluster._free_port())
    assert recorded_cluster() == record
    assert len(node_processes(record)) == 1
    stop_cluster(record)


def test_a_port_that_is_taken_is_told_before_anything_starts(folders: Callable[[], list[Path]]) -> None:
    with local_cluster.socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match=r"Address already in use at 127\.0\.0\.1\. Use another --port"):
            start_cluster([SHARE], other.getsockname()[1])
    assert folders() == []


def test_two_commands_do_not_start_or_end_at_once() -> None:
    with local_cluster._only_one_at_a_time(), pytest.raises(UsageError, match="is at work"):
        stop_cluster(RECORD)


def test_a_head_that_does_not_answer_is_a_damaged_cluster(play: Callable[[str], None], tmp_path: Path) -> None:
    play(SLEEPS)
    record = _up(_record(tmp_path))
    state = read_state(record)
    assert (state.state, state.problem) == ("damaged", f"Its head does not answer at {record.address}.")
    stop_cluster(record)


def test_only_folders_of_clusters_are_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    stop_cluster(ClusterRecord("http://127.0.0.1:1", "127.0.0.1:2", str(precious / "token"), str(precious), [], 0.0))
    assert precious.exists()


def test_nodes_get_their_own_settings_and_none_of_the_user_s() -> None:
    user = {
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_AUTH_MODE": "disabled",
        "TUNE_RESULT_DIR": "/x",
        "TRANSFERLIB_STORAGE": "/y",
        "TRANSFERLIB_METRICS_DIR": "/m",
        "RAY_GRAFANA_HOST": "http://127.0.0.1:3000",
        "AWS_ACCESS_KEY_ID": "key",
        "PATH": "/usr/bin",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
    }
    environment = node_environment(user, RECORD, SHARE)
    assert {"RAY_ADDRESS", "TUNE_RESULT_DIR", "TRANSFERLIB_STORAGE"}.isdisjoint(environment)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == RECORD.token_path
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert environment[MARKER] == RECORD.temp_dir
    assert environment.items() >= {k: user[k] for k in ("TRANSFERLIB_METRICS_DIR", "RAY_GRAFANA_HOST")}.items()
    assert environment["AWS_ACCESS_KEY_ID"] == "key"


def test_a_process_is_known_by_its_start_as_well_as_its_id(stranger: Process) -> None:
    assert stranger.is_alive
    assert not Process(stranger.pid, stranger.started + 1).is_alive
    assert stranger.command_line[-1] == SLEEPS
    os.kill(stranger.pid, signal.SIGKILL)
    _wait_until(lambda: not stranger.is_alive)
