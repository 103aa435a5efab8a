"""Exports in BigQuery: tables for analysts, and the manifest that says which of their rows are complete.

Google writes one table per asset type, partitioned by day, in which every row carries the read time of its export
(``readTime``). Exports are added to each other, so what a failed one has written stays there: rows whose read time no
row of ``lz_export_manifest`` with the state ``published`` names. Readers join the two; see docs/operations.md.

What tests cover: the requests and their order, against a client that records them. What they do not: BigQuery's own
answers, and Google's writing, since there is no server to test against.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.bulk import Manifest, Output, Running
from lz_sync_dagster.sync.timing import format_ns

MANIFEST_TABLE = "lz_export_manifest"
RUNNING, PUBLISHED, GIVEN_UP = "running", "published", "given_up"
#: Each step of an export is a row; a later one has the last word.
_BEGUN, _NAMED, _ENDED = range(3)

_COLUMNS = (
    ("scope", "STRING"),
    ("content_type", "STRING"),
    ("read_time", "TIMESTAMP"),
    ("step", "INT64"),
    ("state", "STRING"),
    ("operation", "STRING"),
    ("document", "STRING"),
)


class TableDestination:
    """Exports in a dataset.

    Args:
        client: a ``google.cloud.bigquery.Client``.
        dataset: ``PROJECT.DATASET``.
    """

    def __init__(self, client: Any, dataset: str, *, timeout_seconds: float) -> None:
        self._client = client
        self._project, _, self._dataset = dataset.rpartition(".")
        self._timeout = timeout_seconds

    @property
    def _manifests(self) -> str:
        return f"{self._project}.{self._dataset}.{MANIFEST_TABLE}"

    def running(self, scope: str, content_type: str) -> Running | None:
        row = self._newest(scope, content_type, None)
        if row is None or row["state"] != RUNNING:
            return None
        return Running.from_json(row["document"], where=self._manifests)

    def begin(self, running: Running) -> Running:
        if not self._write(running, _BEGUN, RUNNING, running.to_json()):
            raise SyncError(
                "another export of this scope and content goes on",
                where=self._manifests,
                remedy="wait for it",
                reason=Reason.CONFLICT,
            )
        return running

    def named(self, running: Running) -> Running:
        self._write(running, _NAMED, RUNNING, running.to_json())
        return running

    def output_config(self, running: Running) -> Any:
        from google.cloud.asset_v1 import OutputConfig, PartitionSpec

        config = OutputConfig.pb()()
        destination = config.bigquery_destination
        destination.dataset = f"projects/{self._project}/datasets/{self._dataset}"
        destination.table = _prefix(running.plan.content_type)
        destination.separate_tables_per_asset_type = True
        destination.partition_spec.partition_key = PartitionSpec.PartitionKey.READ_TIME
        destination.force = False  # rows are added: the partition of a day holds other exports as well
        return config

    def verify(self, running: Running, response: Any) -> Mapping[str, tuple[Output, ...]]:  # noqa: ARG002
        """Count the rows of each type. A type without a table has no assets: the operation has succeeded."""
        from google.api_core import exceptions

        outputs: dict[str, tuple[Output, ...]] = {}
        for asset_type in running.plan.asset_types:
            name = table_name(running.plan.content_type, asset_type)
            table = f"{self._project}.{self._dataset}.{name}"
            query = f"select count(*) as total from `{table}` where readTime = @read_time"  # noqa: S608
            with self._explained():
                try:
                    rows = self._query(query, read_time=("TIMESTAMP", format_ns(running.read_ns)))
                except exceptions.NotFound:
                    continue
            outputs[asset_type] = (Output(name, int(rows[0]["total"])),)
        return outputs

    def publish(self, running: Running, manifest: Manifest) -> None:
        self._write(running, _ENDED, PUBLISHED, manifest.to_json())

    def give_up(self, running: Running, why: str) -> str:
        read_time = format_ns(running.read_ns)
        left = (
            f"what has readTime {read_time} in {self._project}.{self._dataset}.{_prefix(running.plan.content_type)}_*"
        )
        self._write(running, _ENDED, GIVEN_UP, orjson.dumps({"left_behind": left, "why": why}))
        return left

    def withdraw(self, running: Running) -> None:
        self._write(running, _ENDED, GIVEN_UP, orjson.dumps({"why": "Google did not begin"}))

    def latest(self, scope: str, content_type: str) -> Manifest | None:
        row = self._newest(scope, content_type, PUBLISHED)
        return None if row is None else Manifest.from_json(row["document"], where=self._manifests)

    def _newest(self, scope: str, content_type: str, state: str | None) -> Mapping[str, Any] | None:
        from google.api_core import exceptions

        query = (
            f"select state, document from `{self._manifests}` "  # noqa: S608
            "where scope = @scope and content_type = @content_type and (@state is null or state = @state) "
            "order by read_time desc, step desc limit 1"
        )
        with self._explained():
            try:
                rows = self._query(
                    query,
                    scope=("STRING", scope),
                    content_type=("STRING", content_type),
                    state=("STRING", state),
                )
            except exceptions.NotFound:
                return None
        return rows[0] if rows else None

    def _query(self, query: str, **parameters: tuple[str, Any]) -> list[Mapping[str, Any]]:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            query_parameters=[
                bigquery.ScalarQueryParameter(name, kind, value) for name, (kind, value) in parameters.items()
            ],
            use_query_cache=False,
        )
        rows = self._client.query(query, job_config=config, retry=None, timeout=self._timeout).result()
        return [dict(row.items()) for row in rows]

    def _write(self, running: Running, step: int, state: str, document: bytes) -> bool:
        """Add a row to the manifests. The job's name says which step it is, so that doing it again adds nothing.
        Returns whether it was added now."""
        from google.api_core import exceptions
        from google.cloud import bigquery

        plan = running.plan
        row = {
            "scope": plan.scope,
            "content_type": plan.content_type,
            "read_time": format_ns(running.read_ns),
            "step": step,
            "state": state,
            "operation": running.operation,
            "document": document.decode(),
        }
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_IF_NEEDED,
            schema=[bigquery.SchemaField(name, kind) for name, kind in _COLUMNS],
        )
        job = f"lz-sync-export-{plan.scope.replace('/', '-')}-{plan.content_type}-{running.stamp}-{step}"
        content = orjson.dumps(row)
        with self._explained():
            try:
                self._client.load_table_from_file(
                    io.BytesIO(content), self._manifests, size=len(content), job_id=job, job_config=config
                ).result()
            except exceptions.Conflict:
                return False
        return True

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what BigQuery refuses into a `SyncError`; a missing table is for the caller."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        role = f"roles/bigquery.jobUser on {self._project} and roles/bigquery.dataEditor on {self._dataset}"
        try:
            yield
        except (exceptions.NotFound, exceptions.Conflict):
            raise
        except (exceptions.Forbidden, GoogleAuthError) as error:
            remedy = f"give the identity that runs lz-sync {role}"
            raise self._failed(error, remedy, Reason.PERMISSION_DENIED) from error
        except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError) as error:
            raise self._failed(error, "it is tried again", Reason.UNAVAILABLE) from error
        except exceptions.GoogleAPIError as error:
            remedy = "check sync_layers.api_sync.bulk.destination"
            raise self._failed(error, remedy, Reason.INVALID) from error

    def _failed(self, error: Exception, remedy: str, reason: Reason) -> SyncError:
        what = f"BigQuery refused ({' '.join(str(error).split())[:300]})"
        return SyncError(what, where=f"dataset {self._project}.{self._dataset}", remedy=remedy, reason=reason)


def table_name(content_type: str, asset_type: str) -> str:
    """The table that Google writes a type to: what is no letter, digit or underscore becomes an underscore."""
    return f"{_prefix(content_type)}_" + "".join(letter if letter.isalnum() else "_" for letter in asset_type)


def _prefix(content_type: str) -> str:
    return f"lz_{content_type.lower()}"
