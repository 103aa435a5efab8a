"""One run of the inventory's model: an organization changes, faults strike, and after each step the store is held
against what truly was, what was truly served, and what the feed truly said."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.controls import Controls, load_controls
from lz_sync_dagster.sync.compliance.verdict import Outcome
from lz_sync_dagster.sync.errors import LayerBusy, Reason, SyncError
from lz_sync_dagster.sync.events.handler import ReceivedMessage, handle_batch
from lz_sync_dagster.sync.inventory import service
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool
from lz_sync_dagster.sync.inventory.requests import request_full_read
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.inventory.types import plan_parts
from lz_sync_dagster.sync.runs import RetryLater, attempt
from lz_sync_dagster.sync.store import Store, breakers, reads
from lz_sync_dagster.sync.store.schema import (
    breakers as breakers_table,
)
from lz_sync_dagster.sync.store.schema import (
    coverage,
    event_log,
    findings,
    layer_runs,
    part_reads,
    quota_limits,
    quota_usage,
    resource_contents,
    resource_versions,
    resources,
    snapshots,
)
from tests.conftest import NOW, BusyPool, SteppedClock
from tests.integration.inventory_world import (
    ACCOUNT,
    BUCKET,
    FOLDERS,
    KEY,
    NAMES,
    ORGANIZATION,
    RESOURCE,
    SECOND,
    Faults,
    Key,
    Organization,
    Part,
    Refusal,
    Server,
    ancestors_of,
    denied,
    disabled,
    throttled,
    timed_out,
    unavailable,
)

Json = dict[str, Any]


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class MortalStore(Store):
    """A process' way to the store. ``fate`` is asked before and after each commit; once the process is dead it neither
    reads nor writes."""

    def __init__(self, engine: sa.Engine, fate: Callable[[], None], beside: Callable[[], None]) -> None:
        super().__init__(engine)
        self._fate, self._beside, self.dead = fate, beside, False

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        self._live()
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self, exclusive: str | None = None) -> Iterator[sa.Connection]:
        self._live()
        self._beside()
        with super().write(exclusive) as connection:
            yield connection
            self._die()
        self._die()

    def _die(self) -> None:
        try:
            self._fate()
        except Killed:
            self.dead = True
            raise

    def _live(self) -> None:
        if self.dead:
            raise Killed


class Moving(SteppedClock):
    """A clock that each look moves on a little: no two instants are the same."""

    def __init__(self, now: datetime) -> None:
        super().__init__(now)
        self._alone = threading.Lock()

    def __call__(self) -> datetime:
        with self._alone:
            return self.advance(timedelta(milliseconds=7))

    def ns(self) -> int:
        return (self() - datetime.fromtimestamp(0, self.now.tzinfo)) // timedelta(microseconds=1) * 1000

    def wait(self, seconds: float) -> bool:
        self.advance(timedelta(seconds=seconds))
        return False


@cache
def controls() -> Controls:
    return load_controls()


def digest(data: Json) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Message:
    """A feed's message on its way."""

    id: str
    body: bytes
    key: Key
    at_ns: int
    exists: bool


@dataclass
class Evidence:
    """What the store was told of an asset, and holds since the transaction ended."""

    seen_ns: int = -1
    gone_ns: int = -1


@dataclass
class Seen:
    """The store as it was after the step before."""

    rows: dict[Key, Any] = field(default_factory=dict)
    seq: int = 0
    read_parts: set[Part] = field(default_factory=set)


class Model:
    """A run. Everything that is random follows from the seed.

    Args:
        remote: the serving side is to be reached over gRPC (`inventory_world.serve`): nobody acts between its pages.
    """

    def __init__(
        self, seed: str, store: Store, folder: Path, patch: pytest.MonkeyPatch, *, remote: bool = False
    ) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.endpoint = "http://127.0.0.1:1"
        rng = self.rng
        self.store = store
        self.clock = Moving(NOW)
        self.organization = Organization(rng)
        self.faults = Faults()
        others_act = (lambda: None) if remote else self._at_a_page
        self.server = Server(self.organization, self.faults, random.Random(f"{seed} serves"), self.clock.ns, others_act)
        self.scopes = rng.choice([FOLDERS, FOLDERS, (ORGANIZATION, FOLDERS[1])])
        self.tight = rng.random() < 0.5
        self.lies = rng.random() < 0.15
        self.settings = self._settings(folder, tight=self.tight)
        self.parts: tuple[Part, ...] = plan_parts(
            self.scopes, self.settings.sync_layers.api_sync.endpoints, ["RESOURCE", "IAM_POLICY"]
        ).parts
        self.waiting: list[Message] = []
        self.delivered: list[Message] = []
        self.messages = 0
        self.evidence: dict[Key, Evidence] = {}
        self.history_told = 0
        self.proven: dict[Part, set[int]] = {part: set() for part in self.parts}
        self.before = Seen()
        self.holder: str | None = None
        self.gone: set[str] = set()
        self.processes = 0
        self.kill_in: int | None = None
        self.cancel_in: int | None = None
        self.feed_beside = 0.0
        self.cut_short: set[int] = set()
        self.log: list[str] = []
        if not remote:
            patch.setattr(service, "make_client", self.server.client)
        patch.setattr(service, "load_controls", controls)
        patch.setattr(service, "DecodePool", lambda judge: (BusyPool if rng.random() < 0.5 else DecodePool)(judge))
        patch.setattr(service, "threading", SimpleNamespace(Event=lambda: self.clock))

    def _settings(self, folder: Path, *, tight: bool) -> Settings:
        rng = self.rng
        api = {
            "SCOPES": json.dumps(self.scopes),
            "ENDPOINTS": '["/storage", "/iam"]',
            "PAGE_SIZE": rng.choice([1, 2, 3, 1000]),
            "MASS_DELETE_MINIMUM": rng.choice([1, 2, 50]),
            "QUOTAS__LIST_ASSETS": rng.choice([1, 2, 3]) if tight else 1000,
            "PROOF_AGE_MINUTES": rng.choice([20, 60]),
            "DELTA_OVERLAP_MINUTES": rng.choice([0, 1, 10]),
        }
        return load_settings(
            environ={
                "LZ_SYNC_DATA_DIR": str(folder),
                "LZ_SYNC_GOOGLE_CLOUD__ASSET_ENDPOINT": self.endpoint,
                **{f"LZ_SYNC_SYNC_LAYERS__API_SYNC__{name}": str(value) for name, value in api.items()},
            }
        )

    def served_at(self, endpoint: str) -> Model:
        """Let syncs ask there."""
        google = self.settings.google_cloud.model_copy(update={"asset_endpoint": endpoint})
        self.settings, self.endpoint = self.settings.model_copy(update={"google_cloud": google}), endpoint
        return self

    # --- what happens -------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Let so many things happen, and look after each."""
        try:
            for _ in range(steps):
                self._step()
                self.look()
            self._end()
        except BaseException:
            self.log.append(f"that was {self.seed!r} with the scopes {self.scopes}")
            sys.stdout.write("\n".join(["", *self.log[-60:], ""]))
            raise

    def _step(self) -> None:
        rng = self.rng
        self.clock.advance(timedelta(seconds=rng.choice([1, 5, 20, 90])))
        chance = rng.random()
        if chance < 0.42:
            for _ in range(rng.choice([1, 1, 2, 4])):
                self.change()
        elif chance < 0.6:
            self.deliver()
        elif chance < 0.86:
            self.sync()
        elif chance < 0.95:
            self.switch_faults()
        elif chance < 0.97:
            self.clock.advance(rng.choice([timedelta(minutes=5), timedelta(minutes=70), timedelta(hours=25)]))
            self.log.append("time passes")
        elif chance < 0.98:
            self.ask_for_all()
        else:
            self.confirm()

    def change(self) -> None:
        """Something happens in the organization, and a feed may tell of it: now, late, twice or never."""
        at_ns = self.clock.ns()
        for body in self.organization.change(at_ns):
            document = json.loads(body)
            asset = {**document.get("priorAsset", {}), **document["asset"]}
            key = (asset["name"], RESOURCE if "resource" in asset else "IAM_POLICY")
            version = self.organization.past[key][-1]
            self.log.append(
                f"{at_ns} {key[0][-12:]} {key[1]} {version.data and digest(version.data)[:6]} {version.home}"
            )
            for _ in range(self.rng.choice([0, 1, 1, 1, 2])):
                self.messages += 1
                message = Message(f"m{self.messages}", body, key, at_ns, version.data is not None)
                self.waiting += [message] * self.rng.choice([1, 1, 1, 2])

    def deliver(self) -> None:
        """A batch of the feed, in any order; some of it was delivered before."""
        if not self.waiting:
            return
        rng = self.rng
        rng.shuffle(self.waiting)
        count = rng.randint(1, len(self.waiting))
        batch = [self.waiting.pop() for _ in range(count)]
        if self.delivered and rng.random() < 0.2:
            batch.append(rng.choice(self.delivered))
        self.log.append(f"feed {[(item.id, item.at_ns, item.key[0][-8:], item.key[1]) for item in batch]}")
        known = {item.id for item in self.delivered}
        result = handle_batch(
            self.store,
            "model",
            [ReceivedMessage(item.id, item.body) for item in batch],
            scopes=self.scopes,
            evaluate=controls().evaluate,
            clock=self.clock,
        )
        assert (result.messages, result.dead) == (len(batch), 0)
        for item in batch:
            if item.id not in known:
                known.add(item.id)
                self.delivered.append(item)
                self._tell(item.key, item.at_ns, exists=item.exists)

    def switch_faults(self) -> None:
        """A lasting fault comes or goes."""
        rng, faults = self.rng, self.faults
        kind = rng.choice(["folder", "folder", "type", "unknown", "odd", "disabled", "lag", "search"] + ["over"] * 6)
        self.log.append(f"fault {kind}")
        if kind == "folder":
            faults.denied ^= {rng.choice(self.scopes)}
        elif kind == "type":
            faults.denied ^= {rng.choice([BUCKET, ACCOUNT, KEY])}
        elif kind == "unknown":
            faults.unknown ^= {rng.choice([BUCKET, ACCOUNT, KEY])}
        elif kind == "odd":
            faults.odd ^= {rng.choice([BUCKET, ACCOUNT, KEY])}
        elif kind == "disabled":
            faults.disabled = not faults.disabled
        elif kind == "lag":
            faults.read_lag_ns = rng.choice([0, 0, 3, 45, 130]) * SECOND
            faults.lie_ns = rng.choice([0, 30]) * SECOND if self.lies else 0
        elif kind == "search":
            faults.search_lag_ns = rng.choice([0, 10, 120]) * SECOND
            faults.whole_seconds = rng.random() < 0.5
        else:
            faults.end()

    def sync(self) -> None:
        """One attempt at a sync, with faults that strike in its middle."""
        rng, faults = self.rng, self.faults
        refusals: dict[str, Callable[[], Refusal]] = {
            "throttled": lambda: throttled(rng.choice([1, 20, 90])),
            "unavailable": unavailable,
            "timeout": timed_out,
            "denied": lambda: denied("this page"),
            "disabled": disabled,
        }
        kind = rng.choice(["none"] * 6 + ["token", "killed", "killed", "killed", "stopped", *refusals])
        if kind in refusals:
            refusal = refusals[kind]()
            faults.next_calls = [None] * rng.randint(0, 12) + [refusal]
        elif kind == "token":
            faults.expire_next_token = True
        elif kind == "killed":
            self.kill_in = rng.randint(1, 40)
        elif kind == "stopped":
            self.cancel_in = rng.randint(1, 15)
        self.feed_beside = rng.choice([0.0, 0.0, 0.1, 0.5])
        self.log.append(f"sync with {kind}, feed beside {self.feed_beside}")
        self.attempt()
        faults.next_calls, faults.expire_next_token = [], False
        self.kill_in = self.cancel_in = None
        self.feed_beside = 0.0

    def attempt(self) -> str:
        """An attempt at a sync of the process that is at it, or of a new one. Returns how it ended."""
        if self.holder is None:
            self.processes += 1
            self.holder = f"elsewhere:{self.processes}:x"
        holder, begun = self.holder, len(self.server.served.reads)
        store = MortalStore(self.store.engine, self._at_a_commit, self._beside)
        ended = "done"
        self.holder = None
        takes_over = self.gone if self.rng.random() < 0.7 else ()
        try:
            attempt(
                store,
                LayerId.API,
                lambda run: sync_inventory(self.settings, store, run, clock=self.clock, progress=self._at_a_part),
                triggered_by="model",
                clock=self.clock,
                holder=holder,
                takes_over=takes_over,
            )
        except RetryLater as later:
            ended = "later"
            self.clock.advance(timedelta(seconds=later.wait))
            if self.rng.random() < 0.8:
                self.holder = holder
            else:
                self.gone.add(holder)
        except LayerBusy:
            ended = "busy"
            assert self.gone, "a layer is busy only with a process that is gone"
            self.clock.advance(timedelta(minutes=2))
        except SyncError as error:
            ended = f"failed: {error}"
        except Killed:
            ended = "killed"
            self.gone.add(holder)
        except KeyboardInterrupt:
            ended = "stopped"
        if ended in ("killed", "stopped"):
            self.server.asked.clear()
            # Whatever became of them, nobody may have written it down: a part is read while one is taken in.
            last = self.server.served.reads[begun:][-2:]
            self.cut_short.update(read.order for read in last if not read.complete)
        for key, at_ns, exists in self.server.served.told[self.history_told :]:
            if ended != "killed" or not exists:  # whoever was killed may have written down what is gone, or may not
                self._tell(key, at_ns, exists=exists)
        self.history_told = len(self.server.served.told)
        self.log.append(f"  ended: {ended}")
        return ended

    def ask_for_all(self) -> None:
        self.log.append("a full read is asked for")
        with self.store.write() as connection:
            request_full_read(connection, actor="model", key=f"request-{self.clock.ns()}", now=self.clock())

    def confirm(self) -> None:
        """A person confirms what breakers withheld."""
        with self.store.read() as connection:
            waiting = breakers.open_breakers(connection)
        for breaker in waiting:
            self.log.append(f"confirmed {breaker.part}")
            self.proven[breaker.part].add(breaker.read_ns)
            reads.confirm_losses(
                self.store, breaker.part, fingerprint=breaker.fingerprint, actor="model", clock=self.clock
            )

    def _tell(self, key: Key, at_ns: int, *, exists: bool) -> None:
        told = self.evidence.setdefault(key, Evidence())
        if exists:
            told.seen_ns = max(told.seen_ns, at_ns)
        else:
            told.gone_ns = max(told.gone_ns, at_ns)

    # --- in the middle of a sync --------------------------------------------------------------------------------------

    def _at_a_page(self) -> None:
        self._beside()
        self._fatal()

    def _at_a_commit(self) -> None:
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in <= 0:
                raise Killed

    def _fatal(self) -> None:
        self._at_a_commit()
        if self.cancel_in is not None:
            self.cancel_in -= 1
            if self.cancel_in == 0:
                raise KeyboardInterrupt

    def _at_a_part(self, _what: str, _done: int, _total: int) -> None:
        self._beside()

    def _beside(self) -> None:
        """What others do meanwhile."""
        if self.feed_beside and self.rng.random() < self.feed_beside:
            chance, self.feed_beside = self.feed_beside, 0.0
            if self.rng.random() < 0.5:
                self.change()
            self.deliver()
            self.feed_beside = chance

    # --- what must hold -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Every rule, for all that changed since the last look."""
        with self.store.read() as connection:
            rows = {(row.name, row.content_type): row for row in connection.execute(sa.select(resources))}
            changed = {key: row for key, row in rows.items() if self.before.rows.get(key) != row}
            versions = self._versions(connection, changed)
            contents = self._contents(connection, changed, versions)
            events = connection.execute(
                sa.select(event_log).where(event_log.c.seq > self.before.seq).order_by(event_log.c.seq)
            ).all()
            ledger = {
                (row.scope, row.asset_type, row.content_type): row for row in connection.execute(sa.select(coverage))
            }
            proofs = connection.execute(sa.select(snapshots)).all()
            open_findings = connection.execute(sa.select(findings).where(findings.c.resolved_at.is_(None))).all()
            usage = connection.execute(sa.select(quota_usage)).all()
            limits = connection.execute(sa.select(quota_limits)).all()
            planned = connection.execute(sa.select(part_reads)).all()
            errors = [line for row in connection.execute(sa.select(layer_runs.c.errors)) for line in row.errors]
            withheld = connection.execute(sa.select(breakers_table)).all()
        assert not [line for line in errors if "defect" in line], errors
        self._look_at_coverage(ledger, proofs)
        self._look_at_deletions(changed)
        self._look_at_versions(changed, versions, contents)
        self._look_at_events(changed, versions, events)
        self._look_at_findings(changed, contents, open_findings)
        self._look_at_calls(usage, limits, planned)
        for row in withheld:
            assert ledger[row.scope, row.asset_type, row.content_type].status != "complete"
        last = events[-1].seq if events else self.before.seq
        assert [row.seq for row in events] == list(range(self.before.seq + 1, last + 1)), "the log has a gap"
        read_parts = {(row.scope, row.asset_type, row.content_type) for row in proofs}
        self.before = Seen(rows, last, read_parts)

    @staticmethod
    def _versions(connection: sa.Connection, changed: dict[Key, Any]) -> dict[Key, list[Any]]:
        """All superseded versions of what changed, in their order."""
        found: dict[Key, list[Any]] = {key: [] for key in changed}
        query = sa.select(resource_versions).where(resource_versions.c.name.in_({name for name, _ in changed}))
        for row in connection.execute(query.order_by(resource_versions.c.version)) if changed else ():
            if (row.name, row.content_type) in found:
                found[row.name, row.content_type].append(row)
        return found

    @staticmethod
    def _contents(
        connection: sa.Connection, changed: dict[Key, Any], versions: dict[Key, list[Any]]
    ) -> dict[int, Json]:
        wanted = {row.content_id for row in changed.values()} | {
            row.content_id for rows in versions.values() for row in rows
        }
        query = sa.select(resource_contents).where(resource_contents.c.id.in_(wanted - {None}))
        return {row.id: row.data for row in connection.execute(query)}

    def _look_at_coverage(self, ledger: dict[Part, Any], proofs: list[Any]) -> None:
        """``complete`` is what was truly served in full, and nothing else."""
        served = {part: self.server.served.complete(part) for part in self.parts}
        for row in proofs:
            part = (row.scope, row.asset_type, row.content_type)
            read = served[part].get(row.read_ns)
            assert read is not None, f"{part} was never read to its end at {row.read_ns}"
            assert not (row.complete and read.odd), "an asset that could not be used proves nothing"
            assert row.assets == len(read.names)
            if row.complete:  # also one that the inventory answered with an older time than the read before
                self.proven[part].add(row.read_ns)
        for part, row in ledger.items():
            assert row.reason != Reason.INTERNAL.value, row.detail
            assert (row.status == "complete") == (row.reason is None), row
            if row.complete_read_ns is None:
                assert row.status == "unknown" or self.server.served.newest(part), row
                assert row.status != "complete"
                continue
            read = served[part].get(row.complete_read_ns)
            assert read is not None, f"{part} is said to be read at {row.complete_read_ns}: it was not"
            assert not read.odd
            assert row.assets == len(read.names)
            self.proven[part].add(row.complete_read_ns)
            newest = self._newest_attempt(part)
            if row.status == "complete":
                assert newest is None or newest.complete, f"{part} is complete, and its newest read failed"
            else:
                assert row.status in ("partial", "unknown")

    def _newest_attempt(self, part: Part) -> Any:
        for read in reversed(self.server.served.reads):
            if read.part == part and read.order not in self.cut_short:
                return read
        return None

    def _look_at_deletions(self, changed: dict[Key, Any]) -> None:
        """What was there and is deleted was told to be gone, or two complete reads lack it."""
        for key, row in changed.items():
            before = self.before.rows.get(key)
            if not row.deleted or before is None or before.deleted:
                continue
            told = self.evidence.get(key, Evidence())
            if told.gone_ns > told.seen_ns:
                continue
            part = (row.scope, row.asset_type, row.content_type)
            served = self.server.served.complete(part)
            seen_ns = max([told.seen_ns, *(ns for ns in self.proven[part] if row.name in served[ns].names)])
            lacking = [ns for ns in self.proven[part] if ns > seen_ns and row.name not in served[ns].names]
            assert len(lacking) >= 2, f"{key} was deleted, and {lacking} lack it after {seen_ns}"
            if not self.lies:
                there = [ns for ns in lacking if self.organization.at(key, ns) is not None]
                moved = all(part[0] != self.organization.at(key, ns).home for ns in there)  # type: ignore[union-attr]
                assert moved, f"{key} was deleted, and it was there at {there}"

    def _look_at_versions(
        self, changed: dict[Key, Any], versions: dict[Key, list[Any]], contents: dict[int, Json]
    ) -> None:
        """A history without gaps and overlaps, of contents that truly were."""
        for key, row in changed.items():
            chain = [*versions[key], row]
            assert [item.version for item in chain] == list(range(1, len(chain) + 1)), key
            for item, after in itertools.pairwise(chain):
                assert item.valid_from_ns <= item.valid_to_ns == after.valid_from_ns, (key, item.version)
            ever = {digest(data) for data in self.organization.ever(key)}
            for item in chain:
                if item.content_id is None:
                    assert item.deleted, (key, item.version)
                    continue
                data = contents[item.content_id]
                assert digest(data) in ever, f"{key} never was {data}"
                if not item.deleted:
                    assert item.digest == digest(data), key
            assert row.seen_ns <= self.clock.ns()

    def _look_at_events(self, changed: dict[Key, Any], versions: dict[Key, list[Any]], events: list[Any]) -> None:
        """Each change of the state is told once, and nothing else is."""
        told: dict[tuple[str, str, int], str] = {}
        for event in events:
            if event.event_type.startswith("resource_"):
                key = (event.resource["name"], event.resource["content_type"], event.data["version"])
                assert key not in told, f"{key} is told twice"
                told[key] = event.event_type
        for key, row in changed.items():
            before = self.before.rows.get(key)
            chain = [*versions[key], row]
            of_type = {part for part in self.parts if part[1:] == (row.asset_type, row.content_type)}
            baseline = not of_type <= self.before.read_parts  # some read of it was the first one: that is no news
            for number in range(before.version if before is not None else 0, row.version):
                then, now = (chain[number - 1] if number else None), chain[number]
                event = told.pop((*key, now.version), None)
                was, there = then is not None and not then.deleted, not now.deleted
                if was and there:
                    assert then is not None
                    expected = {"resource_updated", "resource_created"}
                    if then.digest == now.digest:
                        moved = then.ancestors != now.ancestors
                        expected = {"resource_updated"} if moved else {None}  # type: ignore[arg-type]
                elif was:
                    expected = {"resource_deleted"}
                elif there:
                    expected = {"resource_created"} if then is not None else {"resource_created", "resource_updated"}
                else:
                    expected = {None}  # type: ignore[arg-type]
                silent = event is None and baseline and now.source == "snapshot"
                assert silent or event in expected, f"{key} version {now.version}: {event}, not {expected}"
        assert not told, f"told, and not so: {told}"

    def _look_at_findings(self, changed: dict[Key, Any], contents: dict[int, Json], rows: list[Any]) -> None:
        """Findings are what the controls say of what the store holds."""
        open_now: dict[Key, set[tuple[str, str]]] = {}
        for row in rows:
            found = open_now.setdefault((row.resource, row.content_type), set())
            assert (row.framework, row.control) not in found, "a finding is open twice"
            found.add((row.framework, row.control))
        for key, row in changed.items():
            expected = set() if row.deleted else failed(key, contents[row.content_id])
            assert open_now.get(key, set()) == expected, key
            assert row.controls_failed == len(expected), key

    def _look_at_calls(self, usage: list[Any], limits: list[Any], planned: list[Any]) -> None:
        now_ns, now = self.clock.ns(), self.clock()
        counted: dict[str, int] = {}
        for row in usage:
            assert row.calls >= 0, row
            assert row.slice <= now.timestamp()
            counted[row.quota] = counted.get(row.quota, 0) + row.calls
        calls = [at_ns for at_ns in self.server.served.calls if at_ns > now_ns - 24 * 3600 * SECOND]
        assert counted.get("list_assets", 0) >= len(calls), "a call was not counted"
        limit = self.settings.sync_layers.api_sync.quotas.list_assets
        for first, last in zip(calls, calls[limit:], strict=False):
            assert last - first >= 60 * SECOND, f"more than {limit} calls in a minute"
        for row in limits:
            assert row.per_minute >= 1
        for row in planned:
            assert row.failures >= 0
            assert row.full_calls is None or row.full_calls >= 1
            assert row.delta_read_ns is None or row.delta_read_ns <= now_ns

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """After two reads of everything, without faults, the state is the organization."""
        self.faults.end()
        self.settings = self._settings(Path(self.settings.data_dir), tight=False)
        self.holder = None
        self.log.append("the end")
        self.clock.advance(timedelta(hours=25))
        for _ in range(2):
            self.clock.advance(timedelta(minutes=5))
            self.ask_for_all()
            ended = self.attempt()
            if ended == "busy":
                ended = self.attempt()
            assert ended == "done", ended
            self.look()
            self.confirm()
            self.look()
        self._is_the_truth()

    def _is_the_truth(self) -> None:
        truth = {
            key: version
            for key, version in self.organization.existing().items()
            if ORGANIZATION in self.scopes or version.home in self.scopes
        }
        with self.store.read() as connection:
            query = sa.select(resources, resource_contents.c.data).join(
                resource_contents, resource_contents.c.id == resources.c.content_id
            )
            rows = {
                (row.name, row.content_type): row
                for row in connection.execute(query.where(resources.c.deleted.is_(False)))
            }
            ledger = connection.execute(sa.select(coverage)).all()
            open_findings = {
                (row.resource, row.content_type, row.framework, row.control)
                for row in connection.execute(sa.select(findings).where(findings.c.resolved_at.is_(None)))
            }
        assert rows.keys() == truth.keys()
        for key, version in truth.items():
            row = rows[key]
            assert (row.data, row.digest) == (version.data, digest(version.data or {})), key
            assert (row.asset_type, row.update_ns) == (NAMES[key[0]], version.update_ns), key
            assert row.ancestors == ancestors_of(version.home), key
            assert row.scope == (version.home if version.home in self.scopes else ORGANIZATION), key
        assert {(row.scope, row.asset_type, row.content_type) for row in ledger} == set(self.parts)
        assert {row.status for row in ledger} == {"complete"}
        assert open_findings == {
            (*key, *rule) for key, version in truth.items() for rule in failed(key, version.data or {})
        }


def failed(key: Key, data: Json) -> set[tuple[str, str]]:
    """The controls that a content does not meet, as (framework, control). They are judged without what was remembered
    of others."""
    verdicts = controls().evaluate(NAMES[key[0]], key[1], key[0], data)
    assert all(verdict.outcome is not Outcome.UNKNOWN for verdict in verdicts), "the model's data decides each control"
    return {(verdict.framework, verdict.control) for verdict in verdicts if verdict.outcome is Outcome.FAIL}
