"""Whether a job can run on a cluster as its nodes are: versions, images, storage, weights. Pure; no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transferlib.planning.nodes import ClusterFacts, NodeFacts
from transferlib.spec import JobSpec
from transferlib.words import form


@dataclass(frozen=True)
class Versions:
    """Say what runs on one side."""

    python: str
    ray: str


def preflight(facts: ClusterFacts, spec: JobSpec, here: Versions, storage: str) -> list[str]:
    """Return what would keep a job from running, one sentence a matter; empty where nothing does.

    Args:
        facts: Of the cluster.
        spec: What is asked for.
        here: Of the sender.
        storage: Where run folders lie.
    """
    problems = [*_version_problems(facts, here)]
    answered = [node for node in facts.nodes if node.python]
    checks: tuple[tuple[str, Sequence[NodeFacts], str], ...] = (
        (
            f"--data {spec.data.path}",
            [node for node in answered if not node.sees_data],
            "cannot be seen there. Put the images where every node sees them at this path, or in an object store.",
        ),
        (
            f"--storage {storage}",
            [node for node in answered if not node.sees_run],
            "is not the folder that it is here. It must be the same on all nodes and here (a network disk), or an "
            "object store: --storage s3://bucket/runs.",
        ),
        (
            f"--storage {storage}",
            [node for node in answered if node.sees_run and not node.can_write],
            "cannot be written there. Give Ray's user the right to, or use another place.",
        ),
        (
            f"--weights {spec.models.weights}",
            [node for node in answered if not node.sees_weights],
            "cannot be seen there. Put the file where every node sees it, or in an object store.",
        ),
        ("torch", [node for node in answered if not node.torch or not node.torchvision], _NO_TORCH),
    )
    for what, nodes, why in checks:
        if nodes:
            problems.append(f"{what}: {_on(nodes, facts)} {why}{_said(nodes)}")
    gpus = facts.gpus if spec.resources.gpus is None else spec.resources.gpus
    problems += torch_problems(facts, use_gpu=gpus > 0)
    silent = [node for node in facts.nodes if not node.python]
    if silent:
        problems.append(f"No word from {_on(silent, facts)}: {silent[0].problem or 'it did not say why'}.")
    return problems


def torch_problems(facts: ClusterFacts, *, use_gpu: bool) -> Iterator[str]:
    """Yield what torch and torchvision are where, if workers may train on nodes that have different ones.

    Args:
        facts: Of the cluster.
        use_gpu: Whether workers train on GPUs, so that only nodes with one matter.
    """
    pairs: dict[tuple[str, str], list[str]] = {}
    for node in facts.nodes:
        if (node.gpus if use_gpu else node.cpus) and node.torch and node.torchvision:
            pairs.setdefault((node.torch, node.torchvision), []).append(node.name)
    if len(pairs) > 1:
        found = "; ".join(f"torch {pair[0]} and torchvision {pair[1]} on {', '.join(on)}" for pair, on in pairs.items())
        yield (
            f"torch: {found} of {facts.address}. Trials that are compared must train with one pair, +cpu or +cu128 "
            "included. Install the same pair on all of them, or use our image."
        )


_NO_TORCH = "does not have torch and torchvision. They are never sent along: install the pair there, or use our image."


def _version_problems(facts: ClusterFacts, here: Versions) -> Iterable[str]:
    versions = {(facts.python, facts.ray): ["its head"]}
    for node in facts.nodes:
        if node.python:
            versions.setdefault((node.python, node.ray), []).append(node.name)
    for (python, ray), where in versions.items():
        if _minor(python) != _minor(here.python):
            yield (
                f"Python is {here.python} here and {python} on {', '.join(where)} of {facts.address}: both must be "
                f"{_minor(python)}. Run submit with Python {_minor(python)}."
            )
        if ray != here.ray:
            yield (
                f"Ray is {here.ray} here and {ray} on {', '.join(where)} of {facts.address}: they must be the same. "
                f"Install ray=={ray} here, or {here.ray} there."
            )


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _on(nodes: Sequence[NodeFacts], facts: ClusterFacts) -> str:
    if len(nodes) == len(facts.nodes):
        return f"every node of {facts.address}" if len(nodes) > 1 else f"the node of {facts.address}"
    return f"{form(len(nodes), 'node')} {', '.join(node.name for node in nodes)} of {facts.address}"


def _said(nodes: Sequence[NodeFacts]) -> str:
    said = dict.fromkeys(node.problem for node in nodes if node.problem)
    return f" ({'; '.join(said)})" if said else ""
