"""`report.html`: a run's content put into the page's template, by rename."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from transferlib.report.content import report_content
from transferlib.report.glossary import Glossary
from transferlib.report.words import FILTERS
from transferlib.runs import RunFolder, write_atomic

TEMPLATE = "template.html.j2"


def write_report(run: RunFolder, *, with_pictures: bool = True) -> Path:
    """Write `report.html` of a run, finished or not, and return its path.

    Args:
        run: Holds spec, plan, manifest and trials; choice and predictions once the run is finished.
        with_pictures: Whether thumbnails and the picture of augmented images are in it.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
    """
    write_atomic(run.report, render(report_content(run, with_pictures=with_pictures)))
    return run.report


def render(content: dict[str, Any]) -> str:
    """Return the page of a report's content.

    Args:
        content: As `report_content` returns it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(TEMPLATE).render(content, glossary=Glossary())
