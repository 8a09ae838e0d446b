"""Where processes listen, read off /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from transferlib.on_ray.processes import Process

LOOPBACK_HEX = {"0100007F", "0000000000000000FFFF00000100007F"}


def listening_hosts(processes: Iterable[Process]) -> list[str]:
    """Return the address, as /proc/net/tcp writes it, of each socket that processes listen at."""
    sockets = set()
    for process in processes:
        with suppress(FileNotFoundError):  # ended while we looked
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed while we looked
                    sockets.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets]
