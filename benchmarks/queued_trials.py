"""Measure what a head spends on 1, 10 and 50 queued trials beside training them.

    python benchmarks/queued_trials.py --write docs/benchmarks/...md

One comparison of so many trials is a job of a cluster of one node, as `submit cluster up` starts it. While it runs, the
time that `submit status` takes and the memory of the job's own process are looked at once a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from measuring import Desk, cpus_here, machine_line, table, write_images

OPTIONS = ("--arch", "resnet18", "--weights", "none", "--strategy", "feature_extraction", "--epochs", 2)
TINY = ("--image-size", 64, "--precision", "fp32", "--threads-per-worker", 1, "--lr-candidates", 1)
ENDED = ("done", "failed", "stopped")


@dataclass(frozen=True)
class Queue:
    """What one comparison took.

    Attributes:
        trials: How many.
        slots: How many at once.
        id_s: Seconds from Enter to the job's id.
        trials_s: Seconds of the job's phase of trials.
        training_s: Seconds that the trials themselves trained, added up.
        after_s: Seconds from the last trial's end to the job's: choosing, the test set, the report.
        status_s: Seconds of a `submit status`, the median.
        memory_mib: Most resident memory of the job's own process, MiB.
    """

    trials: int
    slots: int
    id_s: float
    trials_s: float
    training_s: float
    after_s: float
    status_s: float
    memory_mib: float

    @property
    def overhead_s(self) -> float:
        """Return seconds of a slot that each trial costs beside its training."""
        return (self.trials_s * self.slots - self.training_s) / self.trials


def measure(desk: Desk, data: Path, address: str, number: int) -> Queue:
    """Run a comparison of so many trials to its end."""
    began = time.perf_counter()
    options = (*OPTIONS, *TINY, "--seeds", number, "--address", address)
    run_id = desk.submit("compare", "-d", "--data", data, *options).strip()
    id_s = time.perf_counter() - began
    asked, memory = [], 0.0
    while True:
        at = time.perf_counter()
        status = json.loads(desk.submit("status", run_id, "--json"))
        asked.append(time.perf_counter() - at)
        memory = max(memory, job_memory_mib(run_id))
        if status["state"] in ENDED:
            break
        time.sleep(1.0)
    run = desk.newest_run()
    spans = {
        event["state"]: following["at"] - event["at"]
        for event, following in itertools.pairwise(run.timeline())
        if event["state"] == "running"
    }
    end = run.timeline()[-1]["at"]
    training = sum(result["seconds"] for result in run.results().values())
    trials_end = next(event["at"] for event in run.timeline() if event["state"] == "evaluating")
    slots = json.loads((run.path / "plan.json").read_text())["concurrency"]
    median = statistics.median(asked)
    return Queue(number, slots, id_s, spans["running"], training, end - trials_end, median, memory)


def job_memory_mib(run_id: str) -> float:
    """Return the most memory that a job's own process has had so far; 0 when it is not there."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            if run_id in words and any(word.endswith("compare.py") for word in words):
                return int(re.findall(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())[0]) / 1024
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue  # it ended meanwhile
    return 0.0


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 10, 50], help="default 1 10 50")
    parser.add_argument("--port", type=int, default=18265, help="of the cluster, on loopback (default 18265)")
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    found = []
    with Desk.made() as desk, desk.cluster(cpus_here(), args.port) as address:
        data = write_images(desk.folder / "images", {"train": 100, "val": 20, "test": 20}, side=96)
        measure(desk, data, address, 1)  # decodes the images; not counted
        for number in args.trials:
            found.append(measure(desk, data, address, number))
            print(found[-1], file=sys.stderr)
    text = summary(found)
    print(text)
    if args.write:
        args.write.write_text(text)


def summary(found: list[Queue]) -> str:
    """Return the result as Markdown."""
    header = (
        "trials",
        "at once",
        "Enter to the id, s",
        "trials' phase, s",
        "of it training, s",
        "overhead a trial, s",
        "after the trials, s",
        "`submit status`, s",
        "memory of the job's process, MiB",
    )
    rows = [
        (
            *(queue.trials, queue.slots, f"{queue.id_s:.1f}", f"{queue.trials_s:.1f}", f"{queue.training_s:.1f}"),
            *(f"{queue.overhead_s:.2f}", f"{queue.after_s:.1f}", f"{queue.status_s:.2f}", f"{queue.memory_mib:.0f}"),
        )
        for queue in found
    ]
    return f"""# What 1, 10 and 50 queued trials cost a head

ResNet-18, `feature_extraction`, 64 px, 200 decoded images, 2 epochs; one job, its trials queued on a cluster of one
node. The overhead of a trial is what its slot spends beside training: starting (the first also loads torch in the
trial's process), writing the model, and Tune's own work.

{table(header, rows)}

{machine_line()}
"""


if __name__ == "__main__":
    main()
