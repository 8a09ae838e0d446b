"""Say how soon trials take their first step, from a finished run folder: `python benchmarks/first_steps.py RUN`.

For the first trial that a process served, the seconds include what is loaded once; for every further one, only what a
reused trial process needs: the data stream, the model, its weights.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path


def main(run: Path) -> None:
    seconds: dict[int, list[float]] = {}
    for trial in json.loads((run / "plan.json").read_text())["trials"]:
        trial_id = f"{trial['architecture']}-{trial['strategy']}-s{trial['seed']}-c{trial['candidate']}"
        process = re.findall(r"in process (\d+)", (run / "log" / f"{trial_id}.log").read_text())[-1]
        result = json.loads((run / "trials" / trial_id / "result.json").read_text())
        seconds.setdefault(int(process), []).append(result["first_step_s"])
    further = [value for values in seconds.values() for value in values[1:]]
    print(f"{sum(map(len, seconds.values()))} trials in {len(seconds)} trial processes")
    print(f"first trial of a process: {statistics.median(values[0] for values in seconds.values()):.2f} s")
    print(f"each further trial: median {statistics.median(further):.2f} s, at most {max(further):.2f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
