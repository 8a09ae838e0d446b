"""The record of the cluster that is up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from transferlib.clusters import ClusterRecord, forget_cluster, record_cluster, recorded_cluster, state_dir
from transferlib.errors import UsageError

RECORD = ClusterRecord("http://127.0.0.1:8265", "127.0.0.1:1", "/tmp/tl-x/token", "/tmp/tl-x", [1, 2], 3.0)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "transferlib"


def test_a_record_is_read_back_as_it_was_written_and_can_be_forgotten() -> None:
    assert recorded_cluster() is None
    record_cluster(RECORD)
    assert recorded_cluster() == RECORD
    assert state_dir().stat().st_mode & 0o777 == 0o700
    forget_cluster()
    forget_cluster()
    assert recorded_cluster() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps(dataclasses.asdict(RECORD) | {"node_pids": 7}),
        json.dumps(dataclasses.asdict(RECORD) | {"temp_dir": ""}),
        json.dumps(dataclasses.asdict(RECORD) | {"started_at": "now"}),
        json.dumps(dataclasses.asdict(RECORD) | {"more": 1}),
    ],
)
def test_a_damaged_record_is_not_taken_for_no_cluster(state: Path, text: str) -> None:
    state.mkdir()
    (state / "cluster.json").write_text(text)
    with pytest.raises(UsageError, match=r"cluster\.json is damaged"):
        recorded_cluster()


def test_a_record_that_cannot_be_read_is_not_taken_for_no_cluster(state: Path) -> None:
    (state / "cluster.json").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read"):
        recorded_cluster()
