"""The demo's Cloud Storage, spoken to by Google's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from demo.storage_server import StorageServer, start_storage_server


@pytest.fixture(scope="module")
def server() -> Iterator[StorageServer]:
    server = start_storage_server(["exports"])
    yield server
    server.stop()


@pytest.fixture
def bucket(server: StorageServer) -> Any:
    client = storage.Client(
        project="test",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": server.endpoint},
    )
    for item in server.storage.objects("exports"):
        server.storage.delete("exports", item.name)
    return client.bucket("exports")


def test_an_object_is_written_listed_read_and_deleted(bucket: Any) -> None:
    blob = bucket.blob("a/b c/ä%2F.json")
    blob.upload_from_string(b'{"a": "\xc3\xa4\\r\\n"}\r\n', content_type="application/json")
    (listed,) = bucket.list_blobs(prefix="a/b c/")
    assert (listed.name, listed.size, listed.generation) == (blob.name, 17, blob.generation)
    assert bucket.blob(blob.name).download_as_bytes(checksum="crc32c") == b'{"a": "\xc3\xa4\\r\\n"}\r\n'
    assert bucket.blob(blob.name).download_as_bytes(start=1, end=3, raw_download=True, checksum=None) == b'"a"'
    blob.delete()
    assert list(bucket.list_blobs()) == []
    with pytest.raises(exceptions.NotFound):
        bucket.blob(blob.name).reload()


def test_writers_name_the_generation_that_they_write_over(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string("1", if_generation_match=0)
    first = blob.generation
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").upload_from_string("2", if_generation_match=0)
    blob.upload_from_string("3", if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").delete(if_generation_match=first)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("x", generation=first).download_as_bytes()
    assert bucket.blob("x", generation=blob.generation).download_as_bytes() == b"3"


def test_lists_have_pages(bucket: Any, server: StorageServer) -> None:
    for number in range(7):
        server.storage.put("exports", f"n/{number}", [b"x"])
    pages = [list(page) for page in bucket.list_blobs(prefix="n/", page_size=3).pages]
    assert [[blob.name for blob in page] for page in pages] == [["n/0", "n/1", "n/2"], ["n/3", "n/4", "n/5"], ["n/6"]]


def test_a_bucket_that_is_not_there_is_not_found(bucket: Any) -> None:
    with pytest.raises(exceptions.NotFound):
        list(bucket.client.list_blobs("another"))
    with pytest.raises(exceptions.NotFound):
        bucket.client.bucket("another").blob("x").upload_from_string("1")
