"""Run a job on this machine: its script in a session of its own, so that Ctrl-C reaches the viewer alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from transferlib.errors import DamagedFileError
from transferlib.jobs_folder import job_script
from transferlib.runs import ENDED, PARENT_VARIABLE, RunFolder, reading

LOG_TAIL_LINES = 20


class LocalJob:
    """One running job.

    Args:
        run: Its folder, with spec and plan in it; gets `log/job.log`.
        script: What to run; None: the package's own.
        is_bound: Whether it stops cleanly when this process is gone; else it goes on without it.
    """

    outlives_us = False

    def __init__(self, run: RunFolder, script: Path | None = None, *, is_bound: bool = True) -> None:
        self._run = run
        self.news: list[str] = []
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment.pop(PARENT_VARIABLE, None)
        if is_bound:
            environment[PARENT_VARIABLE] = str(os.getpid())
        with open(run.job_log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(script or job_script(f"{run.verb}.py")), str(run.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        if not is_bound:
            self._process.returncode = 0  # not ours to wait for

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the job runs.

        A job that is over, and only waits for Prometheus to see how it ended, runs no more.
        """
        code = self._process.poll()
        if code is None:
            try:
                status = self._run.read_status() or {}
            except DamagedFileError:  # on a full disk one may be half written; the next look sees another
                status = {}
            if status.get("state") in ENDED and not self._run.is_locked():
                code = self._process.returncode = int(status.get("exit_code", 1))
        return code

    def ask_to_stop(self) -> None:
        """Raise the run's stop flag: trials keep a checkpoint at their next step and end."""
        self._run.stop_flag.touch()

    def kill(self) -> None:
        """End all of the job's processes at once; returns when the first of them is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def leaving_lines(self) -> list[str]:
        """Return what to say when this process leaves a job to itself that is not bound to it."""
        run_id = self._run.run_id
        return [
            "The job goes on in the background.",
            f"  submit logs -f {run_id}    to follow it",
            f"  submit stop {run_id}       to stop it; checkpoints are kept",
        ]

    def log_tail(self) -> str:
        """Return the end of everything that the job's processes printed."""
        with reading(self._run.job_log):
            log = self._run.job_log.read_text(errors="replace")
        return tail_text(log, f"Log: {self._run.job_log}")


def tail_text(log: str, where: str, num_lines: int = LOG_TAIL_LINES) -> str:
    """Return a log's last lines between rulers, and where the rest is.

    Args:
        log: The log.
        where: Where it is found, a line.
        num_lines: Most lines.
    """
    ruler = "-" * 80
    return "\n".join([ruler, *(log.splitlines()[-num_lines:] or ["(nothing was printed)"]), ruler, where])


class StopSignals:
    """Turn signals into a clean stop; a context manager.

    The first Ctrl-C asks the job to stop, the second kills it. SIGTERM and SIGHUP ask it to stop. A job that outlives
    us is only left to itself by Ctrl-C and SIGHUP; SIGTERM, the word of batch systems, stops it too.
    """

    def __init__(self) -> None:
        self.num_interrupts = 0
        self.is_terminated = False
        self.is_hung_up = False
        self._before: dict[signal.Signals, object] = {}

    @property
    def is_stop_wanted(self) -> bool:
        """Return whether any of the signals has come."""
        return self.num_interrupts > 0 or self.is_terminated

    @property
    def is_leaving_wanted(self) -> bool:
        """Return whether the user goes away from a job that can do without one."""
        return self.num_interrupts > 0 or self.is_hung_up

    def __enter__(self) -> StopSignals:
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._terminate)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _interrupt(self, number: int, frame: object) -> None:
        self.num_interrupts += 1

    def _terminate(self, number: int, frame: object) -> None:
        self.is_terminated = True
        self.is_hung_up = self.is_hung_up or number == signal.SIGHUP
