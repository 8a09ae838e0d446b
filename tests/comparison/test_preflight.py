from dataclasses import replace

from transferlib.comparison.nodes import ClusterFacts, NodeFacts
from transferlib.comparison.preflight import Versions, preflight
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


def problems(*nodes: NodeFacts, python: str = "3.11.9", ray: str = "2.60.0") -> list[str]:
    facts = ClusterFacts("http://head:8265", ray, python, nodes)
    return preflight(facts, SPEC, HERE, "/shared/runs")


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


def test_a_silent_node_is_told_with_its_reason() -> None:
    (text,) = problems(GOOD, NodeFacts(name="c", problem="no answer within 40 s"))
    assert text == "No word from node c of http://head:8265: no answer within 40 s."
