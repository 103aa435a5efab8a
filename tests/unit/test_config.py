"""A wrong key, type or unit is one line that names file, key, value and what is allowed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from lz_sync_dagster.config import ConfigError, load_settings
from lz_sync_dagster.layers import LAYERS, LayerId

ROOT = Path(__file__).resolve().parents[2]

#: Section 4 of the architecture document, as it stands there.
DOCUMENT = """
sync_layers:
  webhook: {enabled: true, timeout_seconds: 300}
  git_sync: {enabled: true, frequency_hours: 6, paths: [docs/**, pmo.yaml, ENFORCEMENT_GATES.md]}
  api_sync: {enabled: true, frequency_minutes: 5, endpoints: [/projects, /vpcs, /compute, /compliance]}
  pubsub: {enabled: true, topic: lz-infrastructure-events, subscription: portal-lz-events}
  bigquery: {enabled: true, schedule: daily, dataset: lz_metrics}
"""


def load(tmp_path: Path, text: str, **environ: str):
    file = tmp_path / "sync_config.yaml"
    file.write_text(text)
    return load_settings(file, environ=environ)


def test_the_documents_file_is_understood(tmp_path: Path) -> None:
    settings = load(tmp_path, DOCUMENT)
    assert settings.cadence(LayerId.GIT) == timedelta(hours=6)
    assert settings.cadence(LayerId.API) == timedelta(minutes=5)
    assert settings.sync_layers.pubsub.subscription == "portal-lz-events"
    assert settings.sync_layers.api_sync.endpoints == ["/projects", "/vpcs", "/compute", "/compliance"]


def test_the_shipped_file_names_every_layer_and_holds_the_defaults() -> None:
    file = ROOT / "sync_config.yaml"
    keys = yaml.safe_load(file.read_text())["sync_layers"].keys()
    assert list(keys) == [layer.config_key for layer in LAYERS]
    shipped = load_settings(file, environ={})
    assert shipped == load_settings(environ={}), "without a file the same holds"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "sync_layers:\n  git_sync:\n    frequency_minutes: 6\n",
            ":3: sync_layers.git_sync.frequency_minutes: is not a known key; allowed: enabled, frequency_hours",
        ),
        (
            "sync_layers:\n  git_sync:\n    frequency_hours: 6h\n",
            ":3: sync_layers.git_sync.frequency_hours: '6h' is not allowed; allowed: a whole number, without a unit",
        ),
        (
            "sync_layers:\n  git_sync:\n    frequency_hours: 0\n",
            ":3: sync_layers.git_sync.frequency_hours: 0 is not allowed; allowed: greater than or equal to 1",
        ),
        (
            "sync_layers:\n  webhook:\n    enabled: perhaps\n",
            ":3: sync_layers.webhook.enabled: 'perhaps' is not allowed; allowed: true or false",
        ),
        (
            "sync_layers:\n  api_sync:\n    endpoints: [/vpcz]\n",
            ":3: sync_layers.api_sync.endpoints.0: '/vpcz' is not allowed; allowed: '/projects'",
        ),
        (
            "sync_layers:\n  bigquery: {schedule: hourly}\n",
            "schedule: 'hourly' is not allowed; allowed: 'daily' or 'weekly'",
        ),
        ("sync_layers: 3\n", ":1: sync_layers: 3 is not allowed; allowed: a mapping of keys"),
        ("git_token: ghp_1\n", ":1: git_token: is a secret; set LZ_SYNC_GIT_TOKEN in the environment instead"),
        ("a: [\n", "is not valid YAML"),
        ("owners: [\x01]\n", "is not valid YAML"),
        ("1: x\n", ": 1: is not a known key; allowed: sync_layers"),
        ("owners: []\nowners: []\n", ":2: owners: stands there twice; keep one"),
        ("sync_layers: {api_sync: {scopes: [projects/my-id]}}\n", "'projects/my-id' is not allowed"),
        ("- a\n", "has a list at the top; allowed: a mapping with the key sync_layers"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    (said,) = caught.value.lines
    assert said.startswith(str(tmp_path / "sync_config.yaml"))
    assert line in said
    assert "\n" not in said


def test_every_mistake_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "sync_layers:\n  git_sync: {frequency_hours: x}\n  api_sync: {page_size: 0}\nowner: me\n")
    assert len(caught.value.lines) == 3


def test_a_mistake_shows_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "sync_layers: {pubsub: {enabled: 'https://u:hunter2@h', topic: [{token: hunter2}]}}\n")
    assert len(caught.value.lines) == 2
    assert "hunter2" not in str(caught.value)


def test_a_list_of_the_environment_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sync_config.yaml"
    file.write_text("sync_layers:\n  api_sync:\n    scopes: [organizations/1]\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environ={"LZ_SYNC_SYNC_LAYERS__API_SYNC__SCOPES": '["foo/1"]'})
    assert caught.value.lines[0].startswith("environment: LZ_SYNC_SYNC_LAYERS__API_SYNC__SCOPES")


def test_the_environment_wins_and_its_mistakes_name_the_variable(tmp_path: Path) -> None:
    name = "LZ_SYNC_SYNC_LAYERS__GIT_SYNC__FREQUENCY_HOURS"
    assert load(tmp_path, DOCUMENT, **{name: "12"}).cadence(LayerId.GIT) == timedelta(hours=12)
    with pytest.raises(ConfigError, match=f"environment: {name}: 'x' is not allowed"):
        load(tmp_path, DOCUMENT, **{name: "x"})
    with pytest.raises(ConfigError, match="environment: LZ_SYNC_OWNERS…: is not valid JSON"):
        load(tmp_path, DOCUMENT, LZ_SYNC_OWNERS="team:x")
    with pytest.raises(ConfigError, match="environment: LZ_SYNC_TYPO: is not a setting"):
        load(tmp_path, DOCUMENT, LZ_SYNC_TYPO="1")


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "missing.yaml", environ={})


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, DOCUMENT, LZ_SYNC_WEBHOOK_SECRETS="new, old", LZ_SYNC_GIT_TOKEN="t0ps3cret")
    assert settings.secrets == (b"new", b"old")
    assert "t0ps3cret" not in repr(settings)


def test_operators_have_a_name_and_a_long_token(tmp_path: Path) -> None:
    settings = load(tmp_path, DOCUMENT, LZ_SYNC_OPERATOR_TOKENS="ada:0123456789abcdef, bob@x.org:fedcba98:76543210")
    assert settings.operators == (("ada", b"0123456789abcdef"), ("bob@x.org", b"fedcba98:76543210"))
    assert "0123456789abcdef" not in repr(settings)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("0123456789abcdef", "allowed: NAME:TOKEN"),
        ("a b:0123456789abcdef", "allowed: NAME:TOKEN"),
        ("ada:0123456789abcde", "at least 16 printable ASCII characters"),
        ("ada:0123456789abcdeé", "that of ada is none"),
        ("ada:0123456789abcdef,bob:0123456789abcdef", "a token of its own"),
    ],
)
def test_a_wrong_operator_token_is_not_shown(tmp_path: Path, tokens: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        load(tmp_path, DOCUMENT, LZ_SYNC_OPERATOR_TOKENS=tokens)
    assert "environment: LZ_SYNC_OPERATOR_TOKENS: " in str(error.value)
    assert "0123456789" not in str(error.value)


def test_a_disabled_layer_is_known_as_such(tmp_path: Path) -> None:
    assert load(tmp_path, "sync_layers: {pubsub: {enabled: false}}").disabled_layers == {LayerId.PUBSUB}
