"""The panels of dashboards/transferlib.json, row by row: what is asked of Prometheus, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RUN = 'run=~"$run"'
ARM = f'{RUN},arm=~"$arm"'
TRIAL = "{{arm}}-s{{seed}}-c{{candidate}}"
OF_TRIAL = "by (arm, seed, candidate)"


@dataclass(frozen=True)
class Panel:
    """Describe one panel."""

    title: str
    queries: tuple[tuple[str, str], ...]
    """PromQL and the legend of its series."""
    unit: str = "short"
    """Grafana's name of a unit."""
    kind: str = "timeseries"
    """Or bargauge, stat, table: these show the newest value."""
    width: int = 8
    """Of 24 columns."""
    description: str = ""
    maximum: float | None = None
    is_stacked: bool = False
    alert_above: float | None = None
    """Draw a red line here: what an alert of rules/alerting.yml looks at."""


def trial_gauge(title: str, name: str, unit: str = "short", **more: Any) -> Panel:
    """Return a panel with one line a trial."""
    return Panel(title, ((f"max {OF_TRIAL} (transferlib_{name}{{{ARM}}})", TRIAL),), unit, **more)


GLANCE = (
    Panel(
        "Jobs",
        (("max by (run, state) (transferlib_job_state == 1)", ""),),
        kind="table",
        description="All jobs that run now, whatever is chosen above. A run's name leads to its curves here.",
    ),
    Panel(
        "Best validation accuracy",
        ((f"max by (arm) (transferlib_best_validation_accuracy{{{ARM}}})", "{{arm}}"),),
        "percentunit",
        "bargauge",
        maximum=1,
        description="Best of all epochs of all trials of an arm so far. What it is chosen by, not how good it is: the "
        "test set is read once, at the end, and its numbers are in the report.",
    ),
    Panel("Trials", ((f"max by (state) (transferlib_trials{{{RUN}}})", "{{state}}"),), kind="bargauge", width=4),
    Panel(
        "Trials that ended",
        ((f"transferlib:trials_ended_ratio:run{{{RUN}}}", "ended"),),
        "percentunit",
        "stat",
        width=4,
        maximum=1,
    ),
    trial_gauge("Validation accuracy", "validation_accuracy", "percentunit", maximum=1),
    trial_gauge("Validation loss", "validation_loss"),
    trial_gauge("Training loss", "loss"),
)
THROUGHPUT = (
    Panel(
        "Training images/s",
        ((f"transferlib:images_per_second:arm{{{ARM}}}", "{{arm}}"),),
        description="Over the last minute, all trials side by side. Trials shorter than two scrapes do not show.",
    ),
    Panel(
        "Training images/s in training steps",
        ((f"transferlib:training_images_per_second:arm{{{ARM}}}", "{{arm}}"),),
        description="Images over step time since each trial's start: images_per_s of the leaderboard.",
    ),
    Panel(
        "Validation images/s",
        ((f'sum by (arm) (rate(transferlib_images_total{{{ARM},phase="val"}}[1m]))', "{{arm}}"),),
    ),
    Panel("Images/s by trial", ((f"transferlib:images_per_second:trial{{{ARM}}}", TRIAL),)),
    trial_gauge("Epochs finished", "epoch"),
    Panel(
        "Epochs left",
        ((f"max by (arm) (transferlib_budget_left_epochs{{{ARM}}})", "{{arm}}"),),
        kind="bargauge",
    ),
)
STARVES = (
    Panel(
        "Time spent waiting for data",
        ((f"transferlib:data_wait_ratio:trial{{{ARM}}}", TRIAL),),
        "percentunit",
        maximum=1,
        alert_above=0.3,
        description="Share of step time in which the device waited for its next batch.",
    ),
    Panel(
        "Where trials spend their time",
        (
            (
                f'sum(rate(transferlib_step_seconds_total{{{ARM},phase="train"}}[1m]))'
                f' - sum(rate(transferlib_data_wait_seconds_total{{{ARM},phase="train"}}[1m]))',
                "training",
            ),
            (
                f'sum(rate(transferlib_step_seconds_total{{{ARM},phase="val"}}[1m]))'
                f' - sum(rate(transferlib_data_wait_seconds_total{{{ARM},phase="val"}}[1m]))',
                "validation",
            ),
            (f"sum(rate(transferlib_data_wait_seconds_total{{{ARM}}}[1m]))", "waiting for data"),
            (f"sum(rate(transferlib_checkpoint_seconds_total{{{ARM}}}[1m]))", "checkpoints"),
        ),
        is_stacked=True,
        description="Seconds a second: two trials side by side spend two. What is missing is start-up.",
    ),
    trial_gauge("GPU utilisation", "gpu_utilisation_ratio", "percentunit", maximum=1),
    trial_gauge("GPU memory", "gpu_memory_bytes", "bytes"),
    trial_gauge("Host memory of trials", "memory_bytes", "bytes"),
    Panel(
        "CPU by Ray node",
        (("max by (ip) (ray_node_cpu_utilization)", "{{ip}}"),),
        "percent",
        maximum=100,
        description="Near 100 while trials wait for data: decoding and augmentation are what is slow.",
    ),
)
HEALTH = (
    Panel(
        "Alerts that fire",
        (('max by (alertname, severity, run, arm) (ALERTS{alertname=~"Transferlib.+",alertstate="firing"})', ""),),
        kind="table",
        description="Of all jobs. docs/operations.md says what each means and what to do.",
    ),
    Panel(
        "Silence",
        ((f"transferlib:seconds_since_progress:run{{{RUN}}}", "since the last word"),),
        "s",
        alert_above=600,
    ),
    Panel(
        "Failed and restarted",
        (
            (f'sum(max by (run) (transferlib_trials{{{RUN},state="failed"}}))', "trials failed"),
            (f"sum(max by (run, arm) (transferlib_trials_not_finite{{{ARM}}}))", "of these: loss not finite"),
            (f"sum(max by (run, arm) (transferlib_trial_restarts_total{{{ARM}}}))", "restarts"),
            (f"sum(transferlib_steps_redone_total{{{ARM}}})", "steps done again"),
        ),
    ),
    Panel(
        "Images",
        (
            (f"max by (run) (transferlib_images_used{{{RUN}}})", "used"),
            (f"max by (run) (transferlib_images_skipped{{{RUN}}})", "skipped"),
        ),
        kind="stat",
        width=4,
    ),
    Panel(
        "Images skipped",
        ((f"transferlib:images_skipped_ratio:run{{{RUN}}}", "skipped"),),
        "percentunit",
        "stat",
        width=4,
        alert_above=0.01,
    ),
    Panel("Disk left", ((f"min by (place) (transferlib_disk_free_bytes{{{RUN}}})", "{{place}}"),), "bytes"),
    Panel(
        "Disk left by Ray node",
        (("min by (ip) (ray_node_disk_free / (ray_node_disk_free + ray_node_disk_usage))", "{{ip}}"),),
        "percentunit",
        maximum=1,
    ),
    Panel(
        "Memory by Ray node",
        (("max by (ip) (ray_node_mem_used_host / ray_node_mem_total_host)", "{{ip}}"),),
        "percentunit",
        maximum=1,
        description="Ray kills the newest task of a node at 95 %.",
    ),
    Panel(
        "Checkpoints written",
        ((f"sum by (arm) (rate(transferlib_checkpoint_bytes_total{{{ARM}}}[1m]))", "{{arm}}"),),
        "Bps",
    ),
    Panel(
        "Learning rate",
        ((f"max by (arm, seed, candidate, stage) (transferlib_learning_rate{{{ARM}}})", TRIAL + " {{stage}}"),),
        description="By stage; 0 where it is frozen.",
    ),
)
ROWS = {
    "The comparison at a glance": GLANCE,
    "Throughput": THROUGHPUT,
    "What starves": STARVES,
    "Health": HEALTH,
}
