"""What `doctor` makes of what it finds, and that it ends when nothing can be reached."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.adapters.embedded_broker import free_port
from streams.adapters.kafka_fetch import Record
from streams.cli import app
from streams.commands.doctor import finding_of, judge_partitioner
from streams.errors import ConfigurationError
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


def test_wrong_settings_are_a_finding() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"CAMPAIGN_STREAMS_KAFKA__PARTITONS": "3", "COLUMNS": "100"})
    assert result.exit_code == 2
    assert "kafka.partitons" in result.output
