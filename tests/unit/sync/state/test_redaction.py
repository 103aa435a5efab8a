"""No planted secret leaves, and what controls need stays."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lz_sync_dagster.sync.state.redaction import REDACTED, holds_secret, redact, redact_any, redact_text

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
    "argument": lambda secret: {"containers": [{"args": [f"--db-password={secret}"]}]},
    "argument after its flag": lambda secret: {"sparkJob": {"args": ["--verbose", "--token", secret]}},
    "command": lambda secret: {"command": ["sh", "-c", f"export PGPASSWORD={secret}; run"]},
    "flag in a command": lambda secret: {"command": ["sh", "-c", f"deploy --api-key {secret} now"]},
    "user in a command": lambda secret: {"command": ["sh", "-c", f"curl -u admin:{secret} https://x"]},
    "app engine build": lambda secret: {"buildEnvVariables": {"NPM": secret}},
    "workflow": lambda secret: {"userEnvVars": {"MODE": secret}},
    "cloud build": lambda secret: {"substitutions": {"_MODE": secret}},
    "dataproc property": lambda secret: {"properties": {"core:fs.s3a.secret.key": secret}},
    "composer secret key": lambda secret: {"airflowConfigOverrides": {"webserver-secret_key": secret}},
    "composer fernet key": lambda secret: {"airflowConfigOverrides": {"core-fernet_key": secret}},
    "authorization": lambda secret: {"headers": {"Authorization": f"Bearer {secret}"}},
    "authorization in a list": lambda secret: {"headers": [{"name": "Authorization", "value": secret}]},
    "authorization in a command": lambda secret: {"args": ["-c", f"curl -H 'Authorization: Basic {secret}'"]},
    "bearer": lambda secret: {"description": f"use bearer {secret}"},
    "query": lambda secret: {"pushEndpoint": f"https://x/push?a=b&access_token={secret}"},
    "query key": lambda secret: {"uri": f"https://x/?key={secret}#top"},
    "slack": lambda secret: {"labels": {"url": f"https://hooks.slack.com/services/T0/B0/{secret}"}},
    "annotation": lambda secret: {
        "annotations": {"x/last-applied": json.dumps({"spec": [{"env": [{"name": "A", "value": secret}]}]})}
    },
    "JSON in JSON": lambda secret: {"a": json.dumps({"b": json.dumps({"password": secret})})},
    "batch script": lambda secret: {"runnables": [{"script": {"text": secret}}]},
    "policy script": lambda secret: {"exec": {"enforce": {"script": secret}}},
    "metadata list": lambda secret: {"metadata": [{"key": "our-own", "value": secret}]},
    "metadata map": lambda secret: {"metadata": {"items": {"our-own": secret}}},
    "text": lambda secret: {"description": f"password: {secret}"},
    "line of text": lambda secret: {"content": f"user: me\ndb_password: {secret}\nmode: x\n"},
    "assigned in text": lambda secret: {"content": f"export TOKEN={secret}"},
    "escaped in text": lambda secret: {"content": rf"run '{{\"password\": \"{secret}\"}}'"},
    "kubernetes secret": lambda secret: {"kind": "Secret", "data": {"a": secret}},
    "numbered": lambda secret: {"password": 1234567, "secret": {"text": secret}},
    **{
        field: lambda secret, field=field: {"config": {field: secret}}
        for field in (
            "signerKey",
            "service_key",
            "accessKey",
            "hmacKey",
            "githubToken",
            "webhookSecret",
            "adminApiKey",
            "dbPass",
            "awsSecretAccessKey",
            "postStartupScript",
            "rawKey",
        )
    },
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
    assert "1234567" not in json.dumps(clean["planted"])
    assert redact(clean)[0] == clean, "redacting twice changes nothing"
    assert any(path.startswith("planted") for path in paths)


def test_what_controls_need_is_kept() -> None:
    data = {
        "metadata": {"fingerprint": "f", "items": [{"key": "enable-oslogin", "value": "TRUE"}]},
        "settings": {"ipConfiguration": {"requireSsl": True}},
        "secretVersionCount": 3,
        "kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "keyType": "USER_MANAGED",
        "secretName": "db",
        "secretVersion": "7",
        "publicKey": "ssh-ed25519 AAAA",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "etag": "BwX=",
        "tokenFormat": "JWT",
        "requireSecret": True,
        "enableToken": False,
        "bypass": "none",
        "nextPageToken": "abc",
        "oidcToken": {"serviceAccountEmail": "a@b", "audience": "https://x"},
        "volumes": [{"secret": "projects/p/secrets/db/versions/1"}],
        "image": "gcr.io/p/auth-token:latest",
        "description": "The password: see the handbook. token: is rotated",
        "json": '{ "a": 1.50 }',
        "databaseFlags": [{"name": "log_min_messages", "value": "warning"}],
        "selfLink": "https://www.googleapis.com/compute/v1/projects/p",
    }
    assert redact(data) == (data, ())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('password = "correct-horse"', f'password = "{REDACTED}"'),
        ('password = "${var.password}"', 'password = "${var.password}"'),
        ('db_password: "<your password>"', 'db_password: "<your password>"'),
        ("DB_PASSWORD=x mode=y", f"DB_PASSWORD={REDACTED} mode=y"),
        ("password = hunter2", f"password = {REDACTED}"),
        ("export TOKEN=$(gcloud auth print-access-token)", "export TOKEN=$(gcloud auth print-access-token)"),
        ("https://x/?pageToken=abc&page=2", "https://x/?pageToken=abc&page=2"),
        ("config.yaml:3: git_token: is a secret; set it", "config.yaml:3: git_token: is a secret; set it"),
        ('{"password": "x"}', f'{{"password":"{REDACTED}"}}'),
        ("a\x00b", "a\ufffdb"),
        ("postgresql://user:pw@host/db", f"postgresql://user:{REDACTED}@host/db"),
        ("https://example.com:8080/a@b", "https://example.com:8080/a@b"),
        ("keep the key of the door", "keep the key of the door"),
    ],
)
def test_text(text, clean) -> None:
    assert redact_text(text) == clean


def test_zero_characters_are_replaced() -> None:
    data = {"a\x00": ["b\x00", {"env": {"\x00": 1}}], "metadata": {"c\x00": {"d\x00": True}}}
    assert "\\u0000" not in json.dumps(redact(data)[0])
    assert redact({"a\x00": "b\x00"}) == ({"a\ufffd": "b\ufffd"}, ())


@pytest.mark.soak
@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    "password",
                    "TOKEN",
                    "api_key",
                    "pass",
                    "--secret",
                    "authorization",
                    "bearer ",
                    "-u ",
                    "?key",
                    "&token",
                ),
                *(
                    "=",
                    ":",
                    " ",
                    ": ",
                    " = ",
                    '"',
                    "'",
                    "\\",
                    "\n",
                    ",",
                    "{",
                    "}",
                    "[",
                    "]",
                    "@",
                    "://",
                    "$",
                    "<",
                    REDACTED,
                ),
                *("hunter2", "abc", "x" * 20, "ghp_" + "a" * 36, "https", "user", "\x00", "1"),
            ]
        ),
        max_size=14,
    ).map("".join)
)
def test_a_clean_text_stays_as_it_is(text) -> None:
    clean = redact_text(text)
    assert redact_text(clean) == clean
    assert redact({"a": clean}) == ({"a": clean}, ())


def test_long_texts_take_no_time() -> None:
    for text in ("a" * 200_000, "token" * 40_000, "-" * 200_000, "password=" * 20_000, "token: " * 30_000):
        started = time.process_time()
        redact_text(text)
        assert time.process_time() - started < 2


def test_json_too_deep_to_look_into_is_removed() -> None:
    assert redact_text("[" * 900 + '"a"' + "]" * 900) == REDACTED


@pytest.mark.parametrize("value", [None, 1, "x", ["password=y"], [{"password": "y"}]])
def test_any_value_can_be_redacted(value) -> None:
    assert "y" not in json.dumps(redact_any(value))


def test_a_file_is_withheld_only_for_what_certainly_is_a_secret() -> None:
    assert holds_secret('password = "correct-horse"')
    assert all(holds_secret(f"it is {token}") for token in TOKENS)
    for text in ("password: see the handbook", "token = data.google_client_config.me.token", "a\x00b", "PASSWORD=$1"):
        assert not holds_secret(text)


@pytest.mark.parametrize(
    "text",
    ['db_password_prod = "hunter2hunter2"', 'api_key_prod: "k3yk3yk3yk3y1234"', "deploy_token_prod = 'abcdefgh12'"],
)
def test_what_a_file_is_withheld_for_is_redacted_in_any_text(text: str) -> None:
    assert holds_secret(text)
    assert not holds_secret(redact_text(text))
    assert "[redacted]" in redact_text(text)
