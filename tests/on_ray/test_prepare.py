"""What a job settles, and what a resumed one may find changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.telemetry.run_folders import begin_run
from transferlib.errors import DamagedFileError, RunFolderError
from transferlib.on_ray import prepare
from transferlib.on_ray.prepare import settle
from transferlib.on_ray.settled import Prepared
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder, read_json, write_json

PREPARED = Prepared("fp32", {"resnet18": "12ab"}, {}, [])


class Attempts:
    """Be the job of one run again and again, each time under the versions and on the processor given."""

    def __init__(self, run: RunFolder, plan: Plan, patch: pytest.MonkeyPatch) -> None:
        self.run, self.plan, self._patch = run, plan, patch

    def __call__(self, torch: str, processor: str = "one", *, is_allowed: bool = False) -> None:
        now = {"bit_exact": True, "versions": {"torch": torch, "numpy": "2.3"}, "processor": processor}
        self._patch.setattr(prepare, "describe_environment", lambda plan: now)
        if is_allowed:
            self.run.resume_changed_flag.touch()
        settle(self.run, PREPARED, self.plan)


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(*begin_run(tmp_path), monkeypatch)


def test_a_resume_that_finds_all_as_it_was_stays_bit_exact(attempt: Attempts) -> None:
    attempt("2.15")
    attempt("2.15")
    assert read_json(attempt.run.environment)["bit_exact"] is True


def test_a_change_is_refused_unless_it_is_allowed_and_marks_the_run(attempt: Attempts) -> None:
    attempt("2.15")
    with pytest.raises(RunFolderError, match=r"torch: 2\.15 then, 2\.16 now.*--resume-changed"):
        attempt("2.16")
    attempt("2.16", is_allowed=True)
    environment = read_json(attempt.run.environment)
    assert (environment["bit_exact"], environment["changes"]) == (False, ["torch: 2.15 then, 2.16 now"])


def test_what_was_allowed_once_stays_allowed_and_the_next_change_is_refused(attempt: Attempts) -> None:
    attempt("2.15")
    attempt("2.16", is_allowed=True)
    attempt("2.16")
    with pytest.raises(RunFolderError, match=r"torch: 2\.16 then, 2\.17 now"):
        attempt("2.17")
    with pytest.raises(RunFolderError, match=r"torch: 2\.16 then, 2\.15 now"):
        attempt("2.15")
    with pytest.raises(RunFolderError, match="processor: one then, two now"):
        attempt("2.16", "two")


def test_every_change_that_was_allowed_stays_on_record(attempt: Attempts) -> None:
    attempt("2.15")
    attempt("2.16", is_allowed=True)
    attempt("2.16", "two", is_allowed=True)
    attempt("2.16", "two")
    environment = read_json(attempt.run.environment)
    assert environment["bit_exact"] is False
    assert environment["changes"] == ["torch: 2.15 then, 2.16 now", "processor: one then, two now"]


def test_leave_that_was_not_needed_is_no_leave_for_later(attempt: Attempts) -> None:
    attempt("2.15")
    attempt("2.15", is_allowed=True)
    assert read_json(attempt.run.environment)["bit_exact"] is True
    with pytest.raises(RunFolderError, match="would not go on bit for bit"):
        attempt("2.16")


def test_what_an_older_version_did_not_settle_is_settled_on_resume(attempt: Attempts) -> None:
    attempt("2.15")
    write_json(attempt.run.prepared, {**(read_json(attempt.run.prepared) or {}), "manifest_sha256": ""})
    settle(attempt.run, PREPARED, attempt.plan, "ab12")
    assert read_json(attempt.run.prepared)["manifest_sha256"] == "ab12"


@pytest.mark.parametrize("text", ["", "[]", '{"precision": 3, "more": 4}', "null"])
def test_a_damaged_record_of_what_was_settled_is_named(attempt: Attempts, text: str) -> None:
    attempt.run.prepared.write_text(text)
    with pytest.raises(DamagedFileError, match=r"prepared\.json is damaged"):
        Prepared.load(attempt.run)
