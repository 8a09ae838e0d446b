"""Which cluster a command speaks to, out of flag, variables and record; and what is no address of a Jobs API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from transferlib.addresses import ClusterAddress, parse_address, resolve_address
from transferlib.clusters import ClusterRecord
from transferlib.errors import UsageError

RECORD = ClusterRecord(
    address="http://127.0.0.1:8265",
    gcs_address="127.0.0.1:6379",
    token_path="/state/token",
    temp_dir="/tmp/tl-x",
    node_pids=[1],
    started_at=0.0,
)
BOTH = {"RAY_API_SERVER_ADDRESS": "http://api:8265", "RAY_ADDRESS": "http://other:8265"}


def test_what_is_typed_goes_before_variables_and_record() -> None:
    found = resolve_address("http://typed:8265", BOTH, RECORD)
    assert found == ClusterAddress("http://typed:8265", "--address", None)


def test_rays_own_variables_are_taken_in_rays_own_order() -> None:
    assert resolve_address(None, BOTH, RECORD) == ClusterAddress("http://api:8265", "RAY_API_SERVER_ADDRESS")
    only = {"RAY_ADDRESS": "http://other:8265", "RAY_API_SERVER_ADDRESS": ""}
    assert resolve_address(None, only, RECORD) == ClusterAddress("http://other:8265", "RAY_ADDRESS")


def test_the_recorded_cluster_comes_last_with_its_token() -> None:
    found = resolve_address(None, {}, RECORD)
    assert found == ClusterAddress("http://127.0.0.1:8265", "submit cluster up", Path("/state/token"))
    assert str(found) == "http://127.0.0.1:8265 (from submit cluster up)"


def test_without_any_the_job_runs_here() -> None:
    assert resolve_address(None, {}, None) is None
    assert resolve_address("", {"RAY_ADDRESS": " "}, None) is None


def test_local_means_this_machine_whatever_else_is_said() -> None:
    assert resolve_address("local", BOTH, RECORD) is None
    assert resolve_address(None, {"RAY_ADDRESS": "local"}, RECORD) is None


def test_our_own_cluster_typed_by_hand_is_opened_with_its_token() -> None:
    found = resolve_address("127.0.0.1:8265", {}, replace(RECORD, address="http://127.0.0.1:8265/"))
    assert found is not None
    assert found.token_path == Path("/state/token")


def test_our_token_goes_to_no_other_cluster() -> None:
    found = resolve_address("127.0.0.1:8266", {}, RECORD)
    assert found is not None
    assert found.token_path is None


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("head", "http://head:8265"),
        ("head:", "http://head:8265"),
        ("head:9000", "http://head:9000"),
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org"),
        ("https://example.org/ray/", "https://example.org/ray"),
        ("[::1]:8265", "http://[::1]:8265"),
        ("[::1]", "http://[::1]:8265"),
    ],
)
def test_an_address_becomes_a_url(given: str, url: str) -> None:
    assert parse_address(given, "--address") == url


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("ray://head:10001", "probably http://head:8265"),
        ("ray://head", "probably http://head:8265"),
        ("auto", "cannot be told from here"),
        ("ftp://head", "http:// and https://"),
        ("head:port", "head:port"),
        ("head:99999", "head:99999"),
        ("http://", "is no address"),
        ("two words", "is no address"),
        ("http://head:8265?token=abc", "is no address"),
    ],
)
def test_what_is_no_address_is_refused_with_a_way_on(given: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(given, "--address")
    assert words in str(caught.value)
    assert "http://head:8265" in str(caught.value)


def test_a_variable_that_is_no_address_is_named() -> None:
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS=ray://head:10001: "):
        resolve_address(None, {"RAY_ADDRESS": "ray://head:10001"}, None)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("http://me:hush@head:8265", "RAY_ADDRESS")
    assert "hush" not in str(caught.value)
