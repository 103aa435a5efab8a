"""The bulk path for the largest organizations: ``ExportAssets`` to Cloud Storage or BigQuery, published by a manifest.

One export has one scope, one content type, one read time and all asset types that are wanted. Google writes it
while a long-running operation goes on; what is written before the operation has succeeded, and before every type was
looked through, is nobody's truth. So readers follow manifests alone, and a manifest is the last thing that is
written, as a whole or not at all. What a failed export has left behind is named, for a person or a lifecycle rule to
delete.

The export that goes on is written down before it is asked for, and its operation's name as soon as there is one: a
process that begins after a crash waits for the same operation instead of starting another one.

Where exports go is a `Destination`: `export_files` for Cloud Storage, `export_tables` for BigQuery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import orjson
import structlog
from google.api_core import exceptions as google

from lz_sync_dagster.config import BulkConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.errors import classify, classify_export
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.store.quota import Calls, Cancelled, Quota
from lz_sync_dagster.sync.timing import Clock, format_ns, from_ns, parse_ns, to_ns

log = structlog.get_logger(__name__)

#: Seconds between two looks at an operation: Google asks for at least 2, and more as time goes by.
_FIRST_LOOK, _LONGEST_LOOK = 2.0, 30.0
#: How destinations begin that are buckets.
BUCKETS = "gs://"
#: Manifests and marks of running exports say which form they have.
FORM = 1


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """An export that is wanted: everything of a scope with one content."""

    scope: str
    content_type: str
    asset_types: tuple[str, ...]

    @property
    def parts(self) -> list[Part]:
        """The parts of the inventory that it reads."""
        return [(self.scope, asset_type, self.content_type) for asset_type in self.asset_types]


@dataclass(frozen=True, slots=True)
class Running:
    """An export that was begun. ``operation``: ``None`` until Google has named it. ``mark``: what the destination
    knows it by."""

    plan: ExportPlan
    read_ns: int
    started_at: datetime
    operation: str | None = None
    mark: int = 0

    @property
    def stamp(self) -> str:
        """The read time as a part of names: they sort as the read times do."""
        return f"{from_ns(self.read_ns):%Y%m%dT%H%M%S}{self.read_ns % 1_000_000_000:09d}Z"

    def to_json(self) -> bytes:
        """What is written down of it."""
        return orjson.dumps(
            {
                "form": FORM,
                "scope": self.plan.scope,
                "content_type": self.plan.content_type,
                "asset_types": self.plan.asset_types,
                "read_time": format_ns(self.read_ns),
                "started_at": format_ns(to_ns(self.started_at)),
                "operation": self.operation,
            }
        )

    @classmethod
    def from_json(cls, text: bytes | str, *, where: str, mark: int = 0) -> Running:
        """Raises `SyncError` for what is no mark of a running export."""
        try:
            said = orjson.loads(text)
            plan = ExportPlan(said["scope"], said["content_type"], tuple(said["asset_types"]))
            started_at = from_ns(parse_ns(said["started_at"]))
            return cls(plan, parse_ns(said["read_time"]), started_at, said["operation"], mark)
        except (ValueError, KeyError, TypeError) as error:
            raise not_understood(where, error) from error


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of an asset type's output: an object of Cloud Storage, or a table of BigQuery.

    Attributes:
        name: of the object, or the table.
        rows: assets (relations, for that content) in it.
        size: bytes; ``None`` for a table.
        generation: of the object; ``None`` for a table.
        crc32c: of the object, base64; ``None`` for a table.
    """

    name: str
    rows: int
    size: int | None = None
    generation: int | None = None
    crc32c: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete export. ``types``: every asset type that was asked for; one without assets has no output."""

    scope: str
    content_type: str
    read_ns: int
    operation: str
    published_at: datetime
    types: Mapping[str, tuple[Output, ...]]

    def rows(self, asset_type: str) -> int:
        """How many assets (relations) of a type it holds."""
        return sum(output.rows for output in self.types[asset_type])

    def to_json(self) -> bytes:
        """The manifest as it is written."""
        return orjson.dumps(
            {
                "form": FORM,
                "scope": self.scope,
                "content_type": self.content_type,
                "read_time": format_ns(self.read_ns),
                "operation": self.operation,
                "published_at": format_ns(to_ns(self.published_at)),
                "types": {
                    asset_type: {"rows": self.rows(asset_type), "outputs": list(outputs)}
                    for asset_type, outputs in self.types.items()
                },
            },
            option=orjson.OPT_INDENT_2,
        )

    @classmethod
    def from_json(cls, text: bytes | str, *, where: str) -> Manifest:
        """Raises `SyncError` for what is no manifest."""
        try:
            said = orjson.loads(text)
            if said["form"] != FORM:
                raise ValueError(f"form {said['form']}")
            return cls(
                said["scope"],
                said["content_type"],
                parse_ns(said["read_time"]),
                said["operation"],
                from_ns(parse_ns(said["published_at"])),
                {name: tuple(Output(**item) for item in told["outputs"]) for name, told in said["types"].items()},
            )
        except (ValueError, KeyError, TypeError) as error:
            raise not_understood(where, error) from error


class Destination(Protocol):
    """Where exports are written, and what is written down about them."""

    def running(self, scope: str, content_type: str) -> Running | None:
        """The export that was begun and neither published nor given up."""

    def begin(self, running: Running) -> Running:
        """Write down that an export begins. Raises `SyncError` (`Reason.CONFLICT`) if another one goes on."""

    def named(self, running: Running) -> Running:
        """Write down the operation of an export."""

    def output_config(self, running: Running) -> Any:
        """Google's ``OutputConfig``: a place that no other export writes to."""

    def verify(self, running: Running, response: Any) -> Mapping[str, tuple[Output, ...]]:
        """Look through what a finished operation has written: every type's output, whole. Raises `SyncError`."""

    def publish(self, running: Running, manifest: Manifest) -> None:
        """Write the manifest, as a whole, and that the export has ended. Once more is no harm."""

    def give_up(self, running: Running, why: str) -> str:
        """Write down that an export comes to nothing. Returns the name of what it leaves behind."""

    def withdraw(self, running: Running) -> None:
        """Take back `begin`: Google did not begin, so nothing is left behind."""

    def latest(self, scope: str, content_type: str) -> Manifest | None:
        """The newest complete export."""


def exportable(config: BulkConfig, states: Sequence[PartState]) -> list[Part]:
    """The parts that exports are to prove: those of large scopes. One whose type the inventory did not know is left to
    listing until it does, since an export with it is refused as a whole.

    Args:
        states: one per part of the configuration.
    """
    if not config.enabled:
        return []
    sizes: dict[str, int] = {}
    for state in states:
        sizes[state.part[0]] = sizes.get(state.part[0], 0) + (state.assets or 0)
    return [
        state.part for state in states if sizes[state.part[0]] >= config.from_assets and state.quarantined_until is None
    ]


def feeds_store(config: BulkConfig) -> bool:
    """Whether exports are read back into the store; tables for analysts are not."""
    return config.enabled and config.destination is not None and config.destination.startswith(BUCKETS)


def plan_exports(
    config: BulkConfig, parts: Sequence[Part], published: Mapping[tuple[str, str], int], *, now: datetime
) -> list[ExportPlan]:
    """Which exports are due, by scope and content.

    Args:
        parts: what exports are to prove, see `exportable`.
        published: the read time (nanoseconds) of the newest manifest of a (scope, content type).
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for scope, asset_type, content_type in parts:
        groups.setdefault((scope, content_type), []).append(asset_type)
    not_after = to_ns(now - timedelta(minutes=config.every_minutes))
    return [
        ExportPlan(scope, content_type, tuple(asset_types))
        for (scope, content_type), asset_types in groups.items()
        if published.get((scope, content_type), -1) <= not_after
    ]


class Exporter:
    """Makes exports, one after the other.

    Args:
        client: an ``AssetServiceClient``.
        calls: the quota budget.
        wait: waits so many seconds and says whether somebody asked to stop, like ``threading.Event.wait``.
        deadline: how long an export may take before it is given up.
    """

    def __init__(
        self,
        client: Any,
        destination: Destination,
        *,
        calls: Calls,
        clock: Clock,
        wait: Callable[[float], bool],
        deadline: timedelta,
        timeout_seconds: float,
    ) -> None:
        self._client = client
        self._destination = destination
        self._calls = calls
        self._clock = clock
        self._wait = wait
        self._deadline = deadline
        self._timeout = timeout_seconds

    def export(self, plan: ExportPlan) -> Manifest:
        """Make an export, or go on with one that was begun for this scope and content, and publish it.

        An export that goes on may have been begun for other asset types: the manifest names those that it has.

        Raises:
            SyncError: classified, with the remedy; nothing was published. A transient one leaves the export running,
                so that the next call goes on with it, unless it says that it was given up.
            Cancelled: somebody asked to stop; the export goes on, and the next call with it.
        """
        running = self._destination.running(plan.scope, plan.content_type)
        if running is not None and running.operation is None:
            self._give_up(running, "the process that began it ended before Google had named the operation")
            running = None
        if running is None:
            running = self._begin(plan)
        operation = self._finished(running)
        if operation.HasField("error"):
            error = classify_export(operation.error, scope=plan.scope, content_type=plan.content_type)
            raise self._given_up(running, error)
        try:
            outputs = self._verified(running, operation)
        except SyncError as error:
            raise self._given_up(running, error) from error
        assert running.operation is not None
        manifest = Manifest(plan.scope, plan.content_type, running.read_ns, running.operation, self._clock(), outputs)
        self._destination.publish(running, manifest)
        return manifest

    def _begin(self, plan: ExportPlan) -> Running:
        from google.cloud.asset_v1 import ContentType as Contents
        from google.cloud.asset_v1 import ExportAssetsRequest

        self._calls.call(Quota.EXPORT_ASSETS)
        now = self._clock()
        running = self._destination.begin(Running(plan, to_ns(now), now))
        request = ExportAssetsRequest(
            parent=plan.scope, asset_types=plan.asset_types, content_type=getattr(Contents, plan.content_type)
        )
        request._pb.read_time.FromNanoseconds(running.read_ns)
        request._pb.output_config.CopyFrom(self._destination.output_config(running))
        try:
            started = self._client.export_assets(request=request, retry=None, timeout=self._timeout).operation
        except (google.GoogleAPICallError, google.RetryError) as error:
            what = f"{len(plan.asset_types)} asset types"
            classified = classify(
                error, scope=plan.scope, asset_type=what, content_type=plan.content_type, call=Quota.EXPORT_ASSETS
            )
            if classified.reason is Reason.QUOTA:
                self._calls.throttled(Quota.EXPORT_ASSETS, classified.retry_after)
            if classified.reason in (Reason.TIMEOUT, Reason.UNAVAILABLE, Reason.INTERNAL):
                raise self._given_up(running, classified) from error  # Google may have begun all the same
            self._destination.withdraw(running)
            raise classified from error
        return self._destination.named(replace(running, operation=started.name))

    def _finished(self, running: Running) -> Any:
        """The operation of an export when it is done."""
        plan, pause = running.plan, _FIRST_LOOK
        given_up_at = running.started_at + self._deadline
        while True:
            try:
                operation = self._client.get_operation(
                    request={"name": running.operation}, retry=None, timeout=self._timeout
                )
            except google.NotFound as error:
                lost = SyncError(
                    f"Google does not know the operation any more ({running.operation})",
                    where=_where(plan),
                    remedy="another export is begun",
                    reason=Reason.UNAVAILABLE,
                )
                raise self._given_up(running, lost) from error
            except (google.GoogleAPICallError, google.RetryError) as error:
                raise classify(
                    error,
                    scope=plan.scope,
                    asset_type="the operation of an export",
                    content_type=plan.content_type,
                    call=Quota.EXPORT_ASSETS,
                ) from error
            if operation.done:
                return operation
            if self._clock() >= given_up_at:
                late = SyncError(
                    f"the export did not end within {self._deadline}",
                    where=_where(plan),
                    remedy="another one is begun; raise sync_layers.api_sync.bulk.deadline_minutes if it stays so",
                    reason=Reason.TIMEOUT,
                )
                raise self._given_up(running, late)
            if self._wait(pause):
                raise Cancelled
            pause = min(pause * 2, _LONGEST_LOOK)

    def _verified(self, running: Running, operation: Any) -> Mapping[str, tuple[Output, ...]]:
        from google.cloud.asset_v1 import ExportAssetsResponse

        response = ExportAssetsResponse.pb()()
        if not operation.response.Unpack(response):
            raise damaged(_where(running.plan), "the operation is done and says neither what it made nor what failed")
        moment = response.read_time
        read_ns = moment.seconds * 1_000_000_000 + moment.nanos
        if read_ns != running.read_ns:
            what = f"it was read at {format_ns(read_ns)}, not at {format_ns(running.read_ns)} as asked for"
            raise damaged(_where(running.plan), what)
        outputs = self._destination.verify(running, response)
        return {asset_type: outputs.get(asset_type, ()) for asset_type in running.plan.asset_types}

    def _given_up(self, running: Running, error: SyncError) -> SyncError:
        """The error, saying what is left behind."""
        left = self._give_up(running, error.what)
        return SyncError(
            error.what,
            where=error.where,
            remedy=f"{error.remedy}; {left} was not published and can be deleted",
            reason=error.reason,
            transient=error.transient,
            retry_after=error.retry_after,
        )

    def _give_up(self, running: Running, why: str) -> str:
        left = self._destination.give_up(running, why)
        log.warning("export_given_up", scope=running.plan.scope, content_type=running.plan.content_type, left=left)
        return left


def damaged(where: str, what: str) -> SyncError:
    """An export that Google says has succeeded, and that is not as it should be. Another one may be."""
    return SyncError(what, where=where, remedy="another export is begun", reason=Reason.UNAVAILABLE)


def not_understood(where: str, error: Exception) -> SyncError:
    """What stands where a manifest, or the mark of a running export, should stand."""
    return SyncError(
        f"cannot be understood ({type(error).__name__}: {error})",
        where=where,
        remedy="delete it: another export is made",
        reason=Reason.INVALID,
    )


def _where(plan: ExportPlan) -> str:
    return f"export of {plan.content_type} in {plan.scope}"
