"""What a reader finds in a report, item by item."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.report.pages import figures_of, page_of, section_of, words_of
from tests.synthetic_run import Story, write_run
from transferlib.report import mistakes
from transferlib.report.content import figures_json, report_content
from transferlib.report.html import render
from transferlib.runs import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_reports")]

TWO_NETWORKS = Story(architectures=("resnet18", "vgg11"), num_mislabelled=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("finished"), Story())


@pytest.fixture(scope="module")
def text(run: RunFolder) -> str:
    return page_of(run)[0]


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("two"), TWO_NETWORKS)


def board_of(run: RunFolder) -> dict:  # type: ignore[type-arg]
    return json.loads(run.leaderboard("json").read_text())  # type: ignore[no-any-return]


def ticks_of(text: str, label: str) -> list[float]:
    """Return the numbers that a plot shows on its axes."""
    svg = re.search(rf'<svg class="plot"[^>]*aria-label="{label}.*?</svg>', text, re.DOTALL)
    assert svg is not None
    words = (element.text or "" for element in ElementTree.fromstring(svg[0]).iter("text"))
    return [float(word) for word in words if re.fullmatch(r"\d+(\.\d+)?", word)]


def test_model_stands_with_path_figure_chance_images_and_seeds(run: RunFolder, text: str) -> None:
    board, words = board_of(run), words_of(section_of(text, "model"))
    model, chance = board["model"], board["chance"]
    assert model["path"] in words
    assert f"{model['arm']} , seed {model['seed']}" in words
    assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**model["test"]) in words
    assert f"chance {chance['value']:.3f} ({chance['low']:.3f} to {chance['high']:.3f}), always “daisy”" in words
    assert f"test images {board['images']['test']}" in words
    assert "seeds 3" in words


def test_one_arm_has_the_models_badge_and_none_is_called_best_or_recommended(run: RunFolder, text: str) -> None:
    assert text.count(">this model<") == 1
    row = next(row for row in re.findall(r"<tr>.*?</tr>", section_of(text, "result"), re.DOTALL) if "this model" in row)
    assert words_of(row).startswith(board_of(run)["model"]["arm"].replace("_", "_ "))
    assert not re.search(r">(recommended|best|best on validation)<", text)


def test_cheapest_good_enough_arm_has_its_badge(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(margin=0.4))
    cheapest = board_of(run)["verdict"]["cheapest_good_enough"]
    assert cheapest
    board = section_of(page_of(run)[0], "result")
    badged = [row for row in re.findall(r"<tr>.*?</tr>", board, re.DOTALL) if "good enough, cheapest" in row]
    assert [words_of(row).startswith(cheapest.replace("_", "_ ")) for row in badged] == [True]


def test_arms_that_guess_are_said_not_to_have_learnt(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(skill=0.05))
    text, _ = page_of(run)
    assert board_of(run)["verdict"]["state"] == "at_chance"
    assert section_of(text, "result").count(">not learnt<") == 3
    assert "good enough, cheapest" not in text
    assert section_of(text, "labels") == ""


def test_majority_is_a_row_of_the_table_without_a_colour_or_a_rank(run: RunFolder, text: str) -> None:
    chance = board_of(run)["chance"]
    row = re.search(r'<tr class="chance">.*?</tr>', section_of(text, "result"), re.DOTALL)
    assert row is not None
    assert f"{chance['value']:.3f} ({chance['low']:.3f} to {chance['high']:.3f})" in words_of(row[0])
    assert "always “daisy”" in words_of(row[0])
    assert 'class="dot"' not in row[0]


def test_every_pair_is_in_the_forest_plot_and_in_its_table_in_both_readings(run: RunFolder, text: str) -> None:
    section = section_of(text, "differences")
    words = words_of(section).replace("_ ", "_")
    for pair in board_of(run)["pairs"]:
        names = (pair["a"], pair["b"]) if pair["difference"] >= 0 else (pair["b"], pair["a"])
        assert words.count(f"{names[0]} over {names[1]}") == 2
        for reading in ("these_models", "if_trained_again"):
            ends = [100 * pair[reading][end] for end in ("low", "high")]
            low, high = ends if pair["difference"] >= 0 else (-ends[1], -ends[0])
            assert f"{low:+.1f} to {high:+.1f}" in words
    assert "margin of 2 points" in words


def test_one_seed_claims_nothing_of_training_again(tmp_path: Path) -> None:
    text, _ = page_of(write_run(tmp_path, Story(seeds=(0,))))
    assert "Of training again nothing is known with fewer than three seeds" in words_of(section_of(text, "differences"))
    assert "spread" not in words_of(section_of(text, "result"))


def test_intervals_are_bars_that_hold_their_value(text: str) -> None:
    bars = re.findall(
        r'<span class="range"[^>]*><i style="left: ([\d.]+)%; width: ([\d.]+)%[^>]*></i><b style="left: ([\d.]+)%', text
    )
    assert len(bars) == 4, "three arms and chance"
    for left, width, value in (map(float, bar) for bar in bars):
        assert 0 <= left < value < left + width <= 100


def test_only_names_are_bold_and_figures_are_not(text: str) -> None:
    assert 'class="main"' not in text
    assert "td.main" not in text


def test_dominated_arms_are_grey_and_named_so(two_networks: RunFolder) -> None:
    text, _ = page_of(two_networks)
    dominated = figures_of(text)["dominated"]
    assert dominated
    assert section_of(text, "cost").count('<tr class="dominated">') == len(dominated)
    assert "another arm is at least as good for at most as many operations" in words_of(text)


def test_operations_and_seconds_stand_beside_each_other(run: RunFolder, text: str) -> None:
    words = words_of(section_of(text, "cost"))
    assert "operations training" in words
    assert re.search(r"full [\d.]+ GFLOP 21\.4 s", words)


def test_several_networks_have_a_matrix_of_network_and_strategy(two_networks: RunFolder, text: str) -> None:
    table = re.search(r'<table class="matrix">.*?</table>', page_of(two_networks)[0], re.DOTALL)
    assert table is not None
    words = words_of(table[0]).replace("_ ", "_")
    assert words.startswith("network feature_extraction last_layers full resnet18")
    for arm in board_of(two_networks)["arms"]:
        assert f"{arm['accuracy']['mean']:.3f} ({arm['accuracy']['low']:.3f}" in words
    assert 'class="matrix"' not in text


@pytest.mark.parametrize(
    ("architectures", "strategies", "title"),
    [
        (("resnet18",), ("full", "scratch"), "Two ways to transfer resnet18, compared on 4 classes"),
        (("resnet18", "vgg11"), ("full",), "Two networks with the strategy full, compared on 4 classes"),
        (("resnet18", "vgg11"), ("full", "scratch"), "Two networks and two ways to transfer, compared on 4 classes"),
    ],
)
def test_title_says_what_was_compared(
    tmp_path: Path, architectures: tuple[str, ...], strategies: tuple[str, ...], title: str
) -> None:
    story = Story(architectures=architectures, strategies=strategies, seeds=(0,), num_candidates=1)
    assert title in page_of(write_run(tmp_path, story))[1].text


def test_classes_have_their_figures_with_limits_the_worst_first(run: RunFolder, text: str) -> None:
    found = figures_of(text)["per_class"]
    assert sorted(figures["class"] for figures in found) == ["daisy", "dandelion", "rose", "sunflower"]
    assert [figures["f1"]["value"] for figures in found] == sorted(figures["f1"]["value"] for figures in found)
    words = words_of(section_of(text, "classes"))
    for figures in found:
        shown = [f"{f['value']:.2f} ({f['low']:.2f} to {f['high']:.2f})" for f in (figures["precision"], figures["f1"])]
        assert re.search(re.escape(f"{figures['class']} 12 {shown[0]}") + ".*" + re.escape(shown[1]), words)


def test_temperature_stands_beside_the_reliability_of_each_arm(text: str) -> None:
    words = words_of(section_of(text, "calibration"))
    found = re.findall(r"ECE [\d.]+; with temperature [\d.]+, fitted on validation, [\d.]+ \(means over seeds\)", words)
    assert len(found) == 3


def test_images_that_all_models_get_wrong_alike_are_shown_to_be_looked_at(two_networks: RunFolder) -> None:
    text, _ = page_of(two_networks)
    section = section_of(text, "labels")
    assert "All 18 trained models, of every arm and seed, give each of these 2 images the same class" in words_of(
        section
    )
    assert section.count("data:image/jpeg;base64,") == 2
    assert "labelled daisy , all say dandelion" in words_of(section)


def test_one_epoch_has_no_curve_and_no_axis_passes_one(tmp_path: Path, text: str) -> None:
    one_epoch, _ = page_of(write_run(tmp_path, Story(strategies=("full", "scratch"), seeds=(0,), epochs=1)))
    assert "Every training had one epoch, so there is no curve to draw" in words_of(section_of(one_epoch, "curves"))
    assert "<svg" not in section_of(one_epoch, "curves")
    for page in (one_epoch, text):
        assert max(ticks_of(page, "accuracy of each arm by seed")) <= 1
    assert max(tick for tick in ticks_of(text, "validation accuracy over epochs") if tick not in range(2, 7)) <= 1


def test_images_are_counted_in_one_table(text: str) -> None:
    details = re.search(r"<summary>Images</summary>.*?</details>", text, re.DOTALL)
    assert details is not None
    bullets = re.findall(r"<li>(.*?)</li>", details[0])
    assert bullets
    assert not [line for line in bullets if line.startswith(" ") or re.search(r"\b(daisy|all classes)\s+\d", line)]
    assert "daisy 3 10 12" in words_of(details[0].removesuffix("</details>"))


def test_terms_are_explained_once_and_not_after_their_first_section(text: str) -> None:
    terms = re.findall(r"<dfn>(.*?)</dfn>", text)
    assert len(terms) == len(set(terms))
    assert {"Arm", "Seed", "Points", "If trained again", "ECE", "Macro-F1", "Temperature"} <= set(terms)
    for term, word in (("ECE", "ECE"), ("Macro-F1", "macro-F1"), ("Temperature", "temperature")):
        first = re.search(
            rf"\b{word}\b", re.sub(r"<style>.*?</style>", lambda m: " " * len(m[0]), text, flags=re.DOTALL)
        )
        section = text.rindex("<section", 0, text.index(f"<dfn>{term}</dfn>"))
        assert first is not None
        assert first.start() >= section, f"{term} stands in a section before the one that explains it"


def test_tables_wider_than_the_window_scroll_under_a_shadow_with_their_names_in_place(text: str) -> None:
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto[^}]*local[^}]*scroll;", text, re.DOTALL)
    assert re.search(r"\.name \{[^}]*position: sticky; left: 0", text)
    outside = re.sub(r'<div class="scroll">\s*<table.*?</table>', "", text, flags=re.DOTALL)
    assert "<table" not in outside


def test_figures_for_programs_are_those_of_the_leaderboard(run: RunFolder, text: str) -> None:
    figures, board = figures_of(text), board_of(run)
    assert {name: figures[name] for name in board} == board
    assert figures["split"] == "test"
    assert list(figures) == sorted(figures)
    assert [of["arm"] for of in figures["calibration"]] == [arm["arm"] for arm in board["arms"]]
    assert sum(cell[2] for cell in figures["confusion"][board["model"]["arm"]]) == 3 * 48


def test_page_without_pictures_has_the_same_figures_and_opens_no_image(
    run: RunFolder, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(mistakes, "thumbnail", refuse)
    content = report_content(run, with_pictures=False)
    plain = render(content)
    assert figures_json(content).replace("\\u003c", "<") == json.dumps(
        figures_of(text), sort_keys=True, ensure_ascii=False
    )
    without = re.sub(r"<img [^>]*>", "", re.sub(r'<div class="frame">.*?</div>', "", text, flags=re.DOTALL))
    assert re.sub(r'<div class="frame">.*?</div>', "", plain, flags=re.DOTALL) == without
    assert "data:image/jpeg" not in plain


def test_unfinished_run_is_reported_on_validation_over_the_seeds_that_all_arms_have(tmp_path: Path) -> None:
    unfinished = tuple(f"resnet18-full-s2-c{candidate}" for candidate in range(3))
    text, page = page_of(write_run(tmp_path, Story(unfinished=unfinished)))
    figures = figures_of(text)
    assert figures["is_final"] is False
    assert figures["split"] == "val"
    assert figures["model"]["test"] is None
    assert len(figures["pairs"]) == 3
    assert all(pair["if_trained_again"] is None for pair in figures["pairs"]), "two seeds are complete"
    assert "over the 2 seeds that all arms have finished" in page.text
    assert "Figures, differences and verdict are over the seeds that all arms have finished." in page.text
    assert {seed for arm in figures["arms"] for seed in arm["val"]["accuracy"]["by_seed"]} == {"0", "1"}
    assert section_of(text, "labels") == ""
    assert "temperature" not in words_of(section_of(text, "calibration"))


def test_report_needs_no_torch(run: RunFolder) -> None:
    code = (
        "import sys; from pathlib import Path; from transferlib.runs import RunFolder; "
        "from transferlib.report.content import report_content; from transferlib.report.html import render; "
        f"render(report_content(RunFolder(Path({str(run.path)!r})), with_pictures=False)); "
        "assert not {'torch', 'torchvision', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_seeds_that_do_not_tune_are_said_to_go_on_with_the_best_rate(run: RunFolder) -> None:
    content = report_content(run, with_pictures=False)
    words = words_of(render({**content, "plan": replace(content["plan"], tuning_seeds=2)}))
    assert "three learning rates for each of the first two seeds, the best of them for the others" in words
    assert re.search(r"trials 21 three arms . \(two seeds . three rates \+ one seed\)", words)


def test_groups_of_images_are_counted_where_the_images_are(run: RunFolder) -> None:
    content = report_content(run, with_pictures=False)
    words = words_of(render({**content, "model": {**content["model"], "num_groups": 20}}))
    assert "test images 48 in 20 groups, each of which counts as one" in words
    assert "groups" not in words_of(section_of(render(content), "model"))
