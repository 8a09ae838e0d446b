from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from transferlib.data import ImageDataset
from transferlib.data.batches import Renderer

MakeRenderer = Callable[..., Renderer]


def make_dataset(renderer: Renderer, split: str, **options: object) -> ImageDataset:
    source = renderer.source
    options = {
        "image_size": 32,
        "augmentation": "strong",
        "seed": renderer.seed,
        "cache_dir": source.cache_dir,
    } | options
    return ImageDataset(source.manifest, split, **options)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("cache", [True, False])
def test_a_dataset_shows_what_the_pipeline_shows(make_renderer: MakeRenderer, split: str, cache: bool) -> None:
    renderer = make_renderer(cache=cache)
    dataset = make_dataset(renderer, split, mean=(0, 0, 0), std=(1, 1, 1))
    for epoch in range(2):
        dataset.set_epoch(epoch)
        seen = torch.stack([dataset[i][0] for i in range(len(dataset))])
        expected = renderer.render(split, epoch, renderer.source.open().images.rows(split))
        assert np.array_equal(seen.permute(0, 2, 3, 1).mul(255).round().to(torch.uint8).numpy(), expected)


def test_labels_are_indices_into_the_classes(make_renderer: MakeRenderer) -> None:
    dataset = make_dataset(make_renderer(), "test")
    assert dataset.classes == ("cat", "dog")
    assert [dataset[i][1] for i in range(len(dataset))] == [0] * 6 + [1] * 5


def test_images_are_normalised_by_channel(make_renderer: MakeRenderer) -> None:
    plain, _ = make_dataset(make_renderer(), "val", mean=(0, 0, 0), std=(1, 1, 1))[0]
    normalised, _ = make_dataset(make_renderer(), "val", mean=(0.5, 0.2, 0.1), std=(0.5, 2, 1))[0]
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised[0], (plain[0] - 0.5) / 0.5)
    torch.testing.assert_close(normalised[1], (plain[1] - 0.2) / 2)
    torch.testing.assert_close(normalised[2], plain[2] - 0.1)


def test_a_data_loader_batches_it(make_renderer: MakeRenderer) -> None:
    images, labels = next(iter(DataLoader(make_dataset(make_renderer(), "train"), batch_size=7)))
    assert images.shape == (7, 3, 32, 32)
    assert labels.dtype == torch.int64


def test_a_relative_manifest_path_is_resolved_when_the_dataset_is_made(
    make_renderer: MakeRenderer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest = Path(make_renderer().source.manifest)
    monkeypatch.chdir(manifest.parent)
    dataset = ImageDataset(manifest.name, "val", image_size=32)
    monkeypatch.chdir(tmp_path)
    assert dataset[0][0].shape == (3, 32, 32)
