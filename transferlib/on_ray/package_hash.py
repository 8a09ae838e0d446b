"""Tell whether two places have the same transferlib: by content, since a version says little while a package grows."""

from __future__ import annotations

import hashlib
from pathlib import Path

SUFFIXES = (".py", ".json", ".j2", ".css")
"""Of what a package is made of; what Python compiles and editors leave is none of it."""


def package_sha256(package: Path) -> str:
    """Return the sha256 over the names and contents of a package's files, hexadecimal.

    Args:
        package: Its folder.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in SUFFIXES):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
