"""Exports in Cloud Storage: where their objects lie, how they are looked through, and how they are read back.

Below the destination's prefix, by scope and content type::

    organizations-1/RESOURCE/exports/20260301T120000000000000Z/compute.googleapis.com/Disk/0   Google's objects (JSONL)
    organizations-1/RESOURCE/manifests/20260301T120000000000000Z.json    what is complete: readers begin here
    organizations-1/RESOURCE/running.json                                the export that goes on
    organizations-1/RESOURCE/given_up/20260301T120000000000000Z.json     what is left behind, and why

A write of an object is atomic in Cloud Storage, and a manifest is written only where there is none, so it is there as
a whole or not at all, and never changes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.bulk import Manifest, Output, Running, damaged
from lz_sync_dagster.sync.inventory.export_bucket import ExportBucket, StoredFile
from lz_sync_dagster.sync.inventory.reader import Page
from lz_sync_dagster.sync.state.reducer import Part

#: A page ends with so many assets, or when it has so many bytes.
PAGE_ASSETS, PAGE_BYTES = 1_000, 8 * 1024 * 1024
#: No asset is larger than this.
_LONGEST_LINE = 64 * 1024 * 1024


class FileDestination:
    """Exports in a bucket, below a prefix."""

    def __init__(self, bucket: ExportBucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def running(self, scope: str, content_type: str) -> Running | None:
        name = self._name(scope, content_type, "running.json")
        found = self._bucket.read(name)
        return None if found is None else Running.from_json(found[0], where=self._uri(name), mark=found[1])

    def begin(self, running: Running) -> Running:
        name = self._running(running)
        mark = self._bucket.create(name, running.to_json())
        if mark is None:
            raise self._taken(name)
        return replace(running, mark=mark)

    def named(self, running: Running) -> Running:
        name = self._running(running)
        mark = self._bucket.replace(name, running.to_json(), running.mark)
        if mark is None:
            raise self._taken(name)
        return replace(running, mark=mark)

    def output_config(self, running: Running) -> Any:
        from google.cloud.asset_v1 import OutputConfig

        config = OutputConfig.pb()()
        config.gcs_destination.uri_prefix = self._uri(self._folder(running))
        return config

    def verify(self, running: Running, response: Any) -> Mapping[str, tuple[Output, ...]]:
        folder = self._folder(running)
        found: dict[str, dict[int, StoredFile]] = {}
        for file in self._bucket.list(f"{folder}/"):
            asset_type, _, number = file.name.removeprefix(f"{folder}/").rpartition("/")
            if asset_type not in running.plan.asset_types or not number.isdecimal():
                raise damaged(self._uri(file.name), "nobody asked for this object")
            found.setdefault(asset_type, {})[int(number)] = file
        there = {self._uri(file.name) for files in found.values() for file in files.values()}
        for uri in response.output_result.gcs_result.uris:
            if uri not in there:
                raise damaged(uri, "the operation says that it wrote this object, and it is not there")
        outputs: dict[str, tuple[Output, ...]] = {}
        for asset_type, files in found.items():
            if sorted(files) != list(range(len(files))):
                missing = min(set(range(max(files))) - files.keys())
                raise damaged(self._uri(f"{folder}/{asset_type}/{missing}"), "this object is missing among the others")
            outputs[asset_type] = tuple(self._looked_through(files[number]) for number in range(len(files)))
        return outputs

    def publish(self, running: Running, manifest: Manifest) -> None:
        name = self._name(manifest.scope, manifest.content_type, f"manifests/{running.stamp}.json")
        self._bucket.create(name, manifest.to_json())  # one that is there is of the same operation
        self._bucket.delete(self._running(running), running.mark)

    def give_up(self, running: Running, why: str) -> str:
        left = self._uri(f"{self._folder(running)}/")
        plan = running.plan
        note = orjson.dumps({"left_behind": left, "operation": running.operation, "why": why})
        self._bucket.create(self._name(plan.scope, plan.content_type, f"given_up/{running.stamp}.json"), note)
        self.withdraw(running)
        return left

    def withdraw(self, running: Running) -> None:
        self._bucket.delete(self._running(running), running.mark)

    def latest(self, scope: str, content_type: str) -> Manifest | None:
        names = [file.name for file in self._bucket.list(self._name(scope, content_type, "manifests/"))]
        if not names:
            return None
        newest = max(names)
        found = self._bucket.read(newest)
        return None if found is None else Manifest.from_json(found[0], where=self._uri(newest))

    def _looked_through(self, file: StoredFile) -> Output:
        """Count the lines of an object, and see whether it ends with a whole one."""
        rows, last = 0, b""
        for lines in _lines(self._bucket.pieces(file), self._uri(file.name)):
            rows += len(lines)
            last = lines[-1]
        if last:
            _parsed(last, self._uri(file.name))
        return Output(file.name, rows, file.size, file.generation, file.crc32c)

    def _name(self, scope: str, content_type: str, rest: str) -> str:
        return f"{self._prefix}{scope.replace('/', '-')}/{content_type}/{rest}"

    def _running(self, running: Running) -> str:
        return self._name(running.plan.scope, running.plan.content_type, "running.json")

    def _folder(self, running: Running) -> str:
        return self._name(running.plan.scope, running.plan.content_type, f"exports/{running.stamp}")

    def _uri(self, name: str) -> str:
        return f"gs://{self._bucket.name}/{name}"

    def _taken(self, name: str) -> SyncError:
        return SyncError(
            "another export of this scope and content goes on",
            where=self._uri(name),
            remedy="wait for it; if its process is dead, the next sync takes it over",
            reason=Reason.CONFLICT,
        )


class BulkReader:
    """Reads parts from published exports, as `AssetReader` reads them from the inventory: page by page, one read time.

    Args:
        manifests: by (scope, content type).
    """

    def __init__(self, bucket: ExportBucket, manifests: Mapping[tuple[str, str], Manifest]) -> None:
        self._bucket = bucket
        self._manifests = manifests

    def has(self, part: Part) -> bool:
        """Whether an export holds the part."""
        manifest = self._manifests.get((part[0], part[2]))
        return manifest is not None and part[1] in manifest.types

    def read(self, part: Part) -> Generator[Page]:
        """Yield the pages of a part. Bodies are JSON, canonical: keys sorted.

        Raises:
            SyncError: no export holds the part, or what it holds is not what the manifest says; the pages so far are
                valid observations of an incomplete read.
        """
        scope, asset_type, content_type = part
        if not self.has(part):
            raise SyncError(
                "no export holds it",
                where=f"{asset_type} in {scope}",
                remedy="wait for the next export",
                reason=Reason.NOT_READ_YET,
            )
        manifest = self._manifests[scope, content_type]
        page: list[bytes] = []
        size = rows = 0
        for output in manifest.types[asset_type]:
            for body in self._bodies(output, asset_type):
                if page and (len(page) == PAGE_ASSETS or size + len(body) > PAGE_BYTES):
                    yield Page(manifest.read_ns, page, False, 0)
                    page, size = [], 0
                page.append(body)
                size += len(body)
                rows += 1
        if rows != manifest.rows(asset_type):
            raise _differs(f"{asset_type} in {scope}", f"has {rows} assets, not {manifest.rows(asset_type)}")
        yield Page(manifest.read_ns, page, True, 0)

    def _bodies(self, output: Output, asset_type: str) -> Iterator[bytes]:
        where = f"gs://{self._bucket.name}/{output.name}"
        file = StoredFile(output.name, output.generation or 0, output.size or 0, output.crc32c or "")
        for lines in _lines(self._bucket.pieces(file), where):
            for line in lines:
                asset = _parsed(line, where)
                if asset.get("asset_type", asset.get("assetType")) != asset_type:
                    raise _differs(where, f"has an asset of another type than {asset_type}")
                yield orjson.dumps(asset, option=orjson.OPT_SORT_KEYS)


def _lines(pieces: Iterator[bytes], where: str) -> Iterator[list[bytes]]:
    """The lines of an object, as many at once as have come; empty ones are left out."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise _differs(where, "has a line that is too long for an asset")
        if whole := [line for line in lines if line.strip()]:
            yield whole
    if rest.strip():
        yield [rest]


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        asset = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise damaged(where, f"is cut off, or not JSON ({error})") from error
    if not isinstance(asset, dict):
        raise damaged(where, "has a line that is no asset")
    return asset


def _differs(where: str, what: str) -> SyncError:
    return SyncError(
        what,
        where=where,
        remedy="leave the objects of exports as Google wrote them; the next export is read instead",
        reason=Reason.INVALID,
    )
