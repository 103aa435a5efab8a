"""The landing zone's resources: the truth core's state, in tables.

`sync/state/reducer.py` defines what the state is; this module keeps it, batch by batch, at a cost that follows the
change. An asset that a complete snapshot shows unchanged is not written at all: a row that is present and not marked
absent was in the newest complete read of its part, so that read's time is its effective sighting. What a complete read
lacks is `sync.store.reads`' work.
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
from lz_sync_dagster.sync.models import CoverageStatus, EventType
from lz_sync_dagster.sync.state.observation import ContentType, Observation, Source, plain
from lz_sync_dagster.sync.state.reducer import KEPT_READS, Change, Known, Ledger, Part, change_of
from lz_sync_dagster.sync.store import event_log, feed_freshness, findings
from lz_sync_dagster.sync.store.engine import in_chunks, insert_many
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.findings import FindingChange, Judged
from lz_sync_dagster.sync.store.schema import coverage, resource_contents, resource_versions, resources, snapshots
from lz_sync_dagster.sync.store.schema import findings as findings_table
from lz_sync_dagster.sync.timing import format_ns, from_ns

#: The lock that every writer of this module's tables holds: `Store.write(exclusive=LOCK)`.
LOCK = "resources"

PROJECT_TYPE = "cloudresourcemanager.googleapis.com/Project"
_PROJECT_NAME = "//cloudresourcemanager.googleapis.com/projects/"
_CHUNK = 500
#: The counter that numbers the writes of ``resources``.
_COUNTER = "resources"

#: What a ledger is made of. It is asked for part by part, so the statements are built once.
_NEWEST_READS = (
    sa.select(snapshots.c.read_ns)
    .where(
        *(snapshots.c[name] == sa.bindparam(name) for name in ("scope", "asset_type", "content_type")),
        snapshots.c.complete.is_(True),
    )
    .distinct()
    .order_by(snapshots.c.read_ns.desc())
    .limit(KEPT_READS)
)
_OTHERS_READ_UNTIL = sa.select(sa.func.min(coverage.c.complete_read_ns)).where(
    coverage.c.scope != sa.bindparam("scope"),
    *(coverage.c[name] == sa.bindparam(name) for name in ("asset_type", "content_type")),
    coverage.c.status == CoverageStatus.COMPLETE.value,
)

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

    @property
    def known_content(self) -> int | None:
        """The id of the observation's content, if it is the one that the row has already."""
        same = self.row is not None and self.row.digest == self.observation.digest
        return self.row.content_id if same and self.row is not None else None

    @property
    def valid_from_ns(self) -> int:
        """Since when the row is what this step makes of it, by the source's clock; never before what it was."""
        at = self.observation.update_ns
        if self.gone and self.absent_ns is not None:
            at = self.absent_ns
        elif self.row is None:
            return at
        elif not self.observation.deleted and at <= self.row.valid_from_ns:
            # It came back, or moved, and its own clock does not tell when: it is so since it was seen so.
            at = self.seen_ns
        return at if self.row is None else max(at, self.row.valid_from_ns)


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
        key = (observation.name, plain(observation.content_type))
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
    ledgers = _ledgers(connection, {_part(item) for item in batch} | {part_of_row(row) for row in rows.values()})
    steps: list[_Step] = []
    told_anew: list[Observation] = []
    unchanged = 0
    for observation in batch:
        row = rows.get((observation.name, plain(observation.content_type)))
        step = _step(observation, row, ledgers)
        if step is None:
            unchanged += 1
            if row is not None and _is_told_anew(observation, row):
                told_anew.append(observation)
        else:
            steps.append(step)
    _remember_bytes(connection, told_anew)
    if not steps:
        return Applied(unchanged=unchanged, last_seq=event_log.last_seq(connection))

    old_data = _data(
        connection, [step for step in steps if step.sighting or step.change in (Change.UPDATED, Change.RECREATED)]
    )
    steps = [
        replace(step, observation=replace(step.observation, data=old_data.get(_key(step)))) if step.sighting else step
        for step in steps
    ]
    written = next_write(connection)
    content_ids = _keep_contents(connection, [step for step in steps if step.moves_content])
    _keep_old_versions(connection, [step for step in steps if step.row is not None and step.moves_content])
    projects = project_ids(connection, [step.observation for step in steps])
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
            touches.append(_touch(step, projects, written))
            continue
        values = _values(step, projects, now)
        values["written"], values["content_id"] = written, content_ids[_key(step)]
        if not values["deleted"]:
            content = {} if observation.data is None else observation.data
            verdicts = tuple(
                evaluate(observation.asset_type, plain(observation.content_type), observation.name, content)
            )
            values |= tally([verdict.outcome for verdict in verdicts])
            judged.append(_judged(observation, values, verdicts, is_new=row is None))
        elif row is not None:
            judged.append(_judged(observation, values, None))
        if row is None:
            inserts.append(values)
        else:
            updates.append({f"b_{key}": value for key, value in values.items()})
        if announce and step.change is not Change.NONE:
            events.append(_event(step, values, layer, old_data.get(_key(step))))
    insert_many(connection, resources, inserts)
    if updates:
        update(connection, updates)
    for same in _by_columns(touches):
        update(connection, same)
    changes = findings.record(connection, judged, now=now, tell=announce)
    name_projects(connection, told_ids(step.observation for step in steps if step.moves_content))
    events += [finding_event(change, layer, now) for change in changes]
    last_seq = event_log.append(connection, events, recorded_at=now)
    if announce:
        feed_freshness.record_missed(connection, _found(steps), found_at=now)
    return Applied(
        created=counts[Change.CREATED] + counts[Change.RECREATED],
        updated=counts[Change.UPDATED],
        deleted=counts[Change.DELETED],
        unchanged=unchanged + counts[Change.NONE],
        events=len(events),
        last_seq=last_seq,
    )


def _found(steps: Iterable[_Step]) -> Iterable[tuple[str, int]]:
    """The changes that a snapshot found: of which type, and when they were."""
    return (
        (step.observation.asset_type, step.observation.update_ns)
        for step in steps
        if step.change is not Change.NONE and step.observation.source is Source.SNAPSHOT and not step.sighting
    )


def _step(observation: Observation, row: sa.Row[Any] | None, ledgers: Mapping[Part, Ledger]) -> _Step | None:
    """What an observation does to a row; ``None`` if nothing has to be written."""
    if row is None:
        ledger = ledgers[_part(observation)]
        seen_ns = -1 if observation.deleted else observation.observed_ns
        absent_ns, gone = ledger.absence(update_ns=observation.update_ns, seen_ns=seen_ns)
        if observation.deleted:
            absent_ns, gone = None, False
        change = change_of(None, observation) or Change.NONE
        return _Step(observation, None, Change.NONE if gone else change, gone, absent_ns, seen_ns)

    ledger = ledgers[part_of_row(row)]
    removed_by_absence = row.deleted and row.absent_ns is not None
    seen_ns, observed_ns = effective(row, ledger)
    order = (row.update_ns, observed_ns, row.deleted and not removed_by_absence, row.digest)
    news = change_of(Known(order, row.resource_id, not row.deleted), observation)
    if news is None:
        if observation.deleted or observation.observed_ns <= seen_ns or order[2]:
            return None
        absent_ns, gone = ledger.absence(update_ns=row.update_ns, seen_ns=observation.observed_ns)
        revived = Change.CREATED if row.deleted and not gone else Change.NONE
        known = replace(observation, update_ns=row.update_ns, observed_ns=observed_ns, digest=row.digest)
        return _Step(known, row, revived, gone, absent_ns, observation.observed_ns, sighting=True)
    if news is Change.NONE and observation.source is Source.SNAPSHOT and _is_confirmed_by(observation, row):
        return None
    if observation.deleted:
        return _Step(observation, row, news, False, None, seen_ns)
    seen_ns = max(seen_ns, observation.observed_ns)
    absent_ns, gone = ledgers[_part(observation)].absence(update_ns=observation.update_ns, seen_ns=seen_ns)
    if gone:
        news = Change.NONE if row.deleted else Change.DELETED
    elif news is Change.NONE and _moves(observation, row):
        news = Change.UPDATED
    return _Step(observation, row, news, gone, absent_ns, seen_ns)


def _moves(observation: Observation, row: sa.Row[Any]) -> bool:
    """Whether an asset that is there lies below other ancestors now. Another scope of the configuration is no move."""
    return not row.deleted and bool(observation.ancestors) and list(observation.ancestors) != row.ancestors


def effective(row: sa.Row[Any], ledger: Ledger) -> tuple[int, int]:
    """When a row was last seen, and when its content was: a row that is there, not marked absent and not written
    since, was in the newest complete read with the content that it has.
    """
    if row.deleted or row.absent_ns is not None or not ledger.reads or row.seen_ns >= ledger.reads[0]:
        return row.seen_ns, row.observed_ns
    return ledger.reads[0], max(row.observed_ns, ledger.reads[0])


def _is_confirmed_by(observation: Observation, row: sa.Row[Any]) -> bool:
    """Whether a snapshot shows a row just as it is: then nothing is written, and the complete read vouches for it."""
    return (
        not row.deleted
        and row.absent_ns is None
        and observation.update_ns == row.update_ns
        and _part(observation) == part_of_row(row)
        and list(observation.ancestors) == row.ancestors
    )


def _part(observation: Observation) -> Part:
    return (observation.scope, observation.asset_type, plain(observation.content_type))


def part_of_row(row: sa.Row[Any]) -> Part:
    return (row.scope, row.asset_type, row.content_type)


def _key(step: _Step) -> tuple[str, str]:
    return (step.observation.name, plain(step.observation.content_type))


def _is_told_anew(observation: Observation, row: sa.Row[Any]) -> bool:
    """Whether a snapshot tells the content that a row has in other bytes than before, e.g. with its keys in another
    order: the next read then knows these bytes."""
    return (
        observation.fingerprint is not None
        and observation.fingerprint != row.fingerprint
        and observation.digest == row.digest
        and _is_confirmed_by(observation, row)
    )


def _remember_bytes(connection: sa.Connection, observations: list[Observation]) -> None:
    if observations:
        update(
            connection,
            [
                {"b_name": item.name, "b_content_type": plain(item.content_type), "b_fingerprint": item.fingerprint}
                for item in observations
            ],
        )


def _keep_contents(connection: sa.Connection, steps: list[_Step]) -> dict[tuple[str, str], int | None]:
    """Store the contents that are new, and say which content each step's row has."""
    ids: dict[tuple[str, str], int | None] = {}
    rows: list[dict[str, Any]] = []
    last = last_content(connection)
    for step in steps:
        known = step.known_content
        data = step.observation.data
        if data is not None and known is None:
            known = last + len(rows) + 1
            rows.append({"id": known, "data": data, "redacted": list(step.observation.redacted)})
        ids[_key(step)] = known
    insert_many(connection, resource_contents, rows)
    return ids


def last_content(connection: sa.Connection) -> int:
    """The id of the newest content; who holds `LOCK` gives the next ones."""
    return connection.scalar(sa.select(sa.func.max(resource_contents.c.id))) or 0


def _current(connection: sa.Connection, batch: list[Observation]) -> dict[tuple[str, str], sa.Row[Any]]:
    rows: dict[tuple[str, str], sa.Row[Any]] = {}
    for content_type, names in _names_by_content((item.name, plain(item.content_type)) for item in batch).items():
        query = sa.select(resources).where(resources.c.content_type == content_type, resources.c.name.in_(names))
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
        query = (
            sa.select(resources.c.name, resource_contents.c.data)
            .join(resource_contents, resource_contents.c.id == resources.c.content_id)
            .where(resources.c.content_type == content_type, resources.c.name.in_(names))
        )
        for name, data in connection.execute(query):
            found[name, content_type] = data
    return found


def _keep_old_versions(connection: sa.Connection, steps: list[_Step]) -> None:
    """Copy the rows that are about to be superseded."""
    keep_versions(connection, [(step.row, step.valid_from_ns) for step in steps if step.row is not None])


def keep_versions(connection: sa.Connection, ended: Sequence[tuple[sa.Row[Any], int]]) -> None:
    """Put rows into the history, each with the instant (nanoseconds) at which something else took its place."""
    if ended:
        columns = [column.name for column in resource_versions.c if column.name != "valid_to_ns"]
        connection.execute(
            resource_versions.insert(),
            [{name: row._mapping[name] for name in columns} | {"valid_to_ns": until_ns} for row, until_ns in ended],
        )


def _ledgers(connection: sa.Connection, parts: Iterable[Part]) -> dict[Part, Ledger]:
    return {part: ledger_of(connection, part) for part in parts}


def ledger_of(connection: sa.Connection, part: Part) -> Ledger:
    """What complete reads say of a part, and of the same type and content in the other scopes that are read
    completely."""
    key = dict(zip(("scope", "asset_type", "content_type"), part, strict=True))
    reads = tuple(connection.execute(_NEWEST_READS, key).scalars())
    return Ledger(reads, connection.scalar(_OTHERS_READ_UNTIL, key))


def project_ids(connection: sa.Connection, observations: Iterable[Observation]) -> dict[str, str]:
    """Project ids by number, for the assets whose name does not carry the id."""
    numbers: set[str] = set()
    found = told_ids(observations)
    for observation in observations:
        if _project_in_name(observation) is None and (number := _project_number(observation)) is not None:
            numbers.add(number)
    for chunk in in_chunks(sorted(numbers - found.keys())):
        query = sa.select(resources.c.name, resources.c.project).where(
            resources.c.content_type == "RESOURCE", resources.c.name.in_([_PROJECT_NAME + number for number in chunk])
        )
        for name, project in connection.execute(query):
            if project:
                found[name.removeprefix(_PROJECT_NAME)] = project
    if numbers - found.keys():
        found = _ids_of_all(connection) | found
    return found


def _ids_of_all(connection: sa.Connection) -> dict[str, str]:
    """Ids by number of the projects that are named by their id: their first ancestor is their number."""
    query = sa.select(resources.c.project, resources.c.ancestors).where(
        resources.c.content_type == "RESOURCE",
        resources.c.asset_type == PROJECT_TYPE,
        resources.c.deleted.is_(False),
        resources.c.project.is_not(None),
    )
    return {
        above[0].removeprefix("projects/"): project
        for project, above in connection.execute(query)
        if above and above[0].startswith("projects/")
    }


def told_ids(observations: Iterable[Observation]) -> dict[str, str]:
    """Project ids by number, as far as these are projects. Google names them by number or by id."""
    found: dict[str, str] = {}
    for observation in observations:
        if observation.asset_type != PROJECT_TYPE or observation.data is None:
            continue
        identifier, number = observation.data.get("projectId"), observation.data.get("projectNumber")
        number = number or _project_number(observation)
        if identifier and number and str(number).isdigit():
            found[str(number)] = str(identifier)
    return found


def name_projects(connection: sa.Connection, ids: Mapping[str, str]) -> None:
    """Give the resources that came before their project its id instead of its number, with their findings.

    Args:
        ids: by number, of projects that have just been taken in.
    """
    kept = resources.c.content_type.in_([plain(kind) for kind in ContentType])  # for the index
    for chunk in in_chunks(sorted(ids)):
        late = sa.select(resources.c.project).where(kept, resources.c.project.in_(chunk)).distinct()
        for number in connection.scalars(late).all():
            named = {"project": ids[number]}
            connection.execute(
                resources.update()
                .where(kept, resources.c.project == number)
                .values(**named, written=next_write(connection))
            )
            connection.execute(findings_table.update().where(findings_table.c.project == number).values(**named))


def _project_in_name(observation: Observation) -> str | None:
    before, found, after = observation.name.partition("/projects/")
    if not found or not before.startswith("//"):
        return None
    identifier = after.partition("/")[0]
    return None if identifier.isdigit() else identifier


def _project_number(observation: Observation) -> str | None:
    own = observation.name.removeprefix(_PROJECT_NAME)
    if own != observation.name and own.isdigit():
        return own
    for ancestor in observation.ancestors:
        if ancestor.startswith("projects/"):
            return ancestor.removeprefix("projects/")
    return None


def project_of(observation: Observation, ids: Mapping[str, str]) -> str | None:
    """The project of an asset: its id if it is known (`project_ids`), else its number."""
    in_name = _project_in_name(observation)
    if in_name is not None:
        return in_name
    number = _project_number(observation)
    return None if number is None else ids.get(number, number)


def _values(step: _Step, projects: Mapping[str, str], now: datetime) -> dict[str, Any]:
    observation, row = step.observation, step.row
    deleted = observation.deleted or step.gone
    resource_id = observation.resource_id
    if resource_id is None and row is not None:
        resource_id = row.resource_id
    return {
        "name": observation.name,
        "content_type": plain(observation.content_type),
        "asset_type": observation.asset_type,
        "scope": observation.scope if row is None or observation.scope != "unscoped" else row.scope,
        "project": project_of(observation, projects) or (row.project if row is not None else None),
        "location": observation.location or (row.location if row is not None else None),
        "display_name": row.display_name if observation.data is None and row is not None else observation.display_name,
        "deleted": deleted,
        "resource_id": resource_id,
        "update_ns": observation.update_ns,
        "observed_ns": observation.observed_ns,
        "seen_ns": step.seen_ns,
        "absent_ns": step.absent_ns,
        "digest": observation.digest,
        "source": plain(observation.source),
        "version": 1 if row is None else row.version + 1,
        "ancestors": list(observation.ancestors),
        "valid_from_ns": step.valid_from_ns,
        "fingerprint": _fingerprint(step),
        "controls_decided": 0,
        "controls_failed": 0,
        "controls_unknown": 0,
        "changed_at": now,
    }


def _fingerprint(step: _Step) -> bytes | None:
    """Of the bytes in which the inventory told what the row is after a step; those of before, if it told nothing new of
    it."""
    observation, row = step.observation, step.row
    if row is not None and (step.sighting or (observation.fingerprint is None and row.digest == observation.digest)):
        known: bytes | None = row.fingerprint
        return known
    return observation.fingerprint


def _touch(step: _Step, projects: Mapping[str, str], written: int) -> dict[str, Any]:
    """The columns that move on while the content stays. An old version that was seen again tells no new place."""
    observation, row = step.observation, step.row
    place: dict[str, Any] = {}
    if not step.sighting and observation.ancestors:
        place = {
            "b_asset_type": observation.asset_type,
            "b_scope": observation.scope,
            "b_project": project_of(observation, projects) or (row.project if row is not None else None),
            "b_ancestors": list(observation.ancestors),
        }
    return place | {
        "b_name": observation.name,
        "b_content_type": plain(observation.content_type),
        "b_deleted": observation.deleted or step.gone,
        "b_update_ns": observation.update_ns,
        "b_observed_ns": observation.observed_ns,
        "b_seen_ns": step.seen_ns,
        "b_absent_ns": step.absent_ns,
        "b_digest": observation.digest,
        "b_fingerprint": _fingerprint(step),
        "b_written": written,
    }


def _by_columns(rows: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    groups: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[frozenset(row)].append(row)
    return groups.values()


def update(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    columns = [key.removeprefix("b_") for key in rows[0] if key not in ("b_name", "b_content_type")]
    connection.execute(
        resources.update()
        .where(resources.c.name == sa.bindparam("b_name"), resources.c.content_type == sa.bindparam("b_content_type"))
        .values({column: sa.bindparam(f"b_{column}") for column in columns}),
        rows,
    )


def tally(outcomes: list[Outcome]) -> dict[str, int]:
    """The columns of ``resources`` that count verdicts."""
    unknown = outcomes.count(Outcome.UNKNOWN)
    return {
        "controls_decided": len(outcomes) - unknown,
        "controls_failed": outcomes.count(Outcome.FAIL),
        "controls_unknown": unknown,
    }


def _judged(
    observation: Observation, values: Mapping[str, Any], verdicts: tuple[Any, ...] | None, *, is_new: bool = False
) -> Judged:
    return Judged(
        resource=observation.name,
        content_type=plain(observation.content_type),
        asset_type=observation.asset_type,
        project=values["project"],
        verdicts=verdicts,
        is_new=is_new,
    )


def resource_of(values: Mapping[Any, Any]) -> dict[str, Any]:
    fields = ("name", "content_type", "asset_type", "scope", "project", "location", "display_name")
    return {field: values[field] for field in fields}


def _event(step: _Step, values: Mapping[str, Any], layer: LayerId, old: Any) -> NewEvent:
    observation = step.observation
    data: dict[str, Any] = {
        "change": step.change.value,
        "version": values["version"],
        "source": plain(observation.source),
        "observed_at": format_ns(observation.observed_ns),
    }
    if step.change is Change.UPDATED and isinstance(old, Mapping) and observation.data is not None:
        data["changed_fields"] = sorted(
            key for key in {*old, *observation.data} if old.get(key) != observation.data.get(key)
        )
        if step.row is not None and observation.ancestors and list(observation.ancestors) != step.row.ancestors:
            data["moved_from"] = step.row.ancestors
    if step.change is Change.RECREATED and step.row is not None:
        data["previous_id"] = step.row.resource_id
    return NewEvent(
        event_type=_EVENT_TYPES[step.change],
        layer=layer,
        timestamp=from_ns(observation.update_ns),
        resource=resource_of(values),
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


def written(connection: sa.Connection) -> int:
    """The number of the last write of ``resources``: every row that is written later has a greater one."""
    return event_log.take(connection, _COUNTER, 0)


def next_write(connection: sa.Connection) -> int:
    """Number a write, inside a transaction that holds `LOCK`."""
    return event_log.take(connection, _COUNTER, 1)


def known_contents(connection: sa.Connection, content_type: str, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Update time (nanoseconds) and digest of what is known of the named resources; the others are left out."""
    found: dict[str, tuple[int, str]] = {}
    for start in range(0, len(names), _CHUNK):
        query = sa.select(resources.c.name, resources.c.update_ns, resources.c.digest).where(
            resources.c.content_type == content_type, resources.c.name.in_(names[start : start + _CHUNK])
        )
        found |= {row.name: (row.update_ns, row.digest) for row in connection.execute(query)}
    return found


def count_existing(connection: sa.Connection) -> dict[str, int]:
    """How many resources of each asset type exist (content type RESOURCE)."""
    query = (
        sa.select(resources.c.asset_type, sa.func.count())
        .where(resources.c.content_type == "RESOURCE", resources.c.deleted.is_(False))
        .group_by(resources.c.asset_type)
        .order_by(resources.c.asset_type)
    )
    return {asset_type: int(count) for asset_type, count in connection.execute(query)}
