"""The schema's numbered migrations (schemas/clickhouse/0001_*.sql, …) and their version in the database.

Every statement of a migration can be run again, so that one which broke off halfway is simply repeated, and two
workers that start together do no harm.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from streams.adapters.shipped import schemas_dir
from streams.errors import ConfigurationError
from streams.rules import Rules

_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32 COMMENT 'Number of the migration.',
    name String COMMENT 'Its name.',
    checksum String COMMENT 'SHA-256 of its file.',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied, UTC.'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY version
COMMENT 'Migrations that have been applied.'
"""


class Migration(NamedTuple):
    """One file."""

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]


class SchemaState(NamedTuple):
    """Where a database stands. `applied` is 0 for an empty one."""

    applied: int
    known: int
    missing: tuple[int, ...]

    @property
    def is_current(self) -> bool:
        """Whether exactly the known migrations are applied, without a gap."""
        return self.applied == self.known and not self.missing


def migrations_dir() -> Path:
    """Where the .sql files are.

    Raises:
        ConfigurationError: they are not there.
    """
    place = schemas_dir() / "clickhouse"
    if not place.is_dir():
        raise ConfigurationError("the package lacks schemas/clickhouse; install it again")
    return place


def load_migrations(directory: Path | None = None) -> tuple[Migration, ...]:
    """All migrations, in order.

    Raises:
        ConfigurationError: a number is missing or taken twice.
    """
    files = sorted((directory or migrations_dir()).glob("*.sql"))
    migrations = tuple(_load(file) for file in files)
    numbers = [migration.version for migration in migrations]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise ConfigurationError(f"the migrations are numbered {numbers}, not 1, 2, …; install the package again")
    return migrations


def _load(file: Path) -> Migration:
    named = _FILE.fullmatch(file.name)
    if named is None:
        raise ConfigurationError(f"{file.name} is no migration (0001_name.sql); install the package again")
    text = file.read_text(encoding="utf-8").replace("\r\n", "\n")
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return Migration(int(named["version"]), named["name"], checksum, statements_of(text))


def statements_of(text: str) -> tuple[str, ...]:
    """The statements of a file: each ends with a semicolon at a line's end; lines beginning with -- are comments."""
    code = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("--"))
    return tuple(part.strip() for part in re.split(r";[ \t]*(?:\n|$)", code) if part.strip())


def migrate(client: Any, migrations: tuple[Migration, ...] | None = None) -> list[int]:
    """Applies what is missing, in order; returns the versions applied now. Idempotent.

    Raises:
        ConfigurationError: the database is newer than this package, or was made by other files.
    """
    known = load_migrations() if migrations is None else migrations
    if not _has_table(client):
        client.command(_TABLE)
    applied = _applied(client)
    _check(known, applied)
    fresh = [migration for migration in known if migration.version not in applied]
    for migration in fresh:
        for statement in migration.statements:
            client.command(statement)
        _record(client, migration)
    return [migration.version for migration in fresh]


def schema_state(client: Any, migrations: tuple[Migration, ...] | None = None) -> SchemaState:
    """Where the database stands, without changing it.

    Raises:
        ConfigurationError: as `migrate`.
    """
    known = load_migrations() if migrations is None else migrations
    applied = _applied(client) if _has_table(client) else {}
    _check(known, applied)
    missing = tuple(migration.version for migration in known if migration.version not in applied)
    return SchemaState(max(applied, default=0), known[-1].version, missing)


def _has_table(client: Any) -> bool:
    return bool(int(client.command("EXISTS TABLE schema_migrations")))


def _applied(client: Any) -> dict[int, tuple[str, str]]:
    rows = client.query("SELECT version, name, checksum FROM schema_migrations FINAL ORDER BY version").result_rows
    return {int(version): (str(name), str(checksum)) for version, name, checksum in rows}


def _check(known: tuple[Migration, ...], applied: dict[int, tuple[str, str]]) -> None:
    newest = max(applied, default=0)
    if newest > known[-1].version:
        raise ConfigurationError(
            f"the database's schema is version {newest}, this package knows {known[-1].version}; "
            "install the newer campaign-streams, or use another database"
        )
    changed = [m for m in known if m.version in applied and applied[m.version][1] != m.checksum]
    if changed:
        names = ", ".join(f"{m.version:04d}_{m.name}" for m in changed)
        raise ConfigurationError(
            f"the database was made with other files than this package's: {names}; "
            "install the version that made it, or use another database"
        )


def _record(client: Any, migration: Migration) -> None:
    client.command(
        "INSERT INTO schema_migrations (version, name, checksum) "
        "SELECT {version:UInt32}, {name:String}, {checksum:String}",
        parameters={"version": migration.version, "name": migration.name, "checksum": migration.checksum},
        settings={"async_insert": 0},
    )


def record_rules(client: Any, rules: Rules, at_ms: int) -> None:
    """Writes down what the rules' fingerprint in the rows stands for; the views take the sketches' size from it.

    Args:
        at_ms: now, epoch ms; recorded twice, the later wins.
    """
    document = msgspec.json.encode(rules, order="sorted").decode()
    client.command(
        "INSERT INTO rule_sets (rules, reach_sample, document, version) "
        "SELECT {rules:String}, {sample:UInt32}, {document:String}, {version:UInt64}",
        parameters={
            "rules": rules.fingerprint(),
            "sample": rules.reach_sample,
            "document": document,
            "version": at_ms,
        },
        settings={"async_insert": 0},
    )
