"""Through which network interface the ranks of a worker group speak: the one that Ray knows their node by.

gloo takes the interface that the host's own name resolves to, which on many systems is loopback (Debian writes
127.0.1.1 for it): between two nodes that never connects.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch.config import TorchConfig, _TorchBackend

GLOO_VARIABLE = "GLOO_SOCKET_IFNAME"
_ASK_ADDRESS = 0x8915  # SIOCGIFADDR of Linux
_NAME_BYTES = 15


@dataclass
class NodeTorchConfig(TorchConfig):
    """Configure torch's process group as Ray does, over the interface of the node's own address."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Return what sets the group up."""
        return _NodeTorchBackend


class _NodeTorchBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


def choose_interface() -> None:
    """Tell gloo, in this process, which interface has this node's address; what the user has set stays."""
    name = find_interface(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if name is not None:
        os.environ.setdefault(GLOO_VARIABLE, name)


def find_interface(ip: str) -> str | None:
    """Return the name of the interface with an IPv4 address; None where there is none.

    Args:
        ip: With dots.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:_NAME_BYTES])
            try:
                answer = fcntl.ioctl(asking.fileno(), _ASK_ADDRESS, request)
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == ip:
                return name
    return None
