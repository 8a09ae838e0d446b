"""Plays a run folder as a job would, without training: `python fake_job.py RUN_FOLDER`, in the way FAKE_JOB names.

done: every trial to its end. failing: the last trial fails. broken: ends with an error in status.json.
dying: prints and dies without a status. endless: trains until it is told to stop. deaf: does not even hear that.
"""

import json
import os
import sys
import time
from pathlib import Path

RUN = Path(sys.argv[1])
WAY = os.environ.get("FAKE_JOB", "done")
STEP_S = float(os.environ.get("FAKE_STEP_S", "0"))
MOST_S = 120  # however a test ends, its job does too
BEGAN = time.monotonic()
PLAN = json.loads((RUN / "plan.json").read_text())


def write(path, value):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def status(state, **details):
    write(RUN / "status.json", {"id": RUN.name, "state": state, "updated_at": time.time(), **details})


def trial_id(trial):
    return f"{trial['architecture']}-{trial['strategy']}-s{trial['seed']}-c{trial['candidate']}"


def progress(trial, state, values, reason=""):
    folder = RUN / "trials" / trial_id(trial)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "trial_id": trial_id(trial), "state": state, "epoch": len(values), "num_epochs": PLAN["epochs"], "step": 0,
        "num_steps": 2, "images_per_s": 123.4, "data_wait_share": 0.07, "loss": 0.5, "val_accuracy": values,
        "started_at": time.time(), "updated_at": time.time(), "reason": reason, "num_restarts": 0,
    }  # fmt: skip
    write(folder / "progress.json", record)


def result(trial, state, values, reason=""):
    names = {name: trial[name] for name in ("architecture", "strategy", "seed", "candidate", "lr")}
    record = {"trial_id": trial_id(trial), "state": state, "reason": reason, "epochs": len(values), **names}
    record["val_accuracy"] = max(values, default=0.0)
    write(RUN / "trials" / trial_id(trial) / "result.json", record)
    for name in ("best.safetensors", "predictions-val.parquet", "predictions-test.parquet"):
        (RUN / "trials" / trial_id(trial) / name).write_text("PAR1")


def epoch_row(trial, epoch, value):
    row = {
        "trial_id": trial_id(trial), "epoch": epoch, "train_loss": 0.5, "val_loss": 0.4, "val_accuracy": value,
        "lr": 0.1, "images": 40, "seconds": 0.5, "train_seconds": 0.4, "data_wait_s": 0.05, "checkpoint_s": 0.0,
        "peak_memory_bytes": 1, "is_best": True,
    }  # fmt: skip
    with open(RUN / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def leaderboard():
    def metric(value):
        limits = {"low": value - 0.05, "high": value + 0.05, "seed_std": 0.01}
        return {"mean": value, **limits, "by_seed": {"0": value, "1": value}}

    arms = []
    for index, arm in enumerate(dict.fromkeys(f"{t['architecture']}-{t['strategy']}" for t in PLAN["trials"])):
        names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")
        metrics = {name: metric(0.9 - index / 10) for name in names}
        arms.append(
            {
                "arm": arm, **metrics, "top5": None, "val": metrics, "lr": {"0": 0.1, "1": 0.03},
                "trained_parameters": 11_000_000, "train_flops": 2e9, "seconds": 12.5, "images_per_s": 250.0,
                "peak_memory_bytes": 1_000_000, "trials": {"done": 3, "failed": 0},
            }
        )  # fmt: skip
    verdict = {
        "state": "separated",
        "sentences": ["A wins."],
        "notes": [],
        "margin": 0.02,
        "cheapest_good_enough": None,
    }
    test = {"value": 0.9, "low": 0.85, "high": 0.95}
    model = {
        "path": "model/model.safetensors",
        "arm": arms[0]["arm"],
        "seed": 0,
        "candidate": 0,
        "val": 0.9,
        "test": test,
    }
    table = {"schema": 2, "run": RUN.name, "metric": "accuracy", "ranked_by": "x", "verdict": verdict, "model": model}
    table |= {"chance": {"value": 0.5, "low": 0.4, "high": 0.6}, "images": {"test": 40}, "pairs": [], "arms": arms}
    (RUN / "model").mkdir(exist_ok=True)
    (RUN / "model" / "model.safetensors").write_text("weights")
    write(RUN / "leaderboard.json", table)


def choice():
    last = max(trial["candidate"] for trial in PLAN["trials"])
    chosen = [
        {
            "arm": f"{trial['architecture']}-{trial['strategy']}", "seed": trial["seed"], "trial_id": trial_id(trial),
            "edge": "highest", "val": 0.9, "val_log_loss": 0.4,
        }
        for trial in PLAN["trials"]
        if trial["candidate"] == last
    ]  # fmt: skip
    write(RUN / "choice.json", {"schema": 2, "metric": "accuracy", "chosen": chosen})


def play():
    status("running", message="playing")
    with open(RUN / "log" / "messages.txt", "a") as file:
        file.write("60 images, nothing wrong with them.\n")
    print("a line that only the log shows", flush=True)
    last = PLAN["trials"][-1]
    for trial in PLAN["trials"]:
        if (RUN / "trials" / trial_id(trial) / "result.json").exists():
            continue
        values = []
        progress(trial, "running", values)
        while len(values) < PLAN["epochs"] or WAY in ("endless", "deaf"):
            time.sleep(STEP_S)
            if time.monotonic() - BEGAN > MOST_S:
                sys.exit(1)
            if (RUN / "STOP").exists() and WAY != "deaf":
                progress(trial, "stopped", values)
                status("stopped", exit_code=5, error="Stopped.")
                return 5
            if len(values) < PLAN["epochs"]:
                values.append(0.5 + 0.4 * len(values) / PLAN["epochs"] + 0.05 * trial["candidate"])
                epoch_row(trial, len(values) - 1, values[-1])
                progress(trial, "running", values)
            else:
                time.sleep(0.02)
        is_failed = WAY == "failing" and trial is last
        reason = "the loss is not finite at epoch 2, step 1, rate 0.3" if is_failed else ""
        state = "failed" if is_failed else "done"
        progress(trial, state, values, reason)
        result(trial, state, values, reason)
    choice()
    leaderboard()
    for name in ("manifest.parquet", "predictions.parquet", "prepared.json", "environment.json", "augmentation.png"):
        (RUN / name).write_text("{} PAR1")
    for name in ("report.html", "leaderboard.csv", "leaderboard.md"):
        (RUN / name).write_text("played")
    status("done", exit_code=4 if WAY == "failing" else 0, message="1 trials failed." if WAY == "failing" else "")
    return 4 if WAY == "failing" else 0


if WAY == "dying":
    print("about to die", flush=True)
    os.kill(os.getpid(), 9)
if WAY == "broken":
    status("failed", exit_code=2, error="photos/ has a class without images.")
    sys.exit(2)
sys.exit(play())
