"""Starts the production processes and ends them all: each is the leader of a process group of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from lz_sync_dagster.sync.errors import Reason, SyncError

#: What a process gets to end by itself after SIGINT, and again after SIGTERM, before it is killed.
_GRACE_SECONDS = (5.0, 3.0)
_POLL_SECONDS = 0.05
_FOREGROUND = "the command in the foreground"


@dataclass
class Processes:
    """A set of processes with one life. Their output goes to ``<logs>/<name>.log``."""

    logs: Path
    environment: Mapping[str, str]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], *, extra: Mapping[str, str] | None = None) -> None:
        """Start a process in a group of its own."""
        with self._open(name) as log, _signals_wait():
            self._running[name] = subprocess.Popen(
                command,
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self, command: Sequence[str], *, stopped: Callable[[], bool] = lambda: False, log: str | None = None
    ) -> int | None:
        """Run a command with this process's own output until it ends, or until ``stopped`` says so.

        Args:
            log: its output goes to the log of this name instead.

        Returns:
            Its exit code; ``None`` if it was stopped: then `stop` ends it.

        Raises:
            SyncError: one of the other processes ended.
        """
        with contextlib.nullcontext() if log is None else self._open(log) as output, _signals_wait():
            process = self._running[_FOREGROUND] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while process.poll() is None:
            if stopped():
                return None
            self.check()
            time.sleep(_POLL_SECONDS)
        del self._running[_FOREGROUND]
        return process.returncode

    def log(self, name: str) -> Path:
        """The file with a process's output."""
        return self.logs / f"{name}.log"

    def _open(self, name: str) -> BinaryIO:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.log(name).open("ab")

    def check(self) -> None:
        """Raise if a process ended by itself.

        Raises:
            SyncError: with the last line that it wrote.
        """
        for name, process in self._running.items():
            if name != _FOREGROUND and process.poll() is not None:
                lines = self.log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines() or [
                    "no output"
                ]
                code = process.returncode
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}: {lines[-1]}"
                raise SyncError(
                    how,
                    where=name,
                    remedy=f"look at {self.log(name)}",
                    reason=Reason.UNAVAILABLE,
                )

    def wait_for(self, condition: Callable[[], bool], *, what: str, seconds: float) -> None:
        """Wait until a condition holds, as long as all processes live.

        Raises:
            SyncError: a process ended, or the time is up.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise SyncError(
                    f"did not come up within {seconds:.0f} s",
                    where=what,
                    remedy=f"look at the files in {self.logs}",
                    reason=Reason.TIMEOUT,
                )
            time.sleep(_POLL_SECONDS)

    def is_running(self, name: str) -> bool:
        """Whether a process was started and has not ended."""
        return name in self._running and self._running[name].poll() is None

    def pid(self, name: str) -> int:
        """The id of a process that was started, and of its group."""
        return self._running[name].pid

    def kill(self, name: str, *, children: bool = True) -> None:
        """Kill a process at once, with or without its children. Then it may be started again."""
        process = self._running.pop(name)
        if children:
            _signal(process, signal.SIGKILL)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End every process with all its children: SIGINT, then SIGTERM, then SIGKILL."""
        for number, grace in zip((signal.SIGINT, signal.SIGTERM), _GRACE_SECONDS, strict=True):
            for process in self._running.values():
                _signal(process, number)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and any(_alive(process) for process in self._running.values()):
                time.sleep(_POLL_SECONDS)
        for process in self._running.values():
            _signal(process, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals that this process handles wait until the block is over: a process that is being started would be lost
    otherwise, and outlive this one."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    mine = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        mine = {}
    came: list[int] = []
    for number in mine:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the process's group is left."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
