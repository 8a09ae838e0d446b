"""What Ray Tune is handed when, without Ray: from the run folder alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from transferlib.comparison.tuning import Tuning
from transferlib.errors import StorageError
from transferlib.on_ray import trial_queue
from transferlib.on_ray.mirroring import KeptRun
from transferlib.on_ray.trial_queue import TrialQueue
from transferlib.records import TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder, write_atomic

ARMS = ("last_layers", "full")
TRIALS = tuple(
    TrialSpec(TrialKey("resnet18", arm, 0, seed, candidate), 0.01 * (candidate + 1))
    for seed in range(3)
    for candidate in range(2)
    for arm in ARMS
)
TUNING = Tuning(TRIALS, 1)
"""Four trials tune, two a later seed are trained, two are spared."""
RIGHT = {"last_layers": 0, "full": 1}
"""The better candidate of each arm."""


class Kept:
    """Keep a run on a disk that can be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.written: list[str] = []

    def pull(self) -> None:
        """Do nothing."""

    def remove(self, path: Path) -> None:
        path.unlink()

    def copy(self, source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())

    def write(self, path: Path, text: str) -> None:
        if self.is_away:
            raise StorageError("the store is away")
        self.written.append(path.parent.name)
        write_atomic(path, text)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path, "compare")
    for trial in TRIALS:
        run.trial(trial.trial_id).path.mkdir(parents=True)
    return run


class Player:
    """Play Tune: ask for trials, and end them."""

    def __init__(self, run: RunFolder, kept: KeptRun | None = None) -> None:
        self.run = run
        pending = [trial for trial in TRIALS if run.trial(trial.trial_id).read_result() is None]
        self.queue = TrialQueue(run, TUNING, pending, kept if kept is not None else Kept())
        self.count = 0
        self.begun: dict[str, str] = {}

    def ask(self) -> str | None:
        """Return the next trial's id; None: wait; FINISHED."""
        self.count += 1
        config = self.queue.suggest(f"tune-{self.count}")
        if config is None:
            return None
        if config == Searcher.FINISHED:
            return Searcher.FINISHED
        assert config["run"] == str(self.run.path)
        trial_id = TrialSpec.from_json(config["trial"]).trial_id
        self.begun[trial_id] = f"tune-{self.count}"
        return trial_id

    def ask_all(self) -> list[str]:
        """Return what may begin now."""
        found = []
        while (trial_id := self.ask()) not in (None, Searcher.FINISHED):
            found.append(str(trial_id))
        return found

    def end(self, trial_id: str, state: str = "done", *, has_result: bool = True) -> None:
        """End a trial as its process does: its result first, then Tune's word."""
        key = TrialKey.parse(trial_id)
        accuracy = 0.9 if RIGHT[key.strategy] == key.candidate else 0.5
        if has_result:
            result = TrialResult(key, 0.01 * (key.candidate + 1), state, val_accuracy=accuracy, val_loss=1.0)  # type: ignore[arg-type]
            write_atomic(self.run.trial(trial_id).result, result.to_json())
        self.queue.on_trial_complete(self.begun[trial_id])


def states(run: RunFolder) -> dict[str, str]:
    results = (run.trial(trial.trial_id).read_result() for trial in TRIALS)
    return {result.trial_id: result.state for result in results if result is not None}


def test_trials_that_tune_come_first_and_each_arm_goes_on_when_its_own_have_ended(run: RunFolder) -> None:
    tune = Player(run)
    first = tune.ask_all()
    assert first == [trial.trial_id for trial in TRIALS if trial.seed == 0]
    for trial_id in first[:3]:  # the larger rate of `full` still trains
        tune.end(trial_id)
    assert tune.ask_all() == ["resnet18-last_layers-s1-c0", "resnet18-last_layers-s2-c0"]
    assert tune.ask() is None
    tune.end(first[3])
    assert tune.ask_all() == ["resnet18-full-s1-c1", "resnet18-full-s2-c1"]
    assert tune.ask() == Searcher.FINISHED
    spared = ["last_layers-s1-c1", "last_layers-s2-c1", "full-s1-c0", "full-s2-c0"]
    assert [trial_id for trial_id, state in states(run).items() if state == "spared"] == sorted(
        (f"resnet18-{name}" for name in spared), key=[trial.trial_id for trial in TRIALS].index
    )


@pytest.mark.parametrize("cut", range(9))
def test_a_job_that_is_killed_anywhere_goes_on_and_runs_nothing_twice(run: RunFolder, cut: int) -> None:
    ended: list[str] = []

    def go_on(most: int) -> None:
        tune = Player(run)
        while len(ended) < most and (trial_id := tune.ask()) != Searcher.FINISHED:
            assert trial_id is not None
            ended.append(trial_id)
            tune.end(trial_id)

    go_on(cut)
    Player(run).ask()  # begun, and lost with its job
    go_on(99)
    assert len(ended) == len(set(ended)) == 4 + 2 * 2
    assert set(states(run)) == {trial.trial_id for trial in TRIALS}
    assert {trial_id for trial_id, state in states(run).items() if state == "done"} == set(ended)


def test_a_trial_that_tune_gave_up_holds_back_its_own_arm_alone(run: RunFolder) -> None:
    tune = Player(run)
    first = tune.ask_all()
    lost = first[0]
    tune.queue.on_trial_complete(tune.begun[lost], error=True)
    for trial_id in first[1:3]:
        tune.end(trial_id)
    assert tune.ask() is None, "the other arm's are coming"
    tune.end(first[3])
    assert tune.ask_all() == ["resnet18-full-s1-c1", "resnet18-full-s2-c1"]
    assert tune.ask() == Searcher.FINISHED
    assert tune.queue.waiting() == {
        f"resnet18-last_layers-s{seed}-c{candidate}": f"the rate waits for {lost}"
        for seed in (1, 2)
        for candidate in (0, 1)
    }


def test_a_result_on_its_way_from_another_node_is_waited_for_but_not_for_ever(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = Player(run)
    for trial_id in tune.ask_all():
        tune.end(trial_id, has_result=False)
    assert tune.ask() is None
    monkeypatch.setattr(trial_queue, "RESULT_WAIT_S", 0.0)
    assert tune.ask() == Searcher.FINISHED


def test_a_store_that_is_away_holds_up_no_trial_and_is_told_at_the_end(run: RunFolder) -> None:
    kept = Kept()
    tune = Player(run, kept)
    kept.is_away = True
    while (trial_id := tune.ask()) != Searcher.FINISHED:
        assert trial_id is not None
        tune.end(trial_id)
    assert len(tune.begun) == 8
    with pytest.raises(StorageError, match="away"):
        tune.queue.spare()
    kept.is_away = False
    tune.queue.spare()
    assert len(kept.written) == 4
    assert len(states(run)) == len(TRIALS)


def test_nothing_is_begun_once_the_run_is_stopped(run: RunFolder) -> None:
    tune = Player(run)
    tune.ask()
    run.stop_flag.touch()
    assert tune.ask() == Searcher.FINISHED


def test_nothing_of_it_goes_into_tunes_own_record(run: RunFolder, tmp_path: Path) -> None:
    queue = Player(run).queue
    queue._kept = lambda: None  # type: ignore[assignment]  # as a store's connection: it cannot be pickled
    assert type(pickle.loads(pickle.dumps(queue))) is Searcher
    queue.save_to_dir(str(tmp_path / "nowhere"))
