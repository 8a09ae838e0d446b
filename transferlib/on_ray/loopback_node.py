"""Run one Ray node that keeps to the loopback interface, until it is told to end or a part of it dies.

A script of `transferlib.on_ray.local_cluster`: `python -P loopback_node.py '{"is_head": true, ...}'`. It takes the
place of `ray start`, which turns 127.0.0.1 into the machine's outward address; at an address that is not exactly
127.0.0.1, Ray 2.60 binds nearly all of its ports to every interface. This is what `ray.cluster_utils.Cluster` does, in
one process a node. Ray's processes are ended by the kernel with this one, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time

POLL_S = 0.5


def main() -> int:
    """Start the node that the first argument says, and stay with it.

    Returns:
        1 when a part of the node died.
    """
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._private.utils import write_ray_address

    options = json.loads(sys.argv[1])
    # The folder that the cluster was started in may go away, and may hold modules that jobs should not find.
    os.chdir(os.path.dirname(options["temp_dir"]))
    lock = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)  # while any node lives, no job that starts takes the folder for a dead one's
    os.pwrite(lock, f"{os.uname().nodename}\n".encode(), 0)  # who may take it when none does
    is_head = options.pop("is_head")
    node = Node(RayParams(**options), head=is_head, shutdown_at_exit=True, spawn_reaper=True)
    # A job's supervisor looks here for its cluster, and takes any other Ray of this machine where the file is missing.
    write_ray_address(node.gcs_address, options["temp_dir"])
    print(f"{options['node_name']} is up: {node.address_info}", flush=True)
    while not (dead := node.dead_processes()):  # type: ignore[no-untyped-call]
        time.sleep(POLL_S)
    print(f"Ended, since these died: {', '.join(name for name, _ in dead)}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
