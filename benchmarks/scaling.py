"""Measure how training scales from one worker to several, with DDP and Ray Data, as `submit` runs it.

    python benchmarks/scaling.py --rounds 3 --write docs/benchmarks/...md
    python benchmarks/scaling.py --workers 1 2 4 --gpus --image-size 224 --write docs/benchmarks/...md

Each round trains the same trial with each number of workers, in turn, at the same batch per worker. Images/s are those
of whole epochs, waits for data included, the first epoch left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from measuring import Desk, machine_line, span, table, write_images

BATCH = 16
"""Images of a step, for each worker."""


def measure(desk: Desk, data: Path, args: argparse.Namespace, workers: int) -> tuple[float, float]:
    """Train once; return images/s, and the share of the epochs' time that was a wait for data."""
    machine = ("--gpus", workers, "--gpus-per-trial", workers) if args.gpus else ("--workers-per-trial", workers)
    desk.submit(
        *("train", "--data", data, "--arch", args.arch, "--weights", "none", "--strategy", "full"),
        *("--epochs", args.epochs, "--patience", 0, "--image-size", args.image_size, "--augmentation", "standard"),
        *("--global-batch-size", BATCH * workers, "--address", "local", *machine),
        *(() if args.gpus else ("--threads-per-worker", 1, "--precision", "fp32")),
    )
    rows = desk.newest_run().epochs()[1:]
    seconds = sum(row["train_seconds"] for row in rows)
    return sum(row["images"] for row in rows) / seconds, sum(row["data_wait_s"] for row in rows) / seconds


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default 1 2")
    parser.add_argument("--gpus", action="store_true", help="a GPU for each worker; default: a CPU and one thread")
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=int, default=96, help="default 96")
    parser.add_argument("--images", type=int, default=480, help="of a class, for training (default 480)")
    parser.add_argument("--epochs", type=int, default=4, help="the first is left out (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in args.workers}
    with Desk.made() as desk:
        data = write_images(desk.folder / "images", {"train": args.images, "val": 16, "test": 16}, side=256)
        for index in range(args.rounds):
            for workers in args.workers:
                found[workers].append(measure(desk, data, args, workers))
                print(f"round {index}, {workers} workers: {found[workers][-1]}", file=sys.stderr)
    text = summary(args, found)
    print(text)
    if args.write:
        args.write.write_text(text)


def summary(args: argparse.Namespace, found: dict[int, list[tuple[float, float]]]) -> str:
    """Return the result as Markdown."""
    fewest = args.workers[0]
    rows = []
    for workers, values in found.items():
        ratios = [speed / first for (speed, _), (first, _) in zip(values, found[fewest], strict=True)]
        rows.append(
            (
                *(workers, span(speed for speed, _ in values), span(ratios, 2)),
                *(f"{statistics.median(ratios) * fewest / workers:.2f}", span((wait for _, wait in values), 2)),
            )
        )
    header = ("workers", "images/s", f"over {fewest}", "efficiency", "share of waits for data")
    device = "a GPU each" if args.gpus else "one CPU thread each"
    return f"""# Scaling from {fewest} worker to {args.workers[-1]}

{args.arch}, `full`, {args.image_size} px, standard augmentation, batch {BATCH} a worker, {device}, DDP;
{args.rounds} rounds in turn; median (least to most).

{table(header, rows)}

{machine_line()}
"""


if __name__ == "__main__":
    main()
