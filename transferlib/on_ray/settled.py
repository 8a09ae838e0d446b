"""What a run has settled, as its processes read it: spec, plan, weights, where pixels come from. Loads no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from transferlib.data.cache_dir import cache_folder
from transferlib.data.decode import Limits
from transferlib.data.source import PixelSource
from transferlib.planning.plan import Plan
from transferlib.records import check_types
from transferlib.runs import RunFolder, read_object, reading
from transferlib.spec import JobSpec


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
    spec_sha256: str = ""
    """Of `spec.yaml` as the run began."""
    manifest_sha256: str = ""
    """Of the manifest as the run began (`Manifest.sha256`); empty: settled by a version that did not say."""

    @classmethod
    def load(cls, run: RunFolder) -> Prepared | None:
        """Read it from the run folder; None before the job has settled it.

        Raises:
            DamagedFileError: It is not what a job wrote.
        """
        with reading(run.prepared):
            value = read_object(run.prepared)
            if value is None:
                return None
            prepared = cls(**value)
            check_types(prepared)
            return prepared

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
    return Plan.load(RunFolder(run).plan)


def pixel_source(run: RunFolder, spec: JobSpec) -> PixelSource:
    """Return the handle on a run's decoded images."""
    cache = spec.data.cache
    return PixelSource(
        manifest=str(run.manifest),
        cache_dir=None if cache.mode == "none" else str(cache_folder(cache)),
        short_side=spec.short_side,
        limits=Limits(spec.data.max_pixels, spec.data.max_file_bytes),
    )
