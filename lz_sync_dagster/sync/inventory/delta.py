"""The delta read: what changed in a scope since an instant, for a few calls.

A search (``SearchAllResources``) tells which resources have changed; those that the store does not know yet are asked
for their history (``BatchGetAssetsHistory``), a hundred at a time: every version between, deletions too. What comes
out are observations like any other. They are evidence of what is there, and never proof of what is not: a search lags
behind, and a resource that it lacks may exist. So nothing is deleted here for being absent, and no part becomes
complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.api_core import exceptions as google
from google.protobuf.message import DecodeError

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.decoder import Unusable
from lz_sync_dagster.sync.inventory.errors import classify
from lz_sync_dagster.sync.inventory.structs import StructDecoder
from lz_sync_dagster.sync.state.observation import ContentType, InvalidAsset, Observation, Source, observation_of
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.part_reads import KnownVersion
from lz_sync_dagster.sync.store.quota import Calls, Quota
from lz_sync_dagster.sync.timing import Clock, to_ns

#: Google's limits.
SEARCH_PAGE, HISTORY_BATCH = 500, 100

_SECOND = 1_000_000_000
#: How often a search is begun anew because its page token expired.
_MAX_RESTARTS = 2
#: Calls that finding out which names a history does not know may cost in one read.
_MAX_ISOLATING = 40
#: Errors that other calls of the same read would meet too.
_FOR_ALL = frozenset(
    {Reason.QUOTA, Reason.UNAUTHENTICATED, Reason.UNAVAILABLE, Reason.TIMEOUT, Reason.API_DISABLED, Reason.INTERNAL}
)
#: What converting an asset that is not of the expected form raises.
_ODD = (ValueError, TypeError, OverflowError, RecursionError, DecodeError)

#: Tells the newest versions that the store knows of the named resources, deleted ones too; the others are left out.
KnownVersions = Callable[[Sequence[str]], Mapping[str, KnownVersion]]


@dataclass(frozen=True, slots=True)
class Found:
    """A resource that a search tells of. ``parent``: what its history is asked of."""

    name: str
    asset_type: str
    update_ns: int
    parent: str


@dataclass
class DeltaResult:
    """What a delta read found.

    Attributes:
        until_ns: up to when it looked: the instant at which it began.
        observations: versions that are news, in their order; of one resource also several.
        unusable: versions that cannot be used, with their parts.
        found: resources that the search told of; ``changed``: those that the store did not know so.
        without_history: names that the search tells of and histories do not know: a full read settles them.
        errors: asset types whose changes are not all known, and why. The others were looked at.
        calls: how many were made, by quota.
    """

    scope: str
    asset_types: tuple[str, ...]
    until_ns: int
    observations: list[Observation] = field(default_factory=list)
    unusable: list[tuple[Part, Unusable]] = field(default_factory=list)
    found: int = 0
    changed: int = 0
    without_history: list[str] = field(default_factory=list)
    errors: dict[str, SyncError] = field(default_factory=dict)
    calls: dict[Quota, int] = field(default_factory=dict)

    @property
    def looked_at(self) -> list[Part]:
        """The parts whose changes up to ``until_ns`` are known, as far as the search knew them."""
        return [
            (self.scope, asset_type, ContentType.RESOURCE.value)
            for asset_type in self.asset_types
            if asset_type not in self.errors
        ]


def read_delta(
    client: Any,
    scope: str,
    asset_types: Sequence[str],
    since_ns: int,
    known: KnownVersions,
    *,
    calls: Calls,
    clock: Clock,
    timeout_seconds: float,
    search_page: int = SEARCH_PAGE,
    history_batch: int = HISTORY_BATCH,
) -> DeltaResult:
    """Look for what changed in a scope since ``since_ns``.

    Args:
        client: an ``AssetServiceClient``.
        since_ns: nanoseconds since the epoch, with the overlap that makes up for the search's delay; what the store
            knows already costs nothing more.

    Raises:
        SyncError: the search failed, so nothing is known; classified, with the remedy. What fails afterwards is in
            ``errors``.
    """
    read = _Read(client, scope, since_ns, known, calls, timeout_seconds, search_page, history_batch)
    read.result = DeltaResult(scope, tuple(asset_types), to_ns(clock()))
    found = {item.name: item for item in read.search(tuple(asset_types))}
    read.result.found = len(found)
    read.histories(list(found.values()))
    read.result.observations.sort(key=lambda observation: observation.order)
    return read.result


def is_news(update_ns: int, known: KnownVersion | None) -> bool:
    """Whether a search that says that a resource changed at ``update_ns`` tells of a version that is not known.

    Searches may tell the second alone. Then a version of that second is the known one only if it was seen after the
    second had ended.
    """
    if known is None:
        return True
    if update_ns % _SECOND:
        return update_ns > known.update_ns
    end_of_second = update_ns + _SECOND
    if known.update_ns >= end_of_second:
        return False
    return known.update_ns < update_ns or known.seen_ns < end_of_second


def _no_history(found: Found) -> SyncError:
    return SyncError(
        "has changed, and its history does not know it",
        where=found.name,
        remedy="wait for the next full read of its type, or run 'lz-sync sync inventory --full'",
        reason=Reason.NOT_FOUND,
        transient=False,
    )


@dataclass
class _Read:
    client: Any
    scope: str
    since_ns: int
    known: KnownVersions
    budget: Calls
    timeout: float
    search_page: int
    history_batch: int
    result: DeltaResult = field(init=False)
    versions: dict[str, KnownVersion] = field(default_factory=dict)
    structs: StructDecoder = field(default_factory=StructDecoder)
    isolating: int = 0

    # --- what changed ----------------------------------------------------------------------------------------------

    def search(self, asset_types: tuple[str, ...]) -> Iterator[Found]:
        """All resources that changed. A type that searches do not know is found by halving, and is an error of its
        own."""
        for restart in range(_MAX_RESTARTS + 1):
            try:
                yield from self._search_once(asset_types)
                return
            except SyncError as error:
                if error.reason is Reason.TOKEN_EXPIRED and restart < _MAX_RESTARTS:
                    continue
                if error.reason is not Reason.UNKNOWN_TYPE:
                    raise
                unknown = error
                break
        if len(asset_types) == 1:
            self.result.errors[asset_types[0]] = unknown
            return
        middle = len(asset_types) // 2
        yield from self.search(asset_types[:middle])
        yield from self.search(asset_types[middle:])

    def _search_once(self, asset_types: tuple[str, ...]) -> Iterator[Found]:
        from google.cloud.asset_v1 import SearchAllResourcesRequest
        from google.protobuf.field_mask_pb2 import FieldMask

        fields = ["name", "asset_type", "update_time"]
        if self.scope.startswith("folders/"):
            fields += ["project", "organization"]
        asked, token = set(asset_types), ""
        while True:
            request = SearchAllResourcesRequest(
                scope=self.scope,
                asset_types=asset_types,
                query=f"updateTime>={self.since_ns // _SECOND}",
                read_mask=FieldMask(paths=fields),
                page_size=self.search_page,
                page_token=token,
            )
            response = self._call(Quota.SEARCH_ALL_RESOURCES, self._first_page, request, asset_types)
            for item in response.results:
                if item.asset_type in asked:  # they are regular expressions there
                    yield Found(item.name, item.asset_type, _nanoseconds(item.update_time), self._parent(item))
            token = response.next_page_token
            if not token:
                return

    def _first_page(self, request: Any, **options: Any) -> Any:
        return next(iter(self.client.search_all_resources(request=request, **options).pages))

    def _parent(self, item: Any) -> str:
        """What a history is asked of: an organization or a project; folders have none."""
        if not self.scope.startswith("folders/"):
            return self.scope
        return str(item.project or item.organization)

    # --- how it changed --------------------------------------------------------------------------------------------

    def histories(self, found: Sequence[Found]) -> None:
        """Read the versions of what is news."""
        self.versions = dict(self.known([item.name for item in found]))
        news = [item for item in found if is_news(item.update_ns, self.versions.get(item.name))]
        self.result.changed = len(news)
        by_parent: dict[str, list[Found]] = {}
        for item in news:
            by_parent.setdefault(item.parent, []).append(item)
        batches = [
            items[start : start + self.history_batch]
            for items in by_parent.values()
            for start in range(0, len(items), self.history_batch)
        ]
        while batches:
            batch = batches.pop(0)
            try:
                self._take_in(self._history(batch))
            except SyncError as error:
                if error.reason in (Reason.INVALID, Reason.NOT_FOUND, Reason.UNKNOWN_TYPE):
                    batches[:0] = self._isolate(batch, error)
                    continue
                unread = [batch, *batches] if error.reason in _FOR_ALL else [batch]
                for items in unread:
                    self._failed(items, error)
                if error.reason in _FOR_ALL:
                    return

    def _isolate(self, batch: list[Found], error: SyncError) -> list[list[Found]]:
        """One name that a history does not know refuses the call for all: ask for the halves."""
        if len(batch) == 1:
            self.result.without_history.append(batch[0].name)
            self._failed(batch, _no_history(batch[0]))
            return []
        if self.isolating >= _MAX_ISOLATING:
            self._failed(batch, error)
            return []
        self.isolating += 2
        middle = len(batch) // 2
        return [batch[:middle], batch[middle:]]

    def _failed(self, items: Sequence[Found], error: SyncError) -> None:
        for item in items:
            self.result.errors.setdefault(item.asset_type, error)

    def _history(self, batch: Sequence[Found]) -> Any:
        from google.cloud.asset_v1 import BatchGetAssetsHistoryRequest

        request = BatchGetAssetsHistoryRequest(
            parent=batch[0].parent,
            asset_names=[item.name for item in batch],
            content_type=ContentType.RESOURCE.value,
        )
        request._pb.read_time_window.start_time.FromNanoseconds(self.since_ns)
        asset_types = sorted({item.asset_type for item in batch})
        return self._call(Quota.BATCH_GET_ASSETS_HISTORY, self.client.batch_get_assets_history, request, asset_types)

    def _take_in(self, response: Any) -> None:
        for item in response.assets:
            asset = item.asset
            known = self.versions.get(asset.name)
            if known is not None and not item.deleted and _nanoseconds(asset.update_time) <= known.update_ns:
                continue
            try:
                self.result.observations.append(self._observation(item))
            except InvalidAsset as error:
                self._set_aside(asset, error)
            except _ODD as error:
                what = f"cannot be read ({type(error).__name__}: {error})"
                self._set_aside(asset, InvalidAsset(what, f"asset {asset.name[:80]!r}"))

    def _observation(self, item: Any) -> Observation:
        """A version of a history, as a full read would tell it."""
        asset, observed_ns = item.asset, _nanoseconds(item.window.start_time)
        update_ns = _nanoseconds(asset.update_time) if asset.HasField("update_time") else observed_ns
        data: dict[str, Any] | None = None
        redacted: tuple[str, ...] = ()
        if item.deleted:
            update_ns = max(update_ns, observed_ns)
        else:
            data, redacted = self.structs.decode(asset.resource.data.SerializeToString())
        return observation_of(
            asset.name,
            asset.asset_type,
            ContentType.RESOURCE,
            data,
            redacted,
            scope=self.scope,
            update_ns=update_ns,
            observed_ns=observed_ns,
            source=Source.SNAPSHOT,
            ancestors=tuple(asset.ancestors),
            location=asset.resource.location,
        )

    def _set_aside(self, asset: Any, error: InvalidAsset) -> None:
        part = (self.scope, asset.asset_type, ContentType.RESOURCE.value)
        body = {"name": asset.name, "assetType": asset.asset_type}
        self.result.unusable.append((part, Unusable(asset.name, error, body)))

    def _call(self, quota: Quota, method: Callable[..., Any], request: Any, asset_types: Sequence[str]) -> Any:
        """Make a call within its quota. Raises a classified `SyncError`."""
        self.budget.call(quota)
        self.result.calls[quota] = self.result.calls.get(quota, 0) + 1
        try:
            return method(request=request, retry=None, timeout=self.timeout)._pb
        except (google.GoogleAPICallError, google.RetryError) as error:
            what = asset_types[0] if len(asset_types) == 1 else f"{len(asset_types)} asset types"
            classified = classify(error, scope=self.scope, asset_type=what, call=quota)
            if classified.reason is Reason.QUOTA:
                self.budget.throttled(quota, classified.retry_after)
            raise classified from error


def _nanoseconds(moment: Any) -> int:
    return int(moment.seconds * _SECOND + moment.nanos)
