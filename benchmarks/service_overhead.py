"""Measure what the service costs over a plain-torch script that does the same training, interleaved in one run.

    python benchmarks/service_overhead.py --data FOLDER --rounds 3 --write docs/benchmarks/...md
    python benchmarks/service_overhead.py --photos 1600 --gpu --arch resnet50 --batch-size 64 --write docs/...md

Each round runs four commands: plain and service, each with few and with many epochs. The slope over epochs is the time
of an epoch, what is left is the fixed cost. The service's own `log/timeline.jsonl` says where the fixed seconds go.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from input_pipeline import make_photos
from measuring import Run, cpus_here, machine_line

HERE = Path(__file__).parent
WORKERS = max(2, cpus_here() - 2)
"""Of the plain script's DataLoader."""


def plain(args: argparse.Namespace, epochs: int) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "plain_torch.py"), "--data", str(args.data), "--epochs", str(epochs)]
    command += ["--image-size", str(args.image_size), "--strategy", args.strategy]
    command += ["--arch", args.arch, "--batch-size", str(args.batch_size), "--num-workers", str(WORKERS)]
    command += ["--device", "cuda"] if args.gpu else []
    command += ["--weights", str(args.weights)] if args.weights else []
    command += ["--fp32"] if args.precision == "fp32" else []
    began = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {**json.loads(output), "wall_s": time.perf_counter() - began}


def service(args: argparse.Namespace, epochs: int, runs: Path) -> dict[str, Any]:
    submit = str(Path(sys.executable).with_name("submit"))
    command = [submit, "train", "--data", str(args.data), "--arch", args.arch, "--strategy", args.strategy]
    command += ["--epochs", str(epochs), "--image-size", str(args.image_size), "--runs", str(runs)]
    command += ["--weights", str(args.weights or "none"), "--precision", args.precision, "--lr-candidates", "0.03"]
    command += ["--patience", "0", "--global-batch-size", str(args.batch_size)]
    command += ["--gpus", "1" if args.gpu else "0"]
    began, wall_clock = time.perf_counter(), time.time()
    subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - began
    run = Run(max(path for path in runs.iterdir() if path.is_dir()))
    events, rows = run.timeline(), run.epochs()
    phases = {"command line": events[0]["at"] - wall_clock}
    for event, following in itertools.pairwise(events):
        phases[event["message"]] = following["at"] - event["at"]
    phases["after the job"] = wall_clock + wall - events[-1]["at"]
    return {
        "wall_s": wall,
        "phases": phases,
        "epochs_s": [row["seconds"] for row in rows],
        "data_wait_s": sum(row["data_wait_s"] for row in rows),
        "first_step_s": run.first_step_at() - wall_clock,
        "training_s": sum(row["seconds"] for row in rows),
    }


def line_through(few: int, few_s: float, many: int, many_s: float) -> tuple[float, float]:
    """Return seconds of fixed cost and of one epoch."""
    epoch = (many_s - few_s) / (many - few)
    return few_s - few * epoch, epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with train, val and test folders of classes")
    source.add_argument("--photos", type=int, help="make JPEGs of 400 to 500 px: so many for training")
    parser.add_argument("--arch", default="resnet18", choices=("resnet18", "resnet50"))
    parser.add_argument("--gpu", action="store_true", help="on one GPU, both; default: on the CPU")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--weights", type=Path, help="state dict (.pth) for both; default: random for both")
    parser.add_argument("--strategy", default="last_layers", choices=("last_layers", "full"))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 6), metavar=("FEW", "MANY"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    few, many = args.epochs
    rows: dict[str, list[tuple[float, float]]] = {"plain": [], "service": []}
    first: dict[str, list[float]] = {"plain": [], "service": []}
    last: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.photos:
            args.data = Path(folder) / "photos"
            for seed, (split, share) in enumerate({"train": 1.0, "val": 0.125, "test": 0.125}.items()):
                make_photos(args.data / split, round(share * args.photos), seed)
        for index in range(args.rounds):
            a, b = plain(args, few), service(args, few, Path(folder) / f"{index}-few")
            c, last = plain(args, many), service(args, many, Path(folder) / f"{index}-many")
            rows["plain"].append(line_through(few, a["wall_s"], many, c["wall_s"]))
            rows["service"].append(line_through(few, b["wall_s"], many, last["wall_s"]))
            first["plain"] += [a["first_step_s"], c["first_step_s"]]
            first["service"] += [b["first_step_s"], last["first_step_s"]]
            print(f"round {index}: plain {rows['plain'][-1]}, service {rows['service'][-1]}", file=sys.stderr)
    text = summary(args, rows, first, last)
    print(text)
    if args.write:
        args.write.write_text(text)


def summary(args: argparse.Namespace, rows: dict[str, Any], first: dict[str, list[float]], last: dict[str, Any]) -> str:
    def median(values: Any) -> float:
        return float(statistics.median(list(values)))

    ratios = [s[1] / p[1] for p, s in zip(rows["plain"], rows["service"], strict=True)]
    lines = [
        "# What the service costs over a plain-torch script",
        "",
        f"{args.arch}, `{args.strategy}`, {args.image_size} px, {args.precision}, batch {args.batch_size}, "
        f"{'one GPU' if args.gpu else 'CPU'}; {args.rounds} rounds of "
        f"{args.epochs[0]} and {args.epochs[1]} epochs, interleaved; medians. Fixed cost and epoch time are the line "
        "through the two wall times.",
        "",
        "| | to the first step, s | fixed, s | an epoch, s |",
        "|---|---|---|---|",
    ]
    for name in ("plain", "service"):
        fixed, epoch = median(r[0] for r in rows[name]), median(r[1] for r in rows[name])
        lines.append(f"| {name} | {median(first[name]):.1f} | {fixed:.1f} | {epoch:.2f} |")
    lines += [
        "",
        f"Epoch time, service over plain: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over rounds).",
        "",
        "Where the service's seconds went (last run):",
        "",
        "| phase | s |",
        "|---|---|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in last["phases"].items()),
        "",
        f"Of the trials' phase, {last['training_s']:.1f} s were epochs, "
        f"{last['data_wait_s']:.1f} s of them waiting for data.",
        "",
        machine_line(),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
