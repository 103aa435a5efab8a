"""A bucket that exports are written to: what is read, written and checked there, through Google's own client.

Its retries are off: there is one retry policy (`sync/retry.py`). What is read belongs to one generation of an object,
and its checksum is compared, so a reader sees what was checked before, or an error.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import google_crc32c
from google.api_core import exceptions as google

from lz_sync_dagster.sync.errors import Reason, SyncError

#: Bytes that one request reads.
CHUNK = 8 * 1024 * 1024
#: What lz-sync's identity needs on the bucket.
ROLE = "roles/storage.objectUser"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One generation of an object. ``size``: bytes; ``crc32c``: base64, as Cloud Storage tells it."""

    name: str
    generation: int
    size: int
    crc32c: str


class ExportBucket:
    """A bucket of Cloud Storage. Every error is a `SyncError` that names the role that may be missing.

    Args:
        bucket: its name.
        endpoint: ``None`` for Google's; ``http://host:port`` for a server without TLS and credentials.
    """

    def __init__(self, bucket: str, endpoint: str | None, *, timeout_seconds: float, chunk: int = CHUNK) -> None:
        self.name = bucket
        self._client = _client(endpoint)
        self._bucket = self._client.bucket(bucket)
        self._timeout = timeout_seconds
        self._chunk = chunk

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def list(self, prefix: str) -> list[StoredFile]:
        """All objects whose name begins so, to the last page, by name."""
        with self._explained(prefix):
            blobs = self._client.list_blobs(self._bucket, prefix=prefix, retry=None, timeout=self._timeout)
            return [StoredFile(blob.name, blob.generation, blob.size, blob.crc32c) for blob in blobs]

    def read(self, name: str) -> tuple[bytes, int] | None:
        """A small object and its generation; ``None`` if it is not there."""
        blob = self._bucket.blob(name)
        with self._explained(name):
            try:
                blob.reload(retry=None, timeout=self._timeout)
                pinned = self._bucket.blob(name, generation=blob.generation)
                return pinned.download_as_bytes(retry=None, timeout=self._timeout), blob.generation
            except google.NotFound:
                return None

    def create(self, name: str, content: bytes) -> int | None:
        """Write an object that is not there yet, as a whole or not at all. Returns its generation; ``None``: there is
        one already, and it stays."""
        return self._write(name, content, 0)

    def replace(self, name: str, content: bytes, generation: int) -> int | None:
        """Write over one generation of an object. Returns the new one; ``None``: another generation is there."""
        return self._write(name, content, generation)

    def delete(self, name: str, generation: int) -> None:
        """Delete an object, unless it is gone or another generation by now."""
        with self._explained(name):
            try:
                self._bucket.blob(name).delete(if_generation_match=generation, retry=None, timeout=self._timeout)
            except (google.NotFound, google.PreconditionFailed):
                return

    def pieces(self, file: StoredFile) -> Iterator[bytes]:
        """The content of an object, piece by piece; the next one is on its way while one is worked on.

        Raises:
            SyncError: it cannot be read, is not that generation any more, or its checksum is wrong: at the end.
        """
        checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        starts = range(0, file.size, self._chunk)
        with ThreadPoolExecutor(1, thread_name_prefix="export-bucket") as ahead:
            asked = [ahead.submit(self._piece, file, start) for start in starts[:1]]
            for following in [*starts[1:], None]:
                if not asked:
                    break
                piece = asked.pop().result()
                if following is not None:
                    asked.append(ahead.submit(self._piece, file, following))
                checksum.update(piece)
                yield piece
        if base64.b64encode(checksum.digest()).decode() != file.crc32c:
            raise SyncError(
                "was not read as it was written: its checksum differs",
                where=f"gs://{self.name}/{file.name}",
                remedy="it is tried again",
                reason=Reason.UNAVAILABLE,
            )

    def _piece(self, file: StoredFile, start: int) -> bytes:
        blob = self._bucket.blob(file.name, generation=file.generation)
        end = min(start + self._chunk, file.size) - 1
        with self._explained(file.name):
            content: bytes = blob.download_as_bytes(
                start=start, end=end, raw_download=True, checksum=None, retry=None, timeout=self._timeout
            )
            return content

    def _write(self, name: str, content: bytes, generation: int) -> int | None:
        blob = self._bucket.blob(name)
        with self._explained(name):
            try:
                blob.upload_from_string(
                    content,
                    content_type="application/json",
                    if_generation_match=generation,
                    retry=None,
                    timeout=self._timeout,
                )
            except google.PreconditionFailed:
                return None
        written: int = blob.generation
        return written

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        import requests
        from google.auth.exceptions import GoogleAuthError

        where = f"gs://{self.name}/{name}"
        try:
            yield
        except (google.Forbidden, google.Unauthorized) as error:
            remedy = f"grant {ROLE} on gs://{self.name} to the identity that runs lz-sync"
            raise _failed("permission denied", error, where, remedy, Reason.PERMISSION_DENIED) from error
        except GoogleAuthError as error:
            remedy = "renew the credentials: 'gcloud auth application-default login', or check the identity"
            raise _failed("not authenticated", error, where, remedy, Reason.UNAUTHENTICATED) from error
        except google.NotFound as error:
            remedy = "check sync_layers.api_sync.bulk.destination, and what deletes objects of the bucket"
            raise _failed("is not there", error, where, remedy, Reason.NOT_FOUND) from error
        except (google.ServerError, google.TooManyRequests, requests.RequestException, ConnectionError) as error:
            raise _failed(
                "Cloud Storage is unavailable", error, where, "it is tried again", Reason.UNAVAILABLE
            ) from error
        except google.GoogleAPIError as error:
            remedy = "check sync_layers.api_sync.bulk.destination"
            raise _failed("Cloud Storage refused", error, where, remedy, Reason.INVALID) from error


def _client(endpoint: str | None) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if endpoint is None:
        try:
            return storage.Client()
        except (DefaultCredentialsError, OSError) as error:  # OSError: the credentials name no project
            raise SyncError(
                "no Google Cloud credentials with a project were found",
                where="Cloud Storage",
                remedy="run 'gcloud auth application-default login' and set GOOGLE_CLOUD_PROJECT, or run where a "
                "service account is attached",
                reason=Reason.UNAUTHENTICATED,
            ) from error
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise SyncError(
            "is not a URL",
            where=f"google_cloud.storage_endpoint {endpoint!r}",
            remedy="use https://host or http://host:port",
            reason=Reason.INVALID,
        )
    if url.scheme == "https":
        return storage.Client(client_options={"api_endpoint": endpoint})
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return storage.Client(project="local", credentials=anonymous, client_options={"api_endpoint": endpoint})


def _failed(what: str, error: Exception, where: str, remedy: str, reason: Reason) -> SyncError:
    return SyncError(f"{what} ({' '.join(str(error).split())[:300]})", where=where, remedy=remedy, reason=reason)
