"""The verdict of an end-to-end test: what ClickHouse holds in the end, against the oracle over the topics' records."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import TopicPartition

from streams.adapters.clickhouse import connect
from streams.adapters.kafka_client import make_consumer, started, stopped
from streams.adapters.kafka_ends import true_ends
from streams.records import COLUMNS, KEY_COLUMNS, MEASURES, VALID, Row, Table
from streams.settings import ClickHouseSettings, KafkaSettings
from streams.topics import DEAD_LETTERS, JOURNAL
from tests.support.brokers import everything_in
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.events import EVENT_TOPICS, NOTICE_TOPICS, SETTINGS_TOPIC, WORD_TOPICS, RawRecord
from tests.support.oracle import Key, Logs, Lost, Oracle, Place, Truth, ticks_of
from tests.support.rows import stored_rows

TOPICS: Final = (*EVENT_TOPICS, *NOTICE_TOPICS, *WORD_TOPICS)
REACH_SAMPLE: Final = 256
READ_TIMEOUT_S: Final = 120.0
DRAIN_TIMEOUT_S: Final = 120.0


@dataclass
class Stored:
    """Final rows of one database, by key, and answers of its views."""

    tables: dict[Table, list[Row]]
    balances: list[Row]
    campaign_totals: list[Row]


@dataclass
class Letters:
    """Dead letters by identity, and how often one was sent again."""

    by_place: dict[Place, dict[str, Any]] = field(default_factory=dict)
    again: int = 0


# Reading


Status = Callable[[], Awaitable[dict[str, Any] | None]]


async def until_drained(kafka: KafkaSettings, statuses: list[Status], timeout_s: float = DRAIN_TIMEOUT_S) -> None:
    """Waits until the journals' last ticks stand at the ends of all inputs, and the workers have published it all.

    Journals are read whole, so workers are asked first; and again behind them, for what the last ticks brought.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        told, behind = await _told(statuses), None
        if _have_published(told, kafka.partitions):
            behind = await _behind(kafka)
            told = await _told(statuses)
            if not behind and _have_published(told, kafka.partitions):
                return
        shown = [status and {k: v for k, v in status.items() if k != "campaigns"} for status in told]
        assert time.monotonic() < deadline, f"not drained after {timeout_s} s: behind {behind}, workers say {shown}"
        await asyncio.sleep(0.1)


async def _told(statuses: list[Status]) -> list[dict[str, Any] | None]:
    return [await status() for status in statuses]


async def _behind(kafka: KafkaSettings) -> dict[tuple[str, int], tuple[int | None, int]]:
    """Inputs whose end no tick has reached: the last tick's offset, and the end."""
    ends = await ends_of(kafka)
    applied = {partition: ticks_of(journal) for partition, journal in (await read_journals(kafka)).items()}
    reached = {(t, p): applied[p][-1].document["applied"][t] if applied[p] else None for t, p in ends}
    return {place: (reached[place], end) for place, end in ends.items() if reached[place] != end}


def _have_published(told: list[dict[str, Any] | None], partitions: int) -> bool:
    found = [status for status in told if status is not None]
    owned = sorted(partition for status in found for partition in status["partitions"])
    waiting = any(
        not status["ticked"]
        or any(status[name] for name in ("dirty_rows", "waiting_reports", "waiting_evidence", "recovering"))
        for status in found
    )
    return len(found) == len(told) and owned == list(range(partitions)) and not waiting


async def ends_of(kafka: KafkaSettings) -> dict[tuple[str, int], int]:
    """Where each input ends now, by topic and partition."""
    ends = {topic: await true_ends(kafka, topic, range(kafka.partitions)) for topic in TOPICS}
    return {(topic, partition): end for topic, found in ends.items() for partition, end in found.items()}


async def read_journals(kafka: KafkaSettings) -> dict[int, list[tuple[int, bytes]]]:
    """Offsets and values of every partition's journal."""
    return {
        partition: [(r.offset, r.value or b"") for r in await everything_in(kafka, JOURNAL, partition)]
        for partition in range(kafka.partitions)
    }


async def read_logs(
    kafka: KafkaSettings, expected: Mapping[bytes | None, str], lost: tuple[Lost, ...] = (), log_epoch: int = 0
) -> Logs:
    """Every committed record of every input, and the journals; the spans begin where the first claim said."""
    journals = await read_journals(kafka)
    spans = {(t, p): (_first_start(journals[p], t), end) for (t, p), end in (await ends_of(kafka)).items()}
    records = await _records(kafka, spans, expected)
    return Logs(records, spans, journals, lost, log_epoch)


def _first_start(journal: list[tuple[int, bytes]], topic: str) -> int:
    first = json.loads(journal[0][1])
    assert first["type"] == "claim", first
    return int(first["starts"][topic])


async def _records(
    kafka: KafkaSettings, spans: Mapping[tuple[str, int], tuple[int, int]], expected: Mapping[bytes | None, str]
) -> list[RawRecord]:
    ends = {TopicPartition(*place): end for place, (_, end) in spans.items()}
    consumer = await started(make_consumer(kafka, max_partition_fetch_bytes=4_194_304), kafka)
    records: list[RawRecord] = []
    try:
        consumer.assign(list(ends))
        starts = await consumer.beginning_offsets(list(ends))
        for tp, start in starts.items():
            consumer.seek(tp, start)
        deadline = asyncio.get_running_loop().time() + READ_TIMEOUT_S
        while behind := [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
            assert asyncio.get_running_loop().time() < deadline, f"still to be read: {behind}"
            for tp, fetched in (await consumer.getmany(timeout_ms=200)).items():
                records += [_raw(tp, record, expected) for record in fetched]
    finally:
        await stopped(consumer)
    return records


def _raw(tp: TopicPartition, record: Any, expected: Mapping[bytes | None, str]) -> RawRecord:
    reason, value = expected.get(record.value, ""), record.value
    if tp.topic == SETTINGS_TOPIC and not reason:
        value = _without_nulls(value)
    return RawRecord(tp.topic, tp.partition, record.offset, record.timestamp, record.key, value, reason)


def _without_nulls(value: bytes) -> bytes:
    """The same settings, in the form that the oracle knows."""
    return json.dumps({name: held for name, held in json.loads(value).items() if held is not None}).encode()


async def read_letters(kafka: KafkaSettings) -> Letters:
    """What stands on ads.dead-letters. A letter that was sent again must be the same letter."""
    letters = Letters()
    for partition in range(kafka.partitions):
        for record in await everything_in(kafka, DEAD_LETTERS, partition):
            letter = json.loads(record.value or b"")
            place = (letter["topic"], letter["partition"], letter["offset"])
            known = letters.by_place.setdefault(place, letter)
            assert known == letter, f"two letters for {place}: {known} and {letter}"
            letters.again += known is not letter
    return letters


def read_rows(dsn: str) -> Stored:
    """What a reader of the database sees."""
    client = connect(ClickHouseSettings(dsn=dsn), create_database=False)  # type: ignore[arg-type]
    try:
        tables = {table: stored_rows(client, table) for table in Table}
        balances = client.query("SELECT input, partition, balance FROM ledger").result_rows
        names = "campaign_id, currency, gross_impressions, gross_clicks, gross_conversions, impressions, clicks"
        totals = client.query(f"SELECT {names} FROM campaign_totals ORDER BY 1, 2").result_rows
    finally:
        client.close()
    return Stored(tables, [tuple(row) for row in balances], [tuple(row) for row in totals])


def read_directory(directory: Path) -> Stored:
    """The same from the directory of an embedded ClickHouse that no process holds; the engine runs in a child."""
    with ClickHouseHttp(directory) as server:
        return read_rows(server.dsn())


# Judging


def as_applied(logs: Logs) -> Logs:
    """Of workers that have ended: up to where the last ticks stand, with all events.

    What they tell other partitions to the end (how far they have read) no tick has to reach.
    """
    applied = {partition: ticks_of(journal)[-1].document["applied"] for partition, journal in logs.journals.items()}
    spans = {(topic, p): (begin, applied[p][topic]) for (topic, p), (begin, _) in logs.spans.items()}
    assert all(spans[place] == span for place, span in logs.spans.items() if place[0] in EVENT_TOPICS)
    records = [each for each in logs.records if each.offset < applied[each.partition][each.topic]]
    return logs._replace(records=records, spans=spans)


async def assert_equal_to_oracle(kafka: KafkaSettings, stored: Stored, logs: Logs) -> Truth:
    """Rows, reach, cohorts, ledger, campaigns and dead letters are exactly what the topics' records come to."""
    truth = await asyncio.to_thread(_truth, logs)
    assert_rows(stored, truth)
    _assert_letters(await read_letters(kafka), truth, logs)
    return truth


def _truth(logs: Logs) -> Truth:
    oracle = Oracle(logs)
    assert oracle.poisoned() == [], "the code failed on records"
    return oracle.truth()


def assert_rows(stored: Stored, truth: Truth) -> None:
    """Every table and view against the oracle."""
    width = len(MEASURES)
    _same("panes", {k: v[:width] for k, v in _by_key(stored, Table.PANES).items()}, truth.panes)
    reports = {k: (*v[:width], len(v[width])) for k, v in _by_key(stored, Table.REPORTS).items()}
    _same("reports", reports, {k: (*v[:-1], min(v[-1], REACH_SAMPLE)) for k, v in truth.reports.items()})
    _same("cohorts", {k: v[:2] for k, v in _by_key(stored, Table.COHORTS).items()}, truth.cohorts)
    ledger = {k: v[0] for k, v in _by_key(stored, Table.LEDGER).items()}
    _same("ledger", ledger, truth.ledger)
    assert stored.balances, "the view ledger is empty"
    assert [row for row in stored.balances if row[-1] != 0] == [], "the ledger does not balance"
    _same("campaigns", _campaigns(stored), truth.campaigns)
    _same("campaign_totals", {row[:2]: row[2:] for row in stored.campaign_totals}, _totals(truth))


def _by_key(stored: Stored, table: Table) -> dict[Key, Key]:
    width = len(KEY_COLUMNS[table])
    assert COLUMNS[table][:width] == KEY_COLUMNS[table]
    return {row[:width]: row[width:] for row in stored.tables[table]}


def _campaigns(stored: Stored) -> dict[Key, Key]:
    at = {name: place for place, name in enumerate(COLUMNS[Table.CAMPAIGNS])}
    return {
        (row[at["campaign_id"]], row[at["valid_from"]]): (row[at["name"]], row[at["currency"]], row[at["time_zone"]])
        for row in stored.tables[Table.CAMPAIGNS]
    }


def _totals(truth: Truth) -> dict[Key, Key]:
    """The oracle's panes by campaign and currency: gross impressions, clicks and conversions; valid ones of two."""
    columns = KEY_COLUMNS[Table.PANES]
    campaign, currency, validity = (columns.index(name) for name in ("campaign_id", "currency", "validity"))
    places = [MEASURES.index(name) for name in ("impressions", "clicks", "conversions")]
    sums: dict[Key, list[int]] = {}
    for key, values in truth.panes.items():
        total = sums.setdefault((key[campaign], key[currency]), [0] * 5)
        for at, place in enumerate(places):
            total[at] += values[place]
            if key[validity] == VALID and at < 2:
                total[3 + at] += values[place]
    return {key: tuple(total) for key, total in sums.items()}


def _assert_letters(letters: Letters, truth: Truth, logs: Logs) -> None:
    _same("dead letters", {place: letter["reason"] for place, letter in letters.by_place.items()}, truth.letters)
    raw = {(r.topic, r.partition, r.offset): r for r in logs.records}
    for place, letter in letters.by_place.items():
        assert letter["entry"] == ("late" if truth.letters[place] == "late" else "rejected"), letter
        value = None if letter["value"] is None else base64.b64decode(letter["value"])
        assert value == raw[place].value, f"the dead letter of {place} has other bytes"


def _same(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    if found == expected:
        return
    lines = [f"{what}: {len(found)} found, {len(expected)} expected"]
    lines += [f"  missing {k}: {_short(v)}" for k, v in expected.items() if k not in found][:5]
    lines += [f"  too many {k}: {_short(v)}" for k, v in found.items() if k not in expected][:5]
    differing = [k for k, v in expected.items() if k in found and found[k] != v]
    lines += [f"  {len(differing)} differ"] if differing else []
    lines += [f"  at {k}\n    found    {_short(found[k])}\n    expected {_short(expected[k])}" for k in differing[:5]]
    raise AssertionError("\n".join(lines))


def _short(values: Any) -> Any:
    """Measures that are not zero, by name."""
    if isinstance(values, tuple) and len(values) >= len(MEASURES):
        return {n: v for n, v in zip(MEASURES, values, strict=False) if v} | {"more": values[len(MEASURES) :]}
    return values


def summary(truth: Truth) -> dict[str, int]:
    """Records by ledger entry, without what was consumed."""
    found: dict[str, int] = {}
    for (*_, entry, reason), count in truth.ledger.items():
        name = f"{entry}/{reason}" if reason else entry
        found[name] = found.get(name, 0) + count
    return {name: count for name, count in sorted(found.items()) if name != "consumed"}
