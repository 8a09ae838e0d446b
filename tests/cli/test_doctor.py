import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from transferlib.cli.doctor import Check, _door, doctor_lines, exit_code, node_problems
from transferlib.comparison.nodes import NodeFacts

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


def test_images_that_are_not_there_fail_here(call: Callable[..., Answer]) -> None:
    answer = call("doctor", "--address", "local", "--data", "nowhere", "--json")
    said = json.loads(answer.out)
    assert answer.code == 2
    assert [check["name"] for check in said["checks"] if check["state"] == "failed"] == ["here: images"]


def test_a_cluster_that_does_not_answer_fails(call: Callable[..., Answer]) -> None:
    answer = call("doctor", "--address", "http://127.0.0.1:9", "--json")
    assert answer.code == 2
    assert json.loads(answer.out)["checks"][-1]["name"] == "cluster"
