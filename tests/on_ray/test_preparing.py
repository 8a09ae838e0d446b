"""What a job says of itself while it reads and compares the images; no Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.synthetic_run import Story, write_run
from transferlib.errors import StoppedError
from transferlib.on_ray.experiment import _Job
from transferlib.on_ray.mirroring import OnDisk

STORY = Story(("last_layers", "full"), (0,), 2, classes=("a", "b"), per_class=(2, 4, 5), epochs=1)


def test_another_step_is_said_at_once_and_its_progress_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("transferlib.on_ray.experiment.time.monotonic", lambda: clock[0])
    run = write_run(tmp_path, STORY)
    job = _Job(run, OnDisk(), is_on_cluster=False)
    said = []
    for seconds, what, done in (
        (2.0, "reading the images", 64),
        (2.5, "reading the images", 128),
        (2.6, "comparing the images", 0),
        (2.7, "comparing the images", 4_096),
        (4.0, "comparing the images", 8_192),
    ):
        clock[0] = seconds
        job._show_preparing(what, done, 12_000)
        said.append((run.read_status() or {})["message"])
    read, compared = "reading the images, 64 of 12,000", "comparing the images, 0 of 12,000"
    assert said == [read, read, compared, compared, "comparing the images, 8,192 of 12,000"]
    run.stop_flag.touch()
    with pytest.raises(StoppedError, match="while comparing the images"):
        job._show_preparing("comparing the images", 8_193, 12_000)
