"""Dead letters of the inventory: assets that were read and cannot be used."""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.inventory.decoder import Unusable
from lz_sync_dagster.sync.state.observation import Observation
from lz_sync_dagster.sync.state.redaction import redact
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.dead_letters import DeadLetter

ORIGIN = "cloud_asset_inventory"
_KEY_CAP = 512


def dead_letter(part: Part, item: Unusable) -> DeadLetter:
    """The letter of an asset that could not be decoded."""
    payload = json.dumps(redact(item.payload)[0])
    return DeadLetter(LayerId.API, ORIGIN, _key(part, item.key), str(item.error), payload)


def refusal(observation: Observation, error: Exception) -> DeadLetter:
    """The letter of an asset that the store does not take."""
    said = error.orig if isinstance(error, sa.exc.StatementError) and error.orig is not None else error
    data = None if observation.data is None else dict(observation.data)
    return DeadLetter(
        LayerId.API,
        ORIGIN,
        _key((observation.scope, observation.asset_type, observation.content_type.value), observation.name),
        f"asset {observation.name}: the store refuses it ({type(said).__name__}: {first_line(said)})",
        json.dumps({"name": observation.name, "assetType": observation.asset_type, "data": data}),
    )


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return next(iter(str(error).splitlines()), "")


def _key(part: Part, name: str) -> str:
    """What an asset of a part is called among the dead letters: text without NUL that fits, and no other's."""
    key = f"{'/'.join(part)}#{name}"
    if len(key) <= _KEY_CAP and "\x00" not in key:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{key.replace(chr(0), '')[: _KEY_CAP - len(digest) - 1]}#{digest}"
