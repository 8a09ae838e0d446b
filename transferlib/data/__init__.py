"""Images on their way in: sources to one manifest, decoded cache, augmentation, and the stream of batches. No Ray.

The public few load on first use, so that the command line can list a folder with the standard library alone.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "list_images": "sources",
    "Listing": "sources",
    "Manifest": "manifest",
    "ImageTable": "images",
    "DecodedCache": "cache",
    "Augmentation": "augment",
    "ImageDataset": "torch_dataset",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
