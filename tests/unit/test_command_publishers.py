"""`campaign-streams publishers score`, as it is called."""

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.errors import ConfigurationError
from streams.jobs import publisher_files
from tests.support.publishers import publishers


def written(path: Path, rows: list[dict[str, object]], without: tuple[str, ...] = ()) -> Path:
    buffer = io.StringIO()
    names = [name for name in rows[0] if name not in without]
    writer = csv.DictWriter(buffer, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    content = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["publishers", "score", *map(str, arguments)])


def test_the_program_scores_a_packed_file(tmp_path: Path) -> None:
    file = written(tmp_path / "p.csv.gz", publishers(60))
    command = [sys.executable, "-m", "streams.cli", "publishers", "score", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "what weighs most" in done.stdout
    assert "raises by" in done.stdout
    assert "average precision" in done.stderr
    assert "6 of 60 are 'Fraud'" in done.stderr
    assert "10 more" in done.stderr


def test_json_has_every_part_and_they_add_up(tmp_path: Path) -> None:
    documents = json.loads(called(written(tmp_path / "p.csv", publishers(20)), "--format", "json").stdout)
    assert len(documents) == 20
    scores = [document["score"] for document in documents]
    assert scores == sorted(scores, reverse=True)
    for document in documents:
        parts = sum(part["log_odds"] for part in document["parts"])
        assert parts == pytest.approx(sum(document["groups"].values()))
        assert publisher_files.shipped_forest().base == document["base_log_odds"]


def test_csv_can_be_read_back(tmp_path: Path) -> None:
    result = called(written(tmp_path / "p.csv", publishers(20)), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["publisher"] for row in rows} == {f"p{at}" for at in range(20)}
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert {row["label"] for row in rows} == {"OK", "Observation", "Fraud"}


def test_missing_columns_are_told_and_do_not_stop_it(tmp_path: Path) -> None:
    file = written(tmp_path / "p.csv", publishers(5), without=("EntropyAgent", "status"))
    result = called(file)
    assert result.exit_code == 0
    assert "5 publishers are scored with columns missing" in result.stderr
    assert "average precision" not in result.stderr


def test_without_clicks_a_publisher_is_unverifiable(tmp_path: Path) -> None:
    result = called(written(tmp_path / "p.csv", publishers(5), without=("TotalClicks",)))
    assert "unverifiable: TotalClicks absent" in result.stdout
    assert "5 of 5 publishers have no score" in result.stderr


def test_labels_of_another_name_are_taken(tmp_path: Path) -> None:
    rows = [{**row, "verdict": "bad" if row["status"] == "Fraud" else "good"} for row in publishers(30)]
    file = written(tmp_path / "p.csv", rows, without=("status",))
    assert "3 of 30 are 'bad'" in called(file, "--labels", "verdict", "--fraud", "bad").stderr
    assert "no publisher is labelled 'Fraud'" in called(file, "--labels", "verdict").stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "none of the columns"),
        (b"a,b\n1,2\n", "none of the columns"),
        (b"partnerid,TotalClicks\n", "holds no publishers"),
        (b"\xff\xfe\x00", "no UTF-8"),
        (b"partnerid,TotalClicks\np," + b"x" * 200_000 + b"\n", "field larger"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_remedy(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        publisher_files.read_table(file)


def test_a_torn_or_absent_file_is_refused(tmp_path: Path) -> None:
    torn = written(tmp_path / "p.csv.gz", publishers(20))
    torn.write_bytes(torn.read_bytes()[:-40])
    for file, message in ((torn, "no whole gzip"), (tmp_path / "none.csv", "No such file")):
        with pytest.raises(ConfigurationError, match=message):
            publisher_files.read_table(file)


def test_an_unknown_label_column_is_refused(tmp_path: Path) -> None:
    result = called(written(tmp_path / "p.csv", publishers(3)), "--labels", "verdict")
    assert isinstance(result.exception, ConfigurationError)
    assert "--labels takes one of" in str(result.exception)
