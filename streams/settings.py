"""The one reader of the environment: a frozen settings object, checked across fields at load, secrets masked.

Sources, the strongest first: environment (`CAMPAIGN_STREAMS_…`, nested with `__`), then the TOML file that
`CAMPAIGN_STREAMS_CONFIG` names (or ./campaign-streams.toml). `campaign-streams --help` and the README list them.
"""

import difflib
import os
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from streams.errors import ConfigurationError
from streams.rules import Rules

CONFIG_VARIABLE = "CAMPAIGN_STREAMS_CONFIG"
DEFAULT_CONFIG = "campaign-streams.toml"
LOOPBACK = "127.0.0.1"
_WEBHOOKS_OF_APPRISE = re.compile(r"(json|xml|form|apprise)s?://", re.IGNORECASE)
"""Any address can stand behind these, as behind a webhook, and apprise judges none."""


class Section(BaseModel):
    """A part of the settings: frozen, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """How to reach Kafka."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="Comma-separated host:port.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("PLAIN", description="Used with SASL_*.")
    sasl_username: str | None = Field(None, description="Used with SASL_*.")
    sasl_password: SecretStr | None = Field(None, description="Used with SASL_*; masked wherever it is shown.")
    ssl_cafile: Path | None = Field(None, description="PEM file of the authority that signed the brokers.")
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate.")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's key.")
    group_id: str = Field("campaign-streams", description="Consumer group of the workers.")
    assignment: Literal["group", "all"] = Field(
        "group", description="group: Kafka shares the partitions out; all: this worker takes every partition."
    )
    session_timeout_ms: int = Field(6_000, ge=1_000, le=300_000, description="A dead worker is noticed after this.")
    partitions: int = Field(4, ge=1, le=4096, description="Partitions of each topic, where topics are created.")
    replication_factor: int = Field(1, ge=1, le=16, description="Replicas of each topic, where topics are created.")
    create_topics: bool = Field(False, description="Create missing topics at start.")
    idempotent_producer: bool = Field(True, description="Off for brokers without InitProducerId.")
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="Of what is published: loaded events, alerts, controls, dead letters. All are read, always."
    )

    @model_validator(mode="after")
    def _sasl_needs_credentials(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError("sasl_username and sasl_password are needed with SASL_*")
        return self


class ClickHouseSettings(Section):
    """Where rows go."""

    dsn: SecretStr = Field(
        SecretStr("clickhouse://default@127.0.0.1:8123/campaign_streams"),
        description="chdb:///directory (in-process) or clickhouse(s)://user:password@host:port/database.",
    )
    flush_ms: int = Field(50, ge=50, le=60_000, description="Least time between two insertions.")
    max_rows_per_insert: int = Field(50_000, ge=100, le=1_000_000, description="Rows of one insertion, at most.")
    timeout_s: float = Field(30.0, gt=0, le=600, description="One statement may take this long.")

    @field_validator("dsn")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("chdb://", "clickhouse://", "clickhouses://")):
            raise ValueError("must begin with chdb://, clickhouse:// or clickhouses://")
        return value


class WorkerSettings(Section):
    """How one worker runs."""

    web_host: str = Field(LOOPBACK, description="Address of the web server; loopback unless told otherwise.")
    web_port: int = Field(6066, ge=1, le=65_535, description="Port of the web server (metrics, API).")
    state_dir: Path = Field(Path("state"), description="Faust's own files; checkpoints too with `directory`.")
    checkpoint_store: Literal["kafka", "directory"] = Field(
        "kafka", description="kafka: topic ads.checkpoints (workers may move); directory: state_dir (one machine)."
    )
    tick_ms: int = Field(400, ge=50, le=10_000, description="Time between two ticks.")
    checkpoint_ms: int = Field(5_000, ge=500, le=600_000, description="Time between two checkpoints.")
    pinned_checkpoints: int = Field(
        8, ge=0, le=400, description="The last checkpoints of so many days are kept for replays; 0: none."
    )
    pin_every_ms: int = Field(86_400_000, ge=1_000, le=2_592_000_000, description="A day of these, UTC.")
    silent_ms: int = Field(10_000, ge=1_000, le=3_600_000, description="An input without records is silent after this.")
    max_dirty_rows: int = Field(
        500_000,
        ge=1_000,
        le=50_000_000,
        description="Rows not yet acknowledged by ClickHouse; beyond it intake pauses.",
    )
    max_batch_records: int = Field(5_000, ge=1, le=100_000, description="Records of one batch, at most.")
    top_campaigns: int = Field(50, ge=0, le=1_000, description="Campaigns with a label of their own in Prometheus.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity logged.")
    log_epoch: int = Field(0, ge=0, le=65_535, description="Raise by one whenever the topics were created anew.")


class IdentitySettings(Section):
    """Pseudonyms of users, devices and addresses, made on the way in."""

    key: SecretStr | None = Field(None, description="Key of the keyed hash; none: identifiers are taken as they are.")
    key_id: str = Field("k1", min_length=1, max_length=32, description="Name of the key, carried by the events.")


class InvalidSettings(Section):
    """Lists that rules for invalid traffic look up. The rules themselves stand in [rules.invalid]."""

    data_centres: Path | None = Field(
        None, description="File of data centres' networks, one CIDR a line; none: the rule `data_centre` finds nothing."
    )
    data_centres_as_of: date | None = Field(
        None, description="The list's date, where the file has no comment `# as of 2026-01-31`."
    )


def _known_zone(name: str | None) -> str | None:
    try:
        if name is not None:
            ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError("is no IANA time zone; for example Asia/Shanghai") from None
    return name


class RouteSettings(Section):
    """One receiver of alerts: where its messages go, and whose alerts it gets."""

    kind: Literal["webhook", "apprise"] = Field("webhook", description="webhook: signed JSON; apprise: chat or mail.")
    url: SecretStr = Field(description="https://… of a webhook, or apprise's URL (slack://…, feishu://…, mailto://…).")
    secret: SecretStr | None = Field(None, description="Key of a webhook's signature; needed with kind webhook.")
    advertisers: tuple[str, ...] = Field((), description="Advertisers whose alerts it gets.")
    agencies: tuple[str, ...] = Field((), description="Agencies whose alerts it gets, where no advertiser's route is.")
    operations: bool = Field(False, description="It gets what is meant for operations.")
    language: Literal["en", "zh"] | None = Field(None, description="None: as the campaigns say.")
    hourly_cap: int | None = Field(None, ge=1, le=1_000, description="None: delivery.hourly_cap.")
    digest: Literal["daily", "hourly", "off"] | None = Field(None, description="None: delivery.digest.")
    digest_hour: int | None = Field(None, ge=0, le=23, description="None: delivery.digest_hour.")
    time_zone: str | None = Field(None, description="Of digest_hour; None: delivery.time_zone.")

    _zone = field_validator("time_zone")(_known_zone)

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Self:
        if self.kind == "webhook":
            if self.secret is None or not self.secret.get_secret_value():
                raise ValueError("secret is needed with kind webhook: it signs the messages")
            if not re.match(r"https?://[^/]", self.url.get_secret_value()):
                raise ValueError("url must begin with https:// (or http://, with delivery.allow_private_networks)")
        elif "://" not in self.url.get_secret_value():
            raise ValueError("url must be one of apprise, such as slack://…, feishu://… or mailto://…")
        return self


RouteName = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]


class DeliverySettings(Section):
    """How alerts reach people: routes, grouping, caps, and what is done when a receiver does not answer."""

    enabled: bool = Field(True, description="Alerts are delivered, where a route serves them.")
    in_worker: bool = Field(True, description="Workers deliver; false: only `campaign-streams notifier` does.")
    web_port: int = Field(6067, ge=0, le=65_535, description="Of the notifier's /metrics and /health; 0: none.")
    dry_run: bool = Field(False, description="Log messages in place of sending; they count as told.")
    allow_private_networks: bool = Field(False, description="Webhooks may be http:// and inside private networks.")
    group_wait_ms: int = Field(20_000, ge=0, le=600_000, description="A pushed alert waits so long for its like.")
    hourly_cap: int = Field(12, ge=1, le=1_000, description="Pushed messages to a receiver in an hour of the clock.")
    push_resolved: bool = Field(True, description="The end of what was pushed is pushed; false: told in the digest.")
    digest: Literal["daily", "hourly", "off"] = Field("daily", description="When what is not pushed is told.")
    digest_hour: int = Field(9, ge=0, le=23, description="Hour of the daily digest, in time_zone.")
    time_zone: str = Field("UTC", description="IANA time zone of digest_hour.")
    push_within_ms: int = Field(
        21_600_000, ge=60_000, le=172_800_000, description="Older events (loaded history) go to the digest instead."
    )
    lookback_ms: int = Field(
        172_800_000, ge=3_600_000, le=604_800_000, description="Alerts decided longer ago are told no more."
    )
    timeout_ms: int = Field(10_000, ge=100, le=120_000, description="One attempt may take this long.")
    attempts: int = Field(4, ge=1, le=20, description="Attempts in a row, before a message waits for the circuit.")
    circuit_failures: int = Field(5, ge=1, le=100, description="Failures in a row that open a receiver's circuit.")
    circuit_open_ms: int = Field(60_000, ge=100, le=3_600_000, description="An open circuit is probed after this.")
    queue_messages: int = Field(20, ge=1, le=1_000, description="Messages under way to a receiver; the rest waits.")
    routes: dict[RouteName, RouteSettings] = Field(
        {}, description="Receivers by name, as [delivery.routes.NAME]; `default` serves all others."
    )

    _zone = field_validator("time_zone")(_known_zone)

    @model_validator(mode="after")
    def _webhooks_stay_outside(self) -> Self:
        for name, route in self.routes.items() if not self.allow_private_networks else ():
            url = route.url.get_secret_value()
            if url.startswith("http://"):
                raise ValueError(f"routes.{name}.url must begin with https://; http:// needs allow_private_networks")
            if route.kind == "apprise" and _WEBHOOKS_OF_APPRISE.match(url):
                raise ValueError(
                    f"routes.{name}.url is a webhook whose address apprise does not judge; use kind webhook, "
                    "which is signed, too, or allow_private_networks"
                )
        return self


class TokenSettings(Section):
    """One token of the console: what `campaign-streams tokens new` printed."""

    hash: SecretStr = Field(description="Its hash, never the token itself.")
    scopes: tuple[str, ...] = Field(min_length=1, max_length=100, description="operator, or KIND:ID.")
    expires: date | None = Field(None, description="Its last day, UTC; none: it does not expire.")


class ConsoleSettings(Section):
    """The web page and its API: who may see what, and how much of it."""

    enabled: bool = Field(True, description="The worker serves the page and the API.")
    tokens_file: Path | None = Field(None, description="TOML file of tokens, one a line; read again when it changes.")
    tokens: dict[Annotated[str, StringConstraints(pattern="^[a-z0-9]{4,32}$")], TokenSettings] = Field(
        {}, description="Tokens by id, as [console.tokens.ID]. With any token, or a file, nobody is served without."
    )
    token: SecretStr | None = Field(
        None, description="An operator's token, which commands here (`top`, `query`, …) show to a worker."
    )
    secure_cookie: bool = Field(False, description="Cookies go over HTTPS only: set it behind a proxy with TLS.")
    open_metrics: bool = Field(
        False, description="/metrics without a token, also from other machines: where only Prometheus reaches the port."
    )
    session_ms: int = Field(
        43_200_000,
        ge=60_000,
        le=2_592_000_000,
        description="A browser keeps a login so long. The server ends none: the token holds until it expires or goes.",
    )
    refresh_ms: int = Field(2_000, ge=250, le=60_000, description="Live updates come about so often.")
    query_timeout_s: float = Field(10.0, gt=0, le=120, description="One question to ClickHouse may take this long.")
    requests_per_minute: int = Field(
        600, ge=10, le=100_000, description="Of one token, and of one address; beyond it 429 is answered."
    )
    failures_per_minute: int = Field(10, ge=1, le=1_000, description="Wrong tokens of one address in a minute.")
    max_streams: int = Field(
        100, ge=1, le=10_000, description="Streams of live updates at the same time; of one token a tenth."
    )

    @property
    def is_closed(self) -> bool:
        """Whether a token is needed. Without any configured, only this machine is served."""
        return bool(self.tokens) or self.tokens_file is not None


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix="CAMPAIGN_STREAMS_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    kafka: KafkaSettings = KafkaSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    worker: WorkerSettings = WorkerSettings()
    identity: IdentitySettings = IdentitySettings()
    delivery: DeliverySettings = DeliverySettings()
    invalid: InvalidSettings = InvalidSettings()
    console: ConsoleSettings = ConsoleSettings()
    rules: dict[str, object] = Field(default_factory=dict, description="Overrides of streams.rules.Rules.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=_file())

    def parsed_rules(self) -> Rules:
        """The rules with the overrides applied.

        Raises:
            ConfigurationError: an override is unknown, of a wrong type, or contradicts another.
        """
        defaults = msgspec.to_builtins(Rules())
        own = {name: _decoded(value) for name, value in self.rules.items()}
        merged = {**defaults, **own}
        horizons = own.get("horizons")
        if isinstance(horizons, dict):
            known = defaults["horizons"]
            changed = {name: {**known.get(name, {}), **h} for name, h in horizons.items() if isinstance(h, dict)}
            merged["horizons"] = {**known, **horizons, **changed}
        try:
            return msgspec.convert(merged, Rules, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"rules: {error}; mend the section [rules] of the settings") from None


def _decoded(value: object) -> object:
    """Lists come from single variables as JSON text."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def _refuse_unknown_variables() -> None:
    """A misspelt section in the environment would be ignored in silence."""
    prefix = "CAMPAIGN_STREAMS_"
    known = {*Settings.model_fields, CONFIG_VARIABLE.removeprefix(prefix).lower(), "test_data", "kafka_cache"}
    given = {name for name in os.environ if name.startswith(prefix)}
    unknown = sorted(n for n in given if n.removeprefix(prefix).split("__")[0].lower() not in known)
    if unknown:
        sections = ", ".join(Settings.model_fields)
        raise ConfigurationError(f"settings: {', '.join(unknown)} is no setting; the sections are {sections}")


def _file() -> Path:
    return Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))


def _sources() -> str:
    return f"{_file()} or the environment" if _file().is_file() else "the environment"


def _told(error: ErrorDetails) -> str:
    """What is wrong with a setting; of one that there is not, which may be meant."""
    if error["type"] != "extra_forbidden":
        return error["msg"].removeprefix("Value error, ")
    *path, name = error["loc"]
    kind: Any = Settings
    for part in path:
        fields = getattr(kind, "model_fields", None)
        kind = fields[part].annotation if fields is not None else get_args(kind)[1]  # of a table by names
    close = difflib.get_close_matches(str(name), kind.model_fields, n=1)
    return "is no setting; " + (f"did you mean {close[0]}?" if close else f"known are {', '.join(kind.model_fields)}")


def load_settings(**overrides: object) -> Settings:
    """Reads the settings once.

    Raises:
        ConfigurationError: every wrong field with its path, or a file that is named but absent.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named and not Path(named).is_file():
        raise ConfigurationError(f"{CONFIG_VARIABLE} names {named}, which is no file; create it or unset the variable")
    _refuse_unknown_variables()
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {_told(e)}" for e in error.errors(include_input=False)]
        raise ConfigurationError(f"settings: {', and '.join(wrong)}; mend {_sources()} (README: Settings)") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"settings: {_file()} is no UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"settings: {_file()} is no TOML: {error}; mend the file") from None
    except ValueError as error:
        raise ConfigurationError(f"settings: {error}; mend {_sources()} (README: Settings)") from None
    settings.parsed_rules()
    return settings
