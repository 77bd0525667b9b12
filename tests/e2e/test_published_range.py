"""A run in the place of a range's live rows while the worker goes on: late events and corrections add up on top of it.

The SQL oracle judges twice: the live logs as they stand, and the same logs under the run's rules. What readers must see
is the latter within the range, by effect pane, and the former everywhere else.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from streams.adapters.clickhouse_runs import ClickHouseRuns
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.events import Input
from streams.jobs.embedded import EmbeddedSystem
from streams.ports import Outgoing
from streams.records import KEY_COLUMNS, MEASURES, VALID, Table
from streams.settings import KafkaSettings
from streams.topics import CAMPAIGNS, INPUT_TOPICS, VERDICTS, partition_of
from tests.e2e.test_replay import command, runs_of
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.events import BOT, BROWSER
from tests.support.oracle import Key, Logs, Oracle, Truth
from tests.support.totals import as_applied, read_logs, until_drained
from tests.support.worker_process import PREFIX

MINUTE_MS = 60_000
CAMPAIGN_OF = {partition_of(f"c{n}", 4): f"c{n}" for n in range(40)}
"""A campaign for each partition."""
CPC = {"model": "cpc", "price_micros": 7_000}
CPA = {"model": "cpa", "price_micros": 90_000, "conversion_type": "lead"}
LAX = '[rules.invalid.modes]\nprefetch = "off"\n'
EVENTS = 480
Sums = dict[tuple[str, str, str], tuple[int, ...]]


def outgoing(topic: str, campaign: str, document: dict[str, Any], at_ms: int) -> Outgoing:
    return Outgoing(topic, None, campaign.encode(), json.dumps(document).encode(), at_ms)


def event(source: Input, event_id: str, at_ms: int, campaign: str, **fields: Any) -> Outgoing:
    document = {"event_id": event_id, "event_time_ms": at_ms, "campaign_id": campaign, "currency": "CNY", **fields}
    return outgoing(INPUT_TOPICS[source], campaign, document, at_ms)


def lead(event_id: str, at_ms: int, campaign: str, click: str, clicked_ms: int) -> Outgoing:
    touch = {"touch_type": "click", "touch_id": click, "touch_time_ms": clicked_ms}
    return event(Input.CONVERSIONS, event_id, at_ms, campaign, conversion_type="lead", attribution=touch)


def settings_of(campaigns: Iterable[str], at_ms: int) -> list[Outgoing]:
    """Half of them pay for clicks, half for leads."""
    found = []
    for number, campaign in enumerate(campaigns):
        named = {"campaign_id": campaign, "name": campaign, "time_zone": "UTC"}
        document = named | {"currency": "CNY", "billing": CPA if number < 2 else CPC}
        found.append(outgoing(CAMPAIGNS, campaign, document, at_ms))
    return found


def of_range(begin_ms: int) -> list[Outgoing]:
    """A minute: some impressions were fetched ahead (what the run's rules let pass), some clicks are a bot's."""
    found, campaigns = [], sorted(CAMPAIGN_OF.values())
    for n in range(EVENTS):
        campaign, at_ms = campaigns[n // 2 % 4], begin_ms + n * MINUTE_MS // EVENTS
        found.append(event(Input.IMPRESSIONS, f"i{n}", at_ms, campaign, prefetch=n % 5 == 0))
        if n % 2:
            agent = BOT if n % 7 == 0 else BROWSER
            found.append(event(Input.CLICKS, f"k{n}", at_ms, campaign, click_type="card", user_agent=agent))
        if n % 4 == 1:
            found.append(lead(f"l{n}", at_ms, campaign, f"k{n}", at_ms))
    return found


def passing(at_ms: int) -> list[Outgoing]:
    """Every partition's inputs pass a time."""
    found = []
    for campaign in CAMPAIGN_OF.values():
        clicked = event(Input.CLICKS, f"k-{campaign}-{at_ms}", at_ms, campaign, click_type="card")
        shown = event(Input.IMPRESSIONS, f"i-{campaign}-{at_ms}", at_ms, campaign)
        found += [shown, clicked, lead(f"l-{campaign}-{at_ms}", at_ms, campaign, f"k-{campaign}-{at_ms}", at_ms)]
    return found


def late(begin_ms: int, now_ms: int) -> list[Outgoing]:
    """What comes for the range when it is published: events, adjustments, and reviewers' words on its clicks."""
    found, campaigns = [], sorted(CAMPAIGN_OF.values())
    for n in range(0, EVENTS, 3):
        campaign, at_ms = campaigns[n // 2 % 4], begin_ms + n * MINUTE_MS // EVENTS
        found.append(lead(f"late{n}", at_ms, campaign, f"k{n}", at_ms))
        found.append(event(Input.CLICKS, f"late{n}", at_ms, campaign, click_type="card", user_agent=BROWSER))
    for n in range(1, EVENTS, 4):
        campaign, at_ms = campaigns[n // 2 % 4], begin_ms + n * MINUTE_MS // EVENTS
        adjusted = {"adjusted_event_id": f"l{n}", "adjusted_event_time_ms": at_ms}
        kind = "rejected_lead" if n % 3 else "refund"
        found.append(event(Input.ADJUSTMENTS, f"a{n}", now_ms, campaign, adjustment_type=kind, **adjusted))
    for n in range(1, EVENTS, 14):
        decision = "overturn" if n % 7 == 0 else "confirm"
        found.append(review(f"k{n}", campaigns[n // 2 % 4], decision, now_ms))
    found += [review(f"k{n}", campaigns[n // 2 % 4], "overturn", now_ms) for n in range(7, EVENTS, 28)]
    return found


def review(event_id: str, campaign: str, decision: str, now_ms: int) -> Outgoing:
    document = {"type": "review", "campaign_id": campaign, "input": "clicks", "event_id": event_id}
    said = {"decision": decision, "reviewer": "r", "reason": "seen", "at_ms": now_ms}
    return outgoing(VERDICTS, campaign, document | said, now_ms)


async def publish(kafka: KafkaSettings, *messages: Outgoing) -> None:
    outbox = KafkaOutbox(kafka)
    await outbox.start()
    await outbox.publish(list(messages))
    await outbox.stop()


# What must be seen


def under_lax_rules(logs: Logs) -> Logs:
    """The same logs, as if the journal's rules had let pass what the run's do."""
    changed = {}
    for partition, journal in logs.journals.items():
        entries = [(offset, json.loads(value)) for offset, value in journal]
        for _, entry in entries:
            if entry.get("rules"):
                entry["rules"]["invalid"]["modes"]["prefetch"] = "off"
        changed[partition] = [(offset, json.dumps(entry).encode()) for offset, entry in entries]
    return logs._replace(journals=changed)


def published(live: Truth, run: Truth, begin_ms: int) -> dict[Key, Key]:
    """Panes of the run within the range, of live elsewhere."""
    at = KEY_COLUMNS[Table.PANES].index("effect_pane")
    inside = range(begin_ms // 1000, (begin_ms + MINUTE_MS) // 1000)
    shown = {key: values for key, values in live.panes.items() if key[at] not in inside}
    return shown | {key: values for key, values in run.panes.items() if key[at] in inside}


def sums_of(panes: dict[Key, Key]) -> Sums:
    """By campaign, currency and validity."""
    places = [KEY_COLUMNS[Table.PANES].index(name) for name in ("campaign_id", "currency", "validity")]
    found: dict[tuple[str, str, str], list[int]] = {}
    for key, values in panes.items():
        total = found.setdefault((key[places[0]], key[places[1]], key[places[2]]), [0] * len(MEASURES))
        for at, value in enumerate(values[: len(MEASURES)]):
            total[at] += value
    return {key: tuple(total) for key, total in found.items() if any(total)}


def seen(runs: ClickHouseRuns) -> Sums:
    """The same as readers see it."""
    columns = ", ".join(f"sum({name})" for name in MEASURES)
    rows = runs.ask(
        f"SELECT campaign_id, currency, validity, {columns} FROM shown_pane_rows "
        "GROUP BY campaign_id, currency, validity"
    )
    return {(row[0], row[1], row[2]): tuple(map(int, row[3:])) for row in rows if any(row[3:])}


def totals_of(sums: Sums) -> list[tuple[Any, ...]]:
    """Of each campaign: gross clicks, valid ones and billed micros, as the view has them."""
    clicks, spend, credited = (MEASURES.index(n) for n in ("clicks", "spend_millimicros", "credited_millimicros"))
    found: dict[tuple[str, str], list[int]] = {}
    for (campaign, currency, validity), values in sums.items():
        total = found.setdefault((campaign, currency), [0, 0, 0])
        total[0] += values[clicks]
        if validity == VALID:
            total[1] += values[clicks]
            total[2] += values[spend] - values[credited]
    return [(*key, gross, valid, money // 1000) for key, (gross, valid, money) in sorted(found.items())]


def assert_seen(runs: ClickHouseRuns, expected: dict[Key, Key]) -> None:
    sums = sums_of(expected)
    assert seen(runs) == sums
    names = "campaign_id, currency, gross_clicks, clicks, spend_micros"
    assert runs.ask(f"SELECT {names} FROM campaign_totals ORDER BY 1, 2") == totals_of(sums)


def prefetched(runs: ClickHouseRuns) -> int:
    """Events that readers find flagged as fetched ahead, by the figures that they read."""
    return int(runs.ask("SELECT count() FROM flags WHERE rule = 'prefetch' AND counts_as = 'givt'")[0][0])


@pytest.mark.slow
async def test_what_comes_late_for_a_published_range_counts_once_and_taking_it_back_gives_the_live_figures(
    tmp_path: Path,
) -> None:
    now_ms = time.time_ns() // 1_000_000
    begin_ms = now_ms // MINUTE_MS * MINUTE_MS - 20 * MINUTE_MS
    span = [
        *("--from", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin_ms / 1000))),
        *("--to", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((begin_ms + MINUTE_MS) / 1000))),
    ]
    rules = tmp_path / "lax.toml"
    rules.write_text(LAX)
    with ClickHouseHttp(tmp_path / "clickhouse") as server:
        more = {"CLICKHOUSE__DSN": server.dsn(), "RULES": '{"report_every_ms": 1000}'}
        async with EmbeddedSystem(tmp_path / "system", settings=more) as system, runs_of(server.dsn()) as runs:
            environment = system.environment()
            own = {name.removeprefix(PREFIX): text for name, text in environment.items() if name.startswith(PREFIX)}
            kafka = system.kafka
            await publish(kafka, *settings_of(sorted(CAMPAIGN_OF.values()), begin_ms - MINUTE_MS))
            await until_drained(kafka, [system.status])
            await publish(kafka, *of_range(begin_ms))
            await publish(kafka, *passing(begin_ms + 2 * MINUTE_MS))
            await until_drained(kafka, [system.status])
            await command(own, "replay", *span, "--run", "same")
            await command(
                own, "replay", *span, "--run", "lax", "--rules", str(rules), "--publish", "--yes", "--even-so"
            )
            assert prefetched(runs) == 0
            await publish(kafka, *late(begin_ms, now_ms), *passing(now_ms))
            await until_drained(kafka, [system.status])
            logs = as_applied(await read_logs(kafka, {}, log_epoch=system.log_epoch))
            live, run = (Oracle(each).truth() for each in (logs, under_lax_rules(logs)))
            expected = published(live, run, begin_ms)
            assert sums_of(expected) != sums_of(live.panes)
            assert_seen(runs, expected)
            await command(own, "runs", "withdraw", "lax")
            assert_seen(runs, live.panes)
            assert prefetched(runs) == EVENTS // 5
            await command(own, "runs", "publish", "same", "--yes")  # nothing is in doubt
            assert_seen(runs, live.panes)
            assert prefetched(runs) == EVENTS // 5
    moved = [values[MEASURES.index("clicks")] for key, values in live.panes.items() if "journal" in key]
    credited = [values[MEASURES.index("credited_millimicros")] for values in live.panes.values()]
    assert min(moved) < 0 < max(moved)
    assert sum(credited) > 0
