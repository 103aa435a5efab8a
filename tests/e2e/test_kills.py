"""A real installation under fire: processes are killed at random moments, and deliveries come in a flood. What counts
is the end: the portal repository is the landing zone's mirror, and nothing waits."""

from __future__ import annotations

import random
import stat
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from demo.installation import CODE, DAEMON, PORTAL
from lz_sync_dagster.sync.store import inbox
from tests.conftest import SOAK, until
from tests.e2e.scratch import Scratch, Webhook, first, scratch

KILLS = 36 if SOAK else 3
#: Until everything is settled after the last kill. A lease ends after a minute, and a run whose code server died with
#: it is given up after two.
SETTLE_SECONDS = 600 if SOAK else 240


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    seed = random.SystemRandom().randrange(10_000) if SOAK else 3
    _say(f"seed {seed}")
    with scratch(tmp_path_factory.mktemp("scratch"), seed=seed) as made:
        yield made


# --- a flood ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_200_deliveries_in_2_seconds_while_a_sync_runs_are_answered_and_end_in_3_runs(
    place: Scratch, tmp_path: Path
) -> None:
    place.deliver(place.edit())
    until(place.is_settled, seconds=120, what="the first sync")
    before = len(place.git_runs())
    received = _received(place)

    gate = tmp_path / "gate"
    gate.touch()
    hook = place.portal / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/reached\nwhile [ -e {gate} ]; do sleep 0.05; done\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    place.deliver(place.edit())
    until((tmp_path / "reached").exists, seconds=60, what="a push under way")

    payloads = [place.edit() for _ in range(60)]
    wrong = Webhook(place.webhook.url, b"another secret", place.client)
    ids = [str(uuid.uuid4()) for _ in payloads]
    sends: list[tuple[Callable[[], int], int]] = []
    for payload, name in zip(payloads, ids, strict=True):
        sends.append((lambda payload=payload, name=name: place.webhook(payload, delivery=name), 202))
        sends.append((lambda payload=payload, name=name: place.webhook(payload, delivery=name), 202))
        sends.append((lambda payload=payload: place.webhook(payload), 202))
    sends += [(lambda payload=payload: wrong(payload), 401) for payload in payloads[:20]]
    assert len(sends) == 200
    place.random.shuffle(sends)

    def send(number: int) -> tuple[int, float]:
        place.wait(max(0.0, started + number / 100 - time.monotonic()))
        sent = time.monotonic()
        return sends[number][0](), time.monotonic() - sent

    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(len(sends))))
    took = time.monotonic() - started
    assert [status for status, _ in answers] == [status for _, status in sends]
    assert _received(place) == received + 1 + len(payloads), "each push is kept once"
    gate.unlink()
    until(place.is_settled, seconds=120, what="the end of the flood")
    hook.unlink()
    runs = len(place.git_runs()) - before
    slowest = max(seconds for _, seconds in answers)
    _say(f"200 deliveries in {took:.1f} s, slowest answer {slowest:.2f} s, {runs} runs")
    assert slowest < 5
    assert runs <= 3
    place.check()


def _received(place: Scratch) -> int:
    with place.store.read() as connection:
        return inbox.counts(connection).received


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 400)
def test_whatever_is_killed_whenever_the_end_is_the_same(place: Scratch) -> None:
    started = time.monotonic()
    targets = _targets(place)
    most_writers, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most_writers[0] = max(most_writers[0], place.writers())

    watcher = threading.Thread(target=watch)
    watcher.start()
    deliveries: list[Future[int]] = []
    kills = 0
    try:
        with ThreadPoolExecutor(4) as pool:
            while kills < KILLS:
                if SOAK and place.random.random() < 0.2:
                    until(place.is_settled, seconds=SETTLE_SECONDS, what=f"the end of {kills} kills")
                    _say("settled", started)
                what, payload = place.change()
                deliveries.append(pool.submit(place.deliver, payload))
                place.wait(place.random.choice([place.random.uniform(0, 0.3), place.random.uniform(0, 6)]))
                name = place.random.choice(list(targets)) if SOAK else list(targets)[kills % len(targets)]
                killed = targets[name]()
                kills += killed
                _say(f"{kills:3} {name if killed else name + ' (not there)'}: {what}", started)
            deliveries.append(pool.submit(place.deliver, place.edit()))
        until(place.is_settled, seconds=SETTLE_SECONDS, what="the end")
    finally:
        done.set()
        watcher.join()
    resent = sum(delivery.result() > 1 for delivery in deliveries)
    runs = [run.status.value for run in place.git_runs()]
    counts = {status: runs.count(status) for status in sorted(set(runs))}
    _say(f"settled after {kills} kills; {len(deliveries)} deliveries, {resent} sent again; runs: {counts}", started)
    assert most_writers[0] == 1
    place.check()


def _targets(place: Scratch) -> dict[str, Callable[[], bool]]:
    """What can be killed. Each says whether something died."""

    def process(name: str, *, children: bool) -> bool:
        place.processes.kill(name, children=children)
        place.installation.start(name)
        return True

    def one(look: Callable[[], list[psutil.Process]], delay: float) -> bool:
        if first(look, seconds=20) is None:
            return False
        place.wait(place.random.uniform(0, delay))
        victim = next(iter(look()), None)
        if victim is None:
            return False
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return False
        return True

    return {
        "the run": lambda: one(place.run_processes, 4),
        "the daemon": lambda: process(DAEMON, children=True),
        "the portal": lambda: process(PORTAL, children=True),
        "a git command": lambda: one(place.git_processes, 0),
        "the code server": lambda: process(CODE, children=False),
        "the code server and its runs": lambda: process(CODE, children=True),
    }


def _say(text: str, started: float | None = None) -> None:
    """Tell how far it is; ``pytest -s`` shows it."""
    at = "" if started is None else f"{time.monotonic() - started:6.1f} s  "
    sys.stdout.write(f"{at}{text}\n")
    sys.stdout.flush()
