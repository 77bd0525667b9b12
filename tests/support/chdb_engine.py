"""One embedded ClickHouse for all tests of a process: a process can hold only one engine directory.

Tests share the directory, and each has a database of its own, or an empty one: `chdb_settings`, `migrated_settings`.
"""

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_migrations import migrate
from streams.records import Table
from streams.settings import ClickHouseSettings

_numbers = itertools.count(1)


@cache
def engine_directory() -> Path:
    """The directory of this process's engine; removed when the process ends."""
    directory = Path(tempfile.mkdtemp(prefix="campaign-streams-chdb-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def new_settings(**overrides: object) -> ClickHouseSettings:
    """Settings that lead to a database of this process's engine that no one else uses. It is not created yet."""
    dsn = f"chdb://{engine_directory()}?database=test_{next(_numbers)}"
    return ClickHouseSettings(dsn=dsn, **overrides)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def running_engine() -> Iterator[None]:
    """Keeps the engine running from one test of a module to the next: starting it takes longer than most of them."""
    keeper = connect(_shared_settings())
    yield
    keeper.close()


@pytest.fixture
def chdb_settings(running_engine: None) -> Iterator[ClickHouseSettings]:
    """An empty database of its own, dropped afterwards. It is created by whoever connects first."""
    settings = new_settings()
    keeper = connect(settings)
    yield settings
    keeper.command(f"DROP DATABASE IF EXISTS {keeper.database}")
    keeper.close()


TABLES = (*(table.value for table in Table), "rule_sets", "pacing_periods")


def empty_tables(settings: ClickHouseSettings) -> None:
    """Brings a database to this version's schema, and empties its tables: much quicker than a new database."""
    client = connect(settings)
    try:
        migrate(client)
        for table in TABLES:
            client.command(f"TRUNCATE TABLE {table}")
    finally:
        client.close()


@cache
def _shared_settings() -> ClickHouseSettings:
    return new_settings()


@pytest.fixture
def migrated_settings(running_engine: None) -> ClickHouseSettings:
    """A database with this version's schema and no rows, used by one test after the other."""
    settings = _shared_settings()
    empty_tables(settings)
    return settings
