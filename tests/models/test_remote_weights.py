from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.storage.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from transferlib.errors import StorageError, StorageUnreachableError, WeightsError
from transferlib.models import remote_weights
from transferlib.models.remote_weights import check_object, fetch_weights
from transferlib.models.weight_names import WeightsChoice, resolve_weights
from transferlib.models.weights import load_source_weights
from transferlib.models.zoo import build_model
from transferlib.storage.locations import Location


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_uri_is_resolved_without_a_request() -> None:
    for name in ("a.pth", "a.pt", "runs/x/best.safetensors"):
        assert resolve_weights(f"s3://bucket/{name}", "resnet18") == WeightsChoice("object", f"s3://bucket/{name}")
    assert resolve_weights("gs://bucket/a.pth", "vgg11").kind == "object"


def test_uri_that_cannot_be_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"ends in .pth, .pt, .safetensors.*trials/<trial>/best.safetensors"):
        resolve_weights("s3://bucket/runs/20261125-014503-compare-3fa9", "resnet18")
    with pytest.raises(StorageError, match="Credentials come from the environment") as caught:
        resolve_weights("s3://me:hunter2@bucket/a.pth", "resnet18")
    assert "hunter2" not in str(caught.value)


def test_weights_by_uri_are_what_the_file_is(s3_bucket: str, tmp_path: Path) -> None:
    state = build_model("resnet18", 3, source=None, seed=0).state_dict()
    save_file(state, tmp_path / "best.safetensors")
    Location(s3_bucket).upload("models/best.safetensors", tmp_path / "best.safetensors")
    uri = f"{s3_bucket}/models/best.safetensors"
    here = load_source_weights(str(tmp_path / "best.safetensors"), "resnet18")
    there = load_source_weights(uri, "resnet18", tmp_path / "cache")
    assert here is not None
    assert there is not None
    assert (there.sha256, there.origin) == (here.sha256, uri)
    assert all(torch.equal(there.state[name], tensor) for name, tensor in here.state.items())


def test_object_is_fetched_once_and_again_when_it_changed(s3_process: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    location, uri = Location(s3_bucket), f"{s3_bucket}/w.pth"
    location.write("w.pth", b"first")
    path = fetch_weights(uri, tmp_path)
    assert (path.read_bytes(), path.name, path.is_relative_to(tmp_path / "weights")) == (b"first", "w.pth", True)
    assert fetch_weights(uri, tmp_path) == path
    assert s3_process.requests().count(f"GET /{uri[5:]}") == 1
    location.write("w.pth", b"second")
    assert fetch_weights(uri, tmp_path).read_bytes() == b"second"
    assert [file.read_bytes() for file in files(tmp_path)] == [b"second"]


def test_file_of_another_size_is_not_trusted(s3_bucket: str, tmp_path: Path) -> None:
    Location(s3_bucket).write("w.pth", b"whole")
    path = fetch_weights(f"{s3_bucket}/w.pth", tmp_path)
    path.write_bytes(b"who")
    assert fetch_weights(f"{s3_bucket}/w.pth", tmp_path).read_bytes() == b"whole"


def test_objects_of_one_name_stay_apart(s3_bucket: str, tmp_path: Path) -> None:
    for folder in "ab":
        Location(s3_bucket).write(f"{folder}/w.pth", folder.encode())
    fetched = [fetch_weights(f"{s3_bucket}/{folder}/w.pth", tmp_path) for folder in "ab"]
    assert [path.read_bytes() for path in fetched] == [b"a", b"b"]


def test_object_that_changes_while_it_is_fetched_is_fetched_anew(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location(s3_bucket)
    location.write("w.pth", b"1")
    later = [b"22", b"333"]
    real = Location.download

    def download(self: Location, name: str, path: Path) -> None:
        real(self, name, path)
        if later:
            location.write("w.pth", later.pop(0))

    monkeypatch.setattr(Location, "download", download)
    assert fetch_weights(f"{s3_bucket}/w.pth", tmp_path).read_bytes() == b"333"
    later = [b"55555", b"666666", b"7777777"]
    location.write("w.pth", b"4444")
    with pytest.raises(WeightsError, match="changed 3 times while it was fetched"):
        fetch_weights(f"{s3_bucket}/w.pth", tmp_path)


def test_failed_fetch_leaves_no_file(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transferlib.storage import locations

    def cut(*_: object) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: gone")

    Location(s3_bucket).write("w.pth", b"1")
    monkeypatch.setattr(locations.shutil, "copyfileobj", cut)
    with pytest.raises(StorageUnreachableError):
        fetch_weights(f"{s3_bucket}/w.pth", tmp_path)
    assert files(tmp_path) == []


def test_object_that_is_not_there_or_empty_is_told(s3_bucket: str, tmp_path: Path) -> None:
    Location(s3_bucket).write("empty.pth", b"")
    for call in (lambda uri: fetch_weights(uri, tmp_path), check_object):
        with pytest.raises(WeightsError, match=f"--weights {s3_bucket}/gone.pth: there is no such object"):
            call(f"{s3_bucket}/gone.pth")
    with pytest.raises(WeightsError, match="the object is empty"):
        fetch_weights(f"{s3_bucket}/empty.pth", tmp_path)
    check_object(f"{s3_bucket}/empty.pth")


def test_cache_that_cannot_be_written_is_told(s3_bucket: str, tmp_path: Path) -> None:
    Location(s3_bucket).write("w.pth", b"1")
    (tmp_path / "weights").touch()
    with pytest.raises(StorageError, match="weights") as caught:
        fetch_weights(f"{s3_bucket}/w.pth", tmp_path)
    assert "AWS" not in str(caught.value)


def test_credentials_are_in_no_file_name_and_no_origin(s3_bucket: str, tmp_path: Path) -> None:
    Location(s3_bucket).write("w.pth", b"1")
    path = str(fetch_weights(f"{s3_bucket}/w.pth", tmp_path))
    assert ACCESS_KEY not in path
    assert SECRET_KEY not in path


def test_default_place_is_the_default_cache(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_weights, "default_cache_dir", lambda: tmp_path / "cache")
    Location(s3_bucket).write("w.pth", b"1")
    assert fetch_weights(f"{s3_bucket}/w.pth").is_relative_to(tmp_path / "cache/weights")
