"""`submit`: the commands, their flags and their help. What they do is imported when they do it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from transferlib import __version__
from transferlib.cli.checking import data
from transferlib.cli.clusters import cluster
from transferlib.cli.gate import fail_under_option, refuse_gate
from transferlib.cli.judging import COMMANDS as JUDGING_COMMANDS
from transferlib.cli.options import job_options
from transferlib.cli.sifting import PROBLEMS, JobCommand, JobGroup
from transferlib.cli.verbs import COMMANDS, RUNS_HELP

HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
HELP_WORDS = {"-h", "--help", "--version"}
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 cluster unreachable, 4 some trials failed, 5 stopped, 130 interrupted."
)


@click.group(cls=JobGroup, context_settings=HELP, epilog=EPILOG)
@click.version_option(__version__, prog_name="submit", help="Show the version and exit.")
def submit() -> None:
    """Find the best way to fine-tune a VGG or ResNet (or a few more of torchvision's) on your images, with evidence.

    \b
    submit compare --data photos/     train each strategy on Ray, rank them, write a report
    submit init photos/               write submit.yaml, after which `submit compare` alone works
    """


def job_command(verb: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with what `compare` and `train` have in common."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            fail_under_option(),
            click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
            click.option(
                "--resume-changed",
                is_flag=True,
                help="With --resume: go on although versions or the processor changed; marks the run as not bit-exact.",
            ),
            click.option(
                "--resume",
                metavar="RUN",
                help="Go on with a run (its id, the start of it, @last, or its path) by its own spec; finished trials "
                "are not run again.",
            ),
            click.option("--dry-run", is_flag=True, help="Print the resolved spec and the plan, and start nothing."),
            click.option(
                "-d",
                "--detach",
                is_flag=True,
                help="Return when the job has been started; it goes on by itself (submit status, logs -f, wait, stop).",
            ),
            click.option("--id-file", metavar="FILE", help="Write the run's id there before its job is started."),
            *cluster_options,
            spec_option,
        ):
            command = option(command)
        return submit.command(verb, cls=JobCommand)(job_options(verb)(click.pass_context(command)))

    return decorate


spec_option = click.option(
    "--spec",
    "spec_file",
    metavar="FILE",
    help="YAML or JSON file with options; flags go over it. [default: submit.yaml in the current folder, if there]",
)


cluster_options = (
    click.option(
        "--storage",
        metavar="PLACE",
        help="Where the cluster keeps runs: a folder that all its nodes see, or s3://... or gs://...; the folder here "
        "then mirrors the small files. [default: --runs, which all nodes must see]",
    ),
    click.option(
        "--address",
        metavar="URL",
        help="Run on the Ray cluster whose head answers at http://HEAD:8265. [default: $RAY_API_SERVER_ADDRESS, "
        "$RAY_ADDRESS, what `submit cluster up` started, else this machine]",
    ),
)


@job_command("compare")
def compare(ctx: click.Context, /, **options: Any) -> int:
    """Train every architecture by every strategy; say which is best.

    Each arm (architecture and strategy) is trained with several seeds at several learning rates, all on the same
    images. The choice is made on validation; the test set is read once, after it.
    """
    return _start("compare", ctx, options)


@job_command("train")
def train(ctx: click.Context, /, **options: Any) -> int:
    """Train one architecture by one strategy.

    The same as `compare` with one arm: the same options, run folder and report. One seed and one learning rate, unless
    a flag or the spec file asks for more.
    """
    return _start("train", ctx, options)


@submit.command("plan", cls=JobCommand)
@job_options("compare")
@spec_option
@cluster_options[0]
@cluster_options[1]
@click.pass_context
def plan(ctx: click.Context, /, spec_file: str | None, address: str | None, storage: str | None, **options: Any) -> int:
    """Print what `compare` would do, and start nothing.

    Trials, how many run side by side, disk, memory, hours, and for each arm the parameters trained and the learning
    rate by stage.
    """
    from transferlib.cli.launch import preview
    from transferlib.cli.request import Request

    return preview(
        Request("compare", _given(options), spec_file, problems=ctx.meta[PROBLEMS], address=address, storage=storage)
    )


@submit.command("init")
@click.argument("images", metavar="PATH")
@click.option("--force", is_flag=True, help="Replace a submit.yaml that is there.")
@click.option(
    "--class-level",
    type=click.IntRange(1, 2),
    metavar="N",
    help="Which folders name the classes, where that is in doubt: 1, those below PATH; 2, those below these.",
)
def init(images: str, force: bool, class_level: int | None) -> int:
    """Write a commented submit.yaml for the images in PATH.

    PATH is an image folder, or a .csv or .jsonl manifest. `submit compare` in this folder then needs no more options.
    """
    from pathlib import Path

    from transferlib.cli.init import found_line, weights_line, write_spec

    path, listing = write_spec(images, Path.cwd(), force=force, class_level=class_level)
    click.echo(f"Found {found_line(listing)}")
    click.echo(f"Wrote {path.name}. Look at it, then: submit compare --dry-run, and submit compare")
    if line := weights_line(os.environ):
        click.echo(line)
    return 0


@submit.command("list")
@click.option("--runs", metavar="DIR", help=RUNS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of objects.")
def list_runs(runs: str | None, as_json: bool) -> int:
    """List the runs, newest first."""
    import dataclasses
    import json
    from pathlib import Path

    from transferlib.cli.outcome import shown
    from transferlib.cli.resolve import find_runs_dir
    from transferlib.cli.runs_table import find_runs, runs_lines

    runs_dir = find_runs_dir(runs, Path.cwd())
    rows = list(find_runs(runs_dir))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    elif rows:
        click.echo("\n".join(runs_lines(rows)))
    else:
        click.echo(f"No runs in {shown(runs_dir)}.", err=True)
    return 0


for command in (*COMMANDS, *JUDGING_COMMANDS, cluster, data):
    submit.add_command(command)


@submit.group("cache", cls=JobGroup)
def cache() -> None:
    """Look at the cache of decoded images, or empty it."""


CACHE_DIR_OPTION = click.option(
    "--cache-dir", metavar="DIR", help="Folder of decoded images. [default: ~/.cache/transferlib]"
)


@cache.command("list")
@CACHE_DIR_OPTION
def cache_list(cache_dir: str | None) -> int:
    """Show how much is kept, by image size."""
    from transferlib.cli.caches import cache_lines

    click.echo("\n".join(cache_lines(cache_dir)))
    return 0


@cache.command("clear")
@CACHE_DIR_OPTION
@click.option("--yes", is_flag=True, help="Do not ask.")
def cache_clear(cache_dir: str | None, yes: bool) -> int:
    """Delete the decoded images; the next job decodes them again."""
    from transferlib.cli.caches import clear_cache, describe

    click.echo(describe(cache_dir))
    if not yes:
        click.confirm("Delete them?", abort=True)
    click.echo(clear_cache(cache_dir))
    return 0


def _start(verb: str, ctx: click.Context, options: dict[str, Any]) -> int:
    from transferlib.cli.launch import run_request
    from transferlib.cli.request import Request

    is_dry_run, is_detached, limit = (options.pop(name) for name in ("dry_run", "detach", "fail_under"))
    return run_request(
        Request(
            verb,
            spec_file=options.pop("spec_file"),
            is_dry_run=is_dry_run,
            resume=options.pop("resume"),
            resume_changed=options.pop("resume_changed"),
            as_json=options.pop("as_json"),
            address=options.pop("address"),
            storage=options.pop("storage"),
            is_detached=is_detached,
            id_file=options.pop("id_file"),
            fail_under=limit,
            problems=(*ctx.meta[PROBLEMS], *refuse_gate(limit, is_detached=is_detached, is_dry_run=is_dry_run)),
            given=_given(options),
        )
    )


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were typed."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a user's mistake is told without a traceback.

    Args:
        args: Without the program's name; None: this process's.
    """
    code = _run(args)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `submit list | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's own last flush
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    from transferlib.errors import EXIT_INTERRUPTED, TransferlibError

    try:
        _check_system(sys.argv[1:] if args is None else args)
        return int(submit.main(args=args, prog_name="submit", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except TransferlibError as error:
        click.echo(_error_text(error), err=True)
        return error.exit_code


def _check_system(args: Sequence[str]) -> None:
    """Refuse what no system but Linux can do; help is always given.

    Raises:
        UsageError: With one sentence.
    """
    from transferlib.errors import UsageError

    if sys.platform != "linux" and args and HELP_WORDS.isdisjoint(args):
        raise UsageError(f"transferlib runs on Linux, and this is {sys.platform}. Use a Linux machine or container.")


def _error_text(error: Exception) -> str:
    """Return an error as text: one mistake on one line, several under each other."""
    lines = str(error).splitlines() or [type(error).__name__]
    if len(lines) == 1:
        return f"Error: {lines[0]}"
    return "\n".join(["Error:", *(f"  {line}" for line in lines)])
