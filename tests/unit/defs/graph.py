"""The whole graph of definitions as text that a person can read in a diff.

After a change that is meant: ``.venv/bin/python -m tests.unit.defs.graph`` writes ``graph.txt`` anew.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

FILE = Path(__file__).with_name("graph.txt")


def describe(definitions: dg.Definitions) -> str:
    """All assets, checks, jobs, schedules, sensors and resources."""
    repository = definitions.get_repository_def()
    blocks = [
        *(_asset(spec) for spec in sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key)),
        _list("checks", sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in _checks(repository))),
        _list("jobs", [_job(job) for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)]),
        _list("schedules", [_schedule(item) for item in sorted(repository.schedule_defs, key=lambda item: item.name)]),
        _list("sensors", [_sensor(item) for item in sorted(repository.sensor_defs, key=lambda item: item.name)]),
        _list("resources", sorted(repository.get_top_level_resources())),
    ]
    return "\n".join(blocks)


def _asset(spec: dg.AssetSpec) -> str:
    facts = {
        "group": spec.group_name,
        "owners": ", ".join(spec.owners),
        "kinds": ", ".join(sorted(spec.kinds)),
        "tags": ", ".join(f"{key}={value}" for key, value in sorted(spec.tags.items()) if "kind" not in key),
        "fresh": _freshness(spec.freshness_policy),
        "deps": ", ".join(sorted(dep.asset_key.to_user_string() for dep in spec.deps)),
        "about": " ".join((spec.description or "").split()),
    }
    return _list(f"asset {spec.key.to_user_string()}", [f"{key}: {value}" for key, value in facts.items() if value])


def _freshness(policy: Any) -> str:
    if policy is None:
        return ""
    warn: timedelta = policy.warn_window.to_timedelta()
    fail: timedelta = policy.fail_window.to_timedelta()
    return f"warn after {warn}, fail after {fail}"


def _checks(repository: dg.RepositoryDefinition) -> list[dg.AssetCheckKey]:
    return list(repository.asset_graph.asset_check_keys)


def _job(job: dg.JobDefinition) -> str:
    keys = sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
    shown = f"{len(keys)} assets" if job.name.startswith("__") else ", ".join(keys)
    return f"{job.name}: {shown}" if shown != "" else job.name


def _schedule(item: dg.ScheduleDefinition) -> str:
    return f"{item.name}: {item.cron_schedule} {item.execution_timezone} → {item.job_name}, {item.default_status.value}"


def _sensor(item: dg.SensorDefinition) -> str:
    jobs = ", ".join(job for target in item.targets if (job := target.job_name)) or "no run"
    return f"{item.name}: every {item.minimum_interval_seconds} s → {jobs}, {item.default_status.value}"


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines), ""])


def main() -> None:
    """Write ``graph.txt``."""
    from lz_sync_dagster.config import load_settings
    from lz_sync_dagster.definitions import build_defs

    FILE.write_text(describe(build_defs(load_settings(environ={}))), encoding="utf-8")


if __name__ == "__main__":
    main()
