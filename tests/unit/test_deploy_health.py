"""What probes and alerts are told of a worker: readiness with its reasons, ages, and counters that do not jump."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from streams.adapters.memory_sink import Fault
from streams.agents import app as app_module
from streams.agents import keeper as keeper_module
from streams.agents.app import Engine, _within
from streams.agents.health import STUCK_S, TICK_BOUND_S, document, liveness, readiness
from streams.agents.publisher import Publisher
from streams.events import Input
from streams.records import LEDGER_COLUMNS, Table
from tests.unit.given import document as event
from tests.unit.keeping import Kept
from tests.unit.owning import BEFORE
from tests.unit.test_metrics_conventions import samples, value


async def kept(**options: int) -> Kept:
    found = Kept(**options)  # type: ignore[arg-type]
    await found.assign()
    await found.tick()
    return found


def reasons(found: Kept, *assigned: int) -> str:
    return "; ".join(readiness(found.keeper, assigned).reasons)


# Live


@pytest.mark.parametrize(("turned_s_ago", "status"), [(None, 200), (0.0, 200), (STUCK_S, 200), (STUCK_S + 1, 503)])
def test_a_worker_lives_unless_its_clockwork_stands_still(turned_s_ago: float | None, status: int) -> None:
    assert liveness(turned_s_ago).status == status


# Ready


async def test_a_worker_is_ready_when_its_partitions_are_open_and_tick() -> None:
    found = await kept()
    assert readiness(found.keeper, {0}) == ((),)
    assert document("ready", readiness(found.keeper, {0}), partitions=[0]) == {
        "ready": True,
        "reasons": [],
        "partitions": [0],
    }


async def test_until_kafka_has_assigned_partitions_a_worker_is_not_ready() -> None:
    verdict = readiness((await kept()).keeper, None)
    assert (verdict.is_well, verdict.status) == (False, 503)
    assert "not assigned" in verdict.reasons[0]


async def test_a_spare_worker_is_ready_to_take_over() -> None:
    assert readiness(Kept().keeper, frozenset()).is_well


async def test_a_partition_that_is_not_open_or_was_lost_is_named() -> None:
    found = await kept()
    assert reasons(found, 0, 3) == "partition 3 is not open"
    other = Kept(found.world)
    await other.assign()
    await found.tick()
    found.world.produce(Input.CLICKS, event(Input.CLICKS, "a"))
    await found.step()
    assert reasons(found, 0) == "partition 0 is not open"


async def test_a_partition_that_replays_its_journal_is_not_ready_yet() -> None:
    found = await kept()
    found.world.produce(Input.CLICKS, *(event(Input.CLICKS, f"e{n}") for n in range(5)))
    await found.step()
    again = Kept(found.world)
    await again.assign()
    assert reasons(again, 0) == "partition 0 replays its journal"
    await again.step()
    assert reasons(again, 0) == ""


async def test_a_partition_whose_ticks_kafka_does_not_take_is_not_ready_after_a_while() -> None:
    found = await kept()
    found.clock.time_ms += int(TICK_BOUND_S * 1000)
    assert reasons(found, 0) == ""
    found.clock.time_ms += 1
    assert "has not ticked" in reasons(found, 0)


async def test_an_outage_of_clickhouse_within_bounds_leaves_a_worker_ready() -> None:
    found = await kept(max_dirty_rows=1_000)
    found.world.sink.faults.append(Fault.REFUSED)
    found.world.produce(Input.CLICKS, event(Input.CLICKS, "a"))
    await found.step()
    await found.publisher.flush()
    assert found.publisher.failures_in_a_row == 1
    assert readiness(found.keeper, {0}).is_well
    found.keeper.settings = found.settings.model_copy(update={"max_dirty_rows": 1})
    assert "intake is paused" in reasons(found, 0)


# Stopping


async def test_a_step_of_the_shutdown_does_not_keep_the_others_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def hangs() -> None:
        await asyncio.sleep(60)

    started = time.monotonic()
    await _within(0.05, hangs(), "it was left")
    assert time.monotonic() - started < 5
    assert "it was left" in caplog.text


async def test_what_is_counted_while_the_last_rows_go_out_is_published_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found, flush = await kept(), Publisher.flush

    async def flush_while_something_comes(self: Publisher, everything: bool = True) -> bool:
        is_there = await flush(self, everything)
        found.world.produce(Input.CLICKS, event(Input.CLICKS, f"click-{found.publisher.insertions}"))
        await found.feed()
        return is_there

    monkeypatch.setattr(Publisher, "flush", flush_while_something_comes)
    engine = Engine.__new__(Engine)
    engine._is_closed, engine.keeper, engine.publisher = False, found.keeper, found.publisher
    found.world.produce(Input.CLICKS, event(Input.CLICKS, "a"))
    await found.feed()
    await engine._close()
    at = LEDGER_COLUMNS.index
    rows = [row for row in found.world.sink.rows(Table.LEDGER) if row[at("input")] == "clicks"]
    assert {row[at("entry")]: row[at("records")] for row in rows} == {"consumed": 2, "counted": 2}
    assert found.keeper.owners == {}


async def test_stopping_takes_no_longer_than_its_steps_with_nothing_that_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LAST_TICK_S", "LAST_FLUSH_S", "LAST_WORDS_S", "CLOSE_S"):
        monkeypatch.setattr(app_module, name, 0.05)
    monkeypatch.setattr(keeper_module, "RELEASE_TIMEOUT_S", 0.05)
    found = await kept()

    async def hangs(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    engine = Engine.__new__(Engine)
    engine._is_closed, engine.keeper, engine.publisher = False, found.keeper, found.publisher
    engine.journal = SimpleNamespace(stop=hangs)  # type: ignore[assignment]
    monkeypatch.setattr(found.keeper, "tick_all", hangs)
    monkeypatch.setattr(found.publisher, "flush", hangs)
    monkeypatch.setattr(found.keeper, "_last_checkpoint", hangs)
    started = time.monotonic()
    await engine._close()
    assert time.monotonic() - started < 5
    assert found.keeper.owners == {}


# Ages and counters


async def test_ages_of_tick_and_checkpoint_are_told_by_partition() -> None:
    found = await kept()
    await found.keeper.checkpoint_all()
    found.clock.time_ms += 7_500
    assert value(found, "tick_age_seconds", partition="0") == 7.5
    assert value(found, "checkpoint_age_seconds", partition="0") == 7.5
    assert value(found, "checkpoint_interval_seconds") == 1
    await found.tick()
    assert value(found, "tick_age_seconds", partition="0") == 8.5, "an idle partition ticks every ten seconds"
    found.clock.time_ms += 2_000
    await found.tick()
    assert value(found, "tick_age_seconds", partition="0") == 0
    assert value(found, "checkpoint_age_seconds", partition="0") == 11.5
    await found.keeper.checkpoint_all()
    assert value(found, "checkpoint_age_seconds", partition="0") == 0


async def test_a_checkpoint_that_fails_does_not_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "RETRY_S", (0.0,))
    found = await kept()
    found.world.faults.plan("put_manifest", BEFORE)
    found.clock.time_ms += 5_000
    await found.keeper.checkpoint_all()
    assert value(found, "checkpoint_age_seconds", partition="0") == 6
    await found.keeper.checkpoint_all()
    assert value(found, "checkpoint_age_seconds", partition="0") == 0


async def test_a_corrupt_checkpoint_is_counted() -> None:
    found = await kept()
    await found.keeper.checkpoint_all()
    for key in list(found.world.store.data):
        found.world.store.data[key] = b"rotten"
    again = Kept(found.world)
    await again.assign()
    assert value(again, "corrupt_checkpoints_total") == 1


async def test_counters_do_not_seem_to_begin_anew_while_a_journal_is_replayed() -> None:
    found = await kept()
    found.world.produce(Input.CLICKS, *(event(Input.CLICKS, f"e{n}") for n in range(5)))
    await found.step()
    again = Kept(found.world)
    await again.assign()
    assert value(again, "partitions_recovering") == 1
    assert not [name for name, _ in samples(again) if name in ("ledger_records_total", "consumed_offsets_total")]
    await again.step()
    assert value(again, "consumed_offsets_total", input="clicks", partition="0") == 5


async def test_version_and_format_of_the_state_are_told() -> None:
    from streams import __version__
    from streams.state.checkpoint import FORMAT

    assert value(await kept(), "build_info", version=__version__, format=str(FORMAT)) == 1


async def test_the_latency_is_told_where_there_is_one() -> None:
    found = await kept()
    assert not [name for name, _ in samples(found) if name == "visible_latency_seconds"]
    found.world.produce(Input.CLICKS, event(Input.CLICKS, "a"))
    await found.step()
    await found.publisher.flush()
    assert value(found, "visible_latency_seconds", quantile="0.99") >= 0
