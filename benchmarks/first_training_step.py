"""Measure the time from Enter to the first training step: on this machine, and as a job of a cluster that is up.

    python benchmarks/first_training_step.py --rounds 5 --write docs/benchmarks/...md

The two alternate in one run. The images are decoded already (a first comparison, not counted, does it); torch and Ray
are in the system's file cache. The cluster is one node on this machine, as `submit cluster up` starts it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from measuring import Desk, Run, cpus_here, machine_line, span, table, write_images

OPTIONS = ("--arch", "resnet18", "--weights", "none", "--strategy", "feature_extraction", "--seeds", 1)
TINY = ("--lr-candidates", 1, "--epochs", 1, "--image-size", 64, "--precision", "fp32", "--threads-per-worker", 1)
FIRST_STEP = "the trial's start to its first step"


def measure(desk: Desk, data: Path, address: str) -> dict[str, float]:
    """Run one comparison to its end; return seconds by part, and in all, up to its first training step."""
    began = time.time()
    desk.submit("compare", "--data", data, *OPTIONS, *TINY, "--address", address)
    run = desk.newest_run()
    return {**parts(run, began), "in all": run.first_step_at() - began}


def parts(run: Run, began: float) -> dict[str, float]:
    """Share the seconds before the first step out over what was done."""
    (trial_id,) = run.results()
    started = run.began_at(trial_id)
    found = {"Enter to the job's first line": run.timeline()[0]["at"] - began}
    for event, following in itertools.pairwise(run.timeline()):
        if event["state"] == "running":
            found["starting the trial's process"] = started - event["at"]
            break
        name = "joining or starting Ray" if "Ray" in event["message"] or "cluster" in event["message"] else None
        found[name or event["message"]] = following["at"] - event["at"]
    found[FIRST_STEP] = run.first_step_at() - started
    return found


def detached(desk: Desk, data: Path, address: str) -> float:
    """Return the seconds from Enter to the job's id with `-d`; the job is waited for."""
    began = time.perf_counter()
    run_id = desk.submit("compare", "-d", "--data", data, *OPTIONS, *TINY, "--address", address).strip()
    seconds = time.perf_counter() - began
    desk.submit("wait", run_id)
    return seconds


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--port", type=int, default=18265, help="of the cluster, on loopback (default 18265)")
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"here": [], "cluster": []}
    ids: list[float] = []
    with Desk.made() as desk, desk.cluster(cpus_here(), args.port) as address:
        data = write_images(desk.folder / "images", {"train": 100, "val": 20, "test": 20}, side=96)
        for target in (address, "local"):
            measure(desk, data, target)
        for index in range(args.rounds):
            for name, target in (("here", "local"), ("cluster", address)):
                rows[name].append(measure(desk, data, target))
                print(f"round {index}, {name}: {rows[name][-1]['in all']:.1f} s", file=sys.stderr)
            ids.append(detached(desk, data, address))
    text = summary(rows, ids)
    print(text)
    if args.write:
        args.write.write_text(text)


def summary(rows: dict[str, list[dict[str, float]]], ids: list[float]) -> str:
    """Return the result as Markdown."""
    names = list(rows["here"][0])
    body = [[name, *(span(row[name] for row in rows[where]) for where in ("here", "cluster"))] for name in names]
    return f"""# From Enter to the first training step

ResNet-18, `feature_extraction`, 64 px, 200 decoded images; {len(ids)} rounds, this machine and a cluster of one node in
turn; median (least to most), seconds.

{table(("", "on this machine", "job of a cluster"), body)}

With `-d`, the job's id is there after {span(ids)} s.

{machine_line()}
"""


if __name__ == "__main__":
    main()
