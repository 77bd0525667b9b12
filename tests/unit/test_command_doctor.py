"""What `doctor` makes of what it finds, and that it ends when nothing can be reached."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.adapters.embedded_broker import free_port
from streams.adapters.kafka_fetch import Record
from streams.cli import app
from streams.commands.doctor import (
    OLD_LIST_DAYS,
    _bounded,
    _data_centres,
    finding_of,
    judge_list,
    judge_partitioner,
)
from streams.errors import ConfigurationError
from streams.settings import load_settings
from streams.topics import EVIDENCE, VERDICTS, partition_of

PARTITIONS = 4


def record(key: bytes | None) -> Record:
    return Record(0, 0, key, b"")


def judge(*placed: tuple[int, bytes | None]) -> tuple[str, str]:
    finding = judge_partitioner([("ads.clicks", partition, PARTITIONS, [record(key)]) for partition, key in placed])
    return finding.severity, f"{finding.detail} {finding.remedy or ''}"


def test_records_that_stand_where_their_keys_lead_are_fine() -> None:
    keys = [f"c{number}" for number in range(50)]
    severity, detail = judge(*((partition_of(key, PARTITIONS), key.encode()) for key in keys))
    assert (severity, "50 records" in detail) == ("ok", True)


def test_one_record_in_a_wrong_partition_is_an_error_that_shows_it() -> None:
    right = partition_of("c1", PARTITIONS)
    severity, detail = judge((right, b"c1"), ((right + 1) % PARTITIONS, b"c1"))
    assert severity == "error"
    assert f"key 'c1' stands in {(right + 1) % PARTITIONS}, leads to {right}" in detail
    assert "murmur2" in detail


@pytest.mark.parametrize("topic", [EVIDENCE, VERDICTS])
def test_what_workers_place_themselves_needs_no_key_but_reviews_are_judged(topic: str) -> None:
    right = partition_of("c1", PARTITIONS)
    judged = judge_partitioner(
        [(topic, 0, PARTITIONS, [record(None), record(b"")]), (topic, right, PARTITIONS, [record(b"c1")])]
    )
    assert (judged.severity, judged.detail) == ("ok", "1 records sampled stand where their keys lead")
    assert judge_partitioner([(topic, (right + 1) % PARTITIONS, PARTITIONS, [record(b"c1")])]).severity == "error"


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_records_without_a_usable_key_are_a_warning(key: bytes | None) -> None:
    assert judge((0, key))[0] == "warning"


def test_no_records_are_nothing_to_judge_by() -> None:
    assert judge()[0] == "ok"


def test_an_error_becomes_a_finding_with_its_remedy() -> None:
    finding = finding_of("broker", ConfigurationError("no topic; really; create it"))
    assert (finding.severity, finding.detail, finding.remedy) == ("error", "no topic; really", "create it")


def test_with_nothing_reachable_it_gives_findings_and_no_traceback(tmp_path: Path) -> None:
    env = {
        "CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "CAMPAIGN_STREAMS_CLICKHOUSE__DSN": f"clickhouse://u:secret@127.0.0.1:{free_port()}/x",
        "CAMPAIGN_STREAMS_WORKER__WEB_PORT": str(free_port()),
    }
    result = CliRunner().invoke(app, ["doctor", "--json"], env=env)
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 2
    assert {name: findings[name]["severity"] for name in ("broker", "clickhouse", "worker")} == {
        "broker": "error",
        "clickhouse": "error",
        "worker": "ok",
    }
    assert all(findings[name]["remedy"] for name in ("broker", "clickhouse"))
    assert "secret" not in result.output


def test_an_embedded_engine_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    env = {
        "CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "CAMPAIGN_STREAMS_CLICKHOUSE__DSN": f"chdb://{tmp_path / 'absent'}",
        "CAMPAIGN_STREAMS_WORKER__WEB_PORT": str(free_port()),
    }
    result = CliRunner().invoke(app, ["doctor", "--json"], env=env)
    (found,) = [finding for finding in json.loads(result.stdout) if finding["check"] == "clickhouse"]
    assert (found["severity"], (tmp_path / "absent").exists()) == ("warning", False)


def test_wrong_settings_are_one_finding_with_the_remedy_of_all() -> None:
    wrong = {"CAMPAIGN_STREAMS_KAFKA__PARTITONS": "3", "CAMPAIGN_STREAMS_WORKER__TICK_MS": "1"}
    result = CliRunner().invoke(app, ["doctor", "--json"], env=wrong)
    assert result.exit_code == 2
    (finding,) = json.loads(result.output)
    assert "kafka.partitons: is no setting; did you mean partitions?" in finding["detail"]
    assert "worker.tick_ms: Input should be greater" in finding["detail"]
    assert finding["remedy"] == "mend the environment (README: Settings)"


def list_of(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "data-centres.txt"
    path.write_text(text)
    return {"CAMPAIGN_STREAMS_INVALID__DATA_CENTRES": str(path)}


def data_centres(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> "tuple[str, str]":
    """What is said of the list under these settings."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    (found,) = asyncio.run(_bounded("data_centres", lambda: asyncio.to_thread(_data_centres, load_settings())))
    return found.severity, f"{found.detail} → {found.remedy}"


def test_no_list_of_data_centres_is_a_warning_while_the_rule_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    severity, told = data_centres(monkeypatch, {})
    assert severity == "warning"
    assert "finds nothing" in told
    assert "invalid.data_centres" in told
    off = {"CAMPAIGN_STREAMS_RULES__INVALID": '{"modes": {"data_centre": "off"}}'}
    assert data_centres(monkeypatch, off)[0] == "ok"


def test_the_date_of_a_list_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).date()
    for days, severity in ((3, "ok"), (OLD_LIST_DAYS - 1, "ok"), (OLD_LIST_DAYS + 2, "warning"), (-40, "warning")):
        env = list_of(tmp_path, f"# as of {today - timedelta(days=days)}\n192.0.2.0/24\n")
        assert data_centres(monkeypatch, env)[0] == severity, days


@pytest.mark.parametrize(
    ("age_days", "severity", "told"),
    [
        (0, "ok", "0 days old"),
        (90, "ok", "90 days old"),
        (91, "warning", "91 days old"),
        (-1, "warning", "yet to come"),
    ],
)
def test_a_list_is_old_after_ninety_days(age_days: int, severity: str, told: str) -> None:
    today = date(2026, 11, 26)
    found = judge_list("ten networks", (today - timedelta(days=age_days)).isoformat(), 10, 5, today)
    assert (found.severity, told in found.detail) == (severity, True)
    assert (found.remedy is None) is (severity == "ok")


def test_a_list_without_a_date_or_of_single_addresses_is_a_warning() -> None:
    today = date(2026, 11, 26)
    assert judge_list("ten networks", "", 10, 0, today).severity == "warning"
    assert "6 are too small" in judge_list("ten networks", today.isoformat(), 10, 6, today).detail


@pytest.mark.parametrize("text", ["no network\n", "192.0.2.0/24\n"])
def test_a_list_that_cannot_be_read_is_an_error_with_its_remedy(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    severity, told = data_centres(monkeypatch, list_of(tmp_path, text))
    assert (severity, told.endswith("→ mend the file")) == ("error", True)
    gone = {"CAMPAIGN_STREAMS_INVALID__DATA_CENTRES": str(tmp_path / "gone.txt")}
    severity, told = data_centres(monkeypatch, gone)
    assert (severity, "cannot be read" in told, "unset the setting" in told) == ("error", True, True)
