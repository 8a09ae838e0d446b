"""The Ray that a local job starts: who can reach it."""

import os
import stat
from pathlib import Path

import pytest

from tests.on_ray.sockets import LOOPBACK_HEX, listening_hosts
from transferlib.on_ray.processes import family

pytestmark = pytest.mark.ray


def test_every_port_is_on_loopback(ray_instance: None) -> None:
    hosts = listening_hosts(family([os.getpid()], f"RAY_AUTH_TOKEN_PATH={os.environ['RAY_AUTH_TOKEN_PATH']}"))
    assert len(hosts) > 5
    assert set(hosts) <= LOOPBACK_HEX


def test_nobody_else_can_read_or_replace_the_token(ray_instance: None) -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
