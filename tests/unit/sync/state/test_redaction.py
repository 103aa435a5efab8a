"""No planted secret leaves, and what controls need stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.state.redaction import REDACTED, redact, redact_text

SECRET = "hunter2-correct-horse"
PLACES = {
    "startup script": lambda secret: {"metadata": {"items": [{"key": "startup-script", "value": secret}]}},
    "ssh keys": lambda secret: {"commonInstanceMetadata": {"items": [{"key": "ssh-keys", "value": secret}]}},
    "any metadata": lambda secret: {"metadata": {"items": [{"key": "our-own", "value": secret}]}},
    "node pool metadata": lambda secret: {"nodePools": [{"config": {"metadata": {"cfg": secret}}}]},
    "function environment": lambda secret: {"serviceConfig": {"environmentVariables": {"MODE": secret}}},
    "container environment": lambda secret: {"containers": [{"env": [{"name": "DB", "value": secret}]}]},
    "password": lambda secret: {"masterAuth": {"password": secret}},
    "nested under a secret": lambda secret: {"credentials": {"any": [{"thing": secret}]}},
    "root password": lambda secret: {"rootPassword": secret},
    "vpn": lambda secret: {"sharedSecret": secret},
    "api key": lambda secret: {"keyString": secret},
    "service account key": lambda secret: {"privateKeyData": secret},
}
TOKENS = [
    "ghp_" + "a" * 36,
    "github_pat_" + "b" * 30,
    "AIza" + "c" * 35,
    "ya29." + "d" * 40,
    "AKIA" + "E" * 16,
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_leaves(place) -> None:
    clean, paths = redact(PLACES[place](SECRET))
    assert SECRET not in json.dumps(clean)
    assert paths


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_found_in_any_text(token) -> None:
    clean, paths = redact({"description": f"use {token} for now", "list": [token]})
    assert token not in json.dumps(clean)
    assert len(paths) == 2


@pytest.mark.soak
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "env", "metadata", "items"]), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from(sorted(PLACES)),
)
def test_a_planted_secret_never_survives_wherever_it_stands(around, place) -> None:
    clean, paths = redact({"around": around, "planted": PLACES[place](SECRET)})
    assert SECRET not in json.dumps(clean)
    assert redact(clean)[0] == clean, "redacting twice changes nothing"
    assert any(path.startswith("planted") for path in paths)


def test_what_controls_need_is_kept() -> None:
    data = {
        "metadata": {"fingerprint": "f", "items": [{"key": "enable-oslogin", "value": "TRUE"}]},
        "settings": {"ipConfiguration": {"requireSsl": True}},
        "secretVersionCount": 3,
        "selfLink": "https://www.googleapis.com/compute/v1/projects/p",
    }
    assert redact(data) == (data, ())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('password = "correct-horse"', f'password = "{REDACTED}"'),
        ('password = "${var.password}"', 'password = "${var.password}"'),
        ('db_password: "<your password>"', 'db_password: "<your password>"'),
        ("postgresql://user:pw@host/db", f"postgresql://user:{REDACTED}@host/db"),
        ("https://example.com:8080/a@b", "https://example.com:8080/a@b"),
        ("keep the key of the door", "keep the key of the door"),
    ],
)
def test_text(text, clean) -> None:
    assert redact_text(text) == clean
