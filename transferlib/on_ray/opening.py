"""From a run folder to what a trial needs, in whichever process trains it. What is opened once serves later trials."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import ray
import torch

from transferlib.data.augment import Augmentation
from transferlib.data.batches import Renderer
from transferlib.data.cache_dir import cache_folder
from transferlib.errors import WeightsError
from transferlib.models.weights import SourceWeights, load_source_weights
from transferlib.on_ray.data import MIB, RayStream
from transferlib.on_ray.settled import Prepared, load_plan, load_spec, pixel_source
from transferlib.planning.footprint import SOURCES_KEPT
from transferlib.planning.plan import Plan
from transferlib.records import TrialSpec
from transferlib.runs import RunFolder
from transferlib.strategies import get_strategy
from transferlib.training.trial import TrialInputs


@lru_cache(maxsize=SOURCES_KEPT)
def load_source(weights: str, architecture: str, sha256: str, cache_dir: Path) -> SourceWeights | None:
    """Load source weights and hold them against what the job settled.

    Raises:
        WeightsError: They changed since the job began.
    """
    source = load_source_weights(weights, architecture, cache_dir)
    if source is not None and source.sha256 != sha256:
        raise WeightsError(
            f"{weights} for {architecture} has sha256 {source.sha256[:12]}…, the run began with {sha256[:12]}…. "
            "Bring the old file back, or start a new run."
        )
    return source


def open_trial(run: RunFolder, trial: TrialSpec, stop_flag: Path | None = None) -> TrialInputs:
    """Return everything that `train_trial` needs for one trial of a run.

    Args:
        run: As this node has it.
        trial: Which one.
        stop_flag: A file that ends the waiting for images, where one worker waits alone; None: wait on.
    """
    spec, plan = load_spec(run.path), load_plan(run.path)
    source = pixel_source(run, spec)
    renderer = Renderer(
        source=source,
        augmentation=Augmentation.from_spec(spec.data.augmentation, spec.data.image_size),
        image_size=spec.data.image_size,
        seed=trial.seed,
    )
    uses_source = get_strategy(trial.strategy).uses_source
    prepared = Prepared.load(run)
    sha256 = prepared.source_sha256.get(trial.architecture, "") if prepared else ""
    return TrialInputs(
        job=spec,
        trial=trial,
        folder=run.trial(trial.trial_id),
        images=source.open().manifest.images(trial.key),
        source=load_source(spec.models.weights, trial.architecture, sha256, cache_folder(spec.data.cache))
        if uses_source
        else None,
        stream=RayStream(
            renderer, lanes=max(1, int(plan.data_cpus)), memory_bytes=_stream_bytes(plan), stop_flag=stop_flag
        ),
        threads=plan.threads_per_worker,
        run_id=run.run_id,
    )


def _stream_bytes(plan: Plan) -> int:
    """Return the object store that one worker's stream may take: its share of four fifths, 384 MiB at most."""
    # Without a node alive there is none: what is asked of Ray next says so better than a KeyError here.
    store = ray.cluster_resources().get("object_store_memory", 0.0)  # type: ignore[no-untyped-call]
    return max(32 * MIB, min(384 * MIB, int(store * 0.8 / (plan.concurrency * plan.workers_per_trial))))


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
