"""Removes secrets before anything is stored, logged, pushed or broadcast.

Structured data is redacted by what a field is (a password, an environment variable, a script, an instance's metadata
value that no control needs); all text is also searched for what secrets look like, and JSON in a text is data again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import Any

import orjson

REDACTED = "[redacted]"

#: What may hold a secret by what it says; numbers, booleans and nulls do not.
_NESTED = (str, dict, list, tuple, Mapping)

#: Instance metadata whose value is a setting, not a secret. Every other value is removed: startup scripts and ssh
#: keys live there.
SAFE_METADATA = frozenset(
    {
        "block-project-ssh-keys",
        "cluster-location",
        "cluster-name",
        "created-by",
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

#: Fields that hold a secret, whatever the type. Compared in lower case, letters and digits only.
_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "cloudinit",
        "connectionstring",
        "cookie",
        "credential",
        "credentials",
        "keystring",
        "kubeconfig",
        "privatekeydata",
        "proxyauthorization",
        "rsaencryptedkey",
        "secretenv",
        "setcookie",
        "userdata",
    }
)
#: What the names of such fields end with.
_SECRET_ENDINGS = (
    "accesskey",
    "accountkey",
    "apikey",
    "authkey",
    "clientkey",
    "fernetkey",
    "hmackey",
    "masterkey",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "passwordhash",
    "privatekey",
    "pwd",
    "rawkey",
    "script",
    "secret",
    "secretkey",
    "servicekey",
    "sharedkey",
    "signerkey",
    "signingkey",
    "token",
)
_PLAIN_ENDINGS = ("bypass", "compass", "pagetoken", "transcript", "subscript")
#: Objects that say which identity to take a token of.
_TOKEN_SETTINGS = frozenset({"oidctoken", "oauthtoken"})
_VARIABLES_ENDINGS = ("environmentvariables", "envvariables", "envvars", "substitutions")

#: A secret's name in Secret Manager is none.
_REFERENCE = re.compile(r"(?://secretmanager\.googleapis\.com/)?projects/[^/\s]+/secrets/[^/\s]+(?:/versions/\w+)?")

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
#: A token is at least this long; shorter texts cannot hold one.
_SHORTEST_TOKEN = 16
#: What a token of `_SECRET_TEXT` cannot be without: a quick look before the careful one.
_TOKEN_HINTS = (
    "PRIVATE KEY", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "ya29.", "GOCSPX-", "AIza", "AKIA",
    "ASIA", "xox", "k_live_", "eyJ",
)  # fmt: skip
#: Most of what an inventory says: names, paths, numbers and instants. Nothing is assigned, quoted or spaced in it, so
#: only a token could be in it, or a hook's URL.
_HARMLESS = re.compile(r"[A-Za-z0-9./:\-]*\Z")
_HARMFUL = ("glpat-", "ya29.", "GOCSPX-", "AIza", "AKIA", "ASIA", "xox", "eyJ", "hook")
#: ``scheme://user:password@host``: only the password goes.
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.\-]*://[^\s/:@\"']*:)([^\s/@\"'$<{]+)(@)", re.IGNORECASE)
#: ``password = "literal"``, in terraform, YAML, shell and the like; references and placeholders are no literals.
_LITERAL = re.compile(
    r"""(\b\w*(?:password|passwd|secret|token|api_?key|private_?key)\w*["']?\s*[=:]\s*["'])([^"'\s$<{\[]{8,})(["'])""",
    re.IGNORECASE,
)
#: URLs that whoever knows them may post to.
_HOOK = re.compile(
    r"(hooks\.slack\.com/\w+/|discord(?:app)?\.com/api/webhooks/|\.webhook\.office\.com/\w+/)(?!\[)([\w/@.\-]+)"
)

#: What is no value: a reference to one, or a place for one.
_PLACEHOLDER = r"\[redacted\]|\$\{|\$\(|\$[A-Za-z_]|<|\{\{|%[sd(]|\*\*\*"
#: How the names of secrets end, and what may follow before the sign that assigns.
_NAME = (
    r"(?:passw(?:or)?d|passphrase|[_\-.]pass|(?<![a-z])pass|pwd|secret|(?<!page)token|credentials?"
    r"|(?:api|access|secret|private|signer|signing|service|hmac|fernet|client|account|auth|shared|master)[_\-.]?key)"
    r"(?:[_\-]?(?:value|data|\d{1,3}))?"
)
_QUOTED = re.compile(
    rf"""({_NAME}\\*["']?[ \t]{{0,9}}(?:=>|[=:])[ \t]{{0,9}}\\*["'])(?!{_PLACEHOLDER})[^"'\\\n]+""", re.IGNORECASE
)
_SHELL = re.compile(
    rf"""({_NAME}=)(?!{_PLACEHOLDER}|[=>"'\\]|(?:true|false|null|none)\b)[^\s"'`,;&|)\\]+""", re.IGNORECASE
)
_SPACED = re.compile(
    rf"""({_NAME}["']?(?::[ \t]{{1,9}}|[ \t]{{1,9}}=[ \t]{{1,9}}))(?!{_PLACEHOLDER}|[="'\\])([^\s"',;}}\\]+)""",
    re.IGNORECASE,
)
_FLAG = re.compile(rf"""(--?[\w\-]{{0,40}}{_NAME}[ \t]+["']?)(?!{_PLACEHOLDER}|-)[^\s"'\\]+""", re.IGNORECASE)
_USER = re.compile(rf"""((?:-u|--user)[ \t=]["']?[^\s:"']{{1,100}}:)(?!{_PLACEHOLDER}|/)[^\s"']+""")
_SCHEME = re.compile(
    rf"""(authorization\\*["']?\s{{0,9}}[:=]\s{{0,9}}\\*["']?(?:[a-z]+\s+))(?!{_PLACEHOLDER})[^\s"'\\]+"""
    rf"""|(\b(?:bearer|basic)\s+)(?!{_PLACEHOLDER})(?=[^\s"']*\d)[\w.~+/=\-]{{16,}}""",
    re.IGNORECASE,
)
_QUERY = re.compile(
    rf"([?&](?:[\w.\-]{{0,40}}(?<!page)(?:token|secret|passw(?:or)?d|signature|credential|api[_\-]?key|access[_\-]?key)"
    rf"|key|sig|auth|code|pwd|pass)=)(?!{_PLACEHOLDER})[^&#\s\"'<>\\]+",
    re.IGNORECASE,
)
_NAME_HINTS = ("pass", "pwd", "secret", "token", "key", "credential")
_PLAIN_WORDS = frozenset({"true", "false", "null", "none", "yes", "no", "|", ">", "|-", ">-"})
#: A word of a sentence is shorter, and has no digits: ``token: is missing`` holds no secret.
_LONGEST_WORD = 12
_SHORTEST_TEXT = 6
#: After a replacement the rules look again; they settle at once, as each replacement is a placeholder for all of them.
_ROUNDS = 4


def redact(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Remove secrets from an asset's data, and characters that no database stores.

    Args:
        data: the content in Cloud Asset's JSON form. The rules hold for every asset type, also for unknown ones.

    Returns:
        The data with each secret replaced by ``[redacted]``, and the dotted paths where that happened. Redacting twice
        changes nothing.

    Raises:
        RecursionError: the data is nested hundreds of levels deep.
    """
    paths: list[str] = []
    result = _mapping(data, "", paths)
    return result, tuple(paths)


def is_plain(key: str) -> bool:
    """Whether a field's name says nothing of its content: `redact` then looks at the content alone."""
    return _kind(key) is _Kind.PLAIN and "\x00" not in key


def redact_field(key: str, value: Any) -> tuple[str, Any, tuple[str, ...]]:
    """What `redact` makes of one field, if no other field decides on it (`stands_alone`).

    Returns:
        The key, the redacted value, and the paths where something was removed.
    """
    paths: list[str] = []
    [(name, clean)] = _mapping({key: value}, "", paths).items()
    return name, clean, tuple(paths)


def stands_alone(data: Mapping[str, Any]) -> bool:
    """Whether each top-level field of the data can be redacted by itself: none is secret by what stands beside it."""
    return not _hidden(data)


def redact_any(value: Any) -> Any:
    """`redact` for any JSON value: a list, a text, a number."""
    return _value(value, "", [])


def redact_text(text: str) -> str:
    """Return a text without what looks like a secret: private keys, tokens, passwords in URLs, headers and assignments.

    A text that is JSON is redacted as data. Zero characters become U+FFFD.
    """
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if len(text) < _SHORTEST_TEXT or (_HARMLESS.match(text) and not _hints_at_harm(text)):
        return text
    if text[0] in '{[" \n\t':
        inner = _json(text)
        if inner is not None:
            return inner
    for _ in range(_ROUNDS):
        clean = _searched(text)
        if clean == text:
            break
        text = clean
    return text


def _hints_at_harm(text: str) -> bool:
    for hint in _HARMFUL:  # noqa: SIM110 - asked of every text of every asset, where a generator is half of the cost
        if hint in text:
            return True
    return False


def holds_secret(text: str) -> bool:
    """Whether a file's text holds what certainly looks like a secret.

    Narrower than `redact_text`, since a file is withheld for it: code and prose say ``token: …`` without one.
    """
    return _certain(text) != text


def _certain(text: str) -> str:
    if len(text) >= _SHORTEST_TOKEN:
        for hint in _TOKEN_HINTS:
            if hint in text:
                text = _SECRET_TEXT.sub(REDACTED, text)
                break
    if "://" in text and "@" in text:
        text = _URL_PASSWORD.sub(rf"\g<1>{REDACTED}\g<3>", text)
    if "hook" in text:
        text = _HOOK.sub(rf"\g<1>{REDACTED}", text)
    if '"' in text or "'" in text:
        text = _LITERAL.sub(rf"\g<1>{REDACTED}\g<3>", text)
    return text


def _searched(text: str) -> str:
    text = _certain(text)
    assigned = "=" in text
    if assigned and ("?" in text or "&" in text):
        text = _QUERY.sub(rf"\g<1>{REDACTED}", text)
    spaced = ": " in text or ":\t" in text
    if not (assigned or " " in text or "\t" in text or '":' in text or "':" in text):
        return text
    lower = text.lower()
    if "bearer" in lower or "basic" in lower or "authorization" in lower:
        text = _SCHEME.sub(lambda match: f"{match[1] or match[2]}{REDACTED}", text)
    if "-u" in text:
        text = _USER.sub(rf"\g<1>{REDACTED}", text)
    if not any(hint in lower for hint in _NAME_HINTS):
        return text
    if '"' in text or "'" in text:
        text = _QUOTED.sub(rf"\g<1>{REDACTED}", text)
    if assigned:
        text = _SHELL.sub(rf"\g<1>{REDACTED}", text)
    if assigned or spaced:
        text = _SPACED.sub(_spaced, text)
    if "-" in text:
        text = _FLAG.sub(rf"\g<1>{REDACTED}", text)
    return text


def _spaced(match: re.Match[str]) -> str:
    """``password: hunter2`` goes; ``password: see the handbook`` stays."""
    value = match[2]
    if value.lower() in _PLAIN_WORDS or _REFERENCE.fullmatch(value):
        return match[0]
    ends = match.string[match.end() : match.end() + 1] in ("", "\n", "\r", ",", ";", "}")
    if ends or len(value) >= _LONGEST_WORD or not value.isalpha():
        return match[1] + REDACTED
    return match[0]


def _json(text: str) -> str | None:
    """A JSON text redacted as data, as it was if it holds no secret; ``None`` if it is no JSON document."""
    bare = text.strip()
    if not bare or (bare[0], bare[-1]) not in (("{", "}"), ("[", "]"), ('"', '"')):
        return None
    try:
        document = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return None
    try:
        paths: list[str] = []
        clean = _value(document, "", paths)
        return orjson.dumps(clean).decode() if paths else text
    except (RecursionError, TypeError):
        return REDACTED


class _Kind(Enum):
    """What a field's name says of its content."""

    SECRET = auto()
    TOKEN_SETTINGS = auto()
    VARIABLES = auto()
    ENVIRONMENT = auto()
    METADATA = auto()
    PLAIN = auto()


_NO_LETTER = re.compile(r"[\W_]+")


@lru_cache(maxsize=16_384)
def _kind(name: str) -> _Kind:
    field = _NO_LETTER.sub("", name.lower())
    if field in _SECRET_FIELDS or (field.endswith(_SECRET_ENDINGS) and not field.endswith(_PLAIN_ENDINGS)):
        return _Kind.TOKEN_SETTINGS if field in _TOKEN_SETTINGS else _Kind.SECRET
    if field.endswith(_VARIABLES_ENDINGS):
        return _Kind.VARIABLES
    if field in ("env", "environment"):
        return _Kind.ENVIRONMENT
    if field in ("metadata", "commoninstancemetadata"):
        return _Kind.METADATA
    return _Kind.PLAIN


def _mapping(data: Mapping[str, Any], path: str, paths: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    hidden = _hidden(data)
    for key, value in data.items():
        name = str(key)
        kind = _Kind.SECRET if name in hidden else _kind(name)
        if "\x00" in name:
            name = key = name.replace("\x00", "\ufffd")
        if kind is _Kind.PLAIN and not isinstance(value, _NESTED):
            result[key] = value
        else:
            result[key] = _of_kind(kind, value, f"{path}.{name}" if path else name, paths)
    return result


def _of_kind(kind: _Kind, value: Any, below: str, paths: list[str]) -> Any:
    """A field's value, by what its name says of it."""
    if kind is _Kind.SECRET or (kind is _Kind.TOKEN_SETTINGS and not isinstance(value, Mapping)):
        return _everything(value, below, paths, numbers=True)
    if kind is _Kind.VARIABLES:
        return _everything(value, below, paths)
    if kind is _Kind.ENVIRONMENT and isinstance(value, list | Mapping):
        return _values(value, below, paths, safe=frozenset())
    if kind is _Kind.METADATA and isinstance(value, Mapping):
        return _metadata(value, below, paths)
    if kind is _Kind.METADATA and isinstance(value, list):
        return _values(value, below, paths, safe=SAFE_METADATA)
    return _value(value, below, paths)


def _hidden(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields that are secret by what stands beside them: ``{name: DB_PASSWORD, value: …}``, a Kubernetes secret."""
    if "value" in data:
        name = data.get("name", data.get("key"))
        if isinstance(name, str) and _kind(name) is _Kind.SECRET:
            return ("value",)
    if data.get("kind") == "Secret":
        return ("data", "stringData")
    return ()


def _value(value: Any, path: str, paths: list[str]) -> Any:
    if isinstance(value, str):
        if "\x00" in value:
            value = value.replace("\x00", "\ufffd")
        clean = redact_text(value)
        if clean != value:
            paths.append(path)
        return clean
    if isinstance(value, Mapping):
        return _mapping(value, path, paths)
    if isinstance(value, list | tuple):
        return _list(value, path, paths)
    return value


def _list(items: Sequence[Any], path: str, paths: list[str]) -> list[Any]:
    """The items, and of a command line also the argument after ``--password``."""
    result = []
    secret_next = False
    for index, item in enumerate(items):
        below = f"{path}.{index}"
        if secret_next and isinstance(item, str) and not item.startswith("-"):
            result.append(_everything(item, below, paths))
        else:
            result.append(_value(item, below, paths))
        secret_next = isinstance(item, str) and item.startswith("-") and _kind(item) is _Kind.SECRET
    return result


def _everything(value: Any, path: str, paths: list[str], *, numbers: bool = False) -> Any:
    """Remove every text below a secret field, if asked to also numbers; booleans and empty texts are no secrets."""
    if isinstance(value, str):
        if not value or _REFERENCE.fullmatch(value):
            return value
        paths.append(path)
        return REDACTED
    if isinstance(value, Mapping):
        return {
            _name(key): _everything(item, f"{path}.{_name(key)}", paths, numbers=numbers) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_everything(item, f"{path}.{index}", paths, numbers=numbers) for index, item in enumerate(value)]
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        paths.append(path)
        return REDACTED
    return value


def _name(key: Any) -> Any:
    return key.replace("\x00", "\ufffd") if isinstance(key, str) and "\x00" in key else key


def _metadata(value: Mapping[str, Any], path: str, paths: list[str]) -> dict[str, Any]:
    """Compute's ``{items: [{key, value}]}``, or a plain map of texts (GKE node pools)."""
    result: dict[str, Any] = {}
    for raw, item in value.items():
        key = _name(raw)
        below = f"{path}.{key}"
        if key == "items" and isinstance(item, list | Mapping):
            result[key] = _values(item, below, paths, safe=SAFE_METADATA)
        elif isinstance(item, str) and str(key).lower() not in SAFE_METADATA and "fingerprint" not in str(key).lower():
            result[key] = _everything(item, below, paths)
        else:
            result.update(_mapping({key: item}, path, paths))
    return result


def _values(entries: Any, path: str, paths: list[str], *, safe: frozenset[str]) -> Any:
    """``[{key|name, value}, …]`` or ``{name: value}``: remove the values whose key is not known to be harmless."""
    if isinstance(entries, Mapping):
        return {
            _name(key): _choose(str(key).lower() in safe)(item, f"{path}.{_name(key)}", paths)
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
                _name(key): _choose(key in ("key", "name") or name in safe)(item, f"{below}.{_name(key)}", paths)
                for key, item in entry.items()
            }
        )
    return result


def _choose(harmless: bool) -> Callable[[Any, str, list[str]], Any]:
    return _value if harmless else _everything
