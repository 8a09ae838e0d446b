"""Measure what BatchNorm over the whole step costs, and how far several workers then agree with one.

    python benchmarks/sync_batchnorm.py --rounds 5 --write docs/benchmarks/...md

Gloo ranks on this machine, one CPU thread each, no data pipeline: steps on random images alone. Each round takes the
same steps with statistics apart and with statistics over the step, each time in new processes. Then one worker, one
worker with two threads and the ranks train from the same weights on the same images: digits in which losses agree.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from measuring import machine_line, span, table
from torch.multiprocessing.spawn import spawn

from transferlib.models.zoo import build_model
from transferlib.training.memory import peak_memory_bytes
from transferlib.training.precision import make_deterministic
from transferlib.training.worker import LocalWorker, ProcessGroupWorker, Worker

CLASSES = 10
CPU = torch.device("cpu")
WARM_UP = 2
"""Steps that no time is taken of."""


class Setting(NamedTuple):
    """Say what is trained."""

    arch: str
    image_size: int
    batch: int
    """Over all ranks."""
    steps: int
    sync_batchnorm: bool


class Found(NamedTuple):
    """Hold what a training showed."""

    step_s: float
    """Median."""
    cpu_s: float
    """Of this rank's process, a step; median. Other work on the machine moves it less."""
    peak_bytes: int
    losses: list[float]
    """Over all ranks, by step."""


def train(worker: Worker, setting: Setting, threads: int = 1) -> Found:
    """Take some steps of plain SGD from random weights."""
    make_deterministic(threads, CPU)
    model = build_model(setting.arch, CLASSES, source=None, seed=0).to(memory_format=torch.channels_last)
    parallel = worker.prepare_model(model.train(), sync_batchnorm=setting.sync_batchnorm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    generator = torch.Generator().manual_seed(0)
    first, last = (setting.batch * rank // worker.world_size for rank in (worker.rank, worker.rank + 1))
    seconds, cpu_seconds, losses = [], [], []
    for _ in range(setting.steps):
        side = setting.image_size
        images = torch.randn(setting.batch, 3, side, side, generator=generator)[first:last]
        labels = torch.randint(CLASSES, (setting.batch,), generator=generator)[first:last]
        images = images.contiguous(memory_format=torch.channels_last)
        worker.barrier()
        started_at, cpu_before = time.perf_counter(), time.process_time()
        loss = F.cross_entropy(parallel(images), labels, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss * (worker.world_size / setting.batch)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - started_at)
        cpu_seconds.append(time.process_time() - cpu_before)
        losses.append(worker.all_reduce(loss.detach().clone()).item() / setting.batch)
    step_s, cpu_s = (statistics.median(values[WARM_UP:]) for values in (seconds, cpu_seconds))
    return Found(step_s, cpu_s, peak_memory_bytes(CPU), losses)


def _rank(rank: int, world_size: int, folder: str, setting: Setting) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    found = train(ProcessGroupWorker(), setting)
    if rank == 0:
        torch.save(tuple(found), f"{folder}/found.pt")
    dist.destroy_process_group()


def train_on_ranks(world_size: int, setting: Setting) -> Found:
    """Train with several ranks, in new processes; return what the first one found."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (world_size, folder, setting), nprocs=world_size)  # type: ignore[no-untyped-call]
        return Found(*torch.load(f"{folder}/found.pt"))


def digits(one: Sequence[float], other: Sequence[float], step: int) -> str:
    """Return in how many digits the losses up to a step agree, counted from 1."""
    worst = max(abs(a - b) / abs(a) for a, b in zip(one[:step], other[:step], strict=True))
    return "all" if worst == 0.0 else f"{-math.log10(worst):.1f}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["resnet18"], help="default resnet18")
    parser.add_argument("--workers", type=int, default=2, help="default 2")
    parser.add_argument("--image-size", type=int, default=96, help="default 96")
    parser.add_argument("--batch", type=int, default=32, help="of a step, over all workers (default 32)")
    parser.add_argument("--steps", type=int, default=12, help="of a round (default 12)")
    parser.add_argument("--long", type=int, default=30, help="steps that digits are counted over (default 30)")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    text = "\n\n".join((heading(args), costs(args), agreement(args), machine_line())) + "\n"
    print(text)
    if args.write:
        args.write.write_text(text)


def heading(args: argparse.Namespace) -> str:
    """Return what was measured."""
    return f"""# BatchNorm over the whole step

{args.workers} gloo ranks, one CPU thread each, whole network trained, float32, {args.image_size} px,
{args.batch} images a step over all ranks, no data pipeline; {args.rounds} rounds in turn; median (least to most)."""


def costs(args: argparse.Namespace) -> str:
    """Return the table of step times and memory."""
    rows = []
    for arch in args.arch:
        found: dict[bool, list[Found]] = {False: [], True: []}
        for index in range(args.rounds):
            for sync in found:
                setting = Setting(arch, args.image_size, args.batch, args.steps, sync)
                found[sync].append(train_on_ranks(args.workers, setting))
                print(f"{arch}, round {index}, sync {sync}: {found[sync][-1][:3]}", file=sys.stderr)
        apart, whole = found[False], found[True]
        rows.append(
            (
                *(arch, span((f.step_s * 1e3 for f in apart), 0), span((f.step_s * 1e3 for f in whole), 0)),
                span((b.step_s / a.step_s for a, b in zip(apart, whole, strict=True)), 2),
                span((b.cpu_s / a.cpu_s for a, b in zip(apart, whole, strict=True)), 2),
                *(f"{statistics.median(f.peak_bytes for f in values) / 1e6:.0f}" for values in (apart, whole)),
            )
        )
    header = (
        *("network", "apart, ms a step", "over the step, ms", "ratio", "ratio of CPU time"),
        *("peak MB a rank, apart", "over the step"),
    )
    return table(header, rows)


def agreement(args: argparse.Namespace) -> str:
    """Return the table of digits in which losses agree with one worker's."""
    arch = args.arch[0]
    setting = Setting(arch, args.image_size, args.batch, args.long, sync_batchnorm=True)
    alone = train(LocalWorker(), setting)
    others = {
        "one worker, two threads": train(LocalWorker(), setting, threads=2),
        f"{args.workers} workers, statistics over the step": train_on_ranks(args.workers, setting),
        f"{args.workers} workers, statistics apart": train_on_ranks(
            args.workers, setting._replace(sync_batchnorm=False)
        ),
    }
    marks = [step for step in (1, 2, 3, 10, 30, 100) if step <= args.long]
    rows = [(name, *(digits(alone.losses, found.losses, step) for step in marks)) for name, found in others.items()]
    return f"""In how many digits the losses of {arch} agree up to a step with those of one worker with one thread, from
the same random weights at a rate of 0.01 (float32; in float64 the tests hold weights and running statistics to ten
digits):

{table(("", *(f"step {step}" for step in marks)), rows)}"""


if __name__ == "__main__":
    main()
