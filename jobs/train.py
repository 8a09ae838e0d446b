"""Run the job of a run folder that `submit train` made, one arm: `python jobs/train.py runs/<id>`.

`jobs/compare.py` is the same for many arms, and says what to expect. The work is in `transferlib.on_ray.experiment`.
"""

import sys

from transferlib.on_ray.entry import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
