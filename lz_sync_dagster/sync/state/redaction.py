"""Removes secrets before anything is stored, logged, pushed or broadcast.

Structured data is redacted by what a field is (a password, an environment variable, an instance's metadata value that
no control needs); all text is also searched for what secrets look like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

#: What may hold a secret; numbers, booleans and nulls do not.
_NESTED = (str, dict, list, tuple, Mapping)

#: Instance metadata whose value is a setting, not a secret. Every other value is removed: startup scripts and ssh
#: keys live there.
SAFE_METADATA = frozenset(
    {
        "block-project-ssh-keys",
        "cluster-location",
        "cluster-name",
        "disable-legacy-endpoints",
        "enable-guest-attributes",
        "enable-os-inventory",
        "enable-oslogin",
        "enable-oslogin-2fa",
        "google-compute-enable-pcid",
        "google-logging-enabled",
        "google-monitoring-enabled",
        "serial-port-enable",
        "serial-port-logging-enable",
        "vmdnssetting",
    }
)

#: Fields whose text is a secret, whatever the type. Compared in lower case without ``_`` and ``-``.
_SECRET_FIELDS = frozenset(
    {
        "accesstoken",
        "apikey",
        "authtoken",
        "clientkey",
        "clientsecret",
        "connectionstring",
        "credential",
        "credentials",
        "idtoken",
        "keystring",
        "kubeconfig",
        "oauthclientsecret",
        "passphrase",
        "passwd",
        "password",
        "privatekey",
        "privatekeydata",
        "refreshtoken",
        "rootpassword",
        "secret",
        "secretaccesskey",
        "secretkey",
        "sharedsecret",
        "startupscript",
        "token",
        "userdata",
    }
)
_WHOLLY_SECRET = _SECRET_FIELDS | {"environmentvariables", "buildenvironmentvariables", "envvariables", "secretenv"}

_SECRET_TEXT = re.compile(
    r"""
    -----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z0-9 ]*PRIVATE[ ]KEY-----|\Z)
    | \bgh[pousr]_[A-Za-z0-9]{20,}
    | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \bglpat-[A-Za-z0-9_\-]{20,}
    | \bya29\.[A-Za-z0-9_\-]{20,}
    | \bGOCSPX-[A-Za-z0-9_\-]{20,}
    | \bAIza[A-Za-z0-9_\-]{30,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bxox[abeoprs]-[A-Za-z0-9\-]{10,}
    | \b[sr]k_live_[A-Za-z0-9]{16,}
    | \beyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}
    """,
    re.VERBOSE | re.DOTALL,
)
#: ``scheme://user:password@host``: only the password goes.
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.\-]*://[^\s/:@\"']*:)([^\s/@\"'$<{]+)(@)", re.IGNORECASE)
#: ``password = "literal"``, in terraform, YAML, shell and the like; references and placeholders are no literals.
_ASSIGNED = re.compile(
    r"""(\b\w*(?:password|passwd|secret|token|api_?key|private_?key)\w*["']?\s*[=:]\s*["'])([^"'\s$<{\[]{8,})(["'])""",
    re.IGNORECASE,
)
#: A token is at least this long; shorter texts cannot hold one.
_SHORTEST_TOKEN = 16
#: What every token of `_SECRET_TEXT` begins with: a quick look before the careful one.
_TOKEN_HINT = re.compile(r"PRIVATE KEY|gh[pousr]_|github_pat_|glpat-|ya29\.|GOCSPX-|AIza|A[KS]IA|xox|[sr]k_live_|eyJ")


def redact(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Remove secrets from an asset's data.

    Args:
        data: the content in Cloud Asset's JSON form. The rules hold for every asset type, also for unknown ones.

    Returns:
        The data with each secret replaced by ``[redacted]``, and the dotted paths where that happened. Redacting twice
        changes nothing.
    """
    paths: list[str] = []
    result = _mapping(data, "", paths)
    return result, tuple(paths)


def redact_text(text: str) -> str:
    """Return a text without what looks like a secret: private keys, tokens, passwords in URLs and literals."""
    if len(text) >= _SHORTEST_TOKEN and _TOKEN_HINT.search(text):
        text = _SECRET_TEXT.sub(REDACTED, text)
    if "@" in text and "://" in text:
        text = _URL_PASSWORD.sub(rf"\g<1>{REDACTED}\g<3>", text)
    if '"' in text or "'" in text:
        text = _ASSIGNED.sub(rf"\g<1>{REDACTED}\g<3>", text)
    return text


class _Kind(Enum):
    """What a field's name says of its content."""

    SECRET = auto()
    ENVIRONMENT = auto()
    METADATA = auto()
    PLAIN = auto()


@lru_cache(maxsize=16_384)
def _kind(name: str) -> _Kind:
    field = name.lower().replace("_", "").replace("-", "")
    if field in _WHOLLY_SECRET or field.endswith(("password", "privatekey", "clientsecret")):
        return _Kind.SECRET
    if field in ("env", "environment"):
        return _Kind.ENVIRONMENT
    if field in ("metadata", "commoninstancemetadata"):
        return _Kind.METADATA
    return _Kind.PLAIN


def _mapping(data: Mapping[str, Any], path: str, paths: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in data.items():
        name = str(key)
        kind = _kind(name)
        if kind is _Kind.PLAIN and not isinstance(value, _NESTED):
            result[key] = value
            continue
        below = f"{path}.{name}" if path else name
        if kind is _Kind.SECRET:
            result[key] = _everything(value, below, paths)
        elif kind is _Kind.ENVIRONMENT and isinstance(value, list | Mapping):
            result[key] = _values(value, below, paths, safe=frozenset())
        elif kind is _Kind.METADATA and isinstance(value, Mapping):
            result[key] = _metadata(value, below, paths)
        else:
            result[key] = _value(value, below, paths)
    return result


def _value(value: Any, path: str, paths: list[str]) -> Any:
    if isinstance(value, str):
        clean = redact_text(value)
        if clean != value:
            paths.append(path)
        return clean
    if isinstance(value, Mapping):
        return _mapping(value, path, paths)
    if isinstance(value, list | tuple):
        return [_value(item, f"{path}.{index}", paths) for index, item in enumerate(value)]
    return value


def _everything(value: Any, path: str, paths: list[str]) -> Any:
    """Remove every text below a secret field; numbers, booleans and empty texts are no secrets."""
    if isinstance(value, str):
        if not value:
            return value
        paths.append(path)
        return REDACTED
    if isinstance(value, Mapping):
        return {key: _everything(item, f"{path}.{key}", paths) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_everything(item, f"{path}.{index}", paths) for index, item in enumerate(value)]
    return value


def _metadata(value: Mapping[str, Any], path: str, paths: list[str]) -> dict[str, Any]:
    """Compute's ``{items: [{key, value}]}``, or a plain map of texts (GKE node pools)."""
    result: dict[str, Any] = {}
    for key, item in value.items():
        below = f"{path}.{key}"
        if key == "items" and isinstance(item, list):
            result[key] = _values(item, below, paths, safe=SAFE_METADATA)
        elif isinstance(item, str) and str(key).lower() not in SAFE_METADATA and "fingerprint" not in str(key).lower():
            result[key] = _everything(item, below, paths)
        else:
            result[key] = _value(item, below, paths)
    return result


def _values(entries: Any, path: str, paths: list[str], *, safe: frozenset[str]) -> Any:
    """``[{key|name, value}, …]`` or ``{name: value}``: remove the values whose key is not known to be harmless."""
    if isinstance(entries, Mapping):
        return {
            key: item if str(key).lower() in safe else _everything(item, f"{path}.{key}", paths)
            for key, item in entries.items()
        }
    result = []
    for index, entry in enumerate(entries):
        below = f"{path}.{index}"
        if not isinstance(entry, Mapping):
            result.append(_everything(entry, below, paths))
            continue
        name = str(entry.get("key", entry.get("name", ""))).lower()
        result.append(
            {
                key: _value(item, f"{below}.{key}", paths)
                if key in ("key", "name") or name in safe
                else _everything(item, f"{below}.{key}", paths)
                for key, item in entry.items()
            }
        )
    return result
