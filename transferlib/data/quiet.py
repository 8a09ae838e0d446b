"""Silence Pillow, and lift its own bomb limit, while at least one thread decodes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_lock = threading.Lock()
_depth = 0
_saved: tuple[warnings.catch_warnings[None], int | None] | None = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore Pillow's warnings and limit inside, in all threads; what a file is worth is told by its reason alone.

    `warnings.catch_warnings` saves and restores a list that all threads share, so overlapping uses must be counted:
    the first in saves, the last out restores. Pillow's limit on pixels is lifted because ours stands in its place
    (`decode.check_size`, before anything is decoded) and may be larger.
    """
    global _depth, _saved
    with _lock:
        _depth += 1
        if _depth == 1:
            catcher = warnings.catch_warnings()
            catcher.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            _saved = (catcher, Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _saved is not None:
                catcher, Image.MAX_IMAGE_PIXELS = _saved
                _saved = None
                catcher.__exit__(None, None, None)
