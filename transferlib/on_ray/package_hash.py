"""Tell whether two places have the same transferlib: by content, since a version says little while a package grows."""

from __future__ import annotations

import hashlib
from pathlib import Path


def package_sha256(package: Path) -> str:
    """Return the sha256 over the names and contents of a package's modules, hexadecimal.

    Args:
        package: Its folder.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
