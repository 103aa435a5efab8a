"""What a control says of one asset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any


class Outcome(StrEnum):
    """``UNKNOWN``: the data does not decide it. It is never counted as a pass."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    """How bad it is not to meet a control."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One control's verdict. ``source`` is where the rule comes from: ``cis``, ``scc``, ``orgpolicy`` or ``gate``."""

    control: str
    framework: str
    title: str
    severity: str
    source: str
    outcome: Outcome
    message: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the arguments that make it: several times faster than field by field."""
        return (Verdict, _VALUES_OF(self))


_VALUES_OF = attrgetter(*(field.name for field in fields(Verdict)))


#: (asset type, content type, full resource name, redacted data) → the verdicts of the controls that apply to it.
Evaluator = Callable[[str, str, str, Mapping[str, Any]], list[Verdict]]
