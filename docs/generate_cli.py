"""Write docs/cli.md from the commands' own help: `python docs/generate_cli.py`. A test holds the two together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from transferlib.cli.main import HELP, submit

TARGET = Path(__file__).with_name("cli.md")
WIDTH = 100
HEAD = """# The command line

Written by `python docs/generate_cli.py` from the commands' own help; edit that instead.

Options come from flags, over a spec file (`--spec FILE`, or `submit.yaml` in the current folder), over defaults.
Relative paths, in a spec file too, are relative to the current folder. The result goes to stdout, everything else to
stderr.
"""


def commands(command: click.Command, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all below it, with the words that call them."""
    yield names, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], (*names, name))


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for names, command in commands(submit, ("submit",)):
        context = click.Context(
            command,
            info_name=" ".join(names),
            terminal_width=WIDTH,
            max_content_width=WIDTH,
            help_option_names=HELP["help_option_names"],
        )
        parts.append(f"## {' '.join(names)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
