"""A run keeps the split it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.telemetry.run_folders import begin_run
from transferlib.data.cache import DecodedCache
from transferlib.data.depth import Samples
from transferlib.data.depth_scale import DepthScale
from transferlib.data.facts import ImageFacts
from transferlib.data.listing import Entry, Listing
from transferlib.data.looks import Look
from transferlib.data.manifest import Manifest
from transferlib.errors import RunFolderError, StoppedError
from transferlib.on_ray import prepare
from transferlib.on_ray.settled import Prepared
from transferlib.runs import write_json
from transferlib.spec import JobSpec

LISTING = Listing(
    "/photos",
    "class folders",
    tuple(Entry(f"{label}/{i:02}.jpg", f"/photos/{label}/{i:02}.jpg", label) for label in "ab" for i in range(40)),
)


def facts_of(listing: Listing) -> list[ImageFacts]:
    return [ImageFacts(hashlib.sha256(entry.image_id.encode()).hexdigest(), 40, 30) for entry in listing.entries]


class Job:
    """Prepare the images of one run again and again, as its jobs do, from a listing and without opening a file."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.run, self._plan = begin_run(folder)
        self.spec = JobSpec.from_yaml(self.run.spec.read_text())
        self.listing = LISTING
        self.on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
        patch.setattr(prepare, "list_images", lambda path, class_level, group_regex: self.listing)
        patch.setattr(prepare, "ingest_images", lambda *args: facts_of(self.listing))

    def __call__(self) -> Manifest:
        return prepare.prepare_data(self.run, self.spec, self._plan, lambda line: None, self.on_progress)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, monkeypatch)


def test_a_new_run_is_cut_by_rank_and_resumes_equal(job: Job) -> None:
    first = job()
    assert first.cut == "rank"
    assert first.count_by_split_and_class()["val"] == {"a": 6, "b": 6}
    assert job().sha256() == first.sha256()


def test_a_run_of_the_old_cut_resumes_with_the_old_cut(job: Job) -> None:
    old = Manifest.build(LISTING, facts_of(LISTING), job.spec.data, cut="threshold")
    old.save(job.run.manifest)
    table = pq.read_table(job.run.manifest)  # as it was saved when there was one cut and no word for it
    metadata = {key: value for key, value in table.schema.metadata.items() if key not in (b"cut", b"sha256")}
    pq.write_table(table.replace_schema_metadata(metadata), job.run.manifest)
    saved = job.run.manifest.read_bytes()
    resumed = job()
    assert (resumed.cut, resumed.sha256()) == ("threshold", old.sha256())
    assert resumed.sha256() != Manifest.build(LISTING, facts_of(LISTING), job.spec.data).sha256()
    assert job.run.manifest.read_bytes() == saved


@pytest.mark.parametrize("cut", ["rank", "threshold"])
def test_a_resume_that_finds_another_photo_is_refused(job: Job, cut: str) -> None:
    Manifest.build(LISTING, facts_of(LISTING), job.spec.data, cut=cut).save(job.run.manifest)  # type: ignore[arg-type]
    job.listing = Listing("/photos", "class folders", (*LISTING.entries, Entry("a/new.jpg", "/photos/a/new.jpg", "a")))
    with pytest.raises(RunFolderError, match=r"1 added \(a/new\.jpg\)"):
        job()


def test_a_run_whose_manifest_and_a_photo_are_gone_does_not_go_on(job: Job) -> None:
    """It went on with what was left: one arm was trained on another data set than the others."""
    before = job()
    settled = Prepared(precision="fp32", source_sha256={}, origins={}, notes=[], manifest_sha256=before.sha256())
    write_json(job.run.prepared, settled.to_plain())
    job.run.manifest.unlink()
    assert job().sha256() == before.sha256()
    job.run.manifest.unlink()
    job.listing = replace(LISTING, entries=LISTING.entries[1:])
    with pytest.raises(RunFolderError, match="is gone or another one, and the images are not those"):
        job()
    assert not job.run.manifest.exists()


@pytest.mark.parametrize("left", ["result.json", "last/e0001-s000000/MANIFEST.json"])
def test_a_run_that_trained_and_lost_all_record_of_its_images_does_not_go_on(job: Job, left: str) -> None:
    """The images of that day became its record, whatever they were."""
    trial = job.run.trial("resnet18-full-s0-c0")
    (trial.path / left).parent.mkdir(parents=True)
    (trial.path / left).write_text("{}")
    with pytest.raises(
        RunFolderError, match=r"manifest\.parquet and prepared\.json .* are gone, .* 1 trial began with \(resnet18"
    ):
        job()
    assert not job.run.manifest.exists()


def test_a_run_whose_trials_have_not_begun_makes_its_record_again(job: Job) -> None:
    (job.run.trial("resnet18-full-s0-c0").path / "last").mkdir(parents=True)
    first = job()
    job.run.manifest.unlink()
    assert job().sha256() == first.sha256()


def deep_facts(brightest: int) -> list[ImageFacts]:
    depth = Samples(np.full((8, 8, 1), brightest, np.uint16), 16).facts.to_text()
    return [replace(fact, depth=depth) for fact in facts_of(LISTING)]


def test_a_run_keeps_the_range_of_its_deep_images_or_does_not_go_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DepthScale | None] = []

    def ingest(cache: DecodedCache, uris: list[str], *_: object) -> list[ImageFacts]:
        asked.append(cache.scale)
        return deep_facts(2000)

    monkeypatch.setattr(prepare, "ingest_images", ingest)
    first = job()
    assert first.scale == DepthScale(whole=(0.0, 2047.0))
    assert asked == [None, first.scale]  # a second look only where there are deep images
    assert job().sha256() == first.sha256()
    monkeypatch.setattr(prepare, "ingest_images", lambda *args: deep_facts(3000))
    with pytest.raises(RunFolderError, match=r"then black is 0, white 2,047; now black is 0, white 4,095\. .*new run"):
        job()


def test_a_run_of_a_version_that_scaled_each_deep_image_on_its_own_does_not_go_on(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job()
    table = pq.read_table(job.run.manifest)
    metadata = {key: value for key, value in table.schema.metadata.items() if key not in (b"depth_range", b"sha256")}
    pq.write_table(table.replace_schema_metadata(metadata), job.run.manifest)
    assert job().scale is None  # its images have 8 bits
    monkeypatch.setattr(prepare, "ingest_images", lambda *args: deep_facts(3000))
    with pytest.raises(RunFolderError, match="then each was scaled by its own range, by an older version"):
        job()


def test_a_range_that_is_given_holds_from_the_first_reading(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.spec = job.spec.model_copy(update={"data": job.spec.data.model_copy(update={"depth_range": (0.0, 4095.0)})})
    told: list[str] = []

    def ingest(cache: DecodedCache, uris: list[str], *_: object) -> list[ImageFacts]:
        told.append(str(cache.scale))
        return deep_facts(2000)

    monkeypatch.setattr(prepare, "ingest_images", ingest)
    assert job().scale == DepthScale(whole=(0.0, 4095.0))
    assert set(told) == {"black is 0, white 4,095"}


def with_looks(listing: Listing, copies: dict[str, str]) -> list[ImageFacts]:
    """Return facts of images that look their own way each, but for copies."""
    generator = np.random.default_rng(0)
    looks = {e.image_id: Look(generator.integers(0, 256, 1024, np.uint8).tobytes(), 1.0) for e in listing.entries}
    looks |= {copy: looks[original] for copy, original in copies.items()}
    facts = zip(listing.entries, facts_of(listing), strict=True)
    return [replace(fact, look=looks[entry.image_id]) for entry, fact in facts]


def test_a_run_keeps_the_near_duplicates_that_it_found(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "ingest_images", lambda *args: with_looks(LISTING, {"a/03.jpg": "a/00.jpg"}))
    first = job()
    assert first.near_groups is not None
    assert [group for group in first.near_groups if group] == ["a/00.jpg", "a/00.jpg"]
    monkeypatch.setattr(prepare, "ingest_images", lambda *args: with_looks(LISTING, {"b/03.jpg": "b/00.jpg"}))
    assert job().sha256() == first.sha256()


def test_a_stop_is_heard_while_images_are_compared(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "ingest_images", lambda *args: with_looks(LISTING, {}))
    heard: list[str] = []

    def stop(what: str, done: int, total: int) -> None:
        heard.append(f"{what}, {done} of {total}")
        raise StoppedError("Stopped.")

    job.on_progress = stop
    with pytest.raises(StoppedError):
        job()
    assert heard == ["comparing the images, 0 of 80"]
    assert not job.run.manifest.exists()


def test_a_run_from_before_near_duplicates_were_looked_for_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before = job()
    before.save(job.run.manifest)
    table = pq.read_table(job.run.manifest)
    younger = (b"near_duplicates", b"sha256")
    metadata = {k: v for k, v in table.schema.metadata.items() if k not in younger} | {b"schema": b"1"}
    pq.write_table(table.select(table.schema.names[:10]).replace_schema_metadata(metadata), job.run.manifest)
    monkeypatch.setattr(prepare, "ingest_images", lambda *args: with_looks(LISTING, {"a/03.jpg": "a/00.jpg"}))
    again = job()
    assert (again.near, again.sha256()) == ("off", before.sha256())
