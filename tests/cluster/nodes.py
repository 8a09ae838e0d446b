"""Ray nodes that are as apart as machines: each with a network, processes, host name, /tmp and /dev/shm of its own.

    root namespace ── bridge 10.213.x.1 ── veth ── node-1 (head) 10.213.x.2
                                        └─ veth ── node-2        10.213.x.3 …

What the nodes share is one folder, this repository and its Python, each at its own path, and what lies outside of /tmp.
Needs root, iproute2 and util-linux.

Seen on Ray 2.60: a node that is killed is counted as dead after about 14 s and back 2 s after its start. A head that
is started again knows nobody: workers of its former life do not come back to it, and are to be killed and started too.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from transferlib.on_ray.processes import family, wait_for_end
from transferlib.on_ray.session import RAY_ENVIRONMENT

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACES = Path("/run/netns")
GCS_PORT = 6379
DASHBOARD_PORT = 8265
OBJECT_STORE_BYTES = 200 << 20
START_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 10.0
NO_MARKER = "\0"
"""No environment has such a line: a node is known by its first process."""
TAIL_LINES = 20

# $1: folder that becomes /tmp; $2: shared folders with colons between; $3: the host's name; then the command.
# The last line makes this process the node's first: when it is killed, the kernel kills all of the node.
ENTER = """
set -e
hostname "$3"
IFS=:
for place in $2; do
  case "$place" in /tmp/*) mkdir -p "$1${place#/tmp}"; mount --bind "$place" "$1${place#/tmp}";; esac
done
unset IFS
mount --rbind "$1" /tmp
mount -t tmpfs -o size=1g tmpfs /dev/shm
cd /tmp
shift 3
exec "$@"
"""


def why_no_namespaces() -> str:
    """Return why nodes cannot be set apart here; empty when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    answer = subprocess.run(["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True)
    return "" if answer.returncode == 0 else "namespaces cannot be made here"


@dataclass
class Node:
    """One node: its namespace, and its first process while it runs."""

    name: str
    ip: str
    namespace: str
    root: Path
    """What it sees as /tmp."""
    shared: Sequence[str]
    """Folders that it sees at their own paths although they lie in /tmp."""
    command: Sequence[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Return what its own start says, beside Ray's session folder."""
        return self.root / "node.log"

    def start(self) -> None:
        """Start it, or start it again after `kill`."""
        assert self.process is None, f"{self.name} runs"
        # --kill-child: the node ends with `unshare`, which is the process that is known here.
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        enter = ["sh", "-c", ENTER, "enter", str(self.root), ":".join(self.shared), self.name]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *apart, *enter, *self.command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End all of its processes at once, as a machine ends that loses its power; return when they are gone."""
        if self.process is not None:
            members = family([self.process.pid], NO_MARKER)
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            assert not wait_for_end(members, KILL_TIMEOUT_S), f"{self.name} does not die"

    def tail(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"{self.name}:", *lines[-TAIL_LINES:]])


@dataclass
class NamespacedCluster:
    """A head and workers, each in namespaces of its own."""

    address: str
    """Of the dashboard and Jobs API, as the root namespace reaches it."""
    token_path: Path
    shared: Path
    nodes: list[Node] = field(default_factory=list)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        return self.nodes[1:]

    def alive_nodes(self) -> set[str]:
        """Return the names of the nodes that the head counts as alive; none while it does not answer."""
        headers = {"Authorization": f"Bearer {self.token_path.read_text()}"}
        request = urllib.request.Request(f"{self.address}/api/v0/nodes", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                rows = json.load(answer)["data"]["result"]["result"]
        except OSError:
            return set()
        return {row["node_name"] for row in rows if row["state"] == "ALIVE"}

    def wait_for_nodes(self, names: set[str], timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until exactly these nodes are alive."""
        deadline = time.monotonic() + timeout_s
        while (alive := self.alive_nodes()) != names:
            logs = "\n".join(node.tail() for node in self.nodes)
            assert time.monotonic() < deadline, f"alive: {alive}, wanted: {names}\n{logs}"
            dead = [node for node in self.nodes if node.process is not None and node.process.poll() is not None]
            assert not dead, f"{dead[0].name} ended by itself\n{logs}"
            time.sleep(0.1)


@contextmanager
def namespaced_cluster(num_nodes: int, shared_folder: Path, cpus: int) -> Iterator[NamespacedCluster]:
    """Run a Ray cluster of nodes that see neither each other's processes nor each other's /tmp.

    Args:
        num_nodes: Head included.
        shared_folder: The one folder that all nodes see, at this path.
        cpus: Logical CPUs a node.

    Yields:
        The cluster, all nodes alive.
    """
    key = secrets.token_hex(2)
    subnet = f"10.213.{secrets.randbelow(254) + 1}"
    # Short, since it holds unix sockets as seen from here too.
    base = Path(tempfile.mkdtemp(prefix=f"tln{key}", dir="/tmp"))
    token = base / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    cluster = NamespacedCluster(f"http://{subnet}.2:{DASHBOARD_PORT}", token, shared_folder.absolute())
    with _bridge(f"tlb{key}", f"{subnet}.1/24") as bridge:
        try:
            for index in range(num_nodes):
                _add_node(cluster, base, bridge, key, f"{subnet}.{index + 2}", index, cpus)
            for node in cluster.nodes:
                node.start()
            cluster.wait_for_nodes({node.name for node in cluster.nodes})
            yield cluster
        finally:
            for node in reversed(cluster.nodes):
                node.kill()
                if (NAMESPACES / node.namespace).exists():
                    _ip("netns", "delete", node.namespace)
            shutil.rmtree(base)


def _add_node(cluster: NamespacedCluster, base: Path, bridge: str, key: str, ip: str, index: int, cpus: int) -> None:
    name = f"node-{index + 1}"
    root = base / name
    (root / "home").mkdir(parents=True)
    root.chmod(0o1777)
    shutil.copy(cluster.token_path, root / "token")
    head = cluster.nodes[0].ip if cluster.nodes else ip
    role = (
        ["--head", f"--port={GCS_PORT}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD_PORT}"]
        if index == 0
        else [f"--address={head}:{GCS_PORT}"]
    )
    command = [
        *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--temp-dir=/tmp/r"),
        *(f"--node-ip-address={ip}", f"--node-name={name}", f"--num-cpus={cpus}", "--num-gpus=0"),
        *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats", *role),
    ]
    shared = [str(cluster.shared), str(REPOSITORY), sys.prefix, sys.base_prefix]
    node = Node(name, ip, f"tl{key}-{index + 1}", root, shared, command, _environment())
    cluster.nodes.append(node)
    _ip("netns", "add", node.namespace)
    _ip("link", "add", f"tlv{key}{index}", "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
    _ip("link", "set", f"tlv{key}{index}", "master", bridge, "up")
    _ip("-n", node.namespace, "address", "add", f"{ip}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", node.namespace, "link", "set", device, "up")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "TRANSFERLIB_"))}
    return {
        **kept,
        **RAY_ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": "/tmp/token",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "HOME": "/tmp/home",
        "TMPDIR": "/tmp",
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
    }


@contextmanager
def _bridge(name: str, address: str) -> Iterator[str]:
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", address, "dev", name)
        _ip("link", "set", name, "up")
        yield name
    finally:
        _ip("link", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
