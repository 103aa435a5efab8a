"""Processes that are started together end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.processes import Processes

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize("way", ["start", "run"])
def test_a_signal_that_comes_while_a_process_starts_does_not_lose_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = set(psutil.Process().children())
    processes = Processes(tmp_path, os.environ)
    begin = {"start": lambda: processes.start("sleeps", SLEEPS), "run": lambda: processes.run(SLEEPS)}[way]
    with pytest.raises(KeyboardInterrupt), processes:
        begin()
    assert set(psutil.Process().children()) <= before
