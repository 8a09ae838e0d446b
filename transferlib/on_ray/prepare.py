"""What a job settles before its first trial: the frozen images, the source weights, the precision, the versions."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ray

from transferlib import __version__
from transferlib.data.augment import Augmentation
from transferlib.data.cache import DecodedCache
from transferlib.data.cache_dir import cache_folder
from transferlib.data.decode import Limits
from transferlib.data.depth_scale import DepthScale
from transferlib.data.manifest import Manifest
from transferlib.data.mosaic import save_mosaic
from transferlib.data.sources import list_images
from transferlib.errors import RunFolderError
from transferlib.on_ray.data import ingest_images
from transferlib.on_ray.settled import Prepared, pixel_source
from transferlib.on_ray.tasks import worker_task
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder, read_json, write_json
from transferlib.spec import JobSpec
from transferlib.words import count

Tell = Callable[[str], None]

MOSAIC_ROWS, MOSAIC_EPOCHS = 6, 7

# A result is bit-exact only where these are the same.
VERSIONED = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "pyarrow", "ray", "safetensors")


def prepare_data(
    run: RunFolder, spec: JobSpec, plan: Plan, tell: Tell, on_progress: Callable[[str, int, int], None]
) -> Manifest:
    """List, decode and split the images, once; a resumed run must find the images it began with.

    Args:
        run: Gets `manifest.parquet` and `augmentation.png`.
        spec: Names the images.
        plan: Says how many CPUs may decode.
        tell: Takes each line for the user.
        on_progress: Called with what is done ("reading the images", "comparing the images"), how many images are done
            and how many there are; what it raises ends the work.

    Raises:
        DataError: The images cannot serve.
        RunFolderError: They changed since the run began, or nothing is left that says what it began with.
    """
    _refuse_without_record(run)
    listing = list_images(spec.data.path, spec.data.class_level, spec.data.group_regex)
    limits = Limits(spec.data.max_pixels, spec.data.max_file_bytes)
    cache = _cache(spec, limits)
    uris = [entry.uri for entry in listing.entries]
    lanes = max(1, plan.ray_cpus - 1)  # one is with the task that loads the weights
    on_read = partial(on_progress, "reading the images")
    facts = ingest_images(cache, uris, limits, lanes, on_read)
    before = Manifest.load(run.manifest) if run.manifest.exists() else None
    on_compared = partial(on_progress, "comparing the images")
    cut = before.cut if before else "rank"
    manifest = Manifest.build(listing, facts, spec.data, cut=cut, before=before, on_compared=on_compared)
    if before:
        _refuse_changed_images(run, before, manifest)
    settled = Prepared.load(run)
    if settled is not None and settled.manifest_sha256 not in ("", manifest.sha256()):
        raise RunFolderError(
            f"{run.manifest} is gone or another one, and the images are not those that run {run.run_id} began with: "
            "its finished trials were trained on other ones. Bring file and images back, or start a new run."
        )
    if cache is not None and manifest.scale is not None:
        cache = replace(cache, scale=manifest.scale)
        deep = [uri for uri, fact in zip(uris, facts, strict=True) if fact.is_good and fact.depth]
        ingest_images(cache, deep, limits, lanes, on_read)
    if not before:
        manifest.save(run.manifest)
    for line in manifest.summary_lines():
        tell(line)
    if cache is not None and spec.data.cache.max_bytes:
        cache.evict(spec.data.cache.max_bytes, in_use=[fact.sha256 for fact in facts])
    return manifest


def draw_mosaic(run: RunFolder, spec: JobSpec) -> None:
    """Write the picture of augmented training images, a few of each class in turn."""
    source = pixel_source(run, spec).open()
    train = source.images.rows("train")
    by_class = [
        train[source.images.labels[train] == label][:MOSAIC_ROWS] for label in range(len(source.images.classes))
    ]
    longest = max(len(rows) for rows in by_class)
    in_turn = [int(rows[i]) for i in range(longest) for rows in by_class if i < len(rows)]
    rows = np.array(in_turn[:MOSAIC_ROWS], np.int64)
    augmentation = Augmentation.from_spec(spec.data.augmentation, spec.data.image_size)
    save_mosaic(
        run.mosaic,
        source.pixels(rows),
        source.images.keys[rows],
        augmentation,
        seed=spec.comparison.seed_values[0],
        names=[source.images.classes[label] for label in source.images.labels[rows]],
        num_epochs=min(MOSAIC_EPOCHS, spec.training.epochs),
    )


def _cache(spec: JobSpec, limits: Limits) -> DecodedCache | None:
    if spec.data.cache.mode == "none":
        return None
    scale = DepthScale.given(spec.data.depth_range)
    return DecodedCache(cache_folder(spec.data.cache), spec.short_side, limits, scale)


def _refuse_without_record(run: RunFolder) -> None:
    """Refuse to take the images as they are now for those that trials were trained on, where nothing says so."""
    settled = Prepared.load(run)
    if run.manifest.exists() or (settled is not None and settled.manifest_sha256):
        return
    left = ("result.json", "best.safetensors", "predictions-*.parquet")
    begun = {path.parent.name for name in left for path in run.path.glob(f"trials/*/{name}")}
    begun |= {path.parent.name for path in run.path.glob("trials/*/last") if any(path.iterdir())}
    if begun:
        raise RunFolderError(
            f"{run.manifest.name} and {run.prepared.name} of run {run.run_id} are gone, and they named the images that "
            f"{count(len(begun), 'trial')} began with ({', '.join(sorted(begun)[:3])}). Images of today need not be "
            "those: bring one of the files back from a copy, or start a new run."
        )


def _refuse_changed_images(run: RunFolder, before: Manifest, now: Manifest) -> None:
    if before.sha256() == now.sha256():
        return
    if replace(before, scale=now.scale).sha256() == now.sha256():
        then = "each was scaled by its own range, by an older version" if before.scale is None else f"{before.scale}"
        raise RunFolderError(
            f"The range of images with more than 8 bits a sample is another one than run {run.run_id} began with: then "
            f"{then}; now {now.scale}. Its finished trials were trained on other pixels. Start a new run."
        )
    old, new = (
        dict(zip(m.table["image_id"].to_pylist(), m.table["sha256"].to_pylist(), strict=True)) for m in (before, now)
    )
    added, gone = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    changed = sorted(name for name in new.keys() & old.keys() if new[name] != old[name])
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("added", added), ("gone", gone), ("changed", changed))
        if names
    ]
    raise RunFolderError(
        f"The images changed since run {run.run_id} began: {'; '.join(parts) or 'their splits or status differ'}. "
        "Bring them back as they were, or start a new run."
    )


def start_preparing_models(spec: JobSpec, plan: Plan) -> ray.ObjectRef[Prepared | Exception]:
    """Begin to load and check the source weights where trials will train; `ray.get` gives a `Prepared`."""
    started: ray.ObjectRef[Prepared | Exception] = worker_task(_prepare_models, plan, cpus=1).remote(
        spec.to_yaml(), plan.use_gpu
    )
    return started


def _prepare_models(spec_yaml: str, use_gpu: bool) -> Prepared | Exception:
    import torch

    from transferlib.errors import PlanError, TransferlibError
    from transferlib.models.weights import load_source_weights
    from transferlib.strategies import get_strategy
    from transferlib.training.precision import resolve_precision

    spec = JobSpec.from_yaml(spec_yaml)
    device = torch.device("cuda" if use_gpu else "cpu")
    if use_gpu and not torch.cuda.is_available():
        return PlanError(
            f"This machine has GPUs, but torch {torch.__version__} cannot use them (an old driver, or a CPU build). "
            "Put that right, or train on the CPU with --gpus 0."
        )
    sha256: dict[str, str] = {}
    origins: dict[str, str] = {}
    notes: list[str] = []
    try:
        needs_source = any(get_strategy(name).uses_source for name in spec.strategies.names)
        for architecture in spec.models.architectures if needs_source else ():
            source = load_source_weights(spec.models.weights, architecture, cache_folder(spec.data.cache))
            origins[architecture] = "none: random weights" if source is None else source.origin
            if source is not None:
                sha256[architecture] = source.sha256
                notes += [note for note in source.notes if note not in notes]
        precision = resolve_precision(spec.training.precision, device)
    except TransferlibError as error:
        return error  # an answer to the user, not a crash of this process
    return Prepared(precision=precision, source_sha256=sha256, origins=origins, notes=notes)


def settle(run: RunFolder, prepared: Prepared, plan: Plan, manifest_sha256: str = "") -> Prepared:
    """Record what was settled, or hold it against what the run began with.

    Versions and processor are held against those of the newest attempt that was allowed; --resume-changed is leave for
    one attempt, and what it allowed stays on record.

    Returns:
        What holds for this run: the first job's precision, also after a resume.

    Raises:
        RunFolderError: The spec or the weights changed since the run began; or versions or the processor did since the
            last attempt, and the user did not say --resume-changed.
    """
    environment = describe_environment(plan)
    spec_sha256 = hashlib.sha256(run.spec.read_bytes()).hexdigest()
    prepared = replace(prepared, spec_sha256=spec_sha256, manifest_sha256=manifest_sha256)
    before, recorded = Prepared.load(run), read_json(run.environment)
    if before is None or recorded is None:
        write_json(run.environment, environment)
        write_json(run.prepared, prepared.to_plain())
        return prepared
    if before.source_sha256 != prepared.source_sha256 or before.spec_sha256 != prepared.spec_sha256:
        what = "spec.yaml" if before.spec_sha256 != prepared.spec_sha256 else "the source weights"
        raise RunFolderError(
            f"Run {run.run_id} cannot go on: {what} changed since it began, and its finished trials were trained by "
            "the old. Bring that back as it was, or start a new run."
        )
    changes = [
        f"{name}: {recorded['versions'].get(name)} then, {now} now"
        for name, now in environment["versions"].items()
        if recorded["versions"].get(name) != now
    ]
    if recorded["processor"] != environment["processor"]:
        changes.append(f"processor: {recorded['processor']} then, {environment['processor']} now")
    if changes and not run.resume_changed_flag.exists():
        raise RunFolderError(
            f"Run {run.run_id} would not go on bit for bit: {'; '.join(changes)}. "
            "Go back to what it ran with, or add --resume-changed: the run is then marked as not bit-exact."
        )
    if changes:
        newest = {name: environment[name] for name in ("versions", "processor")}
        allowed = {"bit_exact": False, "changes": [*recorded.get("changes", ()), *changes]}
        write_json(run.environment, {**recorded, **newest, **allowed})
    run.resume_changed_flag.unlink(missing_ok=True)
    if not before.manifest_sha256:  # of a version that did not say
        before = replace(before, manifest_sha256=manifest_sha256)
        write_json(run.prepared, before.to_plain())
    return before


def describe_environment(plan: Plan) -> dict[str, Any]:
    """Return versions, processor and threads: what a result depends on beside the spec."""
    return {
        "bit_exact": True,
        "versions": {"transferlib": __version__, "python": platform.python_version()}
        | {name: version(name) for name in VERSIONED},
        "system": platform.platform(),
        "processor": _processor(),
        "threads_per_worker": plan.threads_per_worker,
        "workers_per_trial": plan.workers_per_trial,
        "use_gpu": plan.use_gpu,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
