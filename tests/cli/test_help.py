import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from transferlib.cli.main import submit
from transferlib.cli.options import FLAGS, parse_flag
from transferlib.cli.resolve import TRAIN_DEFAULTS
from transferlib.spec import JobSpec

REPO = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "numpy", "pydantic", "rich", "yaml", "pyarrow", "matplotlib")


def commands(command: click.Command = submit, name: str = "submit") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from commands(below, f"{name} {below.name}")


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_has_help_and_stands_in_the_docs(name: str, command: click.Command) -> None:
    page = (REPO / "docs/cli.md").read_text()
    assert command.help
    assert f"## {name}\n" in page
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[0] in page


def test_docs_are_what_the_commands_say() -> None:
    generated = runpy.run_path(str(REPO / "docs/generate_cli.py"))["render"]()
    assert (REPO / "docs/cli.md").read_text() == generated, "run: python docs/generate_cli.py"


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', sorted(set(sys.modules) & set({HEAVY!r}))))\n"
        f"from transferlib.cli.main import main; main({words!r})"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert answer.returncode == 0
    assert answer.stdout.startswith("Usage: submit")
    assert answer.stdout.endswith("LOADED []\n")


def value_at(spec: dict[str, Any], place: str) -> Any:
    value: Any = spec
    for part in place.split("."):
        value = value[part]
    return value


def test_flags_and_spec_name_the_same_fields() -> None:
    def leaves(value: Any, prefix: str = "") -> Iterator[str]:
        for name, below in value.items():
            if isinstance(below, dict):
                yield from leaves(below, f"{prefix}{name}.")
            else:
                yield prefix + name

    spec = JobSpec.from_mapping({"data": {"path": "x"}}).model_dump(mode="json")
    assert {flag.place for flag in FLAGS} == set(leaves(spec)) - {"schema_version", "verb", "comparison.rule"}


DEFAULTS = JobSpec.from_mapping({"data": {"path": "x"}}).model_dump(mode="json")
NEEDED = "--data"
"""The one flag without which there is no job."""


def has_default(flag: Any) -> bool:
    return flag.name != NEEDED and value_at(DEFAULTS, flag.place) is not None


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if has_default(flag)], ids=lambda flag: flag.name)
def test_help_shows_the_specs_own_default(flag: Any) -> None:
    shown = tuple(flag.default.split(", ")) if flag.is_repeatable else flag.default
    assert parse_flag(flag, shown) == value_at(DEFAULTS, flag.place)


def test_help_says_in_words_what_happens_where_the_spec_names_no_default() -> None:
    assert {flag.name for flag in FLAGS if not flag.default} == {NEEDED}
    assert not all(has_default(flag) for flag in FLAGS if flag.name != NEEDED)


def test_help_shows_each_default_that_is_another_for_train() -> None:
    shown = {
        flag.place: parse_flag(flag, (flag.train_default,) if flag.is_repeatable else flag.train_default)
        for flag in FLAGS
        if flag.train_default
    }
    assert shown == TRAIN_DEFAULTS
