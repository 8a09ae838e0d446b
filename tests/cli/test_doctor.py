import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.cli.conftest import Answer
from transferlib.addresses import ClusterAddress
from transferlib.cli import doctor
from transferlib.cli.doctor import (
    Check,
    Wanted,
    _door,
    check_cluster,
    check_here,
    doctor_lines,
    exit_code,
    node_problems,
)
from transferlib.models import downloads
from transferlib.on_ray import jobs, probe
from transferlib.planning.nodes import ClusterFacts, NodeFacts
from transferlib.records import TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder

original_why_unreachable = downloads.why_unreachable
NODE = NodeFacts(
    name="a",
    python="3.11.7",
    torch="2.15.0",
    torchvision="0.29.0",
    shm_free_bytes=8 << 30,
    sees_data=True,
    sees_run=True,
    can_write=True,
    sees_weights=True,
)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Answer for the host of torchvision's weights, which is reached; return what is asked."""
    urls: list[str] = []
    monkeypatch.setattr(downloads, "why_unreachable", lambda url: urls.append(url) or "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return urls


def test_a_good_node_has_no_problems() -> None:
    assert list(node_problems(NODE)) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"torchvision": ""}, "no torch"),
        ({"torch_error": "operator torchvision::nms does not exist"}, "nms"),
        ({"sees_data": False}, "images"),
        ({"can_write": False, "problem": "permission denied"}, "permission denied"),
        ({"shm_free_bytes": 64 << 20}, "/dev/shm"),
        ({"python": "", "problem": "no answer within 40 s"}, "no word from it: no answer"),
    ],
)
def test_each_thing_that_is_wrong_is_said(changes: dict[str, object], word: str) -> None:
    assert word in "; ".join(node_problems(replace(NODE, **changes)))  # type: ignore[arg-type]


def test_a_warning_is_no_failure() -> None:
    assert exit_code([Check("a", "ok", ""), Check("b", "warning", "")]) == 0
    assert exit_code([Check("a", "ok", ""), Check("b", "failed", "")]) == 2


def test_the_table_has_a_line_a_check() -> None:
    assert len(doctor_lines([Check("a", "ok", "fine"), Check("b", "failed", "not")])) == 3


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_text_goes_on_under_its_own_column(width: int) -> None:
    text = "The cluster at http://head:8265 cannot be reached: no answer within 10 s. " * 3
    lines = doctor_lines([Check("cluster", "failed", text), Check("here: torch", "ok", "torch 2.15.0")], width)
    assert max(map(len, lines)) <= width
    found = lines[0].index("found")
    assert all(line[:found].isspace() for line in lines[2:-1])
    assert " ".join(line[found:] for line in lines[1:-1]) == text.strip()


def test_a_path_is_never_broken(tmp_path: Path) -> None:
    path = f"{tmp_path}/{'long-' * 30}name"
    assert path in "\n".join(doctor_lines([Check("images", "failed", f"{path} is not there")], 80))


class Door:
    def __init__(self, is_locked: bool) -> None:
        self.asks_for_token = lambda: is_locked


def test_a_cluster_that_takes_anybody_is_warned_of() -> None:
    assert [_door(Door(is_locked)).state for is_locked in (True, False)] == ["ok", "warning"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("torch", "state"), [("2.15.0", "ok"), ("2.15.0+cpu", "failed")])
def test_a_cluster_of_several_builds_of_torch_fails(torch: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (replace(NODE, cpus=2), replace(NODE, name="b", cpus=2, torch=torch))
    facts = ClusterFacts("http://head:8265", "2.60.0", "3.11.7", nodes)
    monkeypatch.setattr(jobs, "JobsClient", lambda address: Mock(ray_version="2.60.0"))
    monkeypatch.setattr(probe, "probe_cluster", lambda client, request: facts)
    checks = check_cluster(ClusterAddress("http://head:8265", "--address"), Wanted())
    (check,) = [check for check in checks if check.name == "cluster: torch"]
    assert check.state == state
    assert ("torch 2.15.0+cpu and torchvision 0.29.0 on b of http://head:8265" in check.text) == (state == "failed")


def test_what_is_not_installed_fails_and_the_other_checks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", find)
    checks = {check.name: check for check in check_here(Wanted())}
    assert checks["here: torch"].state == checks["here: Python, Ray"].state == "failed"
    assert "torch is not installed" in checks["here: torch"].text
    assert "here: cache disk" in checks


@pytest.mark.parametrize(
    ("ray", "state"), [(f"{doctor.TESTED_RAY}.3", "ok"), ("2.61.0", "warning"), ("3.60.0", "warning")]
)
def test_another_minor_version_of_ray_is_warned_of(ray: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: ray)
    checks = {check.name: check for check in check_here(Wanted())}
    check = checks["here: Python, Ray"]
    assert check.state == state
    assert f"Ray {ray}" in check.text
    assert (f"tested with Ray {doctor.TESTED_RAY} only" in check.text) == (state == "warning")


def test_a_machine_without_shared_memory_fails_and_the_other_checks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SHM", "/nowhere/shm")
    checks = {check.name: check for check in check_here(Wanted())}
    assert checks["here: /dev/shm"].state == "failed"
    assert "/nowhere/shm: No such file or directory" in checks["here: /dev/shm"].text
    assert "here: cache disk" in checks


@pytest.mark.parametrize(("storage", "state"), [("results", "ok"), ("photos/ant/0.jpg/results", "failed")])
def test_the_storage_is_tried_here_without_a_cluster(
    call: Callable[..., Answer], work: Path, storage: str, state: str
) -> None:
    answer = call("doctor", "--address", "local", "--storage", storage, "--json")
    (check,) = [check for check in json.loads(answer.out)["checks"] if check["name"] == "here: storage"]
    assert (check["state"], answer.code) == (state, 0 if state == "ok" else 2)
    assert not list(work.rglob(".transferlib-*"))


def test_images_that_are_not_there_fail_here(call: Callable[..., Answer]) -> None:
    answer = call("doctor", "--address", "local", "--data", "nowhere", "--json")
    said = json.loads(answer.out)
    assert answer.code == 2
    assert [check["name"] for check in said["checks"] if check["state"] == "failed"] == ["here: images"]


def test_a_cluster_that_does_not_answer_fails(call: Callable[..., Answer]) -> None:
    answer = call("doctor", "--address", "http://127.0.0.1:9", "--json")
    assert answer.code == 2
    assert json.loads(answer.out)["checks"][-1]["name"] == "cluster"


def check_of(answer: Answer, name: str) -> tuple[str, str]:
    (check,) = [check for check in json.loads(answer.out)["checks"] if check["name"] == name]
    return check["state"], check["text"]


def test_weights_that_cannot_be_downloaded_are_told_with_file_and_place(
    call: Callable[..., Answer], work: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    (work / "submit.yaml").write_text("models: {architectures: [resnet18]}")
    state, text = check_of(call("doctor", "--json"), "here: resnet18")
    assert (state, len(asked)) == ("ok", 1)
    assert "a job downloads them" in text

    monkeypatch.setattr(downloads, "why_unreachable", lambda url: "Name or service not known")
    answer = call("doctor", "--json")
    state, text = check_of(answer, "here: resnet18")
    assert (state, answer.code) == ("warning", 0)
    file = work / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    assert "cannot be downloaded (Name or service not known)" in text
    assert f"put the file from {asked[0]} at {file}" in text

    file.parent.mkdir(parents=True)
    file.write_bytes(b"not opened")
    assert check_of(call("doctor", "--json"), "here: resnet18")[0] == "ok"
    assert "here: resnet18" not in call("doctor", "--weights", "none").out


def test_weights_of_a_run_are_looked_for_in_it(call: Callable[..., Answer], work: Path) -> None:
    """As a job does: by the network, with its sha256."""
    run = RunFolder.create(work / "runs", "compare")
    run.spec.touch()
    key = TrialKey("resnet18", "full", 0, 5, 0)
    trial = run.trial(TrialSpec(key, 0.03).trial_id)
    trial.path.mkdir()
    trial.result.write_text(TrialResult(key, 0.03, "done", val_accuracy=0.5, val_loss=1.0).to_json())
    for kept in ("none", "resnet18"):
        state, text = check_of(call("doctor", "--weights", str(run.path), "--json"), "here: weights")
        assert (state, f"no finished model of resnet50. Finished and kept: {kept}." in text) == ("failed", True)
        trial.best.touch()
    run.choice.write_text("{}")
    (work / "submit.yaml").write_text("models: {architectures: [resnet18]}")
    answer = call("doctor", "--weights", str(run.path), "--json")
    origin = f"{run.run_id}/resnet18-full-s5-c0 (best on validation, accuracy 0.500)"
    assert check_of(answer, "here: weights") == ("ok", origin)
    assert "here: resnet18" not in answer.out

    for named in ("@last", run.run_id, run.run_id[:12]):
        assert check_of(call("doctor", "--weights", named, "--json"), "here: weights") == ("ok", origin)
        (work / "submit.yaml").write_text(f"models: {{architectures: [resnet18], weights: '{named}'}}")
        assert check_of(call("doctor", "--json"), "here: resnet18") == ("ok", origin)
    (work / "submit.yaml").unlink()
    run.choice.unlink()
    state, text = check_of(call("doctor", "--weights", "@last", "--arch", "resnet18", "--json"), "here: weights")
    assert (state, text) == ("ok", f"{origin}. {run.run_id} did not finish: the best of what it has was taken.")
    assert "Did you mean 'resnet18'" in call("doctor", "--arch", "resnet19").err
    answer = call("doctor", "--weights", "2020")
    assert (answer.code, "No run '2020' under" in answer.err) == (2, True)


def test_the_network_says_why_it_is_not_reached() -> None:
    assert original_why_unreachable("http://127.0.0.1:9/weights.pth")
