"""What the run folder's files become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.synthetic_run import Story, write_run
from tests.telemetry.run_folders import EPOCHS, RUN_ID, begin_run, end, show
from transferlib.data.manifest import Manifest
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder
from transferlib.telemetry.feed import Feed, Sample, count_images, free_bytes
from transferlib.telemetry.trial_feed import SCRAPES_AFTER_END

P = "transferlib_"
OF_TRIAL = {"run": RUN_ID, "arm": "resnet18-full", "seed": "0", "candidate": "0"}


def feed_of(run: RunFolder, plan: Plan, cache_dir: Path | None = None) -> Feed:
    return Feed(run, plan, verb="compare", cache_dir=cache_dir)


def value(samples: Sequence[Sample], name: str, **labels: str) -> float | None:
    found = [s.value for s in samples if s.name == P + name and labels.items() <= s.labels.items()]
    assert len(found) <= 1, f"{name} {labels} is there {len(found)} times"
    return found[0] if found else None


def trial_series(samples: Sequence[Sample], arm: str = "resnet18-full") -> set[str]:
    return {s.name for s in samples if "seed" in s.labels and s.labels["arm"] == arm}


def test_before_a_trial_begins_the_job_is_there_and_no_trial_is(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=2)
    samples = feed_of(run, plan).scrape()
    assert value(samples, "job_info", verb="compare") == 1
    assert value(samples, "arm_info", arm="resnet18-full", architecture="resnet18", strategy="full") == 1
    assert value(samples, "trials", state="pending") == 4
    assert value(samples, "trials", state="done") == 0
    assert value(samples, "budget_left_epochs", arm="resnet18-full") == 2 * EPOCHS
    assert value(samples, "trial_restarts_total", arm="resnet18-full") == 0
    for absent in ("best_validation_accuracy", "images_used", "last_progress_timestamp_seconds", "job_state"):
        assert not [s for s in samples if s.name == P + absent]
    assert trial_series(samples) == set()


def test_a_seed_that_goes_on_with_one_rate_counts_once_before_and_after_it_is_decided(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=3, candidates=2, tuning_seeds=1)
    feed = feed_of(run, plan)
    samples = feed.scrape()
    assert value(samples, "trials", state="pending") == 2 * (2 + 2)
    assert value(samples, "budget_left_epochs", arm="resnet18-full") == (2 + 2) * EPOCHS
    for trial in plan.trials:
        if trial.arm == "resnet18-full" and trial.seed == 0:
            end(run, trial, val_accuracy=0.9 - trial.lr)
        if trial.arm == "resnet18-full" and trial.seed > 0 and trial.candidate == 1:
            end(run, trial, "spared")
    samples = feed.scrape()
    assert value(samples, "trials", state="pending") == 4 + 2
    assert value(samples, "trials", state="done") == 2
    assert value(samples, "budget_left_epochs", arm="resnet18-full") == 2 * EPOCHS


def test_a_running_trials_progress_becomes_its_series(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    show(run, plan.trials[1], num_restarts=1)
    samples = feed.scrape()
    expected: dict[tuple[str, str], float] = {
        ("images_total", "train"): 62,
        ("images_total", "val"): 13,
        ("steps_total", "train"): 9,
        ("steps_total", "val"): 1,
        ("step_seconds_total", "train"): 2.0,
        ("step_seconds_total", "val"): 0.25,
        ("data_wait_seconds_total", "train"): 0.5,
        ("data_wait_seconds_total", "val"): 0.125,
        ("steps_redone_total", ""): 3,
        ("checkpoint_seconds_total", ""): 0.0625,
        ("checkpoint_bytes_total", ""): 4096,
        ("loss", ""): 0.5,
        ("validation_accuracy", ""): 0.75,
        ("validation_loss", ""): 0.625,
        ("epoch", ""): 1,
        ("memory_bytes", ""): 1 << 20,
    }
    for (name, phase), wanted in expected.items():
        labels = OF_TRIAL | ({"phase": phase} if phase else {})
        assert value(samples, name, **labels) == wanted, name
    assert value(samples, "learning_rate", stage="stem", **OF_TRIAL) == 0.0
    assert value(samples, "learning_rate", stage="head", **OF_TRIAL) == 0.01
    assert trial_series(samples) == {P + name for name, _ in expected} | {P + "learning_rate"}
    assert value(samples, "trials", state="running") == 1
    assert value(samples, "best_validation_accuracy", arm="resnet18-full") == 0.75
    assert value(samples, "budget_left_epochs", arm="resnet18-full") == EPOCHS - 1
    assert value(samples, "trial_restarts_total", arm="resnet18-full") == 1
    assert value(samples, "last_progress_timestamp_seconds") == 100.0


def test_what_a_gpu_tells_is_shown_and_what_it_does_not_is_absent(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    show(run, plan.trials[1], gpu_memory_bytes=2048, gpu_utilisation=0.0)
    samples = feed.scrape()
    assert value(samples, "gpu_memory_bytes") == 2048
    assert value(samples, "gpu_utilisation_ratio") == 0.0
    show(run, plan.trials[1], gpu_memory_bytes=2048, gpu_utilisation=None, at=101.0)
    assert value(feed.scrape(), "gpu_utilisation_ratio") is None


def test_before_a_step_there_is_no_loss_and_before_an_epoch_no_validation(tmp_path: Path) -> None:
    from transferlib.records import TrialTotals

    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    show(run, plan.trials[1], totals=TrialTotals(), loss=0.0, epoch=0, val_accuracy=[], val_loss=None)
    samples = feed.scrape()
    assert value(samples, "images_total", phase="train") == 0
    for absent in ("loss", "validation_accuracy", "validation_loss", "best_validation_accuracy"):
        assert value(samples, absent) is None


def test_an_ended_trial_is_seen_three_times_more_with_its_last_values(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    trial = plan.trials[1]
    for at in range(10):  # scrapes while it runs do not count
        show(run, trial, at=float(at))
        assert trial_series(feed.scrape())
    show(run, trial, "done", epoch=3, val_accuracy=[0.5, 0.875, 0.75])
    end(run, trial)
    for _ in range(SCRAPES_AFTER_END):
        assert value(feed.scrape(), "validation_accuracy", **OF_TRIAL) == 0.75
    samples = feed.scrape()
    assert trial_series(samples) == set()
    # What is of the arm or the job stays. A trial that stopped early has no budget left.
    assert value(samples, "trials", state="done") == 1
    assert value(samples, "best_validation_accuracy", arm="resnet18-full") == 0.875
    assert value(samples, "budget_left_epochs", arm="resnet18-full") == 0


@pytest.mark.parametrize(
    ("error", "expected"), [("NonFiniteLossError", 1), ("OutOfMemoryError", 0)], ids=["loss", "memory"]
)
def test_a_trial_that_failed_is_gone_although_its_progress_says_running(
    tmp_path: Path, error: str, expected: int
) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    show(run, plan.trials[1])
    end(run, plan.trials[1], "failed", reason="words for people", error=error)
    for _ in range(SCRAPES_AFTER_END):
        assert trial_series(feed.scrape())
    samples = feed.scrape()
    assert trial_series(samples) == set()
    assert value(samples, "trials", state="failed") == 1
    assert value(samples, "trials_not_finite", arm="resnet18-full") == expected
    assert value(samples, "trials_not_finite", arm="resnet18-feature_extraction") == 0


def test_in_a_resumed_job_a_trial_is_pending_until_it_says_something_new(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    show(run, plan.trials[1], "stopped", at=100.0)
    end(run, plan.trials[1], "stopped")
    feed = feed_of(run, plan)
    samples = feed.scrape()
    assert trial_series(samples) == set()
    assert value(samples, "trials", state="pending") == 2
    assert value(samples, "budget_left_epochs", arm="resnet18-full") == EPOCHS - 1
    assert value(samples, "best_validation_accuracy", arm="resnet18-full") == 0.75
    show(run, plan.trials[1], at=200.0, num_restarts=1)
    samples = feed.scrape()
    assert value(samples, "images_total", phase="train") == 62
    assert value(samples, "trials", state="running") == 1


def test_what_ended_before_the_job_was_resumed_is_shown_once_more_and_goes(tmp_path: Path) -> None:
    """The job before may have ended between two scrapes."""
    run, plan = begin_run(tmp_path)
    show(run, plan.trials[1], "done")
    end(run, plan.trials[1])
    feed = feed_of(run, plan)
    for _ in range(SCRAPES_AFTER_END):
        assert value(feed.scrape(), "images_total", phase="train") == 62
    assert trial_series(feed.scrape()) == set()


def test_a_trial_of_an_earlier_version_has_gauges_and_no_counters(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    show(run, plan.trials[1], totals=None, stage_lrs={}, val_loss=None, memory_bytes=None)
    assert trial_series(feed.scrape()) == {P + "epoch", P + "validation_accuracy"}


@pytest.mark.parametrize("damage", ["", "{", '{"unknown": 1}'])
def test_a_progress_file_that_cannot_be_read_leaves_what_was_read_before(tmp_path: Path, damage: str) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    show(run, plan.trials[1])
    before = trial_series(feed.scrape())
    run.trial(plan.trials[1].trial_id).progress.write_text(damage)
    assert trial_series(feed.scrape()) == before


def test_the_job_is_in_one_state(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    feed = feed_of(run, plan)
    for state in ("preparing", "running", "evaluating", "done", "failed", "stopped"):
        run.set_status(state)
        samples = feed.scrape()
        assert [s.labels["state"] for s in samples if s.name == P + "job_state" and s.value] == [state]
    assert value(samples, "last_progress_timestamp_seconds") == pytest.approx(_updated_at(run))
    run.status.write_text("")
    assert value(feed.scrape(), "job_state", state="stopped") == 1


def _updated_at(run: RunFolder) -> Any:
    from transferlib.runs import read_json

    return read_json(run.status)["updated_at"]


def test_images_are_counted_from_the_manifest_once_it_is_there(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(strategies=("full",), seeds=(0,), num_candidates=1))
    manifest = Manifest.load(run.manifest)
    statuses = manifest.table["status"].to_pylist()
    assert count_images(run.manifest) == (statuses.count("used"), manifest.num_bad)
    assert manifest.num_bad > 0
    samples = feed_of(run, Plan.from_json(run.plan.read_text())).scrape()
    assert value(samples, "images_used") == statuses.count("used")
    assert value(samples, "images_skipped") == manifest.num_bad


def test_a_damaged_manifest_is_the_jobs_to_report(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    path.write_text("no parquet")
    assert count_images(path) is None


def test_disk_is_told_for_runs_and_for_the_cache_that_is_not_made_yet(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path)
    samples = feed_of(run, plan, cache_dir=tmp_path / "cache" / "not-made-yet").scrape()
    expected = free_bytes(tmp_path)
    for place in ("runs", "cache"):
        assert value(samples, "disk_free_bytes", place=place) == pytest.approx(expected, rel=0.2)
    assert value(feed_of(run, plan).scrape(), "disk_free_bytes", place="cache") is None
