from __future__ import annotations

import html
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torchvision
from safetensors.torch import save_file

from tests.synthetic_run import Story, write_run
from transferlib.report import write_report
from transferlib.runs import RunFolder

FAILED = {"resnet18-full-s1-c2": "not finite at <epoch 2>, step 1"}
ADDRESS = re.compile(r"https?:|//cdn|@import|url\((?!data:)|<link|<script|<iframe|<object", re.IGNORECASE)
VOID = {"meta", "img", "br", "link", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Check that elements nest, and gather ids, sources and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: RunFolder) -> tuple[str, Page]:
    text = write_report(run).read_text(encoding="utf-8")
    return text, Page(text)


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


def test_verdict_comes_first_and_every_arm_has_its_figures(run: RunFolder, report: tuple[str, Page]) -> None:
    _, page = report
    board = json.loads(run.leaderboard("json").read_text())
    assert page.text.index(board["verdict"]) < page.text.index("Result")
    places = [page.text.index(arm["arm"].replace("_", "_ "), page.text.index("Result")) for arm in board["arms"]]
    assert places == sorted(places)
    for arm in board["arms"]:
        for metric in (arm["val"]["accuracy"], arm["accuracy"], arm["macro_f1"], arm["log_loss"], arm["ece"]):
            assert f"{metric['mean']:.3f} ± {metric['std']:.3f}" in page.text


def test_report_says_that_chances_were_equal_and_marks_rates_at_the_edge(report: tuple[str, Page]) -> None:
    _, page = report
    assert (
        "Each arm had the same chances: three learning rates for each of three seeds, at most six epochs" in page.text
    )
    assert "0.1 highest" in page.text
    assert "decided nothing" in page.text


def test_failed_trials_and_skipped_files_stand_there_with_their_reasons(report: tuple[str, Page]) -> None:
    _, page = report
    assert "One failed trial" in page.text
    assert FAILED["resnet18-full-s1-c2"] in page.text
    assert "train/daisy/broken.jpg" in page.text
    assert "no image of a known format" in page.text


def test_mistakes_of_the_recommended_arm_are_pictures_in_the_page(report: tuple[str, Page]) -> None:
    _, page = report
    assert "Test images that resnet18-last_layers got most wrong" in page.text
    assert len([value for value in page.values("src") if value.startswith("data:image/jpeg;base64,")]) >= 10


def test_spec_and_environment_are_in_the_page(run: RunFolder, report: tuple[str, Page]) -> None:
    text, page = report
    assert html.escape("A processor <of two cores>") in text
    assert " ".join(run.spec.read_text().split()) in page.text


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    classes = ("<script>alert(1)", "$x^2$", "a&b\"'", "日本")
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=classes, failed={})
    text, page = page_of(write_run(tmp_path, story))
    assert "<script" not in text
    assert "<script>alert(1) taken for" in page.text or "taken for <script>alert(1)" in page.text
    assert "$x^2$" in page.text
    assert ADDRESS.findall(text) == []


def test_one_training_has_a_report(tmp_path: Path) -> None:
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=("ants", "bees"))
    _, page = page_of(write_run(tmp_path, story))
    assert "resnet18-full on 2 classes of images" in page.text
    assert "noise was not measured" in page.text
    assert "no grid" in page.text
    assert "±" not in page.text


def test_many_classes_are_listed_by_their_worst_pairs(tmp_path: Path) -> None:
    classes = tuple(f"class {number}" for number in range(100))
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=classes, per_class=(1, 1, 1))
    text, page = page_of(write_run(tmp_path, story))
    assert "Most confused pairs" in page.text
    assert "Classes found least" in page.text
    assert "top-5" in page.text
    assert len(text) < 400_000


def test_a_stopped_run_has_a_partial_report_that_says_so(tmp_path: Path) -> None:
    story = Story(seeds=(0, 1), unfinished=("resnet18-full-s1-c0", "resnet18-full-s1-c1", "resnet18-full-s1-c2"))
    run = write_run(tmp_path, story)
    _, page = page_of(run)
    assert "This run has not ended. 3 of 18 trials are not finished, and the test set has not been read." in page.text
    assert f"submit compare --resume {run.run_id}" in page.text
    assert "Validation images that" in page.text
    assert "recommended" not in page.text
    assert "Use the model" not in page.text


def test_a_run_of_which_nothing_is_finished_has_a_report(tmp_path: Path) -> None:
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, unfinished=("resnet18-full-s0-c0",))
    _, page = page_of(write_run(tmp_path, story))
    assert "No arm has a result. 1 of 1 trials have not ended" in page.text


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
    save_file(model.state_dict(), run.trial("resnet18-full-s0-c0").best, metadata)
    text, _ = page_of(run)
    code = html.unescape(re.search(r"<pre><code>(import json.*?)</code></pre>", text, re.DOTALL)[1])  # type: ignore[index]
    assert len(code.splitlines()) == 6
    monkeypatch.chdir(run.path)
    loaded: dict[str, object] = {}
    exec(code, loaded)
    assert not loaded["model"].training  # type: ignore[attr-defined]
    assert (loaded["model"].fc.weight == model.fc.weight).all()  # type: ignore[attr-defined]
