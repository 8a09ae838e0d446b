"""A trial on the tiny images: ResNet-18 at 32 px, from weights that are random but given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from transferlib.data.batches import BatchStream, LocalStream, Renderer
from transferlib.models.backbones import is_head_key
from transferlib.models.weights import SourceWeights, state_sha256
from transferlib.models.zoo import build_model
from transferlib.records import TrialKey, TrialSpec
from transferlib.runs import TrialFolder
from transferlib.spec import JobSpec
from transferlib.training.trial import TrialInputs

MakeInputs = Callable[..., TrialInputs]


class SmallTrial(TrialInputs):
    """Train a small stage and the head, the rest frozen: all that a trial does, on 150,000 weights."""

    def stage_factors(self) -> dict[str, float]:
        return {stage: 1.0 if stage in ("layer1", "head") else 0.0 for stage in super().stage_factors()}


@pytest.fixture(autouse=True)
def process_settings() -> Iterator[None]:
    """Give the process back as it was: a trial sets threads and determinism for all that follows."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def source() -> SourceWeights:
    """Return a backbone whose BatchNorm has seen something, with statistics of its own."""
    model = build_model("resnet18", 3, source=None, seed=7)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    state = {key: value.clone() for key, value in model.state_dict().items() if not is_head_key(key, "resnet18")}
    return SourceWeights(state, state_sha256(state), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "made for tests")


@pytest.fixture
def make_inputs(make_renderer: Callable[..., Renderer], source: SourceWeights, tmp_path: Path) -> MakeInputs:
    """Return a maker of inputs; each `name` has a folder of its own. Without a strategy: a `SmallTrial`."""

    def make(
        name: str = "trial",
        *,
        strategy: str = "",
        lr: float = 0.01,
        stream: BatchStream | None = None,
        source: SourceWeights = source,
        strategies: dict[str, Any] | None = None,
        **training: Any,
    ) -> TrialInputs:
        renderer = make_renderer(augmentation="standard")
        training = {"epochs": 3, "global_batch_size": 8, "precision": "fp32"} | training
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        kind, strategy = (TrialInputs, strategy) if strategy else (SmallTrial, "last_layers")
        return kind(
            job=JobSpec.from_mapping(
                {
                    "data": {"path": "unused", "image_size": 32},
                    "strategies": strategies or {},
                    "training": training,
                }
            ),
            trial=TrialSpec(TrialKey("resnet18", strategy, 0, seed=5, candidate=0), lr=lr),
            folder=TrialFolder(folder),
            images=renderer.source.open().images,
            source=source,
            stream=LocalStream(renderer) if stream is None else stream,
            threads=1,
            run_id="run",
        )

    return make
