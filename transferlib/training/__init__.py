"""The loop in plain torch: one trial from its first step to its best weights, on any number of workers.

A step is the same however many workers share it: in float64 losses and weights agree to 10 digits, trained BatchNorm
included (not with `--no-sync-batchnorm`). Sums are added in another order, though, so in float32 last digits differ and
grow into other weights. Dropout that is trained (VGG's and EfficientNet's) and StochasticDepth (EfficientNet's and
ConvNeXt's) draw another mask on each worker: there results depend on the number of workers.

`worker.py` is the seam to whatever runs the processes, `trial.py` the way through a trial, `loop.py` its heart. Nothing
is re-exported here, so that importing one module loads no more than it needs.
"""
