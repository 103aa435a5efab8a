"""What a check says, and how checks are run: beside each other, and none longer than it may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.state.redaction import redact_text

log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """How a check ended. A ``warning`` does not keep anything from working; ``skipped`` says why it was not made."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report: ``check`` (a word), ``subject`` (what was looked at), and what was found. Whatever failed
    or warns has a ``remedy``."""

    check: str
    subject: str
    verdict: Verdict
    what: str
    remedy: str | None = None


#: Gives results, one after the other. A `SyncError` that it raises is a failed result.
Check = Callable[[], Iterator[Result]]


@dataclass(frozen=True, slots=True)
class Report:
    """All results, in the order of the checks."""

    results: tuple[Result, ...]
    as_of: datetime

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not any(result.verdict is Verdict.FAILED for result in self.results)

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "ok": self.ok,
            "as_of": self.as_of.isoformat(),
            "source": "lz_sync",
            "checks": [
                {
                    "check": result.check,
                    "subject": result.subject,
                    "verdict": result.verdict.value,
                    "what": result.what,
                    "remedy": result.remedy,
                }
                for result in self.results
            ],
        }


def unusable_configuration(lines: Sequence[str], *, now: datetime) -> Report:
    """The report where the settings cannot be read: one failed line per mistake, and nothing else was looked at."""
    remedy = "correct it; the other checks need the settings"
    mistakes = [Result("config", "settings", Verdict.FAILED, line, remedy) for line in lines]
    return Report(tuple(_clean(mistake) for mistake in mistakes), now)


def failed(check: str, error: SyncError) -> Result:
    """The result of what raised."""
    return Result(check, error.where, Verdict.FAILED, error.what, error.remedy)


def run_checks(checks: Sequence[tuple[str, Check]], *, seconds: float) -> list[Result]:
    """Run checks beside each other and wait ``seconds`` for all of them at most: one that takes longer is a failed
    result, and what it has said so far stands. Results come in the order of the checks, without secrets."""
    runs = [_Run(name, check) for name, check in checks]
    deadline = time.monotonic() + seconds
    for run in runs:
        run.thread.start()
    for run in runs:
        run.thread.join(max(0.0, deadline - time.monotonic()))
    return [_clean(result) for run in runs for result in run.taken(seconds)]


class _Run:
    """A check in a thread of its own, which ends with the process if nothing else ends it."""

    def __init__(self, name: str, check: Check) -> None:
        self._name = name
        self._check = check
        self._results: list[Result] = []
        self._lock = threading.Lock()
        self._is_over = False
        self.thread = threading.Thread(target=self._work, name=f"doctor-{name}", daemon=True)

    def _work(self) -> None:
        self._add(self._made())
        with self._lock:
            self._is_over = True

    def _made(self) -> Iterator[Result]:
        try:
            yield from self._check()
        except SyncError as error:
            yield failed(self._name, error)
        except Exception as error:
            log.debug("check_failed", check=self._name, exc_info=True)
            what = f"the check itself failed ({type(error).__name__}: {error})"
            yield Result(self._name, self._name, Verdict.FAILED, what, "please report this as a defect")

    def _add(self, results: Iterable[Result]) -> None:
        for result in results:
            with self._lock:
                self._results.append(result)

    def taken(self, seconds: float) -> list[Result]:
        with self._lock:
            found = list(self._results)
            if not self._is_over:
                what = f"did not come to an end within {seconds:.0f} s"
                remedy = "check the network to it; 'lz-sync doctor --timeout' waits longer"
                found.append(Result(self._name, self._name, Verdict.FAILED, what, remedy))
        return found


def _clean(result: Result) -> Result:
    return replace(
        result,
        subject=redact_text(result.subject),
        what=redact_text(" ".join(result.what.split())),
        remedy=None if result.remedy is None else redact_text(" ".join(result.remedy.split())),
    )
