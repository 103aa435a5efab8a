"""Settings: one file (``sync_config.yaml``) and the environment. Nothing is read at import.

The file holds the keys of section 4 of the architecture document and a few beside them. Any of its values can be set
by the environment (``LZ_SYNC_SYNC_LAYERS__GIT_SYNC__FREQUENCY_HOURS=12``); secrets come from the environment alone. A
wrong key, type or unit is one line that names file, line, key, value and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.state.redaction import redact, redact_text

ENV_PREFIX = "LZ_SYNC_"
DEFAULT_FILE = "sync_config.yaml"
#: Settings that come from the environment alone.
SECRETS = ("webhook_secrets", "git_token", "github_token", "github_app_private_key", "operator_tokens")
#: Characters that the token of an operator has at least.
OPERATOR_TOKEN_LENGTH = 16

RelativePath = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^/\\]")]
#: Numbers, since assets name their ancestors by number.
Scope = Annotated[str, StringConstraints(pattern=r"^(organizations|folders|projects)/\d+$")]
Team = Annotated[str, StringConstraints(pattern=r"^team:[a-z0-9_\-]+$")]
Endpoint = Literal[
    "/projects", "/vpcs", "/compute", "/gke", "/databases", "/storage", "/iam", "/bigquery", "/compliance"
]
ContentTypeName = Literal["RESOURCE", "IAM_POLICY", "ORG_POLICY", "RELATIONSHIP"]


BulkDestination = Annotated[
    str,
    StringConstraints(
        pattern=r"^(gs://[a-z0-9][a-z0-9._\-]{1,220}[a-z0-9](/[^\s?#]*)?"
        r"|bigquery://[a-z][a-z0-9.:\-]{4,60}[a-z0-9]\.[A-Za-z0-9_]{1,1024})$"
    ),
]


class ConfigError(Exception):
    """The configuration cannot be used. ``lines`` has one line per mistake."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


#: One path or glob, or a list of them.
Several = Annotated[tuple[RelativePath, ...], BeforeValidator(_several), Field(min_length=1)]


class MappingRule(_Section):
    """Files of the landing zone that match ``source`` go below ``destination`` in the portal repository.

    ``source`` is a glob from the repository's root (``*`` within a folder, ``**`` across folders), or several. The part
    of a path before the first wildcard is dropped: ``docs/**`` → ``docs/lz-reference`` puts ``docs/a/b.md`` at
    ``docs/lz-reference/a/b.md``. A source without a wildcard is one file, and ``destination`` is its new path. With
    several destinations a file is copied to each of them.
    """

    source: Several
    destination: Several


class WebhookTriggers(_Section):
    """Which layers a push runs, by what it touched: globs from the landing zone's root."""

    git_sync: list[RelativePath] = ["**"]
    api_sync: list[RelativePath] = ["terraform/**"]


class WebhookConfig(_Section):
    """Layer 1.

    Attributes:
        timeout_seconds: how long a delivery may wait for its sync before the layer counts as late.
        triggers: a push that touches none of the globs of ``git_sync`` asks for nothing.
        head_poll_seconds: how often the landing zone's head is looked up, in case a delivery is missed; 0: never.
        hook: whose failed deliveries are sent again: the id of the landing zone's webhook, or ``app`` for the one of
            the GitHub App; ``None``: nobody's, then polling alone finds what was missed.
    """

    enabled: bool = True
    timeout_seconds: int = Field(300, ge=1, le=3600)
    events: list[Literal["repository_dispatch", "push", "pull_request"]] = [
        "repository_dispatch",
        "push",
        "pull_request",
    ]
    dispatch_types: list[str] = ["lz-update"]
    max_body_bytes: int = Field(25 * 1024 * 1024, ge=1024, le=25 * 1024 * 1024)
    triggers: WebhookTriggers = WebhookTriggers()
    head_poll_seconds: int = Field(60, ge=0, le=86_400)
    hook: int | Literal["app"] | None = None


class PullRequestConfig(_Section):
    """How ``publish: pull_request`` works. ``branch``: the sync's own, which it rewrites. ``auto_merge``: ask GitHub to
    merge when the checks have passed."""

    branch: str = "lz-sync/update"
    auto_merge: bool = False
    labels: list[str] = []


class SignatureConfig(_Section):
    """Verification of the landing zone's commits. ``policy``: ``require`` syncs no head without a good signature.
    ``allowed_signers``: the file that ssh signatures are checked against (see ssh-keygen(1)); gpg uses its own
    keyring."""

    policy: Literal["off", "warn", "require"] = "off"
    allowed_signers: Path | None = None


class GitSyncConfig(_Section):
    """Layer 2.

    Attributes:
        paths: what to sync.
        exclude: what not to sync all the same.
        mapping: where a path goes when the default destination is not wanted; the first rule that matches places it.
        drift: what becomes of a synced file that somebody edited in the portal repository: ``restore`` it, or
            ``refuse`` to touch it until a person has looked.
        publish: ``push`` to the portal's branch, or open a ``pull_request``.
    """

    enabled: bool = True
    frequency_hours: int = Field(6, ge=1, le=168)
    paths: list[RelativePath] = ["docs/**", "pmo.yaml", "ENFORCEMENT_GATES.md", "terraform/**/*.tf", "RUNBOOKS.md"]
    mapping: list[MappingRule] = [
        MappingRule(source=("docs/**",), destination=("docs/lz-reference",)),
        MappingRule(source=("pmo.yaml",), destination=("config/lz-pmo.yaml",)),
        MappingRule(source=("ENFORCEMENT_GATES.md",), destination=("docs/lz-reference/ENFORCEMENT_GATES.md",)),
        MappingRule(source=("terraform/**/*.tf",), destination=("docs/lz-reference/terraform",)),
        MappingRule(source=("RUNBOOKS.md",), destination=("docs/lz-reference/RUNBOOKS.md",)),
    ]
    exclude: list[RelativePath] = []
    max_file_bytes: int = Field(5 * 1024 * 1024, ge=1, le=100 * 1024 * 1024)
    drift: Literal["restore", "refuse"] = "restore"
    publish: Literal["push", "pull_request"] = "push"
    pull_request: PullRequestConfig = PullRequestConfig()
    signatures: SignatureConfig = SignatureConfig()


class QuotaConfig(_Section):
    """Calls per minute that Cloud Asset Inventory allows the project that makes them, by method; by default Google's.
    All processes keep to them together."""

    list_assets: int = Field(100, ge=1, le=1_000_000)
    search_all_resources: int = Field(400, ge=1, le=1_000_000)
    batch_get_assets_history: int = Field(100, ge=1, le=1_000_000)
    export_assets: int = Field(60, ge=1, le=1_000_000)


class BulkConfig(_Section):
    """Full reads of large scopes by ``ExportAssets`` instead of page by page.

    Attributes:
        destination: ``gs://BUCKET/PREFIX``: exports are read back into the store. ``bigquery://PROJECT.DATASET``: they
            are tables for analysts, and the store is read page by page all the same.
        from_assets: scopes with at least as many assets are exported.
        every_minutes: how often, per scope and content type. What no complete read proved for an hour is stale.
        deadline_minutes: an export that takes longer is given up.
    """

    enabled: bool = False
    destination: BulkDestination | None = None
    from_assets: int = Field(500_000, ge=0)
    every_minutes: int = Field(30, ge=15, le=10_080)
    deadline_minutes: int = Field(60, ge=1, le=1440)

    @model_validator(mode="after")
    def _has_a_destination(self) -> BulkConfig:
        if self.enabled and self.destination is None:
            raise ValueError("allowed: enabled with a destination, gs://BUCKET/PREFIX or bigquery://PROJECT.DATASET")
        return self


class ApiSyncConfig(_Section):
    """Layer 3.

    Attributes:
        scopes: what to read.
        mass_delete_share: the breaker: a loss of more than this share of a type at once, and of at least
            ``mass_delete_minimum`` assets, deletes nothing until a person confirms it.
        quota_share: the share of each quota that a sync may plan to use.
        proof_age_minutes: every part is proven by a full read that is not older; between them it is read by delta.
        delta_overlap_minutes: how much further back than the last read a delta looks, since searches lag behind.
        unknown_type_retry_hours: how long a type that the inventory does not know is left alone.
        bulk: how the largest scopes are read.
    """

    enabled: bool = True
    frequency_minutes: int = Field(5, ge=1, le=1440)
    endpoints: list[Endpoint] = list(get_args(Endpoint))
    scopes: list[Scope] = []
    content_types: list[ContentTypeName] = ["RESOURCE", "IAM_POLICY"]
    page_size: int = Field(1000, ge=1, le=1000)
    call_timeout_seconds: int = Field(60, ge=1, le=600)
    mass_delete_share: float = Field(0.2, gt=0, le=1)
    mass_delete_minimum: int = Field(50, ge=1)
    quotas: QuotaConfig = QuotaConfig()
    quota_share: float = Field(0.8, gt=0, le=1)
    proof_age_minutes: int = Field(60, ge=1, le=10_080)
    delta_overlap_minutes: int = Field(10, ge=0, le=1440)
    unknown_type_retry_hours: int = Field(24, ge=1, le=720)
    bulk: BulkConfig = BulkConfig()


class PubsubConfig(_Section):
    """Layer 4. ``project`` owns the topic and the subscription."""

    enabled: bool = True
    project: str = ""
    topic: str = "lz-infrastructure-events"
    subscription: str = "portal-lz-events"


class BigqueryConfig(_Section):
    """Layer 5. ``billing_export``: a folder or ``gs://`` prefix with Parquet files of the detailed billing export."""

    enabled: bool = True
    schedule: Literal["daily", "weekly"] = "daily"
    dataset: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")] = "lz_metrics"
    source: str = "gcp-landing-zone"
    billing_export: str | None = None


class SyncLayers(_Section):
    """Section 4 of the architecture document."""

    webhook: WebhookConfig = WebhookConfig()
    git_sync: GitSyncConfig = GitSyncConfig()
    api_sync: ApiSyncConfig = ApiSyncConfig()
    pubsub: PubsubConfig = PubsubConfig()
    bigquery: BigqueryConfig = BigqueryConfig()


class RepositoryConfig(_Section):
    """A git repository. ``url``: where to fetch and push; ``name``: ``owner/name``, as webhooks call it; ``page``:
    its web page."""

    url: str = ""
    name: str = ""
    branch: str = "main"
    page: str | None = None


class StoreConfig(_Section):
    """The operational store: an SQLAlchemy URL. Default: SQLite in ``data_dir``."""

    url: str | None = None


class WarehouseConfig(_Section):
    """The warehouse. ``raw``: the folder or ``gs://`` prefix where raw Parquet lands (default: in ``data_dir``)."""

    engine: Literal["duckdb", "bigquery"] = "duckdb"
    project: str | None = None
    location: str = "US"
    raw: str | None = None


class GoogleCloudConfig(_Section):
    """``asset_endpoint`` and ``storage_endpoint``: ``None`` for Google's; ``http://host:port`` for a server without TLS
    and credentials."""

    asset_endpoint: str | None = None
    storage_endpoint: str | None = None


class GithubConfig(_Section):
    """GitHub's API, for pull requests and for the repair of deliveries.

    Attributes:
        api_url: ``https://HOST/api/v3`` for GitHub Enterprise.
        app_id: of a GitHub App; its private key comes from ``LZ_SYNC_GITHUB_APP_PRIVATE_KEY``. Without an App, the
            token of ``LZ_SYNC_GITHUB_TOKEN`` is used.
        installation_id: the App's installation; ``None`` looks it up by the repository.
    """

    api_url: str = "https://api.github.com"
    app_id: int | None = None
    installation_id: int | None = None


def _listed(secret: SecretStr | None) -> list[str]:
    """The entries of a secret that is a comma-separated list."""
    if secret is None:
        return []
    return [part.strip() for part in secret.get_secret_value().split(",") if part.strip()]


class Settings(BaseSettings):
    """All settings, checked. Made by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    sync_layers: SyncLayers = SyncLayers()
    landing_zone: RepositoryConfig = RepositoryConfig()
    portal_repository: RepositoryConfig = RepositoryConfig()
    store: StoreConfig = StoreConfig()
    warehouse: WarehouseConfig = WarehouseConfig()
    google_cloud: GoogleCloudConfig = GoogleCloudConfig()
    github: GithubConfig = GithubConfig()
    owners: list[Team] = ["team:platform"]
    data_dir: Path = Path(".lz_sync")
    webhook_secrets: SecretStr | None = None
    git_token: SecretStr | None = None
    github_token: SecretStr | None = None
    github_app_private_key: SecretStr | None = None
    operator_tokens: SecretStr | None = None

    @field_validator("operator_tokens")
    @classmethod
    def _operators_are_told_apart(cls, value: SecretStr | None) -> SecretStr | None:
        """Raises ``ValueError`` without quoting any of the tokens."""
        entries = _listed(value)
        for entry in entries:
            name, colon, token = entry.partition(":")
            if not colon or not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", name):
                raise ValueError("allowed: NAME:TOKEN, NAME:TOKEN, …; a name has letters, digits and _ . @ -")
            if len(token) < OPERATOR_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(
                    f"allowed: tokens of at least {OPERATOR_TOKEN_LENGTH} printable ASCII characters without spaces; "
                    f"that of {name} is none"
                )
        tokens = [entry.partition(":")[2] for entry in entries]
        if len(set(tokens)) < len(tokens):
            raise ValueError("allowed: a token of its own for each operator")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, init_settings)

    @property
    def store_url(self) -> str:
        """The SQLAlchemy URL of the operational store."""
        return self.store.url or f"sqlite:///{self.data_dir.absolute() / 'store.db'}"

    @property
    def raw_dir(self) -> str:
        """Where raw Parquet lands: a folder or a ``gs://`` prefix, without a trailing slash."""
        return (self.warehouse.raw or str(self.data_dir.absolute() / "raw")).rstrip("/")

    @property
    def duckdb_path(self) -> Path:
        """The embedded warehouse's file. Only dbt opens it for writing."""
        return self.data_dir.absolute() / "warehouse.duckdb"

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The webhook secrets, newest first: ``LZ_SYNC_WEBHOOK_SECRETS`` is a comma-separated list."""
        return tuple(part.encode() for part in _listed(self.webhook_secrets))

    @property
    def operators(self) -> tuple[tuple[str, bytes], ...]:
        """Who may confirm deletions by the API: (name, token). ``LZ_SYNC_OPERATOR_TOKENS`` is a comma-separated list of
        ``name:token``; a name may stand there twice, so that its token can be changed."""
        entries = (entry.partition(":") for entry in _listed(self.operator_tokens))
        return tuple((name, token.encode()) for name, _, token in entries)

    @property
    def disabled_layers(self) -> frozenset[LayerId]:
        """Layers that the configuration switches off."""
        layers = self.sync_layers
        switches = {
            LayerId.WEBHOOK: layers.webhook.enabled,
            LayerId.GIT: layers.git_sync.enabled,
            LayerId.API: layers.api_sync.enabled,
            LayerId.PUBSUB: layers.pubsub.enabled,
            LayerId.BIGQUERY: layers.bigquery.enabled,
        }
        return frozenset(layer for layer, enabled in switches.items() if not enabled)

    def cadence(self, layer: LayerId) -> timedelta | None:
        """How often a layer syncs by itself; ``None`` for the layers that wait for a call (webhook, pubsub)."""
        layers = self.sync_layers
        if layer is LayerId.GIT:
            return timedelta(hours=layers.git_sync.frequency_hours)
        if layer is LayerId.API:
            return timedelta(minutes=layers.api_sync.frequency_minutes)
        if layer is LayerId.BIGQUERY:
            return timedelta(days=1 if layers.bigquery.schedule == "daily" else 7)
        return None


def settings_file(path: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that `load_settings` reads; ``None`` if defaults and the environment hold."""
    named = path or (os.environ if environ is None else environ).get(f"{ENV_PREFIX}CONFIG")
    file = Path(named or DEFAULT_FILE)
    return file if named or file.exists() else None


def load_settings(path: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the settings.

    Args:
        path: the file. By default ``LZ_SYNC_CONFIG``, then ``sync_config.yaml`` in the current folder; without either,
            the defaults hold. A file that is named must exist.
        environ: the environment (default: this process's).

    Raises:
        ConfigError: one line per mistake.
    """
    env = os.environ if environ is None else environ
    file = settings_file(path, environ=env)
    data: Any = {}
    lines: dict[tuple[str | int, ...], int] = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
            data = yaml.safe_load(text)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except OSError as error:
            raise ConfigError(
                [f"{file}: cannot be read ({error.strerror}); name an existing file with LZ_SYNC_CONFIG"]
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError([f"{file}: is not UTF-8 text; save it as UTF-8"]) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError(
                [f"{file}{line}: is not valid YAML ({redact_text(str(error.problem))}); mend the line"]
            ) from error
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ConfigError([f"{file}: is not valid YAML ({reason}); mend the file"]) from error
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise ConfigError(
                [f"{file}: has a {type(data).__name__} at the top; allowed: a mapping with the key sync_layers"]
            )
        if node is not None:
            twice = _collect_lines(node, (), lines)
            if twice:
                raise ConfigError([f"{file}:{line}: {key}: stands there twice; keep one" for key, line in twice])
            others = [key for key in data if not isinstance(key, str)]
            if others:
                raise ConfigError(
                    [f"{file}: {key!r}: is not a known key; allowed: {', '.join(_keys_at(()))}" for key in others]
                )
        for key in SECRETS:
            if key in data:
                raise ConfigError(
                    [
                        f"{file}:{lines[(key,)]}: {key}: is a secret; "
                        f"set {ENV_PREFIX}{key.upper()} in the environment instead"
                    ]
                )
    known = {
        name: value for name, value in env.items() if name.startswith(ENV_PREFIX) and name != f"{ENV_PREFIX}CONFIG"
    }
    unknown = [name for name in known if name[len(ENV_PREFIX) :].lower().split("__")[0] not in Settings.model_fields]
    if unknown:
        raise ConfigError(
            [
                f"environment: {name}: is not a setting; allowed: {ENV_PREFIX}CONFIG and {_env_names()}"
                for name in sorted(unknown)
            ]
        )
    before = dict(os.environ)
    try:
        if environ is not None:
            os.environ.clear()
            os.environ.update(environ)
        from_env = EnvSettingsSource(Settings)()
        return Settings(**data)
    except SettingsError as error:
        name = re.search(r'"(\w+)"', str(error))
        variable = f"{ENV_PREFIX}{name.group(1).upper()}" if name else ENV_PREFIX
        raise ConfigError(
            [f"environment: {variable}…: is not valid JSON; allowed: JSON for lists and groups of keys"]
        ) from error
    except ValidationError as error:
        raise ConfigError(
            [_line(problem, file or Path(DEFAULT_FILE), lines, from_env) for problem in error.errors()]
        ) from error
    finally:
        if environ is not None:
            os.environ.clear()
            os.environ.update(before)


def _env_names() -> str:
    return ", ".join(f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields)


def _collect_lines(
    node: yaml.Node, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]
) -> list[tuple[str, int]]:
    """Note where each key stands; returns the keys (with line) that stand there twice."""
    twice: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            if below in lines:
                twice.append((".".join(str(part) for part in below), key.start_mark.line + 1))
            lines[below] = key.start_mark.line + 1
            twice += _collect_lines(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            twice += _collect_lines(value, (*path, index), lines)
    return twice


def _line(problem: Any, file: Path, lines: dict[tuple[str | int, ...], int], from_env: Mapping[str, Any]) -> str:
    location = tuple(problem["loc"])
    key = ".".join(str(part) for part in location)
    if location in lines and not _is_set(from_env, location):
        origin = f"{file}:{lines[location]}"
    elif _is_set(from_env, location):
        origin, key = "environment", ENV_PREFIX + "__".join(str(part) for part in location).upper()
    else:
        origin = str(file)
    if problem["type"] == "extra_forbidden":
        allowed = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{origin}: {key}: is not a known key; allowed: {', '.join(allowed)}{hint}"
    if location[0] in SECRETS:
        return f"{origin}: {key}: its value is not allowed; {_allowed(problem)}"
    shown = redact_text(repr(next(iter(redact({str(location[-1]): problem["input"]})[0].values()))))
    return f"{origin}: {key}: {shown} is not allowed; {_allowed(problem)}"


def _is_set(values: Mapping[str, Any], location: tuple[str | int, ...]) -> bool:
    """Whether the environment sets what is at a place: a list is set as a whole."""
    current: Any = values
    for part in location:
        if not isinstance(current, Mapping):
            return True
        if part not in current:
            return False
        current = current[part]
    return True


def _allowed(problem: Any) -> str:
    context = problem.get("ctx") or {}
    by_type = {
        "int_parsing": "allowed: a whole number, without a unit",
        "int_type": "allowed: a whole number, without a unit",
        "int_from_float": "allowed: a whole number",
        "bool_parsing": "allowed: true or false",
        "bool_type": "allowed: true or false",
        "list_type": "allowed: a list",
        "string_type": "allowed: a text",
        "model_type": "allowed: a mapping of keys",
        "model_attributes_type": "allowed: a mapping of keys",
    }
    if problem["type"] == "literal_error":
        return f"allowed: {context['expected']}"
    if problem["type"] == "string_pattern_mismatch":
        return f"allowed: text that matches {context['pattern']}"
    return by_type.get(
        problem["type"], str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "allowed:")
    )


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    model: Any = Settings
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        args = [arg for arg in get_args(annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)]
        model = args[0] if args else annotation
    return [name for name in model.model_fields if name not in SECRETS]
