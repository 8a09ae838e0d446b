from __future__ import annotations

import pytest

from transferlib.errors import StorageError, UsageError
from transferlib.storage.uris import is_uri, parse_uri


@pytest.mark.parametrize("text", ["s3://b", "s3://b/", "S3://b/x y/?z", "gs://b/x", "gs://my_bucket.example/x"])
def test_object_stores_are_known_by_their_scheme(text: str) -> None:
    assert is_uri(text)


@pytest.mark.parametrize("text", ["", "photos", "/data/photos", "./s3", "s3:/b", "a:b", "IMAGENET1K_V1", "@last"])
def test_everything_else_without_a_scheme_is_no_uri(text: str) -> None:
    assert not is_uri(text)


@pytest.mark.parametrize("text", ["http://h/x", "hdfs://h/x", "file:///x", "gcs://b/x", "s3a://b/x"])
def test_other_schemes_are_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not supported. Known: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a path"):
        is_uri(text)


@pytest.mark.parametrize("text", ["s3://", "s3:///x", "s3:// b/x", "gs://-b", "s3://b\n/x"])
def test_uri_without_a_bucket_is_refused(text: str) -> None:
    with pytest.raises(StorageError, match=r"names no bucket. Write (s3|gs)://BUCKET/PREFIX"):
        is_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAX:hunter2@bucket/p",
        "s3://hunter2@bucket/p",
        "s3://bucket/p?access_key=a&secret_key=hunter2",
        "s3://bucket/p?endpoint_override=hunter2",
        "s3://bucket?secret_key=hunter2",
        "gs://x:hunter2@bucket/p",
    ],
)
def test_uri_with_credentials_is_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(
        StorageError, match=r"^(s3|gs)://bucket(/p)?: .*Credentials come from the environment"
    ) as caught:
        is_uri(text)
    assert "hunter2" not in str(caught.value)


def test_parts_are_taken_literally_and_slashes_at_the_ends_do_not_matter() -> None:
    parsed = parse_uri("S3://Bucket/a%20b/?c.jpg/")
    assert parsed == ("s3", "Bucket", "a%20b/?c.jpg")
    assert (parsed.path, parsed.uri) == ("Bucket/a%20b/?c.jpg", "s3://Bucket/a%20b/?c.jpg")
    assert parse_uri("gs://b").path == "b"


@pytest.mark.parametrize("uri", ["s3://b/a//c", "s3://b/../c", "s3://b/a/./c"])
def test_keys_that_are_no_plain_paths_are_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        parse_uri(uri)
