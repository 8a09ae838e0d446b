"""As sitecustomize.py: where a cluster was told of GPUs that are not there, trials take them and train on the CPU."""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def _trial_device(plan: Any) -> Any:
    import torch

    return torch.device("cpu")


def _change(module: ModuleType) -> None:
    if module.__name__ == "transferlib.on_ray.opening":
        module.trial_device = _trial_device  # type: ignore[attr-defined]
    else:
        prepare = module._prepare_models

        @functools.wraps(prepare)
        def prepare_for_cpu(spec_yaml: str, use_gpu: bool) -> Any:
            return prepare(spec_yaml, False)

        module._prepare_models = prepare_for_cpu  # type: ignore[attr-defined]


class _Finder:
    """Change two modules once they are loaded."""

    def __init__(self) -> None:
        self._names = {"transferlib.on_ray.opening", "transferlib.on_ray.prepare"}

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in self._names:
            return None
        self._names.discard(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            _change(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
