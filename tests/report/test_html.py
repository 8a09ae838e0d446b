from __future__ import annotations

import html
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torchvision
from safetensors.torch import save_file

from tests.report.pages import Page, page_of
from tests.synthetic_run import Story, write_run
from transferlib.report import write_report
from transferlib.runs import RunFolder

pytestmark = pytest.mark.slow

FAILED = {"resnet18-full-s1-c2": "not finite at <epoch 2>, step 1"}
ADDRESS = re.compile(
    r"https?:|//cdn|@import|url\((?!data:)|<link|<script(?! type=\"application/json\" id=\"figures\">)|<iframe|<object",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("report"), Story(failed=FAILED))


@pytest.fixture(scope="module")
def report(run: RunFolder) -> tuple[str, Page]:
    return page_of(run)


def test_report_holds_no_address_outside_the_file(report: tuple[str, Page]) -> None:
    text, page = report
    assert ADDRESS.findall(text) == []
    outside = [v for name in ("src", "href", "srcset", "xlink:href", "action") for v in page.values(name)]
    assert outside
    assert all(value.startswith(("data:image/", "#")) for value in outside)
    assert "xmlns" not in text


def test_ids_are_unique_and_references_are_answered(report: tuple[str, Page]) -> None:
    _, page = report
    assert [i for i, count in Counter(page.values("id")).items() if count > 1] == []
    assert {value[1:] for value in page.values("href") if value[0] == "#"} <= set(page.values("id"))


def test_report_is_the_same_each_time(run: RunFolder, report: tuple[str, Page]) -> None:
    assert write_report(run).read_text(encoding="utf-8") == report[0]


def test_verdict_comes_first_then_the_model_then_the_arms_with_their_limits(
    run: RunFolder, report: tuple[str, Page]
) -> None:
    _, page = report
    board = json.loads(run.leaderboard("json").read_text())
    first, *others = board["verdict"]["sentences"]
    places = [page.text.index(part) for part in (first, *others, *board["verdict"]["notes"], "The model", "Result")]
    assert places == sorted(places)
    names = [page.text.index(arm["arm"].replace("_", "_ "), page.text.index("Result")) for arm in board["arms"]]
    assert names == sorted(names)
    for arm in board["arms"]:
        for metric in (arm["accuracy"], arm["macro_f1"], arm["log_loss"]):
            assert f"{metric['mean']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})" in page.text
        assert f"{arm['ece']['mean']:.3f}" in page.text


def test_report_says_that_chances_were_equal_and_marks_rates_at_the_edge(report: tuple[str, Page]) -> None:
    _, page = report
    assert (
        "Each arm had the same chances: three learning rates for each of three seeds, at most six epochs" in page.text
    )
    assert "0.1 highest" in page.text
    assert "test measures what was chosen" in page.text


def test_failed_trials_and_skipped_files_stand_there_with_their_reasons(report: tuple[str, Page]) -> None:
    _, page = report
    assert "One failed trial" in page.text
    assert FAILED["resnet18-full-s1-c2"] in page.text
    assert "train/daisy/broken.jpg" in page.text
    assert "no image of a known format" in page.text


def test_mistakes_are_pictures_of_the_one_model_that_is_handed_over(run: RunFolder, report: tuple[str, Page]) -> None:
    _, page = report
    model = json.loads(run.leaderboard("json").read_text())["model"]
    assert f"Test images that the model above ({model['arm']}, seed {model['seed']}) got most wrong" in page.text
    assert len([value for value in page.values("src") if value.startswith("data:image/jpeg;base64,")]) >= 10
    assert "100 % sure" not in page.text
    assert not re.search(r"sure, \d of \d seeds", page.text)


def test_spec_and_environment_are_in_the_page(run: RunFolder, report: tuple[str, Page]) -> None:
    text, page = report
    assert html.escape("A processor <of two cores>") in text
    assert " ".join(run.spec.read_text().split()) in page.text


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    classes = ("<script>alert(1)", "$x^2$", "a&b\"'", "日本")
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=classes, failed={})
    text, page = page_of(write_run(tmp_path, story))
    assert text.count("<script") == 1
    assert "<script>alert(1) taken for" in page.text or "taken for <script>alert(1)" in page.text
    assert "$x^2$" in page.text
    assert ADDRESS.findall(text) == []


def test_one_training_has_a_report(tmp_path: Path) -> None:
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=("ants", "bees"))
    _, page = page_of(write_run(tmp_path, story))
    assert "resnet18-full on 2 classes of images" in page.text
    assert "no other arm to compare it with" in page.text
    assert "Differences between the arms" not in page.text
    assert "no grid" in page.text
    assert "±" not in page.text


def test_many_classes_are_listed_by_their_worst_pairs(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(100))
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=classes, per_class=(1, 1, 1))
    text, page = page_of(write_run(tmp_path, story))
    assert "Most confused pairs" in page.text
    assert "The other 80 classes" in page.text
    assert "top-5" in page.text
    assert len(text) < 400_000


def test_a_stopped_run_has_a_partial_report_that_says_so(tmp_path: Path) -> None:
    story = Story(seeds=(0, 1), unfinished=("resnet18-full-s1-c0", "resnet18-full-s1-c1", "resnet18-full-s1-c2"))
    run = write_run(tmp_path, story)
    _, page = page_of(run)
    assert "This run has not ended. 3 of 18 trials are not finished, and the test set has not been read." in page.text
    assert f"submit compare --resume {run.run_id}" in page.text
    assert "Validation images that" in page.text
    assert "best so far" in page.text
    assert "this model" not in page.text
    assert "recommended" not in page.text
    assert "model/model.safetensors" not in page.text
    assert "Use the model" not in page.text


def test_a_run_of_which_nothing_is_finished_has_a_report(tmp_path: Path) -> None:
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, unfinished=("resnet18-full-s0-c0",))
    _, page = page_of(write_run(tmp_path, story))
    assert "1 of 1 trials" in page.text
    assert "No arm has a result" in page.text


def test_a_run_of_which_everything_failed_has_a_report(tmp_path: Path) -> None:
    failed = {f"resnet18-full-s0-c{candidate}": "out of memory" for candidate in (0, 1)}
    story = Story(strategies=("full",), seeds=(0,), num_candidates=2, failed=failed)
    _, page = page_of(write_run(tmp_path, story))
    assert "All trials failed" in page.text
    assert page.text.count("out of memory") == 2


def test_pictures_that_are_gone_or_changed_are_told(tmp_path: Path) -> None:
    story = Story(strategies=("feature_extraction",), seeds=(0,), num_candidates=1)
    run = write_run(tmp_path, story)
    paths = sorted((tmp_path / "images" / "test").rglob("*.png"))
    for index, path in enumerate(paths):
        path.unlink() if index % 2 else path.write_bytes(b"something else")
    _, page = page_of(run)
    assert "not shown: file cannot be read" in page.text
    assert "not shown: the file has changed since the run" in page.text


def test_the_six_lines_load_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path, replace(Story(), strategies=("full",), seeds=(0,), num_candidates=1))
    model = torchvision.models.resnet18(num_classes=4)
    metadata = {"architecture": "resnet18", "classes": json.dumps(["a", "b", "c", "d"])}
    run.model.parent.mkdir(exist_ok=True)
    save_file(model.state_dict(), run.model, metadata)
    text, _ = page_of(run)
    code = html.unescape(re.search(r"<pre><code>(import json.*?)</code></pre>", text, re.DOTALL)[1])  # type: ignore[index]
    assert len(code.splitlines()) == 6
    monkeypatch.chdir(run.path)
    loaded: dict[str, object] = {}
    exec(code, loaded)
    assert not loaded["model"].training  # type: ignore[attr-defined]
    assert (loaded["model"].fc.weight == model.fc.weight).all()  # type: ignore[attr-defined]
