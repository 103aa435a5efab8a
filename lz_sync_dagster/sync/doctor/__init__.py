"""The preflight: whether everything that a sync needs is there, and what to do about what is not.

`results` runs checks beside each other, each within its time; `checks` has them. Nothing is changed anywhere.
"""

from lz_sync_dagster.sync.doctor.checks import examine
from lz_sync_dagster.sync.doctor.results import Report, Result, Verdict, unusable_configuration

__all__ = ["Report", "Result", "Verdict", "examine", "unusable_configuration"]
