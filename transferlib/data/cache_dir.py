"""Where decoded images are kept if nothing else is said. Standard library only: the plan asks for the disk's space."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Return $XDG_CACHE_HOME/transferlib or ~/.cache/transferlib."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "transferlib"
