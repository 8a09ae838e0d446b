"""The networks: torchvision's by name, their source weights, and the order and size of their stages.

The one room that knows layer names: `backbones` has an entry for each network. `backbones`, `sizes` and `weight_names`
load no torch, so that the plan and the command line can read them; `stages`, `zoo`, `weights` and `fingerprint` do.
"""
