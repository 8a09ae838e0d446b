"""The commands that look at a run and steer it, wherever its job is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from transferlib.cli.gate import fail_under_option, gate

Command = Callable[..., Any]

RUNS_HELP = "Folder that run folders are in. [default: output.runs_dir of submit.yaml, else runs]"


def run_command(command: Command) -> Command:
    """Decorate a command with the run that it is about, and `--runs`."""
    command = click.option("--runs", metavar="DIR", help=RUNS_HELP)(command)
    return click.argument("run", metavar="RUN")(command)


def json_option(text: str) -> Callable[[Command], Command]:
    """Return the `--json` option."""
    return click.option("--json", "as_json", is_flag=True, help=text)


@click.command("status")
@run_command
@json_option("Print one JSON object.")
def status(run: str, runs: str | None, as_json: bool) -> int:
    """Say how RUN stands.

    Answered from its folder; of a job on a cluster, what Ray says of it stands beside it. RUN is an id, the start of
    one, @last, or a run folder's path. The exit code is 0 whatever the job's state.
    """
    import json

    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import find_run, state_json, status_lines

    folder = find_run(run, runs)
    state = RunView(folder).look()
    if as_json:
        click.echo(json.dumps(state_json(folder, state), indent=2))
    else:
        click.echo("\n".join(status_lines(folder, state)))
    return 0


@click.command("logs")
@run_command
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; exit with its code.")
@click.option("--trial", metavar="TRIAL", help="A trial's own log, by its name or the start of it.")
@json_option("Print each line as a JSON object.")
def logs(run: str, runs: str | None, follow: bool, trial: str | None, as_json: bool) -> int:
    """Print what the job of RUN logged.

    RUN is an id, the start of one, @last, or a run folder's path. Ctrl-C ends the following, not the job.
    """
    from transferlib.cli.steering import find_run, follow_log

    return follow_log(find_run(run, runs), trial, follows=follow, as_json=as_json)


@click.command("wait")
@run_command
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this long, with 124.")
@json_option("Print one JSON object.")
def wait(run: str, runs: str | None, timeout: float | None, as_json: bool) -> int:
    """Wait until the job of RUN has ended, and exit with its code.

    RUN is an id, the start of one, @last, or a run folder's path.
    """
    import json

    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import EXIT_TIMEOUT, find_run, state_json, status_lines, wait_for

    folder = find_run(run, runs)
    ended = wait_for(folder, timeout)
    state = ended or RunView(folder).look(asks=False)
    if as_json:
        click.echo(json.dumps(state_json(folder, state), indent=2))
    else:
        click.echo("\n".join(status_lines(folder, state)))
    if ended is None:
        return EXIT_TIMEOUT
    return 1 if state.exit_code is None else state.exit_code


@click.command("stop")
@run_command
@click.option("--wait", "waits", is_flag=True, help="Return when it has stopped.")
@json_option("Print one JSON object.")
def stop(run: str, runs: str | None, waits: bool, as_json: bool) -> int:
    """Stop the job of RUN; checkpoints are kept, and --resume goes on from them.

    RUN is an id, the start of one, @last, or a run folder's path.
    """
    import json

    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import find_run, state_json, wait_for

    folder = find_run(run, runs)
    click.echo(RunView(folder).stop(), err=True)
    if waits:
        wait_for(folder, None)
    if as_json:
        click.echo(json.dumps(state_json(folder, RunView(folder).look()), indent=2))
    return 0


@click.command("result")
@run_command
@fail_under_option()
@json_option("Print one JSON object, the leaderboard in it.")
def result(run: str, runs: str | None, fail_under: float | None, as_json: bool) -> int:
    """Print the result of RUN: the leaderboard, the verdict, where the model is. Exit with the job's code.

    RUN is an id, the start of one, @last, or a run folder's path.
    """
    import shutil
    import sys

    from transferlib.cli.attending import PLAIN_WIDTH
    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import find_run, print_result
    from transferlib.errors import UsageError

    folder = find_run(run, runs)
    state = RunView(folder).glance(asks=True)
    width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else PLAIN_WIDTH
    print_result(folder, state, as_json=as_json, width=width)
    return UsageError.exit_code if state.exit_code is None else gate(folder, fail_under, state.exit_code)


@click.command("report")
@run_command
@json_option("Print one JSON object: where it is.")
def report(run: str, runs: str | None, as_json: bool) -> int:
    """Write the report.html of RUN anew.

    RUN is an id, the start of one, @last, or a run folder's path.
    """
    import json

    from transferlib.cli.outcome import shown
    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import find_run, report_inputs
    from transferlib.errors import StorageError
    from transferlib.report import write_report

    folder = find_run(run, runs)
    state = RunView(folder).glance(also=report_inputs(folder))
    if state.note:
        raise StorageError(state.note)
    write_report(folder)
    if as_json:
        click.echo(json.dumps({"id": folder.run_id, "report": str(folder.report)}, indent=2))
    else:
        click.echo(f"Wrote {shown(folder.report)}")
    return 0


@click.command("doctor")
@click.option("--address", metavar="URL", help="Of the cluster to examine. [default: as for compare]")
@click.option("--data", metavar="PATH", help="Images that a job would use.")
@click.option("--storage", metavar="PLACE", help="Where a cluster would keep runs.")
@click.option("--weights", metavar="TEXT", help="Weights that a job would start from: as for compare.")
@click.option("--arch", "architectures", metavar="NAME", multiple=True, help="Network of a job; repeat for several.")
@json_option("Print one JSON object.")
def doctor(
    address: str | None,
    data: str | None,
    storage: str | None,
    weights: str | None,
    architectures: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check whether a job could run, here and on every node of a cluster.

    Versions, torch beside torchvision, shared memory, disk, the cluster and its token, images, storage, weights. The
    exit code is 0 when nothing failed, else 2.
    """
    import json
    import os
    from pathlib import Path

    from transferlib.cli.doctor import Wanted, doctor_json, doctor_lines, examine, exit_code
    from transferlib.cli.resolve import absolute_source, absolute_weights, find_models

    images, place = (absolute_source(text, Path.cwd()) if text else "" for text in (data, storage))
    asked = absolute_weights(weights or "", Path.cwd())
    models = find_models(Path.cwd(), asked, architectures)
    wanted = Wanted(images, place, models.weights if asked else "", models)
    checks = examine(address, wanted, os.environ)
    click.echo(json.dumps(doctor_json(checks), indent=2) if as_json else "\n".join(doctor_lines(checks)))
    return exit_code(checks)


COMMANDS = (status, logs, wait, stop, result, report, doctor)
