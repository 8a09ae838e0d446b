import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.telemetry.run_folders import EPOCHS, begin_run, end, show
from transferlib import words
from transferlib.cli.following import Follower, Snapshot, TrialRow
from transferlib.cli.live import choose_rows, draw
from transferlib.cli.outcome import leaderboard_lines
from transferlib.cli.plain import PlainView
from transferlib.cli.preview import trials_product
from transferlib.cli.tables import text_table
from transferlib.records import TrialKey, TrialSpec


def row(index: int, state: str, **values: object) -> TrialRow:
    trial = TrialSpec(TrialKey("wide_resnet101_2", "feature_extraction", 0, seed=0, candidate=index), lr=0.1)
    return TrialRow(trial, state, epoch=3, num_epochs=10, **values)  # type: ignore[arg-type]


def drawn(rows: list[TrialRow], width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    snapshot = Snapshot({"state": "running", "message": "54 trials"}, tuple(rows), (), (), eta_s=7200.0)
    with console.capture() as capture:
        console.print(draw(snapshot, console, elapsed_s=61.0))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_live_table_fits_the_width(width: int) -> None:
    rows = [row(i, "running", val_accuracy=(0.5, 0.9), images_per_s=1234.0, eta_s=4000.0) for i in range(3)]
    lines = drawn(rows, width)
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["trial", "state", "epoch", "val", "acc", "best", "img/s", "wait", "ETA"]
    assert lines[1].split()[1:] == ["running", "3/10", lines[1].split()[3], "0.900", "1,234", "0%", "1:06:40"]
    assert lines[-2].rstrip() == "3 trials: 3 running | 1:01 | about 2.0 h left"
    assert lines[-1].rstrip() == "Running: 54 trials"


def test_many_trials_fit_the_height_with_running_latest_and_next_ones() -> None:
    rows = [row(i, "done", updated_at=float(i)) for i in range(40)]
    rows += [row(40, "running"), row(41, "running"), *(row(i, "pending") for i in range(42, 54))]
    chosen = [r.trial.candidate for r in choose_rows(rows, 12)]
    assert chosen == [33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44]
    assert len(drawn(rows, 80, height=24)) <= 23


def test_rows_are_all_shown_where_they_fit() -> None:
    rows = [row(0, "done"), row(1, "running"), row(2, "pending")]
    assert choose_rows(rows, 3) == rows


def test_table_is_not_drawn_before_a_trial_begins() -> None:
    assert len(drawn([row(0, "pending")], 80)) == 2


def test_a_seed_that_goes_on_with_one_rate_is_one_trial_before_and_after_it_is_decided(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=3, candidates=2, tuning_seeds=1)
    follower = Follower(run, plan)
    before = follower.take()
    assert (before.num_trials, before.count("pending"), before.num_spared) == (2 * (2 + 2), 8, 0)
    for trial in plan.trials:
        if trial.arm == "resnet18-full" and trial.seed == 0:
            show(run, trial, "done", val_accuracy=[0.9 - trial.lr], epoch=EPOCHS)
            follower.take()  # the result comes after
            end(run, trial, val_accuracy=0.9 - trial.lr)
        if trial.arm == "resnet18-full" and trial.seed > 0 and trial.candidate == 1:
            end(run, trial, "spared")
    after = follower.take()
    assert (after.num_trials, after.count("pending"), after.count("done"), after.num_spared) == (8, 6, 2, 2)
    assert {row.trial.trial_id for row in after.rows if row.trial.seed > 0 and row.is_expected} == {
        "resnet18-feature_extraction-s1-c0",
        "resnet18-feature_extraction-s2-c0",
        "resnet18-full-s1-c0",
        "resnet18-full-s2-c0",
    }
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=False)
    with console.capture() as capture:
        console.print(draw(after, console, elapsed_s=61.0))
    lines = capture.get().splitlines()
    assert lines[-1].startswith("8 trials: 2 done, 6 waiting, 2 spared | 1:01")
    assert len(lines) == 1 + 8 + 1


def test_time_left_counts_no_trial_that_is_spared(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=3, candidates=2, tuning_seeds=1)
    run.append_metrics([{"trial_id": plan.trials[0].trial_id, "epoch": 0, "seconds": 10.0}])
    assert Follower(run, plan).take().eta_s == 8 * EPOCHS * 10.0


def test_both_times_left_come_from_one_pace(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=1, candidates=1)
    first, second = plan.trials
    show(run, first, images_per_s=3.0)  # of the last second; 31 images/s since the trial began
    before = Follower(run, plan).take()
    epoch_s = (41 + 13 / 3) / 31
    left = EPOCHS - 1.5
    assert before.rows[0].eta_s == pytest.approx(left * epoch_s)
    assert before.eta_s == pytest.approx((left + EPOCHS) * epoch_s)
    run.append_metrics([{"trial_id": first.trial_id, "epoch": 0, "seconds": 10.0}])
    after = Follower(run, plan).take()
    assert (after.rows[0].eta_s, after.eta_s) == (left * 10.0, (left + EPOCHS) * 10.0)
    end(run, second)
    last = Follower(run, plan).take()
    assert last.eta_s == last.rows[0].eta_s == left * 10.0


def test_one_slow_epoch_moves_the_time_left_by_less_than_a_third(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=1, candidates=1)
    show(run, plan.trials[0], epoch=0, step=0)
    rows = [{"trial_id": plan.trials[0].trial_id, "epoch": e, "seconds": s} for e, s in enumerate([10.0, 10.0, 20.0])]
    run.append_metrics(rows)
    assert Follower(run, plan).take().rows[0].eta_s == pytest.approx(EPOCHS * 13.0)


def test_plain_lines_move_within_a_long_epoch(tmp_path: Path) -> None:
    run, plan = begin_run(tmp_path, seeds=1, candidates=1)
    said, clock = io.StringIO(), [0.0]
    view = PlainView(said, now=lambda: clock[0])
    follower = Follower(run, plan)
    trial = plan.trials[0]

    def lines_at(seconds: float, **progress: int) -> list[str]:
        show(run, trial, **progress)
        clock[0] = seconds
        said.seek(said.truncate(0))
        view.show(follower.take())
        return said.getvalue().splitlines()

    assert lines_at(1.0, step=1) == []
    assert lines_at(29.0, step=2) == []
    (line,) = lines_at(31.0, step=3)
    assert line.startswith(f"{trial.trial_id}  epoch 2/{EPOCHS}, step 3 of 6  50 images/s  about ")
    assert lines_at(40.0, step=4) == []
    assert len(lines_at(62.0, step=5)) == 1
    assert lines_at(100.0, step=5) == []  # it has not moved
    assert len(lines_at(101.0, step=6)) == 1


def test_what_the_number_of_trials_comes_from(tmp_path: Path) -> None:
    for number, tuning_seeds in enumerate((2, None, 5)):
        (tmp_path / str(number)).mkdir()
        _, plan = begin_run(tmp_path / str(number), seeds=5, candidates=2, tuning_seeds=tuning_seeds)
        if tuning_seeds == 2:
            assert plan.num_trained_trials == 14
            assert trials_product(plan) == "2 arms x (2 seeds x 2 learning rates + 3 seeds)"
        else:
            assert trials_product(plan) == "2 arms x 5 seeds x 2 learning rates"


def test_sparkline_scales_thins_and_keeps_the_last() -> None:
    assert words.sparkline([0.0, 0.5, 1.0], 0.0, 1.0, 8) == "▁▅█"
    assert words.sparkline([0.0] * 15 + [1.0], 0.0, 1.0, 4) == "▁▁▁█"
    assert words.sparkline([0.5], 0.5, 0.5, 8) == "█"
    assert words.sparkline([0.0, 1.0], 0.0, 1.0, 8, is_ascii=True) == "_#"


@pytest.mark.parametrize(("seconds", "text"), [(8, "8 s"), (600, "10 min"), (12_240, "3.4 h")])
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(45, "0:45"), (723, "12:03"), (11_045, "3:04:05"), (-1, "0:00")])
def test_clock(seconds: float, text: str) -> None:
    assert words.clock(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(13_765_006_896, "13.8 GB"), (500, "500 B"), (123_456_789, "123 MB")])
def test_sizes(number: int, text: str) -> None:
    assert words.size(number) == text


def test_columns_line_up() -> None:
    assert text_table(["a", "bb"], [["long", "1"], ["x", "22"]]) == ["a     bb", "long   1", "x     22"]


def test_narrow_terminal_gets_fewer_columns_of_the_result() -> None:
    metric = {"mean": 0.9, "low": 0.85, "high": 0.95, "seed_std": 0.01, "by_seed": {"0": 0.9, "1": 0.9}}
    one = {"mean": 0.9, "low": None, "high": None, "seed_std": None, "by_seed": {"0": 0.9}}
    arm = {
        "arm": "resnet18-last_layers", "accuracy": metric, "val": {"accuracy": one}, "log_loss": metric,
        "macro_f1": metric, "ece": metric, "lr": {"0": 0.1, "1": 0.1}, "trained_parameters": 2_050, "train_flops": 7e9,
        "seconds": 9.0, "images_per_s": 1500.0, "trials": {"done": 2, "failed": 1},
    }  # fmt: skip
    wide = list(leaderboard_lines({"metric": "accuracy", "arms": [arm]}, {("resnet18-last_layers", "1")}, 140))
    assert wide[0].split()[-1] == "failed"
    assert wide[1].split() == [
        "resnet18-last_layers", "0.900", "0.900", "0.850", "to", "0.950", "0.900", "0.1", "0.1*", "2.0k", "7",
        "9", "s", "0.900", "1,500", "1",
    ]  # fmt: skip
    narrow = list(leaderboard_lines({"metric": "accuracy", "arms": [arm]}, (), 60))
    assert max(map(len, narrow)) <= 60
    assert narrow[0].split()[:3] == ["arm", "val", "acc"]
