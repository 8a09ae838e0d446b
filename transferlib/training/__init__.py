"""The loop in plain torch: one trial from its first step to its best weights, on any number of workers.

`worker.py` is the seam to whatever runs the processes, `trial.py` the way through a trial, `loop.py` its heart. Nothing
is re-exported here, so that importing one module loads no more than it needs.
"""
