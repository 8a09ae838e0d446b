from dataclasses import replace

import pytest

from transferlib.planning.nodes import ClusterFacts, NodeFacts
from transferlib.planning.preflight import Versions, preflight
from transferlib.spec import JobSpec

SPEC = JobSpec.from_mapping({"data": {"path": "/shared/photos"}, "models": {"weights": "/shared/w.pth"}})
HERE = Versions("3.11.7", "2.60.0")
GOOD = NodeFacts(
    name="a",
    cpus=4,
    python="3.11.9",
    ray="2.60.0",
    torch="2.15.0",
    torchvision="0.29.0",
    sees_data=True,
    sees_run=True,
    can_write=True,
    sees_weights=True,
)


def problems(*nodes: NodeFacts, python: str = "3.11.9", ray: str = "2.60.0", spec: JobSpec = SPEC) -> list[str]:
    facts = ClusterFacts("http://head:8265", ray, python, nodes)
    return preflight(facts, spec, HERE, "/shared/runs")


def test_a_good_cluster_has_no_problems_and_patch_versions_may_differ() -> None:
    assert problems(GOOD, replace(GOOD, name="b")) == []


def test_another_python_or_ray_is_told_with_what_to_install() -> None:
    (text,) = problems(replace(GOOD, ray="2.56.0"), ray="2.56.0")
    assert "2.60.0 here and 2.56.0" in text
    assert "ray==2.56.0" in text
    (text,) = problems(replace(GOOD, python="3.12.1"), python="3.12.1")
    assert "both must be 3.12" in text


def test_all_that_is_wrong_is_told_at_once_with_the_nodes() -> None:
    blind = replace(GOOD, name="b", sees_data=False, sees_weights=False, sees_run=False, can_write=False)
    texts = problems(GOOD, blind)
    assert [text.split(":")[0] for text in texts] == [
        "--data /shared/photos",
        "--storage /shared/runs",
        "--weights /shared/w.pth",
    ]
    assert all("node b of http://head:8265" in text for text in texts)


def test_a_storage_that_cannot_be_written_is_told() -> None:
    (text,) = problems(replace(GOOD, can_write=False, problem="permission denied"))
    assert "cannot be written there" in text
    assert "permission denied" in text


def test_a_node_without_torch_is_told() -> None:
    (text,) = problems(replace(GOOD, torch=""))
    assert "never sent along" in text


@pytest.mark.parametrize("changes", [{"torch": "2.15.0+cpu"}, {"torch": "2.14.0"}, {"torchvision": "0.28.0"}])
def test_workers_do_not_train_with_different_builds_of_torch(changes: dict[str, str]) -> None:
    other = replace(GOOD, name="c", **changes)  # type: ignore[arg-type]
    (text,) = problems(GOOD, replace(GOOD, name="b"), other)
    assert "torch 2.15.0 and torchvision 0.29.0 on a, b; " in text
    assert f"torch {other.torch} and torchvision {other.torchvision} on c of http://head:8265" in text
    assert "Install the same pair on all of them" in text


def test_only_nodes_on_which_workers_may_train_must_have_the_same_torch() -> None:
    gpu = replace(GOOD, name="b", gpus=1, torch="2.15.0+cu128")
    head = replace(GOOD, name="c", cpus=0, torch="2.14.0")
    on_cpu = SPEC.model_copy(update={"resources": SPEC.resources.model_copy(update={"gpus": 0})})
    assert problems(GOOD, gpu) == []
    assert problems(GOOD, head) == []
    assert len(problems(GOOD, gpu, spec=on_cpu)) == 1
    assert len(problems(GOOD, gpu, replace(gpu, name="d", torch="2.15.0+cu130"))) == 1


def test_a_silent_node_is_told_with_its_reason() -> None:
    (text,) = problems(GOOD, NodeFacts(name="c", problem="no answer within 40 s"))
    assert text == "No word from node c of http://head:8265: no answer within 40 s."
