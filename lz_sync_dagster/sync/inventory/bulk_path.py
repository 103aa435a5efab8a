"""The bulk path as the configuration has it: what a sync of the inventory calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.bulk import (
    BUCKETS,
    Destination,
    Exporter,
    ExportPlan,
    Manifest,
    Running,
    plan_exports,
)
from lz_sync_dagster.sync.inventory.export_bucket import ExportBucket
from lz_sync_dagster.sync.inventory.export_files import BulkReader, FileDestination
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.quota import Calls
from lz_sync_dagster.sync.timing import Clock

_BIGQUERY = "bigquery://"


class BulkPath:
    """Exports of the configured scopes. A context manager.

    Attributes:
        feeds_store: whether exports are read back into the store; tables for analysts are not.

    Args:
        client: an ``AssetServiceClient``.
        calls: the quota budget.
        wait: waits so many seconds and says whether somebody asked to stop, like ``threading.Event.wait``.

    Raises:
        SyncError: no destination is configured, or there are no credentials for it.
    """

    def __init__(
        self, settings: Settings, client: Any, *, calls: Calls, clock: Clock, wait: Callable[[float], bool]
    ) -> None:
        config = settings.sync_layers.api_sync
        self._config = config.bulk
        self._clock = clock
        self._bucket: ExportBucket | None = None
        timeout = float(config.call_timeout_seconds)
        place = config.bulk.destination
        if place is None:
            raise SyncError(
                "names no destination",
                where="sync_layers.api_sync.bulk.destination",
                remedy="set gs://BUCKET/PREFIX or bigquery://PROJECT.DATASET",
                reason=Reason.INVALID,
            )
        if place.startswith(BUCKETS):
            bucket, _, prefix = place.removeprefix(BUCKETS).partition("/")
            self._bucket = ExportBucket(bucket, settings.google_cloud.storage_endpoint, timeout_seconds=timeout)
            self._destination: Destination = FileDestination(self._bucket, prefix)
        else:
            self._destination = _tables(place.removeprefix(_BIGQUERY), timeout)
        self.feeds_store = self._bucket is not None
        self._exporter = Exporter(
            client,
            self._destination,
            calls=calls,
            clock=clock,
            wait=wait,
            deadline=timedelta(minutes=config.bulk.deadline_minutes),
            timeout_seconds=timeout,
        )

    def newest(self, parts: Iterable[Part]) -> dict[tuple[str, str], Manifest]:
        """The newest export of each (scope, content type) of the parts, as far as there is one.

        Raises:
            SyncError: the destination cannot be read.
        """
        found: dict[tuple[str, str], Manifest] = {}
        for scope, content_type in dict.fromkeys((part[0], part[2]) for part in parts):
            latest = self._destination.latest(scope, content_type)
            if latest is not None:
                found[scope, content_type] = latest
        return found

    def due(
        self, parts: Sequence[Part], newest: Mapping[tuple[str, str], Manifest], *, asked_ns: int = 0
    ) -> list[ExportPlan]:
        """Which exports of the parts are due: see `plan_exports`. One that was read before ``asked_ns`` is due
        anyway."""
        published = {key: item.read_ns for key, item in newest.items() if item.read_ns >= asked_ns}
        return plan_exports(self._config, parts, published, now=self._clock())

    def running(self, plan: ExportPlan) -> Running | None:
        """The export of this scope and content that goes on. Raises `SyncError` like `newest`."""
        return self._destination.running(plan.scope, plan.content_type)

    def export(self, plan: ExportPlan) -> Manifest:
        """Make an export and publish it: see `Exporter.export`."""
        return self._exporter.export(plan)

    def reader(self, manifests: Iterable[Manifest]) -> BulkReader:
        """What reads the parts of these exports, for a `PartLoader`."""
        if self._bucket is None:
            raise ValueError("tables are not read back")
        return BulkReader(self._bucket, {(item.scope, item.content_type): item for item in manifests})

    def __enter__(self) -> BulkPath:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bucket is not None:
            self._bucket.close()


def _tables(dataset: str, timeout: float) -> Destination:
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import bigquery

    from lz_sync_dagster.sync.inventory.export_tables import TableDestination

    try:
        client = bigquery.Client(project=dataset.rpartition(".")[0])
    except GoogleAuthError as error:
        raise SyncError(
            "no Google Cloud credentials were found",
            where="BigQuery",
            remedy="run 'gcloud auth application-default login', or run where a service account is attached",
            reason=Reason.UNAUTHENTICATED,
        ) from error
    return TableDestination(client, dataset, timeout_seconds=timeout)
