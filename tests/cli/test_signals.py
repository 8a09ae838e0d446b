"""Ctrl-C on a real terminal, and SIGTERM: each in a process of its own."""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferlib.runs import RunFolder, read_json

pytestmark = pytest.mark.slow

SMALL = ("compare", "--data", "photos", "--arch", "resnet18", "--seeds", "1", "--lr-candidates", "1", "--epochs", "2")
WAIT_S = 20.0


class Terminal:
    """Hold a pseudo-terminal of 80 columns with a command on it."""

    def __init__(self, start: Callable[..., subprocess.Popen[bytes]], *args: str, job: str) -> None:
        self._side, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.text = ""
        self.process = start(
            *args,
            job=job,
            stdin=other,
            stdout=other,
            stderr=other,
            env={"TERM": "xterm", "FAKE_STEP_S": "0.05", "COLUMNS": "80", "LINES": "24"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)

    def read_until(self, words: str) -> None:
        """Read what the command draws until words have been seen."""
        end = time.monotonic() + WAIT_S
        while words not in self.text:
            assert time.monotonic() < end, f"{words!r} did not come:\n{self.text}"
            try:
                self.text += os.read(self._side, 65536).decode(errors="replace")
            except OSError:  # the command has ended
                assert words in self.text, f"{words!r} did not come:\n{self.text}"

    def press_ctrl_c(self) -> None:
        """Send what the key sends; the terminal makes it SIGINT for the foreground group."""
        os.write(self._side, b"\x03")

    def hang_up(self) -> int:
        """Close the terminal's window and return the exit code."""
        os.close(self._side)
        return self.process.wait(WAIT_S)

    def end(self) -> int:
        """Read to the end and return the exit code."""
        with contextlib.suppress(OSError):
            while data := os.read(self._side, 65536):
                self.text += data.decode(errors="replace")
        os.close(self._side)
        return self.process.wait(WAIT_S)


def only_run(work: Path) -> RunFolder:
    (run,) = (work / "runs").iterdir()
    return RunFolder(run)


def test_live_table_then_result_on_a_terminal(start: Any, work: Path) -> None:
    terminal = Terminal(start, *SMALL, job="done")
    assert terminal.end() == 0
    for words in ("val acc", "resnet18-last_layers-s0-c0", "▁", "123", "A wins.", "report.html"):
        assert words in terminal.text


def test_first_ctrl_c_stops_cleanly_and_names_the_resume_command(start: Any, call: Any, work: Path) -> None:
    terminal = Terminal(start, *SMALL, job="endless")
    terminal.read_until("2/2")
    terminal.press_ctrl_c()
    terminal.read_until("Stopping: checkpoints are kept. Press Ctrl-C again")
    assert terminal.end() == 130
    assert "0 of 3 trials finished. Go on with:" in terminal.text
    assert f"submit compare --resume {only_run(work).run_id}" in terminal.text
    again = call("compare", "--resume", only_run(work).run_id)
    assert again.code == 0
    assert not only_run(work).stop_flag.exists()


def test_second_ctrl_c_kills_the_job(start: Any, work: Path) -> None:
    terminal = Terminal(start, *SMALL, job="deaf")
    terminal.read_until("2/2")
    terminal.press_ctrl_c()
    terminal.read_until("Stopping")
    terminal.press_ctrl_c()
    assert terminal.end() == 130
    assert "Aborted." in terminal.text
    assert read_json(only_run(work).status)["exit_code"] == 130


def test_closed_terminal_stops_the_job_cleanly(start: Any, work: Path) -> None:
    terminal = Terminal(start, *SMALL, job="endless")
    terminal.read_until("2/2")
    assert terminal.hang_up() == 5
    assert read_json(only_run(work).status)["state"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_viewer_stops_the_job_cleanly_and_ends_with_5(start: Any, work: Path, number: int) -> None:
    process = start(*SMALL, job="endless", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = b""
    while b"epoch 2/2" not in seen:
        line = process.stdout.readline()
        assert line, seen.decode()
        seen += line
    process.send_signal(number)
    rest, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 5
    assert b"Go on with:" in rest
    assert read_json(only_run(work).status)["state"] == "stopped"
