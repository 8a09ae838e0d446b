"""Ask every node of a cluster what it has and what it sees: `submit doctor`, and each submit before it sends a job.

Sent through Ray's Jobs API with the sender's own transferlib beside it, so that a cluster needs to have none. The work
is in `transferlib.on_ray.node_facts`.
"""

import sys

from transferlib.on_ray.node_facts import main

if __name__ == "__main__":
    sys.exit(main())
