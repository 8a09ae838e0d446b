"""The commands that judge what a run says: does it follow from its predictions, and does another run do better?"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING

import click

from transferlib.cli.gate import EXIT_UNDER, ROUNDING, fail_under_option
from transferlib.cli.verbs import RUNS_HELP, json_option, run_command

if TYPE_CHECKING:
    from transferlib.comparison.diff import Difference, RunDifference
    from transferlib.comparison.mismatches import Verification
    from transferlib.runs import RunFolder

EXIT_DIFFERS = 1
MOST_SHOWN = 40
"""Lines of what differs; `--json` has all."""
DIFF_GATE_HELP = (
    "Exit with 1 where the model of RUN_B (with --arm: that arm) is worse than RUN_A's by more than X on the images "
    "that both have; for CI. 0.02 is 2 points of accuracy, or nat for log_loss; 0: whenever it is worse at all. What "
    "counts is the difference seen, told apart or not."
)

_FIGURES = re.compile(r'<script type="application/json" id="figures">(.*?)</script>', re.DOTALL)
_PICTURE = re.compile(r'<div class="frame">.*?</div>|<img\b[^>]*>', re.DOTALL)
_MOSAIC = 'class="mosaic"'
_DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_TEXT_OF_DRAWING = re.compile(r"<(?:text|title|desc)\b[^>]*>([^<]*)<")


@click.command("verify")
@run_command
@json_option("Print one JSON object: what differs, and how much was compared.")
def verify(run: str, runs: str | None, as_json: bool) -> int:
    """Compute every figure of RUN anew and say what differs.

    From predictions.parquet, manifest.parquet, spec, plan and what the trials took follow choice.json, the leaderboard
    (.json, .csv and .md) and report.html. Exit code 0: all agrees; 1: something differs, and is named; 2: RUN has no
    result of this version. Pictures and the lines of plots are not compared; words and numbers in plots are. RUN is an
    id, the start of one, @last, or a run folder's path.
    """
    import json

    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import find_run, report_inputs
    from transferlib.comparison.verify import verify_run
    from transferlib.errors import StorageError

    folder = find_run(run, runs)
    state = RunView(folder).glance(also=report_inputs(folder) if folder.plan.exists() else ())
    if state.note:
        raise StorageError(state.note)
    found = verify_run(folder, check_report)
    code = EXIT_DIFFERS if found.mismatches else 0
    if as_json:
        differing = [vars(mismatch) for mismatch in found.mismatches]
        answer = {"id": folder.run_id, "state": state.state, "exit_code": code, "agrees": not differing}
        click.echo(json.dumps({**answer, "compared": found.num_figures, "differs": differing}, indent=2))
    else:
        click.echo("\n".join(verification_lines(folder, found)))
    return code


def verification_lines(run: RunFolder, found: Verification) -> list[str]:
    """Return what a verification found, a line each.

    Args:
        run: Its folder.
        found: All that was compared.
    """
    from transferlib.words import count

    if not found.mismatches:
        return [f"Run {run.run_id} agrees with its predictions: {found.num_figures:,} values compared."]
    lines = [str(mismatch) for mismatch in found.mismatches]
    more = [f"... and {len(lines) - MOST_SHOWN} more (--json has all)."] if len(lines) > MOST_SHOWN else []
    files = len({mismatch.file for mismatch in found.mismatches})
    differences = f"{count(len(lines), 'difference')} in {count(files, 'file')}"
    last = f"Run {run.run_id} does not agree with its sources: {differences}."
    return [*lines[:MOST_SHOWN], *more, last, *_about_version(run)]


def _about_version(run: RunFolder) -> list[str]:
    """Return what to know where another version wrote a run's words."""
    from transferlib import __version__
    from transferlib.runs import read_json

    with contextlib.suppress(OSError, ValueError, AttributeError):
        by = ((read_json(run.environment) or {}).get("versions") or {}).get("transferlib", __version__)
        if by != __version__:
            return [
                f"It was made by transferlib {by}, and this is {__version__}: sentences may differ, numbers must not."
            ]
    return []


def check_report(run: RunFolder, verification: Verification) -> None:
    """Hold `report.html` against what the run's sources give: its figures, then every word of the page.

    Pictures are left out, so no image is opened; of a plot its words and numbers are compared, not its lines, which
    another build of matplotlib draws differently.

    Args:
        run: Whose sources can be read.
        verification: To note differences in.
    """
    import json

    from transferlib.comparison.mismatches import DAMAGE, compare_lines
    from transferlib.report.content import report_content
    from transferlib.report.html import render

    name = run.report.name
    try:
        page = run.report.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        verification.add(name, f"cannot be read: {error}" if run.report.exists() else "is missing")
        return
    content = report_content(run, with_pictures=False)
    content["data"]["mosaic"] = "data:," if _MOSAIC in page else ""
    should_be = render(content)
    embedded = [_FIGURES.search(text) for text in (page, should_be)]
    if embedded[0] is None or embedded[1] is None:
        verification.add(name, "holds no figures: it was written by an older version, or changed", "figures")
        return
    try:
        says = json.loads(embedded[0][1])
    except DAMAGE as error:
        verification.add(name, f"cannot be read: {error}", "figures")
        return
    verification.compare(name, "figures", says, json.loads(embedded[1][1]))
    compare_lines(_words(page), _words(should_be), name, verification, "line of its words")


def _words(page: str) -> str:
    """Return a page without its pictures, the lines of its plots, its embedded figures and blank lines."""
    page = _PICTURE.sub("", _FIGURES.sub("", page))
    page = _DRAWING.sub(lambda drawing: "\n".join(_TEXT_OF_DRAWING.findall(drawing[0])), page)
    return "\n".join(line.strip() for line in page.split("\n") if line.strip())


@click.command("diff")
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.option("--runs", metavar="DIR", help=RUNS_HELP)
@click.option("--arm", metavar="ARM", help="Compare this arm of RUN_A alone, e.g. resnet18-full. [default: all shared]")
@click.option("--arm-b", metavar="ARM", help="With this arm of RUN_B. [default: the same as --arm]")
@fail_under_option(DIFF_GATE_HELP)
@json_option("Print one JSON object; differences are RUN_A minus RUN_B.")
def diff(
    run_a: str,
    run_b: str,
    runs: str | None,
    arm: str | None,
    arm_b: str | None,
    fail_under: float | None,
    as_json: bool,
) -> int:
    """Compare RUN_A and RUN_B on the test images that both have.

    Image by image: the models that they hand over, and each arm that both have over all its seeds. Images are the same
    where the bytes of their files are. Exit code 0 whichever is better, unless --fail-under is given. A run is an id,
    the start of one, @last, or a run folder's path.
    """
    import json

    from transferlib.cli.run_view import RunView
    from transferlib.cli.steering import find_run, report_inputs
    from transferlib.comparison.diff import compare_runs
    from transferlib.errors import StorageError

    folders = [find_run(run, runs) for run in (run_a, run_b)]
    for folder in folders:
        state = RunView(folder).glance(also=report_inputs(folder))
        if state.note:
            raise StorageError(state.note)
    found = compare_runs(folders[0], folders[1], arm=arm, arm_b=arm_b)
    is_worse = fail_under is not None and found.shortfall > fail_under + ROUNDING
    code = EXIT_UNDER if is_worse else 0
    if as_json:
        click.echo(
            json.dumps({"id": folders[1].run_id, "state": "done", "exit_code": code, **found.to_plain()}, indent=2)
        )
    else:
        click.echo("\n".join(diff_lines(found)))
    if is_worse:
        amount = _amount(found.shortfall, found.metric)
        limit = _amount(fail_under or 0.0, found.metric)
        print(f"{found.first.than} of {found.runs[1]} is worse by {amount}: --fail-under is {limit}.", file=sys.stderr)
    return code


def diff_lines(found: RunDifference) -> list[str]:
    """Return a comparison of two runs as text.

    Args:
        found: What differs.
    """
    from transferlib.cli.tables import text_table
    from transferlib.names import METRIC_WORDS
    from transferlib.words import count

    a, b = found.runs
    images = count(found.num_shared, "test image")
    lines = [
        f"A {a}",
        f"B {b}",
        f"Both have {images}; {found.num_only[0]} are only in A, {found.num_only[1]} only in B.",
        "",
    ]
    if found.models is not None:
        lines += [
            f"Models handed over: A's is {found.models.what}, B's {found.models.than}.",
            _sentence(found.models, found.metric, found.num_shared),
            "",
        ]
    if found.arms:
        header = ["arm", f"A {METRIC_WORDS[found.metric]}", "B", "seeds", "B - A", "these models", "if trained again"]
        lines += text_table(header, [_row(arm, found.metric) for arm in found.arms])
        lines += ["In brackets: 95 % limits of one difference; p is over all arms here.", ""]
    lines += found.notes
    return lines if lines[-1] else lines[:-1]


def _sentence(models: Difference, metric: str, num_shared: int) -> str:
    """Say which of two models is better on the shared images, and whether that is known."""
    from transferlib.comparison.statistics import ALPHA
    from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS

    pair = models.pair.swapped()
    reading = pair.these_models
    told = "told apart" if reading.p < ALPHA else "not told apart"
    lower = "; lower is better" if metric in LOWER_IS_BETTER else " points"
    on = "" if models.num_images == num_shared else f"On the {models.num_images:,} images that both were tested on: "
    name = METRIC_WORDS[metric] if on else METRIC_WORDS[metric].capitalize()
    return (
        f"{on}{name} of A {models.a.mean:.3f}, of B {models.b.mean:.3f}: B - A is "
        f"{_signed(pair.difference, metric)} ({_signed(reading.low, metric)} to {_signed(reading.high, metric)}"
        f"{lower}), as these models are, p = {reading.p:.2g}: {told}."
    )


def _row(arm: Difference, metric: str) -> list[str]:
    pair = arm.pair.swapped()
    cells = []
    for reading in (pair.these_models, pair.if_trained_again):
        if reading is None:
            cells.append("needs 3 seeds")
        else:
            low, high = (_signed(limit, metric) for limit in (reading.low, reading.high))
            cells.append(f"({low} to {high}), p = {reading.p_holm:.2g}")
    name = arm.what if arm.what == arm.than else f"{arm.what} / {arm.than}"
    seeds = str(arm.a.num_seeds) if arm.a.num_seeds == arm.b.num_seeds else f"{arm.a.num_seeds} / {arm.b.num_seeds}"
    return [name, f"{arm.a.mean:.3f}", f"{arm.b.mean:.3f}", seeds, _signed(pair.difference, metric), *cells]


def _signed(value: float, metric: str) -> str:
    from transferlib.names import LOWER_IS_BETTER

    digits, scale = (3, 1) if metric in LOWER_IS_BETTER else (1, 100)
    return f"{round(scale * value, digits) + 0.0:+.{digits}f}"  # -0.0 + 0.0 is 0.0


def _amount(value: float, metric: str) -> str:
    from transferlib.names import LOWER_IS_BETTER

    return f"{value:.3g} nat" if metric in LOWER_IS_BETTER else f"{100 * value:.3g} points"


COMMANDS = (verify, diff)
