"""Compare transfer-learning strategies for torchvision models, as an experiment, on Ray."""

__version__ = "0.1.0"
