"""What a ClickHouse DSN says: an engine in this process (chdb) or a server (HTTP), and which database.

    chdb:///absolute/directory?database=name        chdb://relative/directory
    clickhouse://user:password@host:8123/name       clickhouses://user:password@host:8443/name   (TLS)

Both default to the database `campaign_streams`. A server's DSN may carry options of the HTTP client (`OPTIONS`).
"""

from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from streams.errors import ConfigurationError

DEFAULT_DATABASE: Final = "campaign_streams"
OPTIONS: Final = frozenset(
    {"verify", "ca_cert", "client_cert", "client_cert_key", "server_host_name", "http_proxy", "https_proxy", "compress"}
)
"""Options of clickhouse-connect that a server's DSN may name."""

MASK: Final = "***"


class ChdbTarget(NamedTuple):
    """An engine in this process. One process at a time may hold its directory."""

    directory: Path
    database: str

    def __str__(self) -> str:
        return f"chdb://{self.directory}?database={self.database}"

    def mask(self, text: str) -> str:
        """There is no secret."""
        return text


class HttpTarget(NamedTuple):
    """A server. `str` shows it without its password."""

    host: str
    port: int
    secure: bool
    user: str
    password: str
    database: str
    options: dict[str, str]

    def __str__(self) -> str:
        scheme = "clickhouses" if self.secure else "clickhouse"
        password = f":{MASK}" if self.password else ""
        return f"{scheme}://{self.user}{password}@{self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return str(self)

    def mask(self, text: str) -> str:
        """The text without the password."""
        return text.replace(self.password, MASK) if self.password else text


Target = ChdbTarget | HttpTarget


def parse_dsn(dsn: str) -> Target:
    """Reads a DSN.

    Raises:
        ConfigurationError: it is none; the message never shows a password.
    """
    if dsn.startswith("chdb://"):
        return _chdb(dsn)
    if dsn.startswith(("clickhouse://", "clickhouses://")):
        return _http(dsn)
    raise ConfigurationError("clickhouse.dsn must begin with chdb://, clickhouse:// or clickhouses://; mend the DSN")


def _chdb(dsn: str) -> ChdbTarget:
    location, _, query = dsn.removeprefix("chdb://").partition("?")
    options = dict(parse_qsl(query))
    database = options.pop("database", DEFAULT_DATABASE)
    if not location.strip("/") or options:
        raise ConfigurationError(
            "clickhouse.dsn: chdb:// needs a directory and takes no option but database; "
            "write chdb:///var/lib/campaign-streams?database=campaign_streams"
        )
    return ChdbTarget(Path(unquote(location)).resolve(), database)


def _http(dsn: str) -> HttpTarget:
    try:
        parts = urlsplit(dsn)
        secure = parts.scheme == "clickhouses"
        port = parts.port or (8443 if secure else 8123)
    except ValueError:
        raise ConfigurationError("clickhouse.dsn: the port is no number; mend the DSN") from None
    options = dict(parse_qsl(parts.query))
    unknown = sorted(options.keys() - OPTIONS)
    if unknown or not parts.hostname:
        what = f"unknown options {', '.join(unknown)} (known: {', '.join(sorted(OPTIONS))})" if unknown else "no host"
        raise ConfigurationError(f"clickhouse.dsn: {what}; mend the DSN")
    return HttpTarget(
        host=parts.hostname,
        port=port,
        secure=secure,
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.strip("/")) or DEFAULT_DATABASE,
        options=options,
    )
