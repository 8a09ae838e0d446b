"""Commands that tell all wrong flags at once, and show their options in sections.

click stops at the first unknown option. Here the arguments are sifted before click parses them: what is wrong is kept
as text in `context.meta`, for the command to report together with what is wrong in values and spec file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from transferlib.cli.options import SECTIONS

PROBLEMS = "transferlib.problems"


class JobCommand(click.Command):
    """A command that takes a job's options and no arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what is wrong, then let click parse the rest."""
        kept, ctx.meta[PROBLEMS] = sift(self.get_params(ctx), args)
        return super().parse_args(ctx, kept)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections, the command's own first."""
        records = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx)}
        job_parameters = {flag.parameter for flags in SECTIONS.values() for flag in flags}
        own = [record for name, record in records.items() if name not in job_parameters and record]
        sections: dict[str, list[tuple[str, str]]] = {"Options": own}
        for title, flags in SECTIONS.items():
            sections[title] = [record for flag in flags if (record := records[flag.parameter])]
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class JobGroup(click.Group):
    """A group that names the nearest command to one it does not know."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command.

        Raises:
            click.UsageError: There is none of that name.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from transferlib.errors import unknown_name

            raise click.UsageError(unknown_name("command", name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)


def sift(parameters: Sequence[click.Parameter], args: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Divide a command's arguments into what click can parse and what is wrong.

    Args:
        parameters: The command's; options only.
        args: As typed.

    Returns:
        Arguments without mistakes, and one sentence a mistake.
    """
    options = {
        name: option
        for option in parameters
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    kept: list[str] = []
    problems: list[str] = []
    seen: set[str] = set()
    rest = list(args)
    has_unknown = False
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("-") or word == "-":
            problems.append(f"Unexpected argument {word!r}.{_data_hint(word, options)}")
        elif name not in options:
            problems.append(_unknown_option(name, options))
            has_unknown = True
            if not equals and rest and not rest[0].startswith("-"):
                rest.pop(0)  # most likely its value
        elif equals or options[name].is_flag:
            problems += _repeated(name, options[name], seen)
            kept.append(word)
        elif not rest or rest[0].startswith("--"):
            problems.append(f"{name} needs a value.")
        else:
            problems += _repeated(name, options[name], seen)
            kept += [word, rest.pop(0)]
    if has_unknown:
        problems.append(f"Known options: {', '.join(name for name in options if name.startswith('--'))}.")
    return kept, tuple(problems)


def _repeated(name: str, option: click.Option, seen: set[str]) -> list[str]:
    if option.multiple or option.name not in seen:
        seen.add(option.name or name)
        return []
    return [f"{name} is given twice."]


def _data_hint(word: str, options: dict[str, Any]) -> str:
    return f" Did you mean --data {word}?" if "--data" in options and ("/" in word or "." in word) else ""


def _unknown_option(name: str, options: dict[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(name, options, n=1)
    return f"Unknown option {name!r}." + (f" Did you mean {near[0]!r}?" if near else "")
