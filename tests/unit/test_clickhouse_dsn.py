"""What DSNs mean, and that no password is shown."""

from pathlib import Path

import pytest

from streams.adapters.clickhouse_dsn import ChdbTarget, HttpTarget, parse_dsn
from streams.errors import ConfigurationError


def test_a_directory_is_an_engine_in_this_process() -> None:
    assert parse_dsn("chdb:///var/data") == ChdbTarget(Path("/var/data"), "campaign_streams")
    assert parse_dsn("chdb:///var/da%20ta?database=other") == ChdbTarget(Path("/var/da ta"), "other")


def test_a_relative_directory_begins_where_the_process_runs() -> None:
    assert parse_dsn("chdb://data/clickhouse") == ChdbTarget(Path.cwd() / "data/clickhouse", "campaign_streams")


def test_a_server_has_ports_of_its_scheme() -> None:
    plain, secure = parse_dsn("clickhouse://host"), parse_dsn("clickhouses://host")
    assert isinstance(plain, HttpTarget)
    assert isinstance(secure, HttpTarget)
    assert (plain.port, plain.secure, plain.user, plain.database) == (8123, False, "default", "campaign_streams")
    assert (secure.port, secure.secure) == (8443, True)


def test_credentials_are_unquoted_and_options_kept() -> None:
    target = parse_dsn("clickhouses://us%40er:p%2Fw@host:9440/db?verify=false")
    assert target == HttpTarget("host", 9440, True, "us@er", "p/w", "db", {"verify": "false"})


@pytest.mark.parametrize(
    "dsn",
    [
        "http://host",
        "",
        "chdb://",
        "chdb:///",
        "chdb:///d?x=1",
        "clickhouse://",
        "clickhouse://h:x",
        "clickhouse://h?a=1",
    ],
)
def test_what_is_no_dsn_is_refused_with_its_remedy(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"clickhouse\.dsn"):
        parse_dsn(dsn)


def test_a_password_is_never_shown() -> None:
    target = parse_dsn("clickhouse://user:s3cret@host:1/db")
    assert "s3cret" not in f"{target} {target!r} {target.mask('at http://user:s3cret@host')}"
    with pytest.raises(ConfigurationError) as refused:
        parse_dsn("clickhouse://user:s3cret@host:port/db")
    assert "s3cret" not in str(refused.value)
