"""verify, diff and --fail-under, on runs that were written and not trained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import FAKE_JOB, REPO, Answer
from tests.synthetic_run import Story, write_run
from transferlib.cli.judging import check_report
from transferlib.comparison.ledger import record_reading
from transferlib.comparison.mismatches import Verification
from transferlib.comparison.verify import verify_run
from transferlib.report import write_report
from transferlib.runs import RunFolder, read_json, write_json

STORY = Story(strategies=("last_layers", "full"), num_candidates=2, classes=("a", "b", "c"), per_class=(2, 6, 8))
Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        run = write_run(tmp_path_factory.mktemp("whole"), STORY)
        record_reading(run)
        write_report(run)
    return run


@pytest.fixture
def run(quick_reports: None, whole: RunFolder, work: Path) -> RunFolder:
    """Put the run into the current folder's runs."""
    shutil.copytree(whole.path, work / "runs" / whole.run_id)
    return RunFolder(work / "runs" / whole.run_id)


@pytest.fixture
def other(whole: RunFolder, work: Path) -> RunFolder:
    """Put a second run there, on some of the same photos and with other arms' skills."""
    story = Story(strategies=("full", "scratch"), num_candidates=1, classes=("a", "b", "c"), per_class=(2, 6, 6))
    written = write_run(work / "second", story)
    run = RunFolder(work / "runs" / "20261126-020000-compare-5eed")
    shutil.copytree(written.path, run.path)
    return run


def flip_page(run: RunFolder, old: str, new: str) -> None:
    page = run.report.read_text()
    assert old in page
    run.report.write_text(page.replace(old, new, 1))


@pytest.mark.slow
def test_a_whole_run_verifies_in_one_line(call: Call, run: RunFolder) -> None:
    answer = call("verify", "@last")
    assert answer.code == 0, answer.out
    assert re.fullmatch(rf"Run {run.run_id} agrees with its predictions: \d,\d+ values compared\.\n", answer.out)
    said = json.loads(call("verify", run.run_id, "--json").out)
    assert (said["id"], said["state"], said["exit_code"], said["agrees"], said["differs"]) == (
        run.run_id,
        "done",
        0,
        True,
        [],
    )


def test_what_differs_is_named_and_is_exit_1(call: Call, run: RunFolder) -> None:
    board = read_json(run.leaderboard("json"))
    right = board["arms"][0]["accuracy"]["mean"]
    board["arms"][0]["accuracy"]["mean"] = 0.99
    write_json(run.leaderboard("json"), board)
    answer = call("verify", run.run_id)
    assert answer.code == 1
    place = f"arms[{board['arms'][0]['arm']}].accuracy.mean"
    assert answer.out.startswith(f"leaderboard.json, {place}: says 0.99, should be {right}.\n")
    assert answer.out.endswith(f"Run {run.run_id} does not agree with its sources: 1 difference in 1 file.\n")
    answer = call("verify", run.run_id, "--json")
    said = json.loads(answer.out)
    assert (answer.code, said["exit_code"]) == (1, 1)
    assert said["differs"] == [
        {"file": "leaderboard.json", "place": place, "problem": f"says 0.99, should be {right}"},
    ]


@pytest.mark.slow
def test_every_figure_and_word_of_the_report_is_compared(run: RunFolder) -> None:
    whole = run.report.read_text()
    board = read_json(run.leaderboard("json"))
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', whole, re.DOTALL)[1])  # type: ignore[index]
    changes: list[Callable[[], None]] = [
        lambda: flip_page(run, f'"difference": {figures["pairs"][0]["difference"]}', '"difference": 0.3'),
        lambda: flip_page(run, '"is_final": true', '"is_final": false'),
        lambda: flip_page(run, f'"image_id": "{figures["mistakes"][0]["image_id"]}"', '"image_id": "x.png"'),
        lambda: flip_page(run, board["verdict"]["sentences"][0][:30], "Everything is fine. Really"),
        lambda: flip_page(run, "</h2>", "!</h2>"),
        lambda: flip_page(run, "</td>", "9</td>"),
        lambda: flip_page(run, "</text>", "9</text>"),
        lambda: flip_page(run, '"arms": [', '"arms": ['[:-1]),
        lambda: flip_page(run, 'id="figures"', 'id="numbers"'),
        lambda: flip_page(run, whole, ""),
        lambda: run.report.unlink(),
    ]
    for number, change in enumerate(changes):
        change()
        found = Verification()
        check_report(run, found)
        assert {mismatch.file for mismatch in found.mismatches} == {"report.html"}, number
        run.report.write_text(whole)


def test_pictures_and_lines_of_plots_are_not_compared(run: RunFolder) -> None:
    page = run.report.read_text()
    assert "data:image/jpeg;base64," in page
    page = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "data:image/jpeg;base64,AAAA", page)
    run.report.write_text(re.sub(r'(<path\b[^>]* d="M )[\d.]+', r"\g<1>1.25", page))
    found = Verification()
    check_report(run, found)
    assert found.mismatches == []


def test_images_that_are_gone_do_not_matter(run: RunFolder, whole: RunFolder) -> None:
    away = whole.path.parents[1] / "images"
    away.rename(away.with_name("away"))
    try:
        assert verify_run(run, check_report).mismatches == []
    finally:
        away.with_name("away").rename(away)


def test_another_versions_words_are_told_apart(call: Call, run: RunFolder) -> None:
    environment = read_json(run.environment)
    environment["versions"]["transferlib"] = "0.0.1"
    write_json(run.environment, environment)
    assert "It was made by transferlib 0.0.1, and this is" in call("verify", run.run_id).out


def test_an_older_result_is_one_clear_sentence(call: Call, run: RunFolder) -> None:
    write_json(run.leaderboard("json"), {"schema": 1})
    answer = call("verify", run.run_id)
    assert answer.code == 2
    assert "was written by an older version (leaderboard.json has schema 1, this verifies 2)" in answer.err


@pytest.mark.slow
def test_verifying_loads_no_torch(run: RunFolder) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('LOADED', sorted({'torch', 'ray'} & set(sys.modules))))\n"
        f"from transferlib.cli.main import main; main(['verify', {str(run.path)!r}])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(REPO)})
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.endswith("LOADED []\n")


def test_two_runs_are_compared_on_the_photos_they_share(call: Call, run: RunFolder, other: RunFolder) -> None:
    answer = call("diff", run.run_id, other.run_id)
    assert answer.code == 0, answer.err
    assert "Both have 18 test images; 6 are only in A, 0 only in B." in answer.out
    assert "Models handed over: A's is resnet18-" in answer.out
    assert re.search(r"\nresnet18-full +0\.\d{3} +0\.\d{3} +3 +[+-]\d", answer.out)
    assert "scratch" not in answer.out.split("\narm ")[1]
    said = json.loads(call("diff", run.run_id, other.run_id, "--json").out)
    assert (said["id"], said["state"], said["exit_code"]) == (other.run_id, "done", 0)
    assert said["images"] == {"shared": 18, "only_a": 6, "only_b": 0, "matched_by": "content"}
    assert said["models"]["if_trained_again"] is None
    assert said["arms"][0]["if_trained_again"]["low"] < said["arms"][0]["difference"]


def test_named_arms_are_compared(call: Call, run: RunFolder, other: RunFolder) -> None:
    answer = call("diff", run.run_id, other.run_id, "--arm", "resnet18-last_layers", "--arm-b", "resnet18-scratch")
    assert answer.code == 0
    assert "resnet18-last_layers / resnet18-scratch" in answer.out
    assert "Models handed over" not in answer.out
    answer = call("diff", run.run_id, other.run_id, "--arm", "resnet18-last_layers")
    assert answer.code == 2
    assert "Unknown arm 'resnet18-last_layers'" in answer.err


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_run_that_does_worse_fails_a_gate(
    call: Call, run: RunFolder, other: RunFolder, more: tuple[str, ...]
) -> None:
    arms = ("--arm", "resnet18-full", "--arm-b", "resnet18-scratch")
    difference = json.loads(call("diff", run.run_id, other.run_id, *arms, "--json").out)["arms"][0]["difference"]
    assert difference > 0.05
    assert call("diff", run.run_id, other.run_id, *arms, "--fail-under", str(difference + 0.01), *more).code == 0
    answer = call("diff", run.run_id, other.run_id, *arms, "--fail-under", "0.01", *more)
    assert answer.code == 1
    assert f"resnet18-scratch of {other.run_id} is worse by" in answer.err
    assert "--fail-under is 1 points" in answer.err
    back = call("diff", other.run_id, run.run_id, "--arm", arms[3], "--arm-b", arms[1], "--fail-under", "0", *more)
    assert back.code == 0


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_result_below_the_limit_is_exit_1(call: Call, run: RunFolder, more: tuple[str, ...]) -> None:
    value = read_json(run.leaderboard("json"))["model"]["test"]["value"]
    assert call("result", "@last", "--fail-under", str(value), *more).code == 0
    answer = call("result", "@last", "--fail-under", str(value + 0.001), *more)
    assert answer.code == 1
    assert f"The model handed over has accuracy {value:.4g} on test, below the" in answer.err
    assert answer.out == call("result", "@last", *more).out


def test_of_log_loss_the_limit_is_the_highest(call: Call, run: RunFolder) -> None:
    board = read_json(run.leaderboard("json"))
    board["metric"] = "log_loss"
    board["model"]["test"]["value"] = 1.5
    write_json(run.leaderboard("json"), board)
    assert call("result", "@last", "--fail-under", "1.6").code == 0
    answer = call("result", "@last", "--fail-under", "1.4")
    assert answer.code == 1
    assert "log-loss 1.5 on test, above the 1.4 of --fail-under" in answer.err


def test_a_limit_that_no_model_reaches_is_told(call: Call, run: RunFolder) -> None:
    answer = call("result", "@last", "--fail-under", "90")
    assert answer.code == 2
    assert "--fail-under 90: accuracy lies between 0 and 1. Did you mean 0.9?" in answer.err
    answer = call("compare", "--data", "photos", "--arch", "resnet18", "--fail-under", "90")
    assert answer.code == 2
    assert "Did you mean 0.9?" in answer.err
    assert len(list(Path("runs").iterdir())) == 1


def test_a_job_with_too_few_successes_keeps_its_code_where_the_gate_holds(call: Call, run: RunFolder) -> None:
    run.set_status("done", exit_code=4, message="")
    assert call("result", "@last", "--fail-under", "0.01").code == 4
    assert call("result", "@last", "--fail-under", "0.999").code == 1
    run.set_status("failed", exit_code=3, error="?")
    assert call("result", "@last", "--fail-under", "0.999").code == 3


@pytest.mark.parametrize("more", [("-d",), ("--dry-run",)])
@pytest.mark.parametrize("verb", ["compare", "train"])
def test_a_gate_needs_a_result(call: Call, verb: str, more: tuple[str, ...]) -> None:
    answer = call(verb, "--data", "photos", "--arch", "resnet18", "--fail-under", "0.9", *more)
    assert answer.code == 2
    assert "submit result RUN --fail-under 0.9" in answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_run_that_is_done_is_held_against_the_limit_when_it_is_asked_for_again(
    call: Call, run: RunFolder, more: tuple[str, ...]
) -> None:
    assert call("compare", "--resume", "@last", "--fail-under", "0.999", *more).code == 1
    assert call("compare", "--resume", "@last", "--fail-under", "0.01", *more).code == 0


PLAYS_AND_LEAVES_A_BOARD = """
import json, runpy, sys
from pathlib import Path
try:
    runpy.run_path({fake!r}, run_name="__main__")
finally:
    (Path(sys.argv[1]) / "leaderboard.json").write_text(json.dumps({board!r}))
"""


@pytest.mark.parametrize(("limit", "code"), [("0.5", 0), ("0.9999", 1)])
@pytest.mark.parametrize("verb", ["compare", "train"])
def test_a_job_that_was_waited_for_is_held_against_the_limit(
    call: Call, run: RunFolder, monkeypatch: pytest.MonkeyPatch, verb: str, limit: str, code: int
) -> None:
    from transferlib.cli import executor

    board = read_json(run.leaderboard("json"))
    board["model"]["test"]["value"] = 0.75
    script = Path("job.py").absolute()
    script.write_text(PLAYS_AND_LEAVES_A_BOARD.format(fake=str(FAKE_JOB), board=board))
    monkeypatch.setattr(executor, "job_script", lambda name: script)
    small = ("--data", "photos", "--arch", "resnet18", "--seeds", "1", "--lr-candidates", "1", "--epochs", "1")
    answer = call(verb, *small, "--json", "--fail-under", limit)
    assert answer.code == code, answer.err
    assert json.loads(answer.out)["exit_code"] == 0  # of the job itself
    assert ("The model handed over has accuracy 0.75 on test, below" in answer.err) == (code == 1)
