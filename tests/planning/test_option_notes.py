from typing import Any

import pytest

from transferlib.data.listing import Entry, Listing
from transferlib.planning.option_notes import decide_metric, option_notes, worker_notes
from transferlib.spec import JobSpec

ALL = ("train", "val", "test")


def notes(*splits: str | None, data: dict[str, Any] | None = None, **sections: dict[str, Any]) -> tuple[str, ...]:
    entries = tuple(
        Entry(f"{split}/{index}", f"/photos/{split}/{index}", "ant", split)
        for split in splits or (None,)
        for index in range(3)
    )
    spec = JobSpec.from_mapping({"data": {"path": "/photos", **(data or {})}, **sections})
    return option_notes(spec, Listing("/photos", "split folders", entries))


@pytest.mark.parametrize("splits", [(), ALL, ("train", "test")])
def test_defaults_need_no_word(splits: tuple[str, ...]) -> None:
    assert notes(*splits) == ()


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"comparison": {"base_lr": 0.1, "lr_candidates": [0.01, 0.3]}}, "--base-lr 0.1 has no effect"),
        ({"training": {"optimizer": "adamw", "momentum": 0.5}}, "--momentum 0.5 has no effect"),
        ({"strategies": {"names": ["full"], "last_stages": 2}}, "--last-stages 2 has no effect"),
        ({"strategies": {"names": ["scratch"], "stage_lr_factor": 1}}, "--stage-lr-factor 1 has no effect"),
        ({"data": {"cache": {"mode": "none", "dir": "/c"}}}, "--cache-dir /c has no effect with --cache none"),
        ({"data": {"cache": {"mode": "none", "max_bytes": 9}}}, "--cache-size 9 has no effect with --cache none"),
        ({"models": {"weights": "DEFAULT"}, "strategies": {"names": ["scratch"]}}, "--weights DEFAULT has no effect"),
    ],
)
def test_option_without_effect_is_told(sections: dict[str, Any], text: str) -> None:
    (note,) = notes(**sections)
    assert note.startswith(text)


@pytest.mark.parametrize(
    "sections",
    [
        {"comparison": {"base_lr": 0.1, "lr_candidates": 2}},
        {"training": {"momentum": 0.5}},
        {"strategies": {"last_stages": 2, "stage_lr_factor": 0.5}},
        {"data": {"cache": {"dir": "/c", "max_bytes": 9}, "split": {"val": 0.3, "test": 0.2, "seed": 4}}},
        {"models": {"weights": "DEFAULT"}},
    ],
)
def test_option_with_effect_needs_no_word(sections: dict[str, Any]) -> None:
    assert notes(**sections) == ()


def test_shares_and_seed_of_a_cut_that_is_not_made_are_told() -> None:
    cut = {"split": {"val": 0.3, "test": 0.2, "seed": 4}}
    told = notes(*ALL, data=cut)
    assert [note.split(" has")[0] for note in told] == ["--val-share 0.3", "--test-share 0.2", "--split-seed 4"]
    (held_out,) = notes("train", "val", data=cut)
    assert held_out == "--test-share 0.2 has no effect: the test images are given (split folders)."
    assert notes("train", data=cut) == ()


def test_random_frozen_layers_are_told() -> None:
    note, of_full = notes(models={"weights": "none"})
    assert of_full.startswith("--weights none with full: it begins from random weights as scratch does")
    assert note.startswith("--weights none with feature_extraction and last_layers: the frozen layers stay random")
    every_stage = {"names": ["last_layers"], "last_stages": 5}  # of a ResNet: none is frozen
    assert notes(models={"weights": "none"}, strategies=every_stage) == ()


@pytest.mark.parametrize(
    ("workers", "sections", "text"),
    [
        (1, {}, "--no-sync-batchnorm has no effect: a trial has one worker."),
        (2, {"strategies": {"names": ["feature_extraction"]}}, "no effect: no BatchNorm is trained"),
        (2, {"models": {"architectures": ["vgg11"]}}, "no effect: no BatchNorm is trained"),
        (2, {"models": {"architectures": ["vgg11_bn"]}, "strategies": {"names": ["last_layers"]}}, "no effect"),
        (2, {"models": {"architectures": ["vgg11_bn"]}}, "results depend on the number of workers"),
        (4, {}, "from each of 4 workers' share of a step, so results depend on the number of workers"),
    ],
)
def test_batchnorm_apart_on_each_worker_is_told(workers: int, sections: dict[str, Any], text: str) -> None:
    asked = JobSpec.from_mapping({"data": {"path": "/photos"}, **sections})
    assert list(worker_notes(asked, workers)) == []
    apart = asked.model_copy(update={"training": asked.training.model_copy(update={"sync_batchnorm": False})})
    (note,) = worker_notes(apart, workers)
    assert text in note


@pytest.mark.parametrize(
    ("sizes", "metric"), [((100, 11), "accuracy"), ((100, 10), "balanced_accuracy"), ((50, 50), "accuracy")]
)
def test_balanced_accuracy_decides_where_the_largest_class_has_ten_times_the_smallest(
    sizes: tuple[int, int], metric: str
) -> None:
    labels = ["many"] * sizes[0] + ["few"] * sizes[1]
    entries = tuple(Entry(f"{label}/{n}.png", f"/{label}/{n}.png", label) for n, label in enumerate(labels))
    found = Listing("/photos", "class folders", entries)
    open_spec = JobSpec.from_mapping({"data": {"path": "/photos"}})
    assert open_spec.comparison.metric is None
    assert decide_metric(open_spec, found).comparison.metric == metric
    told = JobSpec.from_mapping({"data": {"path": "/photos"}, "comparison": {"metric": "macro_f1"}})
    assert decide_metric(told, found) == told
