"""`submit data check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from tests.data.test_near_duplicates import photo
from transferlib.cli.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos of two classes in given splits."""
    for number in range(20):
        split = ("train", "train", "val", "test")[number // 2 % 4]
        folder = tmp_path / "photos" / split / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        photo(number).save(folder / f"{number:02}.jpg", quality=90)
    return tmp_path / "photos"


Checked = Callable[..., tuple[int, str]]


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Checked:
    def check(photos: Path, *arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["data", "check", str(photos), "--cache-dir", str(photos.parent / "cache"), *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code, "".join(capsys.readouterr())

    return check


def test_photos_with_nothing_odd_end_with_0(photos: Path, checked: Checked) -> None:
    code, said = checked(photos)
    assert code == 0, said
    assert "20 images of 2 classes" in said
    assert "Smallest class: a, 10 images." in said
    assert "Short side: 300 to 300 pixels" in said
    assert "show the same" not in said
    assert checked(photos) == (code, said)


def test_copies_leaks_and_conflicts_are_named_with_exit_code_1(photos: Path, checked: Checked) -> None:
    photo(0).transpose(Image.Transpose.ROTATE_90).save(photos / "test/a/turned.jpg", quality=60)
    photo(1).resize((200, 150)).save(photos / "train/a/resized.jpg")
    (photos / "val/a/again.jpg").write_bytes((photos / "val/a/04.jpg").read_bytes())
    (photos / "train/b/contradicts.jpg").write_bytes((photos / "train/a/02.jpg").read_bytes())
    code, said = checked(photos)
    assert code == 1
    assert "train/a/resized.jpg (a, train) shows the same as train/b/01.jpg (b, train)" in said
    assert "train/a/02.jpg (a, left out) is the same as train/b/contradicts.jpg (b, left out)" in said
    assert "1 used image has the same content as another" in said
    assert "test images (20.0 %) show the same as a training image" in said
    code, text = checked(photos, "--json")
    found = json.loads(text)
    assert (code, found["exit_code"]) == (1, 1)
    assert found["near_duplicates"]["in_train"] == {"val": 0, "test": 1}
    assert found["near_duplicates"]["other_class"] == 2
    assert found["same_content"] == 1
    assert {k: v for k, v in found["statuses"].items() if k != "used"} == {"label_conflict": 2}
    named = [tuple(image["image_id"] for image in pair["images"]) for pair in found["near_duplicates"]["pairs"]]
    assert set(named[:2]) == {("train/a/02.jpg", "train/b/contradicts.jpg"), ("train/a/resized.jpg", "train/b/01.jpg")}


def test_how_images_look_is_said(photos: Path, checked: Checked) -> None:
    photo(50).filter(ImageFilter.GaussianBlur(12)).resize((640, 480)).save(photos / "train/a/soft.png")
    Image.new("RGB", (300, 300), (3, 3, 3)).save(photos / "train/b/night.png")
    photo(51).convert("CMYK").save(photos / "train/b/print.jpg")
    exif = Image.Exif()
    exif[274] = 6
    photo(52).save(photos / "train/a/phone.jpg", exif=exif)
    code, said = checked(photos)
    assert code == 0
    for word in ("1 blank", "1 dark", "1 blurred", "1 mode CMYK", "1 EXIF orientation 6"):
        assert word in said
    remarks = {row["image_id"]: row["remarks"] for row in json.loads(checked(photos, "--json")[1])["remarks"]}
    assert remarks["train/b/night.png"] == ["blank", "dark"]


def test_what_is_no_data_is_said(tmp_path: Path, checked: Checked) -> None:
    code, said = checked(tmp_path / "nowhere")
    assert code == 2
    assert "does not exist" in said


def test_a_terminal_is_told_how_far_reading_and_comparing_are(
    photos: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as terminal:
        terminal.setattr("sys.stderr.isatty", lambda: True)
        code, said = checked(photos)
    assert code == 0
    assert "\r20 of 20 files read\n" in said
    assert "\r0 of 20 images compared" in said
    assert "\r20 of 20 images compared\n" in said
    assert "images compared" not in checked(photos)[1]
