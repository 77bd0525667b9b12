"""Histories for property tests: logs of one partition, and ways to read them."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Final

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from streams.events import Input
from streams.records import Row, Table
from streams.rules import HOUR_MS, Horizon, Rules
from streams.state.checkpoint import capture, restore
from streams.state.journal import Tick
from streams.state.partition import TOPICS, PartitionState
from tests.sim.plan import LATENESS_MS, rules_of
from tests.sim.world import Log, plain, sink_key
from tests.support.events import EVENT_TOPICS, SETTINGS_TOPIC, Mix, Traffic

BOUNDED: Final = settings(derandomize=True, deadline=None, max_examples=60)
"""The same examples in every run; a failing one is printed with the call that repeats it."""
seeds: Final = st.integers(0, 2**32)

Logs = dict[str, Log]


def history(seed: int, records: int = 150, mix: Mix | None = None, settings_first: int = 3) -> Logs:
    """Logs with everything in them that the generator knows, and holes."""
    rng = Random(seed)
    traffic = Traffic(rng, mix or Mix(lateness_ms=LATENESS_MS))
    logs = {topic: Log(topic, 0, rng.choice([0, 5])) for topic in TOPICS}
    for _ in range(settings_first):
        logs[SETTINGS_TOPIC].append(traffic.settings(traffic.start_ms))
    for _ in range(records):
        topic = rng.choice(EVENT_TOPICS)
        logs[topic].append(traffic.draft(topic, 0), rng.choice([0, 0, 0, 2]))
    return logs


def new_state(logs: Logs, rules: Rules) -> PartitionState:
    """An empty state at the logs' beginning, after the first tick: the rules and settings hold."""
    state = PartitionState(0, 1, 1, rules)
    state.begin_at({topic: log.start for topic, log in logs.items()})
    read(state, logs, {SETTINGS_TOPIC: logs[SETTINGS_TOPIC].end}, Random(0))
    tick_at(state, rules)
    return state


def tick_at(state: PartitionState, rules: Rules | None = None, wall_ms: int = 1_000) -> list[tuple[Table, Row]]:
    """A tick where the state stands; its rows."""
    tick = Tick("c", state.seq + 1, wall_ms, state.positions(), rules=rules)
    output = state.tick(tick)
    return [(table, (*row, tick.seq)) for table, rows in output.rows.items() for row in rows]


def read(state: PartitionState, logs: Logs, targets: dict[str, int], rng: Random, most: int = 40) -> None:
    """Reads up to the targets: which input comes when, and how it is cut, is `rng`'s choice."""
    while open_topics := [topic for topic, end in targets.items() if state.position(topic) < end]:
        topic = rng.choice(open_topics)
        begin = state.position(topic)
        state.apply(logs[topic].slice(begin, min(targets[topic], begin + rng.randint(1, most))))


def ends(logs: Logs) -> dict[str, int]:
    """Where the logs end."""
    return {topic: log.end for topic, log in logs.items()}


def stops(logs: Logs, count: int, rng: Random) -> list[dict[str, int]]:
    """Places for ticks: each input's offset never goes back, and the last is the end."""
    places = {topic: sorted(rng.randint(log.start, log.end) for _ in range(count)) for topic, log in logs.items()}
    places[SETTINGS_TOPIC] = [logs[SETTINGS_TOPIC].end] * count
    return [{topic: at[n] for topic, at in places.items()} for n in range(count)] + [ends(logs)]


def final_rows(rows: Iterable[tuple[Table, Row]]) -> dict[tuple[Table, Row], Row]:
    """The last row of each key, without its version."""
    return {(table, sink_key(table, row)): plain(table, row)[:-1] for table, row in rows}


def run(logs: Logs, rules: Rules, at: Sequence[dict[str, int]], rng: Random, most: int = 40) -> tuple[Any, Any]:
    """Reads with a tick at each stop; the state, and all rows in order."""
    state, rows = new_state(logs, rules), []
    for number, targets in enumerate(at):
        read(state, logs, targets, rng, most)
        rows += [(table, plain(table, row)) for table, row in tick_at(state, wall_ms=2_000 + number * 700)]
    rows += [(table, plain(table, row)) for table, row in tick_at(state, wall_ms=10**7)]
    return state, rows


def reloaded(state: PartitionState) -> PartitionState:
    """What a checkpoint of this state gives back."""
    whole = capture(state, (), {})
    fresh = PartitionState(state.partition, state.partitions, state.log_epoch, Rules())
    restore(fresh, whole.changed)
    return fresh


def small_rules(seed: int) -> Rules:
    """Rules with small horizons and limits."""
    return rules_of(Random(seed))


def patient(rules: Rules) -> Rules:
    """The same rules, with horizons of an hour."""
    return msgspec.structs.replace(rules, horizons={source: Horizon(HOUR_MS, HOUR_MS) for source in Input})
