"""The networks: torchvision's VGG and ResNet by name, their source weights, and the order and size of their stages.

The one room that knows layer names. `stages`, `sizes`, `flops` and `weight_names` load no torch, so that the plan and
the command line can read them; `zoo`, `weights` and `fingerprint` do.
"""
