"""From a run folder to what a trial needs, in whichever process trains it. What is opened once serves later trials."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from transferlib.comparison.plan import Plan
from transferlib.data.augment import Augmentation
from transferlib.data.batches import Renderer
from transferlib.data.cache import default_cache_dir
from transferlib.data.decode import Limits
from transferlib.data.source import PixelSource
from transferlib.errors import WeightsError
from transferlib.models.weights import SourceWeights, load_source_weights
from transferlib.on_ray.data import RayStream
from transferlib.records import TrialSpec
from transferlib.runs import RunFolder, read_json
from transferlib.spec import JobSpec
from transferlib.training.trial import TrialInputs


@dataclass(frozen=True)
class Prepared:
    """Say what the job settled before its first trial: `prepared.json` in the run folder."""

    precision: str
    """fp32 or bf16, resolved from the spec on the machine that trains."""
    source_sha256: dict[str, str]
    """By architecture; absent where weights are "none"."""
    origins: dict[str, str]
    """Where the weights of each architecture came from, in words."""
    notes: list[str]
    """What a user should know about them."""

    @classmethod
    def load(cls, run: RunFolder) -> Prepared | None:
        """Read it from the run folder; None before the job has settled it."""
        value = read_json(run.path / "prepared.json")
        return None if value is None else cls(**value)

    def to_plain(self) -> dict[str, object]:
        """Return it as plain values."""
        return asdict(self)


@lru_cache(maxsize=2)
def load_spec(run: Path) -> JobSpec:
    """Read a run's spec, with the precision that the job settled."""
    spec = JobSpec.load(RunFolder(run).spec)
    prepared = Prepared.load(RunFolder(run))
    if prepared is None:
        return spec
    return spec.model_copy(update={"training": spec.training.model_copy(update={"precision": prepared.precision})})


@lru_cache(maxsize=2)
def load_plan(run: Path) -> Plan:
    """Read a run's plan."""
    return Plan.from_json(RunFolder(run).plan.read_text())


@lru_cache(maxsize=1)
def load_source(weights: str, architecture: str, sha256: str) -> SourceWeights | None:
    """Load source weights and hold them against what the job settled.

    Raises:
        WeightsError: They changed since the job began.
    """
    source = load_source_weights(weights, architecture)
    if source is not None and source.sha256 != sha256:
        raise WeightsError(
            f"{weights} for {architecture} has sha256 {source.sha256[:12]}…, the run began with {sha256[:12]}…. "
            "Bring the old file back, or start a new run."
        )
    return source


def pixel_source(run: RunFolder, spec: JobSpec) -> PixelSource:
    """Return the handle on a run's decoded images."""
    cache = spec.data.cache
    return PixelSource(
        manifest=str(run.manifest),
        cache_dir=None if cache.mode == "none" else str(Path(cache.dir) if cache.dir else default_cache_dir()),
        short_side=spec.short_side,
        limits=Limits(spec.data.max_pixels, spec.data.max_file_bytes),
    )


def data_cpus(plan: Plan) -> float:
    """Return the logical CPUs that one worker's data stream may use: an equal share of what training leaves.

    A task asks for at most one CPU, so that several can run beside each other where there are more.
    """
    num_streams = plan.concurrency * plan.workers_per_trial
    left = plan.ray_cpus - plan.cpus_per_worker * num_streams
    return left / num_streams


def open_trial(run: RunFolder, trial: TrialSpec) -> TrialInputs:
    """Return everything that `train_trial` needs for one trial of a run."""
    spec, plan = load_spec(run.path), load_plan(run.path)
    source = pixel_source(run, spec)
    renderer = Renderer(
        source=source,
        augmentation=Augmentation.from_spec(spec.data.augmentation, spec.data.image_size),
        image_size=spec.data.image_size,
        seed=trial.seed,
    )
    prepared = Prepared.load(run)
    sha256 = prepared.source_sha256.get(trial.architecture, "") if prepared else ""
    return TrialInputs(
        job=spec,
        trial=trial,
        folder=run.trial(trial.trial_id),
        images=source.open().images,
        source=load_source(spec.models.weights, trial.architecture, sha256),
        stream=RayStream(renderer, cpus=data_cpus(plan)),
        threads=plan.threads_per_worker,
        run_id=run.run_id,
    )


def trial_device(plan: Plan) -> torch.device:
    """Return the device a one-worker trial trains on; Ray shows each trial its own GPUs only."""
    return torch.device("cuda:0" if plan.use_gpu else "cpu")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Send what the package logs in this process to a trial's own file, for the length of a `with` block."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("transferlib")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def parse_trial(text: str) -> TrialSpec:
    """Read a trial as it crossed Ray: JSON."""
    return TrialSpec(**json.loads(text))
