"""Run the job of a run folder: `python jobs/compare.py runs/<id>`. `submit compare` starts this.

Expected on scikit-learn's digits (make demo): last_layers and full near 0.9 test accuracy, not to be told apart, the
frozen features a little behind. The work is in `transferlib.on_ray.experiment`. On a cluster, started through Ray's
Jobs API, the run is named by its id alone.
"""

import sys

from transferlib.on_ray.entry import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
