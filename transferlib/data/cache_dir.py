"""Where decoded images are kept if nothing else is said. Standard library only: the plan asks for the disk's space."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transferlib.spec import CacheSpec


def default_cache_dir() -> Path:
    """Return $XDG_CACHE_HOME/transferlib or ~/.cache/transferlib."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "transferlib"


def cache_folder(cache: CacheSpec) -> Path:
    """Return where a job keeps decoded images on this node, and weights that it fetches."""
    return Path(cache.dir) if cache.dir else default_cache_dir()
