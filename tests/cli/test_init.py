import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transferlib import spec as spec_module
from transferlib.cli.init import field_texts, write_spec
from transferlib.cli.resolve import resolve_spec
from transferlib.errors import DataError
from transferlib.models.weight_names import torch_cache_dir
from transferlib.spec import JobSpec, Section


def test_written_spec_reads_back_to_the_defaults(call: Callable[..., Any], work: Path) -> None:
    answer = call("init", "photos/")
    assert answer.code == 0
    assert "24 images in 2 classes (ant and bee); no splits given: they are cut." in answer.out
    text = (work / "submit.yaml").read_text()
    assert JobSpec.from_yaml(text) == JobSpec.from_mapping({"data": {"path": "photos"}})


def test_weights_that_are_still_to_be_downloaded_are_told(
    call: Callable[..., Any], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(work / "torch"))
    said = "The source weights (IMAGENET1K_V1 of resnet50) are not on this machine"
    assert said in call("init", "photos").out
    folder = torch_cache_dir(os.environ)
    assert str(folder) == os.path.join(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True)
    (folder / "resnet50-0676ba61.pth").touch()
    assert said not in call("init", "photos", "--force").out


def test_bare_compare_works_after_init(call: Callable[..., Any], work: Path) -> None:
    call("init", "photos")
    resolved = resolve_spec("compare", {}, spec_file=None, folder=work)
    assert resolved.spec == resolve_spec("compare", {"data": "photos"}, spec_file="submit.yaml", folder=work).spec
    assert call("compare", "--dry-run").code == 0


def test_train_and_compare_keep_their_own_defaults_after_init(call: Callable[..., Any], work: Path) -> None:
    call("init", "photos")
    assert "# names: [feature_extraction, last_layers, full]" in (work / "submit.yaml").read_text()
    train = resolve_spec("train", {}, spec_file=None, folder=work).spec
    assert (train.strategies.names, train.comparison.seeds, train.comparison.lr_candidates) == (("full",), 1, 1)
    assert call("train", "--dry-run").code == 0
    assert call("train", "--arch", "resnet18", "--strategy", "last_layers", "--epochs", "1").code == 0
    assert call("compare", "--arch", "resnet18", "--epochs", "1").code == 0


def test_every_field_has_its_meaning_above_it(call: Callable[..., Any], work: Path) -> None:
    call("init", "photos")
    lines = [line.strip() for line in (work / "submit.yaml").read_text().splitlines()]
    for section in vars(spec_module).values():
        if isinstance(section, type) and issubclass(section, Section) and section not in (Section, JobSpec):
            texts = field_texts(section)
            for name, field in section.model_fields.items():
                if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                    continue
                key = next(i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{name}: "))
                assert lines[key - 1].startswith("# "), name
                assert texts[name]


def test_comments_name_flags_and_commands_and_nothing_of_the_code(call: Callable[..., Any], work: Path) -> None:
    call("init", "photos")
    comments = [line for line in (work / "submit.yaml").read_text().splitlines() if line.lstrip().startswith("#")]
    of_code = re.compile(r"\b[a-z_]{3,}\.[a-z_]{2,}\b|\b\w+\(\)")
    assert of_code.findall("# see data.split and folds()") == ["data.split", "folds()"]
    assert len(comments) > 20
    assert set(of_code.findall("\n".join(comments))) <= {"submit.yaml"}


def test_file_that_is_there_is_kept_unless_forced(call: Callable[..., Any], work: Path) -> None:
    (work / "submit.yaml").write_text("mine")
    answer = call("init", "photos")
    assert answer.code == 2
    assert "Use --force to replace it" in answer.err
    assert (work / "submit.yaml").read_text() == "mine"
    assert call("init", "photos", "--force").code == 0
    assert (work / "submit.yaml").read_text() != "mine"


def test_folder_without_classes_is_refused(call: Callable[..., Any], work: Path) -> None:
    (work / "empty").mkdir()
    answer = call("init", "empty")
    assert answer.code == 2
    assert not (work / "submit.yaml").exists()


def test_a_layout_in_doubt_is_settled_by_its_flag(tmp_path: Path) -> None:
    for part, label in itertools.product(("day", "night"), ("cat", "dog")):
        (tmp_path / "photos" / part / label).mkdir(parents=True)
        for index in range(3):
            (tmp_path / "photos" / part / label / f"{index}.jpg").write_bytes(f"{part}{label}{index}".encode())
    with pytest.raises(DataError, match="--class-level 2"):
        write_spec("photos", tmp_path, force=False)
    path, listing = write_spec("photos", tmp_path, force=False, class_level=2)
    assert listing.classes == ("cat", "dog")
    assert JobSpec.from_yaml(path.read_text()).data.class_level == 2
