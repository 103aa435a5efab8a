"""A path of a repository as text that every database takes, and that fits its indexes."""

from __future__ import annotations

from hashlib import sha256

#: Longer paths would not fit into the indexes of PostgreSQL.
MAX_PATH_BYTES = 1000


def decoded(raw: bytes) -> tuple[str, bool]:
    """A path as text, and whether it is UTF-8; if not, the text has escapes."""
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace"), False


def shortened(path: str) -> str:
    """A path that fits a key, and is no other path's."""
    raw = path.encode()
    if len(raw) <= MAX_PATH_BYTES:
        return path
    return f"{raw[: MAX_PATH_BYTES - 100].decode('utf-8', 'ignore')}\N{HORIZONTAL ELLIPSIS}{sha256(raw).hexdigest()}"
