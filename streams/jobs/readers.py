"""Rows of log files: CSV, TSV, NDJSON and Parquet, each also gzip-compressed, in UTF-8.

A line that cannot be read becomes a `BadRow` with its number; only a file that cannot be read at all is an error.
Files are read as a stream; a line is at most `MAX_LINE_BYTES`, a field of CSV at most 128 KiB (the csv module's bound).
"""

import csv
import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, cast

import orjson

from streams.errors import ConfigurationError

Format = Literal["csv", "tsv", "ndjson", "parquet"]
Values = Mapping[str, object]
CheckColumns = Callable[[tuple[str, ...]], None]

MAX_LINE_BYTES: Final = 1_048_576
PARQUET_BATCH_ROWS: Final = 4_096
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class Row(NamedTuple):
    """A row: its number (lines from 1, the header being one; rows of Parquet from 1) and its values by column."""

    number: int
    values: Values


class BadRow(NamedTuple):
    """A row that does not fit: its number and why."""

    number: int
    reason: str


class Layout(NamedTuple):
    """How a file is laid out. `columns` names those of a file without a header; unnamed ones are `0`, `1`, …"""

    format: Format | None = None
    header: bool = True
    columns: tuple[str, ...] = ()
    quotes: bool | None = None
    """Whether `"` quotes fields; None: in CSV it does, in TSV it is a character like any other."""


def format_of(path: Path) -> Format:
    """The format that a name's suffix tells, beneath .gz.

    Raises:
        ConfigurationError: the suffix is none of the known ones.
    """
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    found = _SUFFIXES.get(name.suffix.lower())
    if found is None:
        raise ConfigurationError(
            f"{path}: the suffix tells no format; name it in the mapping, [source] format = csv, tsv, ndjson or parquet"
        )
    return found


def read_rows(path: Path, layout: Layout, check_columns: CheckColumns | None = None) -> Iterator[Row | BadRow]:
    """The rows of a file, in its order. `check_columns` is told the columns before the first row (not for NDJSON).

    Raises:
        ConfigurationError: the file is absent, truncated or not of its format, or pyarrow is missing for Parquet.
    """
    reader = _READERS[layout.format or format_of(path)]
    check = check_columns or _accept_any
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            yield from reader(gzip.GzipFile(fileobj=raw) if packed else raw, layout, check)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigurationError(f"{path}: cannot be unpacked ({error}); fetch the file again") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}; give a file that can be read") from None
    except _Unreadable as error:
        raise ConfigurationError(f"{path}: {error}") from None


class _Unreadable(Exception):
    """The file is not what it should be; the message ends with the remedy."""


def _accept_any(columns: tuple[str, ...]) -> None:
    """Every file's columns will do."""


def _csv_rows(source: IO[bytes], layout: Layout, check: CheckColumns, tabs: bool = False) -> Iterator[Row | BadRow]:
    columns = None if layout.header else layout.columns or None
    if columns:
        check(columns)
    for number, fields in _records(source, tabs, quotes=not tabs if layout.quotes is None else layout.quotes):
        if isinstance(fields, csv.Error):
            yield BadRow(number, f"cannot be split into fields: {fields}")
        elif columns is None:
            columns = _names(fields if layout.header else [""] * len(fields))
            check(columns)
            if not layout.header:
                yield Row(number, dict(zip(columns, fields, strict=True)))
        elif len(fields) != len(columns):
            yield BadRow(number, f"{len(fields)} columns, expected {len(columns)}")
        else:
            yield Row(number, dict(zip(columns, fields, strict=True)))


def _names(header: list[str]) -> tuple[str, ...]:
    """A column without a name is called by its index."""
    return tuple(name or str(index) for index, name in enumerate(header))


def _records(source: IO[bytes], tabs: bool, quotes: bool) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record's fields with the number of its first line (a quoted field may span lines); empty lines are none."""
    # Bytes that are no UTF-8 become lone surrogates, which only a row that uses them pays for.
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = iter(lambda: text.readline(MAX_LINE_BYTES), "")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter="\t" if tabs else ",", quoting=quoting, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
            continue
        if fields:
            yield number, fields


def _tsv_rows(source: IO[bytes], layout: Layout, check: CheckColumns) -> Iterator[Row | BadRow]:
    return _csv_rows(source, layout, check, tabs=True)


def _ndjson_rows(source: IO[bytes], layout: Layout, check: CheckColumns) -> Iterator[Row | BadRow]:
    number = 0
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = source.readline(MAX_LINE_BYTES)
            yield BadRow(number, f"line longer than {MAX_LINE_BYTES} bytes")
            continue
        if not line.strip():
            continue
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield BadRow(number, f"not JSON: {error.msg}")
            continue
        yield Row(number, document) if isinstance(document, dict) else BadRow(number, "not a JSON object")


def _parquet_rows(source: IO[bytes], layout: Layout, check: CheckColumns) -> Iterator[Row | BadRow]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise _Unreadable("Parquet needs pyarrow; pip install 'campaign-streams[files]'") from None
    with _seekable(source) as whole:
        try:
            file: Any = parquet.ParquetFile(whole)
            check(tuple(file.schema_arrow.names))
            schema, number = _in_microseconds(file.schema_arrow), 0
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                yield from _batch_rows(arrow.Table.from_batches([batch]).cast(schema, safe=False), number)
                number += batch.num_rows
        except arrow.ArrowException as error:
            raise _Unreadable(f"not a whole Parquet file ({str(error).splitlines()[0]}); write it again") from None


def _in_microseconds(schema: Any) -> Any:
    """The schema with times of day and timestamps as Python has them: it knows no nanoseconds."""
    import pyarrow as arrow

    for place, field in enumerate(schema):
        if arrow.types.is_timestamp(field.type) and field.type.unit == "ns":
            schema = schema.set(place, field.with_type(arrow.timestamp("us", field.type.tz)))
        elif arrow.types.is_time64(field.type):
            schema = schema.set(place, field.with_type(arrow.time64("us")))
    return schema


def _batch_rows(table: Any, before: int) -> Iterator[Row | BadRow]:
    """A batch's rows, all at once; where a value is beyond what Python can hold (the year 294247), one by one."""
    try:
        found = table.to_pylist()
    except (OverflowError, ValueError):
        for number in range(table.num_rows):
            try:
                yield Row(before + number + 1, table.slice(number, 1).to_pylist()[0])
            except (OverflowError, ValueError) as error:
                yield BadRow(before + number + 1, f"a value cannot be read: {error}")
    else:
        yield from (Row(before + number, values) for number, values in enumerate(found, 1))


def _seekable(source: IO[bytes]) -> IO[bytes]:
    """Parquet is read from its end: what is compressed as a whole is unpacked to a temporary file first."""
    if not isinstance(source, gzip.GzipFile):
        return source
    whole = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(source, whole)
    whole.seek(0)
    return cast(IO[bytes], whole)


_READERS: Final[dict[Format, Callable[..., Iterator[Row | BadRow]]]] = {
    "csv": _csv_rows,
    "tsv": _tsv_rows,
    "ndjson": _ndjson_rows,
    "parquet": _parquet_rows,
}
