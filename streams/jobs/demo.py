"""The demonstration: the embedded system under generated traffic or real logs, and a summary of what became of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streams.adapters.clock import SystemClock
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.jobs.embedded import EmbeddedSystem
from streams.jobs.generate import (
    GeneratorReport,
    TrafficProfile,
    account_messages,
    campaign_messages,
    generate_accounts,
    generate_campaigns,
    generate_sessions,
    run_generator,
    traffic_profile,
)
from streams.jobs.identity import Identity
from streams.jobs.load import LoadReport, events_from_files, load
from streams.jobs.mapping import Mapping
from streams.jobs.traffic_profile import Attack

REPORT_SOON = '{"report_every_ms": 2000}'
"""Whoever watches for a minute does not wait ten seconds for the report grain."""
DEMO_ATTACKS = (Attack.CRAWLER, Attack.DATA_CENTRE, Attack.CLICK_FARM, Attack.FLOODING, Attack.INJECTION)
SHOWN_CAMPAIGNS = 50
SHOW_S = 0.5
DRAIN_TIMEOUT_S = 600.0
ENDING_S = 2.0
"""A process that is killed closes its connections a moment before its end can be seen."""
Show = Callable[[dict[str, Any]], Awaitable[None] | None]


@dataclass
class DemoPlan:
    """What to run. Without `files`: generated traffic at `rate` events/s; both end after `duration_s`, if given."""

    directory: Path
    rate: float = 2_000.0
    seed: int = 0
    duration_s: float | None = None
    files: list[Path] = field(default_factory=list)
    mapping: Mapping | None = None
    identity: Identity | None = None
    until_done: bool = False


@dataclass
class DemoRun:
    """How it went so far."""

    plan: DemoPlan
    system: EmbeddedSystem
    sent: int = 0
    started: float = field(default_factory=time.monotonic)
    stopping: bool = False
    loaded: LoadReport = field(default_factory=LoadReport)
    generated: GeneratorReport = field(default_factory=GeneratorReport)

    def stop(self) -> None:
        """Ends the traffic; what has been sent is still processed."""
        self.stopping = True


async def run_demo(plan: DemoPlan, show: Show, started: Callable[[DemoRun], None]) -> dict[str, Any]:
    """Runs until the plan ends or `DemoRun.stop` is called; returns the summary."""
    async with EmbeddedSystem(plan.directory, settings={"RULES": REPORT_SOON}) as system:
        run = DemoRun(plan, system)
        started(run)
        whole, broker = asyncio.create_task(_whole(run, show)), asyncio.create_task(system.until_broker_ends())
        try:
            await asyncio.wait((whole, broker), return_when=asyncio.FIRST_COMPLETED)
            if whole.done() and whole.exception() is not None:
                await asyncio.wait((broker,), timeout=ENDING_S)
            if whole.done() and (whole.exception() is None or not broker.done()):
                return whole.result()
            return await broker
        finally:
            for task in (whole, broker):
                task.cancel()
            await asyncio.gather(whole, broker, return_exceptions=True)


async def _whole(run: DemoRun, show: Show) -> dict[str, Any]:
    outbox = KafkaOutbox(run.system.kafka)
    await outbox.start()
    traffic = asyncio.create_task(_traffic(run, outbox))
    try:
        await _watch(run, traffic, show)
        await traffic
        busy_s = time.monotonic() - run.started
        status = await run.system.until_drained(run.sent, DRAIN_TIMEOUT_S)
        await _look(run, show)
    finally:
        traffic.cancel()
        await outbox.stop()
    return await _summary(run, status, busy_s, time.monotonic() - run.started)


async def _traffic(run: DemoRun, outbox: KafkaOutbox) -> None:
    plan = run.plan
    if plan.mapping is not None:
        report = run.loaded
        events = events_from_files(plan.files, plan.mapping, identity=plan.identity, report=report)
        await load(_until_stopped(run, events), outbox, progress=lambda total: _sent(run, total))
        return
    profile = demo_profile(plan.rate)
    now_ms = SystemClock().now_ms()
    accounts = account_messages(generate_accounts(profile, now_ms))
    await outbox.publish([*campaign_messages(generate_campaigns(profile)), *accounts])
    duration_ms = None if plan.duration_s is None else int(plan.duration_s * 1000)
    await run_generator(
        profile,
        plan.seed,
        outbox,
        SystemClock(),
        duration_ms=duration_ms,
        stop=lambda: run.stopping,
        report=run.generated,
        sessions=generate_sessions(profile, now_ms, opens_at_once=True),
        progress=lambda report: _sent(run, report.delivered),
    )


def demo_profile(rate: float) -> TrafficProfile:
    """Flat traffic whose conversions come within seconds, so that a minute shows a funnel; some of it is invalid."""
    attacks = {**dict.fromkeys(DEMO_ATTACKS, 0.01), Attack.DOUBLE_CLICK: 0.005}
    return traffic_profile(rate=rate, cycle=False, compress=5e-4, attacks=attacks)


def _sent(run: DemoRun, total: int) -> None:
    run.sent = total


def _until_stopped(run: DemoRun, events: Iterator[Any]) -> Iterator[Any]:
    for event in events:
        if run.stopping:
            return
        yield event


async def _watch(run: DemoRun, traffic: "asyncio.Task[None]", show: Show) -> None:
    """Shows the status until the traffic has ended; real logs go on being shown until they are done, or Ctrl-C."""
    while not run.stopping:
        await _look(run, show)
        ends = traffic.done() and (run.plan.until_done or not run.plan.files or traffic.exception() is not None)
        if ends or _is_over(run):
            run.stop()
        await asyncio.sleep(SHOW_S)


async def _look(run: DemoRun, show: Show) -> None:
    status = await run.system.status(top=SHOWN_CAMPAIGNS)
    waiting = show(status) if status is not None else None
    if waiting is not None:
        await waiting


def _is_over(run: DemoRun) -> bool:
    return run.plan.duration_s is not None and time.monotonic() - run.started >= run.plan.duration_s


async def _summary(run: DemoRun, status: dict[str, Any], busy_s: float, total_s: float) -> dict[str, Any]:
    totals = await run.system.query("SELECT * FROM campaign_totals ORDER BY impressions DESC LIMIT 50")
    columns = [row[0] for row in await run.system.query("DESCRIBE TABLE campaign_totals")]
    consumed = sum(entries["consumed"] for entries in status["ledger"].values())
    return {
        "events_sent": run.sent,
        "events_consumed": consumed,
        "ledger": status["ledger"],
        "ledger_balances": all(
            entries["consumed"] == sum(count for name, count in entries.items() if name != "consumed")
            for entries in status["ledger"].values()
        ),
        "seconds": round(busy_s, 3),
        "seconds_until_published": round(total_s, 3),
        "events_per_s": round(consumed / total_s, 1),
        "visible_ms": status["visible_ms"] if not run.plan.files else None,
        "rows": _rows(run.loaded) if run.plan.files else None,
        "worker_restarts": run.system.restarts,
        "data_dir": str(run.plan.directory),
        "campaigns": [dict(zip(columns, row, strict=True)) for row in totals],
    }


def _rows(loaded: LoadReport) -> dict[str, Any]:
    examples = [example._asdict() for example in loaded.examples]
    return {"misfits": loaded.misfits, "read": loaded.rows, "examples": examples}
