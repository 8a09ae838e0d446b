"""Where the job scripts are: they travel inside the installed package, and lie beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from transferlib.errors import TransferlibError


def job_script(name: str) -> Path:
    """Return the path of a job script.

    Args:
        name: Of the file.

    Raises:
        TransferlibError: It is in neither place.
    """
    package = Path(__file__).parent
    for folder in (package / "jobs", package.parent / "jobs"):
        if (folder / name).is_file():
            return folder / name
    raise TransferlibError(f"jobs/{name} is neither in {package} nor beside it. Install transferlib again.")
