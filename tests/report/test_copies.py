"""Pairs of images that show the same, on the page, and the figures without test images of train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.pages import figures_of, page_of, section_of, words_of
from tests.synthetic_run import Story, write_run
from transferlib.data.manifest import Manifest
from transferlib.data.near_notes import copy_pairs, shown_in_train
from transferlib.report.copies import MAX_PAIRS


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    story = Story(classes=("ants", "bees"), near_duplicates="group")
    run = write_run(tmp_path_factory.mktemp("copies"), story)
    return page_of(run)[0], Manifest.load(run.manifest)


@pytest.mark.slow
def test_pairs_are_shown_with_both_pictures_leaks_first(told: tuple[str, Manifest]) -> None:
    text, manifest = told
    pairs, section = copy_pairs(manifest.table), section_of(text, "copies")
    assert len(pairs) > MAX_PAIRS
    assert section.count("<li>") == MAX_PAIRS
    assert section.count("data:image/jpeg") == 2 * MAX_PAIRS
    assert [pair.is_leak for pair in pairs] == sorted((pair.is_leak for pair in pairs), reverse=True)
    assert pairs[0].sides[0].image_id in section


def test_figures_stand_there_with_and_without_leaked_test_images(told: tuple[str, Manifest]) -> None:
    text, manifest = told
    leaked = shown_in_train(manifest.table, "test")
    found = figures_of(text)["copies"]
    assert found["num_leaked"] == len(leaked) > 0
    assert f"{len(leaked)} test images" in words_of(section_of(text, "copies"))
    assert {leak["arm"] for leak in found["leaks"]} == {arm["arm"] for arm in figures_of(text)["arms"]}
    for leak in found["leaks"]:
        assert f"{leak['without']:.3f}" in section_of(text, "copies")
        assert leak["with"] == next(a["accuracy"]["mean"] for a in figures_of(text)["arms"] if a["arm"] == leak["arm"])


def test_where_they_are_not_looked_for_there_is_no_section(tmp_path: Path) -> None:
    text, _ = page_of(write_run(tmp_path, Story(classes=("ants", "bees"), strategies=("full",), seeds=(0,))))
    assert section_of(text, "copies") == ""
