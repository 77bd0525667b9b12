"""What clickhouse-connect and the engine raise, mapped onto the tree of streams.errors.

Everything is taken to pass (`SinkUnavailable`) except what is known not to: names that do not exist, rights, types.
A row that cannot be serialised (`DataError`) is a broken invariant and is not mapped: it crashes loudly.
"""

import re
from typing import Final

from clickhouse_connect.driver.exceptions import DataError, Error, ProgrammingError

from streams.adapters.clickhouse_dsn import Target
from streams.errors import CampaignStreamsError, ConfigurationError, SinkUnavailable

SCHEMA_CODES: Final = frozenset({8, 10, 16, 20, 36, 44, 47, 50, 53, 60, 62, 81})
"""THERE_IS_NO_COLUMN, NOT_FOUND_COLUMN_IN_BLOCK, NO_SUCH_COLUMN_IN_TABLE, NUMBER_OF_COLUMNS_DOESNT_MATCH,
BAD_ARGUMENTS, ILLEGAL_COLUMN, UNKNOWN_IDENTIFIER, UNKNOWN_TYPE, TYPE_MISMATCH, UNKNOWN_TABLE, SYNTAX_ERROR,
UNKNOWN_DATABASE."""

ACCESS_CODES: Final = frozenset({164, 192, 193, 194, 195, 291, 452, 497, 516})
"""READONLY (the user's), UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, IP_ADDRESS_NOT_ALLOWED,
DATABASE_ACCESS_DENIED, SETTING_CONSTRAINT_VIOLATION, ACCESS_DENIED, AUTHENTICATION_FAILED."""

_MAX_TEXT: Final = 500
_NOISE: Final = re.compile(
    r"Received ClickHouse exception, code: \d+, server response: "
    r"|Code: \d+\. DB::Exception: |\(for url [^)]*\)|\(version [^)]*\)|executing HTTP request attempt \d+ \([^)]*\)"
)


def mapped(error: Exception, target: Target, doing: str) -> CampaignStreamsError:
    """The operating error that stands for `error`; never shows a password.

    Raises:
        DataError: a value does not fit its column, which no operator can mend.
    """
    if isinstance(error, DataError):
        raise error
    text = brief(error, target)
    code = getattr(error, "code", None)
    if code in ACCESS_CODES:
        return ConfigurationError(f"{doing} at {target}: {text}; check user, password and rights in clickhouse.dsn")
    if code in SCHEMA_CODES or (isinstance(error, ProgrammingError) and code is None):
        return ConfigurationError(f"{doing} at {target}: {text}; run the migrations of this version (doctor tells)")
    return SinkUnavailable(f"{doing} at {target}: {text}; check that ClickHouse answers")


def brief(error: Exception, target: Target) -> str:
    """The error's text: one line, bounded, masked."""
    text = " ".join(_NOISE.sub(" ", str(error)).split())
    text = text.rpartition("(Caused by ")[2]  # urllib3 puts the whole URL before its reason
    return target.mask(text)[:_MAX_TEXT].rstrip(" .") or type(error).__name__


def is_operating(error: Exception) -> bool:
    """Whether an exception comes from ClickHouse or the way to it, rather than from a defect here."""
    return isinstance(error, Error | OSError | RuntimeError)
