"""The landing zone's resources: the truth core's state, in tables.

`sync/state/reducer.py` defines what the state is; this module keeps it, batch by batch, at a cost that follows the
change. An asset that a complete snapshot shows unchanged is not written at all: a row that is present and not marked
absent was in the newest complete read of its part, so that read's time is its effective sighting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator, Outcome
from lz_sync_dagster.sync.models import EventType
from lz_sync_dagster.sync.state.observation import Observation, Source
from lz_sync_dagster.sync.state.reducer import Breaker, Change, Known, Part, change_of, is_gone, newest_reads
from lz_sync_dagster.sync.store import alerts, event_log, findings
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.findings import FindingChange, Judged
from lz_sync_dagster.sync.store.schema import breakers, resource_versions, resources, snapshots
from lz_sync_dagster.sync.timing import format_ns, from_ns

#: The lock that every writer of this module's tables holds: `Store.write(exclusive=LOCK)`.
LOCK = "resources"

_PROJECT_NAME = "//cloudresourcemanager.googleapis.com/projects/"
_LOCATION_FIELDS = ("location", "zone", "region", "locationId")
_CHUNK = 500
#: How many complete and incomplete reads the ledger keeps per part.
_LEDGER_ROWS = 20

_BREAKER_ALERT = "MassDeletion"

_EVENT_TYPES = {
    Change.CREATED: EventType.RESOURCE_CREATED,
    Change.RECREATED: EventType.RESOURCE_CREATED,
    Change.UPDATED: EventType.RESOURCE_UPDATED,
    Change.DELETED: EventType.RESOURCE_DELETED,
}


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch of observations changed. ``unchanged`` counts the observations that were no news."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    events: int = 0
    last_seq: int = 0

    @property
    def changed(self) -> int:
        """How many assets changed."""
        return self.created + self.updated + self.deleted

    def __add__(self, other: Applied) -> Applied:
        return Applied(
            self.created + other.created,
            self.updated + other.updated,
            self.deleted + other.deleted,
            self.unchanged + other.unchanged,
            self.events + other.events,
            max(self.last_seq, other.last_seq),
        )


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a complete read of one part changed. ``withheld``: the breaker is open and nothing was deleted."""

    deleted: int
    missing: int
    withheld: bool
    lost: int
    known: int


@dataclass(frozen=True, slots=True)
class _Step:
    """One observation with what it does to the row it meets."""

    observation: Observation
    row: sa.Row[Any] | None
    change: Change
    gone: bool
    absent_ns: int | None
    seen_ns: int
    #: An old version was seen again: the asset is there, with the newest content that is known.
    sighting: bool = False

    @property
    def moves_content(self) -> bool:
        """Whether the row gets another content, or comes or goes."""
        return self.change is not Change.NONE or self.row is None or self.row.digest != self.observation.digest


def apply(
    connection: sa.Connection,
    observations: Sequence[Observation],
    *,
    layer: LayerId,
    now: datetime,
    evaluate: Evaluator,
    announce: bool = True,
) -> Applied:
    """Take observations into the state, with their findings and events, inside the caller's transaction.

    Args:
        connection: a transaction of ``store.write(exclusive=LOCK)``.
        observations: any number, in any order; of one asset also several.
        layer: who brings them; it labels the events.
        now: when they are recorded.
        evaluate: judges changed content.
        announce: whether changes become events. ``False`` for the first complete read of a part: a baseline is no news.
    """
    total = Applied()
    for batch in _rounds(observations):
        total += _apply_round(connection, batch, layer=layer, now=now, evaluate=evaluate, announce=announce)
    return total


def _rounds(observations: Sequence[Observation]) -> Iterable[list[Observation]]:
    """Split so that each round holds one observation of an asset at most, in their order."""
    rounds: list[list[Observation]] = []
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for observation in observations:
        key = (observation.name, observation.content_type.value)
        index = seen[key]
        seen[key] += 1
        if index == len(rounds):
            rounds.append([])
        rounds[index].append(observation)
    for whole in rounds:
        for start in range(0, len(whole), _CHUNK):
            yield whole[start : start + _CHUNK]


def _apply_round(
    connection: sa.Connection,
    batch: list[Observation],
    *,
    layer: LayerId,
    now: datetime,
    evaluate: Evaluator,
    announce: bool,
) -> Applied:
    rows = _current(connection, batch)
    ledgers = _ledgers(connection, {_part(item) for item in batch} | {_part_of_row(row) for row in rows.values()})
    steps: list[_Step] = []
    unchanged = 0
    for observation in batch:
        row = rows.get((observation.name, observation.content_type.value))
        step = _step(observation, row, ledgers)
        if step is None:
            unchanged += 1
        else:
            steps.append(step)
    if not steps:
        return Applied(unchanged=unchanged, last_seq=event_log.last_seq(connection))

    old_data = _data(
        connection, [step for step in steps if step.sighting or step.change in (Change.UPDATED, Change.RECREATED)]
    )
    steps = [
        replace(step, observation=replace(step.observation, data=old_data[_key(step)])) if step.sighting else step
        for step in steps
    ]
    _keep_old_versions(connection, [step for step in steps if step.row is not None and step.moves_content])
    projects = _project_ids(connection, steps)
    judged: list[Judged] = []
    inserts: list[dict[str, Any]] = []
    updates: list[dict[str, Any]] = []
    touches: list[dict[str, Any]] = []
    events: list[NewEvent] = []
    counts: dict[Change, int] = defaultdict(int)
    for step in steps:
        observation, row = step.observation, step.row
        counts[step.change] += 1
        if row is not None and not step.moves_content:
            touches.append(_touch(step, projects))
            continue
        values = _values(step, projects, now)
        if not values["deleted"]:
            verdicts = tuple(
                evaluate(
                    observation.asset_type, observation.content_type.value, observation.name, observation.data or {}
                )
            )
            values |= tally([verdict.outcome for verdict in verdicts])
            judged.append(_judged(observation, values, verdicts))
        elif row is not None:
            judged.append(_judged(observation, values, None))
        if row is None:
            inserts.append(values)
        else:
            updates.append({f"b_{key}": value for key, value in values.items()})
        if announce and step.change is not Change.NONE:
            events.append(_event(step, values, layer, old_data.get(_key(step))))
    if inserts:
        connection.execute(resources.insert(), inserts)
    if updates:
        _update(connection, updates)
    for same in _by_columns(touches):
        _update(connection, same)
    for change in findings.record(connection, judged, now=now):
        if announce:
            events.append(finding_event(change, layer, now))
    last_seq = event_log.append(connection, events, recorded_at=now)
    return Applied(
        created=counts[Change.CREATED] + counts[Change.RECREATED],
        updated=counts[Change.UPDATED],
        deleted=counts[Change.DELETED],
        unchanged=unchanged + counts[Change.NONE],
        events=len(events),
        last_seq=last_seq,
    )


def _step(observation: Observation, row: sa.Row[Any] | None, ledgers: Mapping[Part, tuple[int, ...]]) -> _Step | None:
    """What an observation does to a row; ``None`` if nothing has to be written."""
    if row is None:
        reads = ledgers[_part(observation)]
        seen_ns = -1 if observation.deleted else observation.observed_ns
        absent_ns, gone = _absence(observation.update_ns, seen_ns, reads)
        if observation.deleted:
            absent_ns, gone = None, False
        change = change_of(None, observation) or Change.NONE
        return _Step(observation, None, Change.NONE if gone else change, gone, absent_ns, seen_ns)

    reads = ledgers[_part_of_row(row)]
    removed_by_absence = row.deleted and row.absent_ns is not None
    seen_ns, observed_ns = _effective(row, reads)
    order = (row.update_ns, observed_ns, row.deleted and not removed_by_absence, row.digest)
    news = change_of(Known(order, row.resource_id, not row.deleted), observation)
    if news is None:
        if observation.deleted or observation.observed_ns <= seen_ns or order[2]:
            return None
        absent_ns, gone = _absence(row.update_ns, observation.observed_ns, reads)
        revived = Change.CREATED if row.deleted and not gone else Change.NONE
        known = replace(observation, update_ns=row.update_ns, observed_ns=observed_ns, digest=row.digest)
        return _Step(known, row, revived, gone, absent_ns, observation.observed_ns, sighting=True)
    if news is Change.NONE and observation.source is Source.SNAPSHOT and _is_confirmed_by(observation, row):
        return None
    if observation.deleted:
        return _Step(observation, row, news, False, None, seen_ns)
    seen_ns = max(seen_ns, observation.observed_ns)
    absent_ns, gone = _absence(observation.update_ns, seen_ns, ledgers[_part(observation)])
    if gone:
        news = Change.NONE if row.deleted else Change.DELETED
    return _Step(observation, row, news, gone, absent_ns, seen_ns)


def _effective(row: sa.Row[Any], reads: tuple[int, ...]) -> tuple[int, int]:
    """When a row was last seen, and when its content was: a row that is there, not marked absent and not written
    since, was in the newest complete read with the content that it has.
    """
    if row.deleted or row.absent_ns is not None or not reads or row.seen_ns >= reads[0]:
        return row.seen_ns, row.observed_ns
    return reads[0], max(row.observed_ns, reads[0])


def _is_confirmed_by(observation: Observation, row: sa.Row[Any]) -> bool:
    """Whether a snapshot shows a row just as it is: then nothing is written, and the complete read vouches for it."""
    return (
        not row.deleted
        and row.absent_ns is None
        and observation.update_ns == row.update_ns
        and _part(observation) == _part_of_row(row)
        and list(observation.ancestors) == row.ancestors
    )


def _absence(update_ns: int, seen_ns: int, reads: tuple[int, ...]) -> tuple[int | None, bool]:
    """The earliest complete read that lacks an asset, and whether it is gone."""
    later = [read for read in reads if read > max(update_ns, seen_ns)]
    gone = is_gone(update_ns=update_ns, seen_ns=seen_ns, reads=reads)
    return (min(later) if later else None), gone


def _part(observation: Observation) -> Part:
    return (observation.scope, observation.asset_type, observation.content_type.value)


def _part_of_row(row: sa.Row[Any]) -> Part:
    return (row.scope, row.asset_type, row.content_type)


def _key(step: _Step) -> tuple[str, str]:
    return (step.observation.name, step.observation.content_type.value)


_CURRENT = [column for column in resources.c if column.name not in ("data", "redacted")]


def _current(connection: sa.Connection, batch: list[Observation]) -> dict[tuple[str, str], sa.Row[Any]]:
    rows: dict[tuple[str, str], sa.Row[Any]] = {}
    for content_type, names in _names_by_content((item.name, item.content_type.value) for item in batch).items():
        query = sa.select(*_CURRENT).where(resources.c.content_type == content_type, resources.c.name.in_(names))
        for row in connection.execute(query):
            rows[row.name, row.content_type] = row
    return rows


def _names_by_content(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, content_type in keys:
        names[content_type].append(name)
    return names


def _data(connection: sa.Connection, steps: list[_Step]) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for content_type, names in _names_by_content(_key(step) for step in steps).items():
        query = sa.select(resources.c.name, resources.c.data).where(
            resources.c.content_type == content_type, resources.c.name.in_(names)
        )
        for name, data in connection.execute(query):
            found[name, content_type] = data
    return found


def _keep_old_versions(connection: sa.Connection, steps: list[_Step]) -> None:
    """Copy the rows that are about to be superseded."""
    columns = [column.name for column in resource_versions.c]
    for content_type, names in _names_by_content(_key(step) for step in steps).items():
        old = sa.select(*[resources.c[name] for name in columns]).where(
            resources.c.content_type == content_type, resources.c.name.in_(names)
        )
        connection.execute(resource_versions.insert().from_select(columns, old))


def _ledgers(connection: sa.Connection, parts: Iterable[Part]) -> dict[Part, tuple[int, ...]]:
    return {part: ledger(connection, part) for part in parts}


def ledger(connection: sa.Connection, part: Part) -> tuple[int, ...]:
    """Read times of the two newest complete reads of a part, newest first."""
    scope, asset_type, content_type = part
    query = (
        sa.select(snapshots.c.read_ns)
        .where(
            snapshots.c.scope == scope,
            snapshots.c.content_type == content_type,
            snapshots.c.asset_type == asset_type,
            snapshots.c.complete.is_(True),
        )
        .distinct()
        .order_by(snapshots.c.read_ns.desc())
        .limit(2)
    )
    return tuple(connection.execute(query).scalars())


def _project_ids(connection: sa.Connection, steps: list[_Step]) -> dict[str, str]:
    """Project ids by number, for the assets whose name does not carry the id."""
    numbers = {
        number
        for step in steps
        if _project_in_name(step.observation) is None
        for number in [_project_number(step.observation)]
        if number is not None
    }
    found: dict[str, str] = {}
    for step in steps:
        if step.observation.name.startswith(_PROJECT_NAME):
            identifier = (step.observation.data or {}).get("projectId")
            if identifier:
                found[step.observation.name.removeprefix(_PROJECT_NAME)] = str(identifier)
    missing = sorted(numbers - found.keys())
    if missing:
        query = sa.select(resources.c.name, resources.c.project).where(
            resources.c.content_type == "RESOURCE", resources.c.name.in_([_PROJECT_NAME + number for number in missing])
        )
        for name, project in connection.execute(query):
            if project:
                found[name.removeprefix(_PROJECT_NAME)] = project
    return found


def _project_in_name(observation: Observation) -> str | None:
    parts = observation.name.split("/")
    if "projects" in parts[3:-1]:
        identifier = parts[parts.index("projects", 3) + 1]
        return None if identifier.isdigit() else identifier
    return None


def _project_number(observation: Observation) -> str | None:
    if observation.name.startswith(_PROJECT_NAME):
        return observation.name.removeprefix(_PROJECT_NAME)
    for ancestor in observation.ancestors:
        if ancestor.startswith("projects/"):
            return ancestor.removeprefix("projects/")
    return None


def _project(observation: Observation, ids: Mapping[str, str]) -> str | None:
    in_name = _project_in_name(observation)
    if in_name is not None:
        return in_name
    number = _project_number(observation)
    return None if number is None else ids.get(number, number)


def _values(step: _Step, projects: Mapping[str, str], now: datetime) -> dict[str, Any]:
    observation, row = step.observation, step.row
    data = observation.data or {}
    deleted = observation.deleted or step.gone
    resource_id = observation.resource_id
    if resource_id is None and row is not None:
        resource_id = row.resource_id
    return {
        "name": observation.name,
        "content_type": observation.content_type.value,
        "asset_type": observation.asset_type,
        "scope": observation.scope if row is None or observation.scope != "unscoped" else row.scope,
        "project": _project(observation, projects) or (row.project if row is not None else None),
        "location": _location(observation) or (row.location if row is not None else None),
        "display_name": _display_name(observation.name, data) if data or row is None else row.display_name,
        "deleted": deleted,
        "resource_id": resource_id,
        "update_ns": observation.update_ns,
        "observed_ns": observation.observed_ns,
        "seen_ns": step.seen_ns,
        "absent_ns": step.absent_ns,
        "digest": observation.digest,
        "source": observation.source.value,
        "version": 1 if row is None else row.version + 1,
        "ancestors": list(observation.ancestors),
        "data": None if observation.data is None else dict(observation.data),
        "redacted": list(observation.redacted),
        "controls_decided": 0,
        "controls_failed": 0,
        "controls_unknown": 0,
        "changed_at": now,
    }


def _touch(step: _Step, projects: Mapping[str, str]) -> dict[str, Any]:
    """The columns that move on while the content stays. An old version that was seen again tells no new place."""
    observation, row = step.observation, step.row
    place: dict[str, Any] = {}
    if not step.sighting and observation.ancestors:
        place = {
            "b_asset_type": observation.asset_type,
            "b_scope": observation.scope,
            "b_project": _project(observation, projects) or (row.project if row is not None else None),
            "b_ancestors": list(observation.ancestors),
        }
    return place | {
        "b_name": observation.name,
        "b_content_type": observation.content_type.value,
        "b_deleted": observation.deleted or step.gone,
        "b_update_ns": observation.update_ns,
        "b_observed_ns": observation.observed_ns,
        "b_seen_ns": step.seen_ns,
        "b_absent_ns": step.absent_ns,
        "b_digest": observation.digest,
    }


def _by_columns(rows: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    groups: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[frozenset(row)].append(row)
    return groups.values()


def _update(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    columns = [key.removeprefix("b_") for key in rows[0] if key not in ("b_name", "b_content_type")]
    connection.execute(
        resources.update()
        .where(resources.c.name == sa.bindparam("b_name"), resources.c.content_type == sa.bindparam("b_content_type"))
        .values({column: sa.bindparam(f"b_{column}") for column in columns}),
        rows,
    )


def _location(observation: Observation) -> str | None:
    if observation.location:
        return observation.location
    for field in _LOCATION_FIELDS:
        value = (observation.data or {}).get(field)
        if isinstance(value, str) and value:
            return value.rsplit("/", 1)[-1]
    return None


def _display_name(name: str, data: Mapping[str, Any]) -> str:
    for field in ("displayName", "name"):
        value = data.get(field)
        if isinstance(value, str) and value:
            return value.rsplit("/", 1)[-1]
    return name.rsplit("/", 1)[-1]


def tally(outcomes: list[Outcome]) -> dict[str, int]:
    """The columns of ``resources`` that count verdicts."""
    unknown = outcomes.count(Outcome.UNKNOWN)
    return {
        "controls_decided": len(outcomes) - unknown,
        "controls_failed": outcomes.count(Outcome.FAIL),
        "controls_unknown": unknown,
    }


def _judged(observation: Observation, values: Mapping[str, Any], verdicts: tuple[Any, ...] | None) -> Judged:
    return Judged(
        resource=observation.name,
        content_type=observation.content_type.value,
        asset_type=observation.asset_type,
        project=values["project"],
        verdicts=verdicts,
    )


def _resource(values: Mapping[Any, Any]) -> dict[str, Any]:
    fields = ("name", "content_type", "asset_type", "scope", "project", "location", "display_name")
    return {field: values[field] for field in fields}


def _event(step: _Step, values: Mapping[str, Any], layer: LayerId, old: Any) -> NewEvent:
    observation = step.observation
    data: dict[str, Any] = {
        "change": step.change.value,
        "version": values["version"],
        "source": observation.source.value,
        "observed_at": format_ns(observation.observed_ns),
    }
    if step.change is Change.UPDATED and isinstance(old, Mapping) and observation.data is not None:
        data["changed_fields"] = sorted(
            key for key in {*old, *observation.data} if old.get(key) != observation.data.get(key)
        )
    if step.change is Change.RECREATED and step.row is not None:
        data["previous_id"] = step.row.resource_id
    return NewEvent(
        event_type=_EVENT_TYPES[step.change],
        layer=layer,
        timestamp=from_ns(observation.update_ns),
        resource=_resource(values),
        data=data,
        synthetic=observation.source is Source.SNAPSHOT,
    )


def finding_event(change: FindingChange, layer: LayerId, now: datetime) -> NewEvent:
    """What the feed tells of a finding that was opened or resolved."""
    violation = change.violation
    data: dict[str, Any] = {
        "control": violation.control,
        "framework": violation.framework,
        "title": violation.title,
        "severity": violation.severity,
        "message": violation.message,
    }
    if change.resolution is not None:
        data["resolution"] = change.resolution
    return NewEvent(
        event_type=EventType.POLICY_VIOLATED if change.opened else EventType.POLICY_RESOLVED,
        layer=layer,
        timestamp=now,
        resource={"name": violation.resource, "asset_type": violation.asset_type, "project": violation.project},
        data=data,
    )


def complete_read(
    connection: sa.Connection,
    part: Part,
    *,
    read_ns: int,
    names: set[str],
    layer: LayerId,
    now: datetime,
    breaker: Breaker,
) -> ReadResult:
    """Say that a part was read completely: what it lacks is marked absent, and gone after the second time in a row.

    Args:
        connection: a transaction of ``store.write(exclusive=LOCK)``, after all of the read's observations were applied.
        part: scope, asset type, content type.
        read_ns: the snapshot's read time.
        names: the full resource name of every asset in it.
        breaker: if it opens, the read does not count for absence, nothing is deleted, and an alert asks a person.
    """
    scope, asset_type, content_type = part
    here = sa.and_(
        resources.c.scope == scope,
        resources.c.content_type == content_type,
        resources.c.asset_type == asset_type,
        resources.c.deleted.is_(False),
    )
    reads = ledger(connection, part)
    query = sa.select(*_CURRENT).where(here).execution_options(yield_per=5000)
    known = 0
    marks: list[dict[str, Any]] = []
    lost: list[sa.Row[Any]] = []
    later = newest_reads(reads, read_ns)
    for row in connection.execute(query):
        known += 1
        if row.name in names:
            continue
        seen_ns, observed_ns = _effective(row, reads)
        absent_ns, gone = _absence(row.update_ns, seen_ns, later)
        if gone:
            lost.append(row)
        elif absent_ns is not None:
            marks.append(_mark(row, absent_ns, seen_ns, observed_ns))
    withheld = breaker.opens(known=known, lost=len(lost))
    connection.execute(
        snapshots.insert().values(
            scope=scope,
            asset_type=asset_type,
            content_type=content_type,
            read_ns=read_ns,
            complete=not withheld,
            assets=len(names),
            finished_at=now,
        )
    )
    _prune_ledger(connection, part)
    if withheld:
        _open_breaker(connection, part, known=known, lost=len(lost), now=now)
        return ReadResult(deleted=0, missing=len(marks), withheld=True, lost=len(lost), known=known)
    _close_breaker(connection, part, now=now)
    if marks:
        _update(connection, marks)
    _delete_absent(connection, lost, read_ns=read_ns, layer=layer, now=now)
    return ReadResult(deleted=len(lost), missing=len(marks), withheld=False, lost=len(lost), known=known)


def _mark(row: sa.Row[Any], absent_ns: int, seen_ns: int, observed_ns: int) -> dict[str, Any]:
    return {
        "b_name": row.name,
        "b_content_type": row.content_type,
        "b_absent_ns": absent_ns,
        "b_seen_ns": seen_ns,
        "b_observed_ns": observed_ns,
    }


def _prune_ledger(connection: sa.Connection, part: Part) -> None:
    scope, asset_type, content_type = part
    here = sa.and_(
        snapshots.c.scope == scope, snapshots.c.content_type == content_type, snapshots.c.asset_type == asset_type
    )
    newest = sa.select(snapshots.c.id).where(here).order_by(snapshots.c.id.desc()).limit(_LEDGER_ROWS)
    kept = sa.select(snapshots.c.id).where(here, snapshots.c.complete.is_(True)).order_by(snapshots.c.read_ns.desc())
    connection.execute(
        snapshots.delete().where(here, snapshots.c.id.not_in(newest), snapshots.c.id.not_in(kept.limit(2)))
    )


def _delete_absent(
    connection: sa.Connection, rows: list[sa.Row[Any]], *, read_ns: int, layer: LayerId, now: datetime
) -> None:
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        columns = [column.name for column in resource_versions.c]
        names = [row.name for row in chunk]
        old = sa.select(*[resources.c[name] for name in columns]).where(
            resources.c.content_type == chunk[0].content_type, resources.c.name.in_(names)
        )
        connection.execute(resource_versions.insert().from_select(columns, old))
        _update(
            connection,
            [
                {
                    "b_name": row.name,
                    "b_content_type": row.content_type,
                    "b_deleted": True,
                    "b_absent_ns": read_ns if row.absent_ns is None else row.absent_ns,
                    "b_version": row.version + 1,
                    "b_source": Source.SNAPSHOT.value,
                    "b_controls_decided": 0,
                    "b_controls_failed": 0,
                    "b_controls_unknown": 0,
                    "b_changed_at": now,
                }
                for row in chunk
            ],
        )
        gone = [Judged(row.name, row.content_type, row.asset_type, row.project, None) for row in chunk]
        events = [
            NewEvent(
                event_type=EventType.RESOURCE_DELETED,
                layer=layer,
                timestamp=from_ns(read_ns),
                resource=_resource(row._mapping),
                data={
                    "change": Change.DELETED.value,
                    "version": row.version + 1,
                    "source": Source.SNAPSHOT.value,
                    "observed_at": format_ns(read_ns),
                },
                synthetic=True,
            )
            for row in chunk
        ]
        events += [finding_event(change, layer, now) for change in findings.record(connection, gone, now=now)]
        event_log.append(connection, events, recorded_at=now)


def _breaker_key(part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(
        breakers.c.scope == scope, breakers.c.asset_type == asset_type, breakers.c.content_type == content_type
    )


def _open_breaker(connection: sa.Connection, part: Part, *, known: int, lost: int, now: datetime) -> None:
    scope, asset_type, content_type = part
    renewed = connection.execute(breakers.update().where(_breaker_key(part)).values(known=known, lost=lost))
    if not renewed.rowcount:
        connection.execute(
            breakers.insert().values(
                scope=scope, asset_type=asset_type, content_type=content_type, known=known, lost=lost, opened_at=now
            )
        )
    alerts.raise_alert(
        connection,
        _BREAKER_ALERT,
        "/".join(part),
        severity="critical",
        message=(
            f"{lost} of {known} {asset_type} ({content_type}) in {scope} vanished at once; nothing was deleted; "
            "check whether the reader lost access or the deletion was meant"
        ),
        now=now,
    )


def _close_breaker(connection: sa.Connection, part: Part, *, now: datetime) -> None:
    closed = connection.execute(breakers.delete().where(_breaker_key(part)))
    if closed.rowcount:
        alerts.resolve_alert(connection, _BREAKER_ALERT, "/".join(part), now=now)


def count_existing(connection: sa.Connection) -> dict[str, int]:
    """How many resources of each asset type exist (content type RESOURCE)."""
    query = (
        sa.select(resources.c.asset_type, sa.func.count())
        .where(resources.c.content_type == "RESOURCE", resources.c.deleted.is_(False))
        .group_by(resources.c.asset_type)
        .order_by(resources.c.asset_type)
    )
    return {asset_type: int(count) for asset_type, count in connection.execute(query)}
