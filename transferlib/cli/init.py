"""Write a commented `submit.yaml` for a folder of images: every option with its default and what it means."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from transferlib import spec as spec_module
from transferlib.cli.resolve import SPEC_NAME, TRAIN_DEFAULTS, absolute_source
from transferlib.data.health import MOST_NAME_CHARACTERS, printable
from transferlib.data.listing import Listing
from transferlib.data.sources import list_images
from transferlib.errors import UsageError
from transferlib.models.weight_names import torch_cache_dir
from transferlib.spec import JobSpec, ModelSpec, Section
from transferlib.storage.uris import is_uri
from transferlib.words import count, listed, shortened

COMMENT_WIDTH = 100
LEFT_OUT = ("verb",)
"""The command says it."""


def write_spec(images: str, folder: Path, *, force: bool, class_level: int | None = None) -> tuple[Path, Listing]:
    """Write `submit.yaml` into a folder.

    Args:
        images: Image folder or manifest, as typed.
        folder: The current one; a relative path stays relative to it.
        force: Replace a file that is there.
        class_level: Which folders name the classes; None: the first, where that is not in doubt.

    Returns:
        The file, and the images found.

    Raises:
        DataError: The images cannot serve.
        UsageError: The file is there already, or cannot be written.
    """
    path = folder / SPEC_NAME
    if path.exists() and not force:
        raise UsageError(f"{path} exists. Use --force to replace it, or edit it.")
    listing = list_images(absolute_source(images, folder), class_level)
    shown = images if os.path.isabs(images) or is_uri(images) else os.path.normpath(images)
    text = spec_text(JobSpec.from_mapping({"data": {"path": shown, "class_level": class_level}}), listing)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}).") from None
    return path, listing


def found_line(listing: Listing) -> str:
    """Return what was found in a source, as a sentence."""
    given = {split: sum(of.values()) for split, of in listing.count_by_split_and_class().items()}
    splits = listed([f"{number:,} in {split}" for split, number in given.items() if split])
    names = [shortened(printable(label), MOST_NAME_CHARACTERS) for label in listing.classes[:6]]
    classes = listed(names if len(listing.classes) <= 6 else [*names[:5], "more"])
    what = f"{count(len(listing.entries), 'image')} in {count(len(listing.classes), 'class')} ({classes})"
    return f"{what}; {splits or 'no splits given: they are cut'}."


def weights_line(environ: Mapping[str, str], models: ModelSpec | None = None) -> str:
    """Return that the weights of a job are still to be downloaded; empty where they are here, or are no download.

    Args:
        environ: Environment variables.
        models: Of the job; None: with the defaults.
    """
    models = models or ModelSpec()
    if not models.weights.startswith("IMAGENET1K"):
        return ""
    missing = [name for name in models.architectures if not any(torch_cache_dir(environ).glob(f"{name}-*.pth"))]
    if not missing:
        return ""
    return (
        f"The source weights ({models.weights} of {listed(missing)}) are not on this machine: a job downloads them at "
        "its start. Where it cannot, put them there first; `submit doctor` names the file and its place."
    )


def spec_text(spec: JobSpec, listing: Listing) -> str:
    """Return a spec as YAML with a comment above each field.

    Args:
        spec: Its values are written out; where compare and train differ in a default it is not set, only shown.
        listing: Said in the first lines.
    """
    head = [
        "Options of `submit compare` and `submit train` in this folder; flags go over them (see --help).",
        "Relative paths are relative to the folder that the command is called in.",
        f"Found: {found_line(listing)}",
        *([listing.roles.note] if listing.roles.note else []),
    ]
    lines = [*(_comment(line, 0) for line in head), *_section_lines(spec, 0)]
    return "\n".join(lines) + "\n"


def _section_lines(section: Section, depth: int, prefix: str = "") -> Iterator[str]:
    texts = field_texts(type(section))
    dumped = section.model_dump(mode="json", by_alias=True)
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        if depth == 0 and name in LEFT_OUT:
            continue
        key, value = field.alias or name, getattr(section, name)
        if isinstance(value, Section):
            yield ""
            yield from (_comment(line, depth) for line in [(inspect.getdoc(type(value)) or "").splitlines()[0]])
            yield f"{indent}{key}:"
            yield from _section_lines(value, depth + 1, f"{prefix}{key}.")
        elif (train_default := TRAIN_DEFAULTS.get(f"{prefix}{key}")) is not None:
            said = f"Not set: compare takes {_scalar(dumped[key])}, train {_scalar(train_default)}."
            yield _comment(f"{texts[name]} {said}", depth)
            yield f"{indent}# {key}: {_scalar(dumped[key])}"
        else:
            if name in texts:
                yield _comment(texts[name], depth)
            yield f"{indent}{key}: {_scalar(dumped[key])}"


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _comment(text: str, depth: int) -> str:
    indent = "  " * depth
    return textwrap.fill(
        text, COMMENT_WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def field_texts(section: type[Section]) -> dict[str, str]:
    """Return the line under each field of a part of the spec.

    Args:
        section: A class of `transferlib.spec`.
    """
    tree = ast.parse(inspect.getsource(spec_module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == section.__name__)
    texts = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            value = text.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts[field.target.id] = inspect.cleandoc(value.value)
    return texts
