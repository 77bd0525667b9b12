"""Replays beside and after a live worker, on both kinds of broker: the live rows exactly, or just what rules change."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest

from streams.adapters.clickhouse_runs import ClickHouseRuns, RunInfo
from streams.adapters.embedded_broker import EmbeddedBroker
from streams.adapters.kafka_admin import create_topics
from streams.jobs.replay_compare import compare, rows_differing
from streams.settings import ClickHouseSettings, KafkaSettings
from tests.support.apache_kafka import ApacheKafka
from tests.support.clickhouse_http import ClickHouseHttp
from tests.support.events import EVENT_TOPICS
from tests.support.kafka_groups import Groups, groups_while, settled_groups
from tests.support.live_events import LiveLoad
from tests.support.seeds import seed_of
from tests.support.totals import as_applied, assert_equal_to_oracle, ends_of, read_logs, read_rows, until_drained
from tests.support.worker_process import WorkerProcess, environment, until, worker_settings

RATE = 600.0
LOAD_S = 6.0
WHOLE = ("--from", "2020-01-01", "--to", "now")
TIMEOUT_S = 120.0
BY_THE_CLOCK = {"alert_rows", "pacing_rows"}
"""What a worker that goes on looks at again, although nothing comes: such rows may be newer than a replay beside it."""
LATER_WORDS = {"alert_rows", "flag_rows"}
"""An alert's end and a flag's withdrawal behind the range change its row; a replay does not read so far."""


PINNED = {
    "WORKER__CHECKPOINT_MS": "500",
    "WORKER__PIN_EVERY_MS": "1000",
    "WORKER__PINNED_CHECKPOINTS": "200",
    "RULES": '{"report_every_ms": 1000, "pane_ms": 1000, "report_pane_ms": 10000}',
}
"""Days of a second, so that there are pinned checkpoints in a run that lasts some."""
BY_SECONDS = """
import asyncio, json, sys, time
from streams.adapters.clickhouse_runs import ClickHouseRuns
from streams.jobs.replay import info_of, replay
from streams.jobs.replay_partition import Range
from streams.jobs.replay_plan import ReplayPlan
from streams.settings import load_settings

settings, (name, begin, end, processes) = load_settings(), sys.argv[1:]
plan = ReplayPlan(name, Range(int(begin) * 1000, int(end) * 1000), int(processes))
runs = ClickHouseRuns(settings.clickhouse)
runs.open()
summary = asyncio.run(replay(settings, plan, runs, lambda progress: None))
runs.tell(info_of(plan, "identical", "done", time.time_ns() // 1_000_000, summary))
print(json.dumps([start._asdict() for start in summary.starts]))
"""
"""`campaign-streams replay` rounds to minutes."""
KEEPING_EVERY_STEP = """
import time
from streams.cli import main
from streams.jobs import replay, replay_steps
from streams.jobs.replay_progress import ReplayFolder

def write(folder, name, data, write=ReplayFolder._write):
    write(folder, name, data)
    while name.endswith(".state") and (folder.path.parent.parent / "HOLD").exists():
        time.sleep(0.01)

ReplayFolder._write = write
replay.SAVE_EVERY_S = replay_steps.SAVE_EVERY_S = 0.0
main()
"""
HOLD = "HOLD"
"""While a file of this name lies in the state directory, a replay stands still where it has kept a step."""
KILLS = 2


class Life(NamedTuple):
    """A worker, and what it has lived through."""

    worker: WorkerProcess
    load: LiveLoad


Meanwhile = Callable[[], Awaitable[None]]


async def waiting() -> None:
    await asyncio.sleep(LOAD_S / 2)


@asynccontextmanager
async def lived(
    directory: Path, kafka: KafkaSettings, dsn: str, meanwhile: Meanwhile = waiting, **more: str
) -> AsyncIterator[Life]:
    """A worker that has lived through some traffic, with a SIGKILL in it, and goes on.

    `meanwhile`: what happens under traffic, behind the SIGKILL.
    """
    settings = worker_settings(directory, kafka, dsn, **more)
    worker = WorkerProcess(directory, settings)
    try:
        await worker.start().until_owning(4)
        load = LiveLoad(kafka, seed_of("replay"), RATE)
        traffic = asyncio.create_task(load.run())
        await asyncio.sleep(LOAD_S / 2)
        worker.kill()
        await worker.start().until_owning(4)
        await meanwhile()
        load.stop()
        await traffic
        await until_drained(kafka, [worker.status])
        yield Life(worker, load)
    finally:
        worker.close()


async def command(
    settings: dict[str, str], *arguments: str, code: int = 0, program: tuple[str, ...] = ("-m", "streams.cli")
) -> str:
    """Runs the command line; its standard output (and error, where it fails)."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, *arguments),
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(child.communicate(), TIMEOUT_S)
    assert child.returncode == code, (arguments, out.decode(), errors.decode())
    return out.decode() if code == 0 else errors.decode()


@asynccontextmanager
async def runs_of(dsn: str) -> AsyncIterator[ClickHouseRuns]:
    runs = ClickHouseRuns(ClickHouseSettings.model_validate({"dsn": dsn}))
    await asyncio.to_thread(runs.open)
    try:
        yield runs
    finally:
        runs.close()


def differing(runs: ClickHouseRuns, info: RunInfo, other: str = "live") -> dict[str, int]:
    return {table: count for table, count in rows_differing(runs, info, other).items() if count}


async def identical_in_every_way(directory: Path, kafka: KafkaSettings, **more: str) -> None:
    """Beside the worker and behind it: by one process, by two, killed and resumed, and from an archive."""
    more |= PINNED
    has_group = "KAFKA__ASSIGNMENT" not in more
    with ClickHouseHttp(directory / "clickhouse") as server:
        settings = worker_settings(directory, kafka, server.dsn(), **more)

        async def beside(name: str) -> None:
            replay = command(
                settings, "replay", *WHOLE, "--run", name, "--processes", "2", "--compare", "live", "--json"
            )
            if has_group:
                untouched(await groups_while(kafka, replay), is_idle=name == "beside")
            else:
                await replay

        async with lived(directory, kafka, server.dsn(), lambda: beside("under-traffic"), **more) as (worker, load):
            if has_group:
                await until_committed(kafka)
            before = await worker.status()
            await beside("beside")
            after = await worker.status()
            assert before is not None
            assert after is not None
            assert before["ledger"] == after["ledger"]
            assert await worker.terminate() == 0
        stored = await asyncio.to_thread(read_rows, server.dsn())
        await assert_equal_to_oracle(kafka, stored, as_applied(await read_logs(kafka, load.expected)))
        await command(settings, "runs", "drop", "under-traffic")
        await asyncio.gather(
            by_one_and_by_two(settings),
            interrupted_and_resumed(settings, server.dsn(), "three", is_from_terminal=not has_group),
            from_an_archive(settings, directory / "archive"),
        )
        async with runs_of(server.dsn()) as runs:
            infos = {info.run: info for info in runs.runs()}
            assert {info.state for info in infos.values()} == {"done"}
            beside = differing(runs, infos.pop("beside"))
            assert not beside.keys() - BY_THE_CLOCK
            assert {name: differing(runs, info) for name, info in infos.items()} == {n: {} for n in infos}
            assert differing(runs, infos["one"], "two") == {}
            assert [each for each in compare(runs, infos["one"]) if each.before != each.after] == []
            assert sum(each.before.clicks for each in compare(runs, infos["one"])) > 100
            await the_same_from_pinned_checkpoints(settings, runs)


async def by_one_and_by_two(settings: dict[str, str]) -> None:
    await command(settings, "replay", *WHOLE, "--run", "one")
    await command(settings, "replay", *WHOLE, "--run", "two", "--processes", "2", "--json")
    await nothing_is_left_of_a_range_without_events(settings)


async def from_an_archive(settings: dict[str, str], archive: Path) -> None:
    """Of some topics, with the broker for the others; then of all, in two formats."""
    archived, to = ("--archive", str(archive)), ("--to", str(archive))
    lines = ("--topics", "clicks,conversions", "--format", "ndjson")
    await command(settings, "archive", *to, "--raw", *lines)
    await command(settings, "replay", *WHOLE, "--run", "both", *archived, "--with-topics")
    await command(settings, "archive", *to, "--raw")  # the rest as Parquet
    await command(settings, "replay", *WHOLE, "--run", "four", *archived)


def untouched(seen: list[Groups], is_idle: bool) -> None:
    """The same groups and members with the same assignments all along; what is committed is the worker's own doing."""
    first, last = seen[0], seen[-1]
    assert len(seen) > 5
    assert any(group.members for group in first.values())
    for each in seen:
        assert {name: group.members for name, group in each.items()} == {n: g.members for n, g in first.items()}
        assert {group.state for group in each.values()} <= {"Stable", "Empty"}
        if is_idle:
            assert inputs_committed(each) == inputs_committed(first)
    for earlier, later in pairwise(seen):
        for name, group in later.items():
            assert all(group.committed[tp] >= offset for tp, offset in earlier[name].committed.items())
    if not is_idle:
        assert inputs_committed(last) != inputs_committed(first)  # the worker went on


async def until_committed(kafka: KafkaSettings) -> None:
    """Until what the worker has committed of its inputs are their ends: from there on nothing changes."""
    ends = {place: end for place, end in (await ends_of(kafka)).items() if place[0] in EVENT_TOPICS and end}
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            found = inputs_committed(await settled_groups(kafka))
            if {(topic, p): at for (_, topic, p), at in found.items()} == ends:
                return
            await asyncio.sleep(0.1)


def inputs_committed(groups: Groups) -> dict[tuple[str, str, int], int]:
    """By group and topic-partition; without what workers tell each other, also when nothing comes."""
    return {
        (name, tp.topic, tp.partition): offset
        for name, group in groups.items()
        for tp, offset in group.committed.items()
        if tp.topic in EVENT_TOPICS
    }


async def the_same_from_pinned_checkpoints(settings: dict[str, str], runs: ClickHouseRuns) -> None:
    """The last seconds again, to their end and beyond it: every partition begins at a checkpoint from before them."""
    newest = (
        "SELECT toUnixTimestamp(min(newest)) FROM (SELECT max(effect_pane) AS newest FROM pane_rows GROUP BY partition)"
    )
    end = int(runs.ask(newest)[0][0])
    for name, begin, beyond, processes in (("short", end - 3, end - 1, "1"), ("open", end - 3, end + 3_000, "2")):
        told = await command(settings, name, str(begin), str(beyond), processes, program=("-c", BY_SECONDS))
        starts: list[dict[str, Any]] = msgspec.json.decode(told)
        assert [start["partition"] for start in starts] == [0, 1, 2, 3]
        assert all(start["checkpoint"] and start["newest_ms"] < begin * 1000 for start in starts)
        assert not any(start["remarks"] or start["missing"] for start in starts)
        info = runs.find(name)
        assert 0 < info.read_from_s < begin
        assert info.records < runs.find("one").records
        found = differing(runs, info)
        assert not found.keys() - (LATER_WORDS if name == "short" else set())
        counted = "SELECT count() FROM run_pane_rows WHERE run = {run:String}"
        assert int(runs.ask(counted, {"run": name})[0][0]) > 20
    shown = await command(settings, "runs", "show", "short")
    assert "before its range" in shown


async def interrupted_and_resumed(settings: dict[str, str], dsn: str, name: str, is_from_terminal: bool) -> None:
    """When something has been kept, then killed at random moments behind that, at every tick of which it is.

    Interrupted by Ctrl-C, which reaches the whole group, or by SIGTERM to the command alone, which a script has begun
    in the background. What it is resumed from is therefore never the beginning.
    """
    rng, hold = Random(seed_of("replay")), Path(settings["WORKER__STATE_DIR"]) / HOLD
    kept = hold.parent / "runs" / name
    hold.touch()
    child = await begun(settings, "replay", *WHOLE, "--run", name, is_from_terminal=is_from_terminal)
    await until(lambda: bool(states(kept)))
    assert await state(settings, name) == "running"
    seconds = (("replay", "--resume", name), ("replay", *WHOLE, "--run", name), ("runs", "drop", name))
    for told in await asyncio.gather(*(command(settings, *second, code=2) for second in seconds)):
        assert f"in the hands of another command (process {child.pid})" in told
    if is_from_terminal:
        os.killpg(child.pid, signal.SIGINT)
    else:
        child.send_signal(signal.SIGTERM)
    hold.unlink()
    _, errors = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 130, errors.decode()
    assert f"--resume {name} goes on" in errors.decode()
    assert await state(settings, name) == "interrupted"
    told = await command(settings, "replay", "--resume", name, "--dry-run")
    assert "less what the run has kept" in told
    for _ in range(KILLS):
        before = states(kept)
        child = await begun(settings, "replay", "--resume", name)
        await until(lambda: states(kept) != before or child.returncode is not None)  # noqa: B023
        await asyncio.sleep(rng.uniform(0.0, 0.1))
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
        await child.communicate()
        assert await state(settings, name) in ("abandoned", "done")
    async with runs_of(dsn) as runs:
        is_done = runs.find(name).state == "done"
    if not is_done:
        await command(settings, "replay", "--resume", name)
    assert f"{name} is finished" in await command(settings, "replay", "--resume", name, code=2)


async def state(settings: dict[str, str], name: str) -> str:
    """What `runs list` says of a run."""
    listed: list[dict[str, Any]] = msgspec.json.decode(await command(settings, "runs", "list", "--json"))
    return str(next(run["state"] for run in listed if run["run"] == name))


def states(folder: Path) -> set[tuple[str, int]]:
    """What is kept of a run's partitions, and since when."""
    return {(file.name, file.stat().st_mtime_ns) for file in folder.glob("*.state")}


async def begun(settings: dict[str, str], *arguments: str, is_from_terminal: bool = True) -> asyncio.subprocess.Process:
    """A replay that keeps every step, in a group of its own, as a terminal would have it; or as a script's `&`."""
    ctrl_c = signal.SIG_DFL if is_from_terminal else signal.SIG_IGN
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KEEPING_EVERY_STEP, *arguments),
        env=environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
    )


async def nothing_is_left_of_a_range_without_events(settings: dict[str, str]) -> None:
    """Of an hour before the first event; whoever looks at the runs afterwards does not see it."""
    begin, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours * 3600)) for hours in (3, 2))
    asked = ("replay", "--from", begin, "--to", end, "--run", "empty")
    assert "nothing happened then" in await command(settings, *asked, code=2)
    assert not (Path(settings["WORKER__STATE_DIR"]) / "runs" / "empty").exists()


@pytest.mark.slow
async def test_a_replay_gives_the_live_rows_on_the_embedded_broker(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        await create_topics(broker.settings)
        more = {"KAFKA__ASSIGNMENT": "all", "WORKER__CHECKPOINT_STORE": "directory"}
        await identical_in_every_way(tmp_path, broker.settings, **more)


@pytest.mark.slow
async def test_a_replay_gives_the_live_rows_on_apache_kafka(tmp_path: Path, own_apache_kafka: ApacheKafka) -> None:
    kafka = own_apache_kafka.settings
    await create_topics(kafka)
    await identical_in_every_way(tmp_path, kafka)


@pytest.mark.slow
async def test_what_other_rules_change_is_what_their_flags_explain_and_a_run_can_stand_in_for_live_rows(
    tmp_path: Path,
) -> None:
    async with EmbeddedBroker() as broker:
        kafka = broker.settings
        await create_topics(kafka)
        more = {"KAFKA__ASSIGNMENT": "all", "WORKER__CHECKPOINT_STORE": "directory"}
        with ClickHouseHttp(tmp_path / "clickhouse") as server:
            async with lived(tmp_path, kafka, server.dsn(), **more):
                settings = worker_settings(tmp_path, kafka, server.dsn(), **more)
                for name, mode in (("as-it-is", "on"), ("without", "off")):
                    rules = tmp_path / f"{name}.toml"
                    rules.write_text(f'[rules.invalid.modes]\ndeclared_bot = "{mode}"\n')
                    asked = ("replay", *WHOLE, "--run", name, "--rules", str(rules), "--processes", "2")
                    await (command if mode == "on" else killed_at_a_step)(settings, *asked)
                strict = ("--resume", "without", "--rules", str(tmp_path / "as-it-is.toml"))
                assert "with other rules" in await command(settings, "replay", *strict, code=2)
                told = await command(settings, "replay", "--resume", "without", "--json")
                assert msgspec.json.decode(told)["events"] > 1_000
                async with runs_of(server.dsn()) as runs:
                    costs_as_live(runs, "as-it-is")
                    assert explained(runs, "as-it-is", "without") > 20
                    await stands_in(settings, runs)


async def killed_at_a_step(settings: dict[str, str], *arguments: str) -> None:
    """A what-if that keeps every step, killed as soon as it has kept one."""
    hold = Path(settings["WORKER__STATE_DIR"]) / HOLD
    hold.touch()
    child = await begun(settings, *arguments)
    await until((hold.parent / "runs" / "without" / "step.state").is_file)
    os.killpg(child.pid, signal.SIGKILL)
    await child.communicate()
    hold.unlink()


def costs_as_live(runs: ClickHouseRuns, same: str) -> None:
    """The rules as they were: nothing differs from live but alerts, for looks are at other times."""
    found = compare(runs, runs.find(same))
    assert [each for each in found if each.before._replace(alerts=0) != each.after._replace(alerts=0)] == []
    assert sum(each.before.spend_micros > 0 for each in found) > 1


ONLY_BOTS = """(
    SELECT campaign_id, event, groupUniqArrayIf(rule, mode = 'on') AS rules, max(effect_pane) AS effect
    FROM run_flag_rows FINAL WHERE run = {run:String} AND input = 'clicks'
    GROUP BY campaign_id, event HAVING rules = ['declared_bot'])"""
"""Clicks that this rule alone excludes."""


def explained(runs: ClickHouseRuns, strict: str, lax: str) -> int:
    """By campaign: valid clicks that one rule takes away are those that it alone excludes."""
    only = f"SELECT campaign_id, count() FROM {ONLY_BOTS} GROUP BY campaign_id"
    flagged = {campaign: int(count) for campaign, count in runs.ask(only, {"run": strict})}
    changed = compare(runs, runs.find(strict), lax)
    gained: dict[str, int] = {}
    for each in changed:
        taken = each.before.clicks - each.after.clicks
        gained[each.campaign_id] = gained.get(each.campaign_id, 0) + taken
        assert each.before.clicks + each.before.invalid_clicks == each.after.clicks + each.after.invalid_clicks
    assert {campaign: count for campaign, count in gained.items() if count} == flagged
    return sum(flagged.values())


def end_behind_some(runs: ClickHouseRuns, run: str) -> str:
    """The latest end that a range may have which is to be published: its last minute is over. It holds bots' clicks."""
    newest = int(runs.ask("SELECT toUnixTimestamp(max(effect_pane)) FROM pane_rows")[0][0])
    end = newest // 60 * 60
    before = f"SELECT count() FROM {ONLY_BOTS} WHERE toUnixTimestamp(effect) < {end}"
    assert int(runs.ask(before, {"run": run})[0][0]) > 0
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))


async def stands_in(settings: dict[str, str], runs: ClickHouseRuns) -> None:
    """Published, a run is what readers see; taken back, the live rows are."""
    totals = "SELECT campaign_id, currency, clicks, gross_clicks, spend_micros FROM campaign_totals ORDER BY 1, 2"
    ended = end_behind_some(runs, "as-it-is")
    refusal = await command(settings, "runs", "publish", "without", "--yes", code=2)
    assert "can still change" in refusal
    live = runs.ask(totals)
    page = Path(settings["WORKER__STATE_DIR"]).parent / "frozen.html"
    frozen = ("replay", "--from", "2020-01-01", "--to", ended, "--run", "frozen", "--report", str(page))
    await command(settings, *frozen, "--publish", "--yes", "--even-so")
    assert b"frozen beside live" in page.read_bytes()
    assert runs.find("frozen").is_published
    assert runs.ask(totals) == live
    assert runs.ask("SELECT count() FROM shown_pane_rows") == runs.ask("SELECT count() FROM pane_rows FINAL")
    await command(settings, "runs", "withdraw", "frozen")
    await command(settings, "runs", "drop", "frozen")
    rules = Path(settings["WORKER__STATE_DIR"]).parent / "without.toml"
    lax = ("replay", "--from", "2020-01-01", "--to", ended, "--run", "lax", "--rules", str(rules))
    await command(settings, *lax)
    assert "would count twice" in await command(settings, "runs", "publish", "lax", "--yes", code=2)
    assert runs.ask(totals) == live
    await command(settings, "runs", "publish", "lax", "--yes", "--even-so")
    assert sum(row[2] for row in runs.ask(totals)) > sum(row[2] for row in live)
    assert sum(row[3] for row in runs.ask(totals)) == sum(row[3] for row in live)
    assert "take it back first" in await command(settings, "runs", "drop", "lax", code=2)
    await command(settings, "runs", "withdraw", "lax")
    assert runs.ask(totals) == live
    await command(settings, "runs", "drop", "lax")
    listed: list[dict[str, Any]] = msgspec.json.decode(await command(settings, "runs", "list", "--json"))
    assert {run["run"] for run in listed} == {"as-it-is", "without"}


@pytest.mark.slow
async def test_bad_arguments_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    async with EmbeddedBroker() as broker:
        await create_topics(broker.settings)
        settings = worker_settings(tmp_path, broker.settings, f"chdb://{tmp_path / 'clickhouse'}")
        for arguments, words in (
            (("replay", "--from", "2026-02-01", "--to", "2026-01-01"), "must lie before"),
            (("replay", "--from", "yesterday", "--to", "now"), "is no time"),
            (("replay", *WHOLE, "--run", "a/b"), "is no name"),
            (("replay", *WHOLE, "--compare", "nobody"), "there is no run nobody"),
            (("replay", *WHOLE, "--campaign", "nobody"), "there is no campaign nobody"),
            (("replay", *WHOLE, "--report", "report.pdf"), "says no format"),
            (("replay", *WHOLE, "--publish"), "can still change"),
            (("replay", *WHOLE, "--resume", "nobody"), "there is no run nobody"),
            (("replay", *WHOLE), "journal is empty"),
            (("runs", "drop", "nobody"), "there is no run nobody"),
            (("runs", "withdraw", "nobody"), "there is no run nobody"),
        ):
            assert words in await command(settings, *arguments, code=2)
        assert msgspec.json.decode(await command(settings, "runs", "list", "--json")) == []
