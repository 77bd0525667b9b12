"""Rows of log files, plain and compressed; a bad line is a value."""

import gzip
import json
import sys
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streams.errors import ConfigurationError
from streams.jobs.readers import MAX_LINE_BYTES, BadRow, Layout, Row, format_of, read_rows

ROWS = [{"id": "1", "name": "快手"}, {"id": "2", "name": 'a "b", c'}]


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def parquet_bytes(tmp_path: Path, rows: Sequence[dict[str, object]]) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `files`)")
    import pyarrow.parquet as parquet

    path = tmp_path / "made.parquet"
    parquet.write_table(arrow.Table.from_pylist(list(rows)), path)
    return path.read_bytes()


def content_of(tmp_path: Path, kind: str) -> bytes:
    if kind == "parquet":
        return parquet_bytes(tmp_path, ROWS)
    return {
        "csv": 'id,name\n1,快手\n2,"a ""b"", c"\n'.encode(),
        "tsv": 'id\tname\n1\t快手\n2\ta "b", c\n'.encode(),
        "ndjson": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    }[kind]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "ndjson", "parquet"])
def test_the_same_rows_come_out_of_every_format(tmp_path: Path, kind: str, packed: str) -> None:
    path = written(tmp_path, f"log.{kind}{packed}", content_of(tmp_path, kind))
    rows = list(read_rows(path, Layout()))
    assert [row.values for row in rows if isinstance(row, Row)] == ROWS
    assert [row.number for row in rows] == ([2, 3] if kind in ("csv", "tsv") else [1, 2])


def test_compression_is_told_by_the_content_not_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(b"id\n1\n"))
    assert list(read_rows(path, Layout())) == [Row(2, {"id": "1"})]


def test_columns_without_a_name_are_called_by_their_index(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", b",id\nx,y\n")
    assert list(read_rows(path, Layout())) == [Row(2, {"0": "x", "id": "y"})]
    assert list(read_rows(path, Layout(header=False))) == [Row(1, {"0": "", "1": "id"}), Row(2, {"0": "x", "1": "y"})]
    named = Layout(header=False, columns=("a", "b"))
    assert list(read_rows(path, named))[1] == Row(2, {"a": "x", "b": "y"})


def test_the_columns_are_checked_before_the_first_row(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", b"id,at\n1,2\n")
    seen: list[tuple[str, ...]] = []
    next(read_rows(path, Layout(), seen.append))
    assert seen == [("id", "at")]


def test_a_row_that_spans_lines_has_the_number_of_its_first(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", b'id,name\n1,"a\nb"\n\n2,c\n')
    rows = list(read_rows(path, Layout()))
    assert [(row.number, row.values["name"]) for row in rows if isinstance(row, Row)] == [(2, "a\nb"), (5, "c")]


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("log.csv", b"id,name\n1,2,3\n4,5\n", (2, "3 columns, expected 2")),
        ("log.csv", b'id,name\n1,"a"b\n4,5\n', (2, "cannot be split")),
        ("log.tsv", b"id\tname\n1\n4\t5\n", (2, "1 columns, expected 2")),
        ("log.ndjson", b'{"id":\n{"id":"4","name":"5"}\n', (1, "not JSON")),
        ("log.ndjson", b'[1]\n{"id":"4","name":"5"}\n', (1, "not a JSON object")),
        ("log.ndjson", b'{"id":"\xff"}\n{"id":"4","name":"5"}\n', (1, "not JSON")),
        ("log.ndjson", b'"' + b"x" * 3 * MAX_LINE_BYTES + b'"\n{"id":"4","name":"5"}\n', (1, "longer than")),
    ],
)
def test_a_bad_line_is_a_value_and_the_next_is_read(
    tmp_path: Path, name: str, content: bytes, bad: tuple[int, str]
) -> None:
    first, second = list(read_rows(written(tmp_path, name, content), Layout()))
    assert isinstance(first, BadRow)
    assert first.number == bad[0]
    assert bad[1] in first.reason
    assert isinstance(second, Row)
    assert second.values == {"id": "4", "name": "5"}


def test_a_line_that_never_ends_takes_bounded_memory(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv.gz", b'id,name\n1,"' + b"x" * 24 * MAX_LINE_BYTES)
    tracemalloc.start()
    try:
        rows = list(read_rows(path, Layout()))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows
    assert all(isinstance(row, BadRow) for row in rows)
    assert peak_bytes < 12 * MAX_LINE_BYTES


@pytest.mark.parametrize(("name", "kind"), [("a.JSONL", "ndjson"), ("a.b.tsv.gz", "tsv"), ("a.pq", "parquet")])
def test_the_suffix_tells_the_format(name: str, kind: str) -> None:
    assert format_of(Path(name)) == kind


def test_a_file_of_no_known_suffix_needs_its_format_named(tmp_path: Path) -> None:
    path = written(tmp_path, "log.txt", b"id\n1\n")
    with pytest.raises(ConfigurationError, match="format = csv, tsv, ndjson or parquet"):
        list(read_rows(path, Layout()))
    assert list(read_rows(path, Layout(format="csv"))) == [Row(2, {"id": "1"})]


def test_a_truncated_archive_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"id\n" + b"1\n" * 100_000)[:-20])
    with pytest.raises(ConfigurationError, match=r"log\.csv\.gz: cannot be unpacked"):
        list(read_rows(path, Layout()))


def test_an_absent_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.csv: No such file"):
        list(read_rows(tmp_path / "none.csv", Layout()))


@pytest.mark.parametrize("has_pandas", [True, False])
def test_times_of_parquet_that_python_does_not_know_are_told_row_by_row(
    tmp_path: Path, has_pandas: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nanoseconds are cut; a year beyond 9999 misfits, and its neighbours are read."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `files`)")
    import pyarrow.parquet as parquet

    if not has_pandas:
        monkeypatch.setitem(sys.modules, "pandas", None)
    fine, far = 1_793_577_600_000_001_500, 400_000_000_000_000_000
    times = {
        "at": arrow.array([fine, fine, fine], arrow.timestamp("ns", "UTC")),
        "seen": arrow.array([fine // 1000, far, fine // 1000], arrow.timestamp("us")),
    }
    path = tmp_path / "times.parquet"
    parquet.write_table(arrow.table(times), path)
    first, second, third = read_rows(path, Layout())
    assert isinstance(first, Row)
    assert first.values["at"] == datetime(2026, 11, 2, tzinfo=UTC) + timedelta(microseconds=1)
    assert isinstance(second, BadRow)
    assert second.number == 2
    assert second.reason.startswith("a value cannot be read")
    assert isinstance(third, Row)


def test_what_is_no_parquet_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `files`)")
    with pytest.raises(ConfigurationError, match=r"log\.parquet: not a whole Parquet file"):
        list(read_rows(written(tmp_path, "log.parquet", b"PAR1 nonsense PAR1"), Layout()))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"campaign-streams\[files\]"):
        list(read_rows(written(tmp_path, "log.parquet", b"x"), Layout()))
