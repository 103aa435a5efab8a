"""Cloud Storage on this machine, for demo and tests: as much of its JSON API as an export and its readers need.

Objects are written whole, have generations and checksums, and are listed, read (also a range of them), written on a
condition and deleted by Google's own client: ``STORAGE_EMULATOR_HOST``, or ``google_cloud.storage_endpoint`` of the
settings, leads here. Contents lie in a temporary folder. Not here: buckets that are made, permissions, older
generations, resumable uploads, composition.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import google_crc32c
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from demo.http_server import HttpServer
from lz_sync_dagster.sync.timing import Clock, utcnow

MAX_LIST_PAGE = 1000
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it is now. ``crc32c``, ``md5``: base64, as Cloud Storage tells them."""

    bucket: str
    name: str
    generation: int
    size: int
    crc32c: str
    md5: str
    updated: datetime
    path: Path


class PreconditionFailed(Exception):
    """The object's generation is not the one that the writer named."""


class Storage:
    """Buckets and their objects. Safe to share between threads."""

    def __init__(self, buckets: Iterable[str], folder: Path, clock: Clock) -> None:
        self._buckets: dict[str, dict[str, StoredObject]] = {name: {} for name in buckets}
        self._folder = folder
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def has(self, bucket: str) -> bool:
        """Whether the bucket is there."""
        return bucket in self._buckets

    def put(
        self, bucket: str, name: str, content: Iterable[bytes], *, if_generation: int | None = None
    ) -> StoredObject:
        """Write an object as a whole; it is seen when it is complete.

        Args:
            if_generation: only over this generation; 0: only if there is no such object.

        Raises:
            KeyError: there is no such bucket.
            PreconditionFailed: another generation is there.
        """
        number = next(self._numbers)
        path = self._folder / str(number)
        crc32c: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        size, md5 = 0, hashlib.md5(usedforsecurity=False)
        with path.open("wb") as file:
            for piece in content:
                file.write(piece)
                size += len(piece)
                crc32c.update(piece)
                md5.update(piece)
        with self._lock:
            objects = self._buckets[bucket]
            before = objects.get(name)
            if if_generation is not None and if_generation != (before.generation if before else 0):
                path.unlink()
                raise PreconditionFailed(name)
            now = self._clock()
            generation = int(now.timestamp() * 1_000_000) + number
            written = StoredObject(
                bucket=bucket,
                name=name,
                generation=generation,
                size=size,
                crc32c=base64.b64encode(crc32c.digest()).decode(),
                md5=base64.b64encode(md5.digest()).decode(),
                updated=now,
                path=path,
            )
            objects[name] = written
            return written

    def get(self, bucket: str, name: str, generation: int | None = None) -> StoredObject | None:
        """The object; ``None`` if it, or this generation of it, is not there."""
        with self._lock:
            found = self._buckets.get(bucket, {}).get(name)
        return None if found is None or (generation is not None and generation != found.generation) else found

    def delete(self, bucket: str, name: str, *, if_generation: int | None = None) -> bool:
        """Delete an object. Returns whether it was there.

        Raises:
            PreconditionFailed: another generation is there.
        """
        with self._lock:
            found = self._buckets.get(bucket, {}).get(name)
            if found is None:
                return False
            if if_generation is not None and if_generation != found.generation:
                raise PreconditionFailed(name)
            del self._buckets[bucket][name]
            return True

    def objects(self, bucket: str, prefix: str = "", after: str = "") -> list[StoredObject]:
        """Objects whose name begins with ``prefix`` and comes after ``after``, by name."""
        with self._lock:
            found = [item for name, item in self._buckets[bucket].items() if name.startswith(prefix) and name > after]
        return sorted(found, key=lambda item: item.name)


class StorageServer:
    """A running server. ``endpoint``: what ``google_cloud.storage_endpoint`` takes (``http://127.0.0.1:PORT``)."""

    def __init__(self, buckets: Iterable[str], clock: Clock, port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="storage-server-")
        self.storage = Storage(buckets, Path(self._folder.name), clock)
        self._server = HttpServer("storage-server", port)
        self.endpoint = self._server.url
        self._server.start(self._routes())

    def stop(self) -> None:
        """Stop answering; returns when the port is free."""
        self._server.stop()
        self._folder.cleanup()

    def _routes(self) -> list[Route]:
        return [
            Route("/storage/v1/b/{bucket}", self._bucket, methods=["GET"]),
            Route("/storage/v1/b/{bucket}/o", self._list, methods=["GET"]),
            Route("/storage/v1/b/{bucket}/o/{name:path}", self._object, methods=["GET", "DELETE"]),
            Route("/download/storage/v1/b/{bucket}/o/{name:path}", self._object, methods=["GET"]),
            Route("/upload/storage/v1/b/{bucket}/o", self._upload, methods=["POST"]),
        ]

    async def _bucket(self, request: Request) -> Response:
        bucket = request.path_params["bucket"]
        if not self.storage.has(bucket):
            return _error(404, "The specified bucket does not exist.")
        return JSONResponse({"kind": "storage#bucket", "id": bucket, "name": bucket})

    async def _list(self, request: Request) -> Response:
        bucket, query = request.path_params["bucket"], request.query_params
        if not self.storage.has(bucket):
            return _error(404, "The specified bucket does not exist.")
        limit = min(int(query.get("maxResults", MAX_LIST_PAGE)), MAX_LIST_PAGE)
        found = self.storage.objects(bucket, query.get("prefix", ""), query.get("pageToken", ""))
        answer: dict[str, Any] = {"kind": "storage#objects", "items": [_metadata(item) for item in found[:limit]]}
        if len(found) > limit:
            answer["nextPageToken"] = found[limit - 1].name
        return JSONResponse(answer)

    async def _object(self, request: Request) -> Response:
        bucket, name = request.path_params["bucket"], _object_name(request)
        generation = request.query_params.get("generation")
        if request.method == "DELETE":
            try:
                deleted = self.storage.delete(bucket, name, if_generation=_condition(request))
            except PreconditionFailed:
                return _error(412, "At least one of the pre-conditions you specified did not hold.")
            return Response(status_code=204) if deleted else _error(404, f"No such object: {bucket}/{name}")
        found = self.storage.get(bucket, name, None if generation is None else int(generation))
        if found is None:
            return _error(404, f"No such object: {bucket}/{name}")
        if request.query_params.get("alt") != "media":
            return JSONResponse(_metadata(found))
        return await run_in_threadpool(_content, found, request.headers.get("range"))

    async def _upload(self, request: Request) -> Response:
        bucket, query = request.path_params["bucket"], request.query_params
        if not self.storage.has(bucket):
            return _error(404, "The specified bucket does not exist.")
        if query.get("uploadType") != "multipart":
            return _error(400, "only multipart uploads are served here")
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        parts = BytesParser().parsebytes(head + await request.body()).get_payload()
        metadata, content = (part.get_payload(decode=True) for part in parts)  # type: ignore[union-attr]
        name = query.get("name") or json.loads(metadata)["name"]  # type: ignore[arg-type]
        try:
            written = self.storage.put(bucket, name, [content], if_generation=_condition(request))  # type: ignore[list-item]
        except PreconditionFailed:
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        return JSONResponse(_metadata(written))


def start_storage_server(buckets: Iterable[str], *, clock: Clock = utcnow, port: int = 0) -> StorageServer:
    """Serve empty buckets on a port of 127.0.0.1 (0: a free one), in a thread of its own.

    Raises:
        OSError: the port is taken.
    """
    return StorageServer(buckets, clock, port)


def _object_name(request: Request) -> str:
    """Names have slashes, which clients quote: the path as it came says where the name begins."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return unquote(raw.decode().partition("/o/")[2])


def _condition(request: Request) -> int | None:
    value = request.query_params.get("ifGenerationMatch")
    return None if value is None else int(value)


def _content(found: StoredObject, asked: str | None) -> Response:
    headers = {
        "x-goog-hash": f"crc32c={found.crc32c},md5={found.md5}",
        "x-goog-generation": str(found.generation),
        "x-goog-stored-content-length": str(found.size),
    }
    span = _RANGE.match(asked or "")
    if span is None:
        return FileResponse(found.path, headers=headers)
    first, last = int(span.group(1)), min(int(span.group(2) or found.size - 1), found.size - 1)
    if first >= found.size:
        return Response(status_code=416, headers={"content-range": f"bytes */{found.size}"})
    with found.path.open("rb") as file:
        file.seek(first)
        body = file.read(last - first + 1)
    return Response(body, 206, headers | {"content-range": f"bytes {first}-{last}/{found.size}"})


def _metadata(item: StoredObject) -> dict[str, Any]:
    return {
        "kind": "storage#object",
        "id": f"{item.bucket}/{item.name}/{item.generation}",
        "bucket": item.bucket,
        "name": item.name,
        "generation": str(item.generation),
        "metageneration": "1",
        "size": str(item.size),
        "crc32c": item.crc32c,
        "md5Hash": item.md5,
        "updated": item.updated.isoformat().replace("+00:00", "Z"),
    }


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"code": status, "message": message, "errors": [{"message": message}]}}, status)
