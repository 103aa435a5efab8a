"""A landing zone that changes at random, and a real installation that keeps its portal repository: what the tests of
this folder kill and flood."""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import orjson
import psutil
import sqlalchemy as sa
import yaml

from demo.installation import CODE, DAEMON, DAGSTER_YAML, PORTAL, Installation, command
from demo.processes import Processes
from demo.simulator import REPOSITORY, head_push
from lz_sync_dagster.config import load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store import Store, inbox, open_store
from lz_sync_dagster.sync.store.layer_runs import statuses
from lz_sync_dagster.sync.store.schema import git_state, layer_runs, synced_files
from lz_sync_dagster.sync.timing import utcnow
from tests.conftest import until
from tests.integration.replay_history import History
from tests.integration.replay_oracle import Contents, Oracle, differences, git, is_of_the_sync, listing, short

SECRET = "a-webhook-secret"
#: Small, so that the history's large files are.
MAX_FILE_BYTES, LARGE = 10_000, 20_000
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Sends ``push`` deliveries as GitHub does. A call says which id one has (by default a new one), and returns the
    status of the answer."""

    url: str
    secret: bytes
    client: httpx.Client

    def __call__(self, payload: dict[str, Any], *, delivery: str | None = None) -> int:
        body = orjson.dumps(payload)
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
            "X-Hub-Signature-256": "sha256=" + hmac.new(self.secret, body, hashlib.sha256).hexdigest(),
        }
        return self.client.post(self.url, content=body, headers=headers).status_code


class Scratch:
    """The landing zone, its portal repository and the installation between them."""

    def __init__(self, folder: Path, processes: Processes, *, seed: int) -> None:
        self.folder = folder
        self.processes = processes
        self.random = random.Random(seed)
        self.history = History(folder, seed, large=LARGE, owned=set())
        self.landing_zone, self.portal = self.history.landing_zone.path, self.history.portal.path
        self.own = set(listing(self.portal))
        self.installation = Installation(processes, folder / "dagster", dagster_yaml=_impatient(), seconds=120)
        self.client = httpx.Client(timeout=10)
        self.webhook = Webhook(f"{self.installation.portal_url}/webhooks/github", SECRET.encode(), self.client)
        self.heads = [self.head()]
        self.settings = load_settings(folder / "sync_config.yaml")
        self.store: Store
        self._steps = self.history.steps(10_000, meddles=False)
        self._dagster: dg.DagsterInstance | None = None

    @property
    def dagster(self) -> dg.DagsterInstance:
        """Dagster's instance, as its own processes see it."""
        if self._dagster is None:
            self._dagster = dg.DagsterInstance.from_config(str(self.installation.home))
        return self._dagster

    def head(self) -> str:
        return git(self.landing_zone, "rev-parse", "main").decode().strip()

    # Changes and deliveries.

    def change(self) -> tuple[str, dict[str, Any]]:
        """Push a random change: what it was, and the payload that GitHub sends for it."""
        return next(self._steps), self._payload()

    def edit(self) -> dict[str, Any]:
        """Push a change that surely touches what is synced."""
        self.history.put(
            b"docs/edited.md", self.history.landing_zone.blob(b"# Edited %s\n" % uuid.uuid4().hex.encode())
        )
        self.history.commit(b"docs/edited.md")
        return self._payload()

    def _payload(self) -> dict[str, Any]:
        before, after = self.heads[-1], self.head()
        self.heads.append(after)
        parents = git(self.landing_zone, "log", "-1", "--format=%P", "main").decode().split()
        forced = before not in parents and before != after
        return {**head_push(self.landing_zone), "before": before, "forced": forced}

    def deliver(self, payload: dict[str, Any], *, seconds: float = 120) -> int:
        """Send a delivery until it is answered, as GitHub's redelivery does. Returns how often it was sent."""
        delivery, end, sent = str(uuid.uuid4()), time.monotonic() + seconds, 0
        while True:
            sent += 1
            try:
                if (status := self.webhook(payload, delivery=delivery)) == httpx.codes.ACCEPTED:
                    return sent
            except httpx.TransportError as error:
                status = type(error).__name__
            assert time.monotonic() < end, f"a delivery was not taken within {seconds} s: {status}"
            self.wait(0.2)

    @staticmethod
    def wait(seconds: float) -> None:
        """Let a moment pass that is random, or that a redelivery leaves; nothing is waited for."""
        time.sleep(seconds)

    # What is going on.

    def count(self, query: sa.Select[Any]) -> int:
        with self.store.read() as connection:
            return int(connection.scalar(query) or 0)

    def writers(self) -> int:
        """How many git syncs say that they are under way."""
        under_way = layer_runs.c.finished_at.is_(None) & (layer_runs.c.layer == LayerId.GIT.value)
        return self.count(sa.select(sa.func.count()).select_from(layer_runs).where(under_way))

    def git_runs(self) -> list[dg.DagsterRun]:
        return list(self.dagster.get_runs(dg.RunsFilter(job_name="git_job")))

    def is_settled(self) -> bool:
        """Whether nothing waits and nothing runs, and the newest head was synced."""
        with self.store.read() as connection:
            waiting = inbox.counts(connection).pending
            synced = connection.scalar(sa.select(git_state.c.source_commit))
        if waiting or synced != self.head() or self.writers():
            return False
        return not self.dagster.get_run_records(dg.RunsFilter(statuses=_UNFINISHED), limit=1)

    def run_processes(self) -> list[psutil.Process]:
        """The processes of Dagster's runs."""
        return [process for process in self._below_code() if "spawn_main" in _command_line(process)]

    def git_processes(self) -> list[psutil.Process]:
        """The git commands of syncs; not those of the remote, which is another machine's."""
        return [process for process in self._below_code() if _command_line(process).startswith("git --git-dir=")]

    def _below_code(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.processes.pid(CODE)).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    # The end.

    def check(self) -> None:
        """The portal is what the oracle says; every file is accounted for; a second sync does nothing."""
        present = {path for path in listing(self.portal) if not is_of_the_sync(path)}
        oracle = Oracle(self.landing_zone, self.portal, MAX_FILE_BYTES, present - self.own)
        expected = oracle.expect(excludes_internal=False, shares=False)
        found = {path: entry for path, entry in listing(self.portal).items() if not is_of_the_sync(path)}
        assert not (problems := differences("portal", expected, found)), "\n".join(problems)
        written = Contents(self.portal)
        written.read({found[path].oid for path in oracle.owned})
        assert all(written[found[path].oid] == oracle.source[found[path].oid] for path in oracle.owned)
        with self.store.read() as connection:
            rows = connection.execute(sa.select(synced_files)).all()
            layers = {status.layer: status.status for status in statuses(connection, now=utcnow())}
        accounts = {(short(row.path), short(row.destination)): row.reason is None for row in rows}
        verdicts = {(short(a), short(b)): account.verdict == "synced" for (a, b), account in oracle.accounts.items()}
        assert not (problems := differences("synced_files", verdicts, accounts)), "\n".join(problems)
        assert Status.IN_PROGRESS not in layers.values(), layers
        self._check_order()
        self._check_mirrors()

    def _check_order(self) -> None:
        """No commit of the portal goes back to an older head, and no two syncs overlap."""
        log = git(self.portal, "log", "--reverse", "--format=%H %(trailers:key=Landing-Zone-Commit,valueonly)", "main")
        sources = [line.split()[1] for line in log.decode().splitlines() if len(line.split()) == 2]
        places = [max(number for number, head in enumerate(self.heads) if head == source) for source in sources]
        first = [self.heads.index(source) for source in sources]
        assert all(before <= after for before, after in zip(first, places[1:], strict=False)), (first, places)
        with self.store.read() as connection:
            query = sa.select(layer_runs).where(layer_runs.c.layer == LayerId.GIT.value).order_by(layer_runs.c.id)
            runs = connection.execute(query).all()
        assert all(before.finished_at <= after.started_at for before, after in pairwise(runs))

    def _check_mirrors(self) -> None:
        for mirror in ("landing-zone.git", "portal.git"):
            git(self.settings.data_dir / "git" / mirror, "fsck", "--connectivity-only")
        head = git(self.portal, "rev-parse", "main")
        done = subprocess.run(
            command("lz-sync", "sync", "git", "--json"),
            env=dict(self.processes.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        document = orjson.loads(done.stdout)
        (layer,) = document["layers"]
        assert layer["status"] in ("success", "partial"), document
        assert layer["items_changed"] == 0, document
        assert git(self.portal, "rev-parse", "main") == head


@contextmanager
def scratch(folder: Path, *, seed: int) -> Iterator[Scratch]:
    """A scratch installation whose processes run: portal, code server and daemon."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LZ_SYNC_", "PYTEST_"))}
    config = folder / "sync_config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "sync_layers": {
                    "git_sync": {"max_file_bytes": MAX_FILE_BYTES},
                    **{layer: {"enabled": False} for layer in ("api_sync", "pubsub", "bigquery")},
                },
                "landing_zone": {"url": str(folder / "landing-zone.git"), "name": REPOSITORY, "branch": "main"},
                "portal_repository": {"url": str(folder / "portal.git"), "branch": "main"},
                "data_dir": str(folder / "data"),
            }
        )
    )
    environment |= {
        "LZ_SYNC_CONFIG": str(config),
        "LZ_SYNC_WEBHOOK_SECRETS": SECRET,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with Processes(folder / "logs", environment) as processes:
        made = Scratch(folder, processes, seed=seed)
        made.installation.start_and_wait([PORTAL, CODE])
        made.installation.start(DAEMON)
        with open_store(made.settings.store_url, migrate=False) as made.store:
            yield made
        made.client.close()
        if made._dagster is not None:
            made._dagster.dispose()


def first(look: Callable[[], list[psutil.Process]], *, seconds: float) -> psutil.Process | None:
    """The first process that shows up, ``None`` if none does in time."""
    try:
        found: psutil.Process = until(lambda: next(iter(look()), None), seconds=seconds)
    except AssertionError:
        return None
    return found


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _impatient() -> str:
    """The project's configuration of Dagster, which looks more often: nothing but waiting is shorter."""
    document = yaml.safe_load(DAGSTER_YAML.read_text(encoding="utf-8"))
    document["run_monitoring"] |= {
        "start_timeout_seconds": 60,
        "cancel_timeout_seconds": 20,
        "poll_interval_seconds": 3,
    }
    return str(yaml.safe_dump(document))
