"""What the state costs, measured in this process: bytes an id, bytes a campaign, and how cost grows with campaigns."""

import gc
import time
import tracemalloc

import numpy as np

from bench.workload import Workload, produce
from streams.adapters.memory import MemoryRecord
from streams.events import Input
from streams.rules import DEFAULT_HORIZONS, Rules
from streams.state.dedupe import DedupeIndex
from streams.state.inputs import Batch
from streams.state.journal import Tick
from streams.state.partition import PartitionState
from streams.topics import INPUT_TOPICS

BATCH = 2_500
TICK_RECORDS = 10_000


def bytes_per_dedupe_id(ids: int = 1_000_000) -> float:
    """Traced memory of an index after its ids have been packed."""
    at = np.full(BATCH, 1_793_577_600_000, dtype=np.int64)
    gc.collect()
    tracemalloc.start()
    index = DedupeIndex(DEFAULT_HORIZONS[Input.IMPRESSIONS])
    for first in range(0, ids, BATCH):
        index.admit([f"{number:032x}" for number in range(first, first + BATCH)], at, at)
        if first % (40 * BATCH) == 0:
            index.pack(int(at[0]))
    index.pack(int(at[0]))
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / ids


def bytes_per_campaign_key(campaigns: int = 1_000) -> float:
    """Traced memory of a partition's state for each live campaign, ids left out; each has 200 events in 4,000 s.

    With 250 campaigns it is about a fifth more than with 1,000, for what does not grow with them.
    """
    gc.collect()
    tracemalloc.start()
    state = applied(Workload(200 * campaigns, per_second=campaigns / 20, campaigns=campaigns, partitions=1))
    for held in state.inputs.values():
        held.dedupe = DedupeIndex(held.dedupe.horizon)
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / len(state.windows)


def cost_ratio(few: int, many: int, events: int = 300_000, rounds: int = 3) -> float:
    """CPU of an event with many campaigns over CPU of one with few; the least of some runs each, in turn."""
    costs: dict[int, list[float]] = {few: [], many: []}
    for _ in range(rounds):
        for campaigns in costs:
            workload = Workload(events, per_second=30_000.0, campaigns=campaigns, partitions=1)
            batches = list(ranges(workload))
            half = len(batches) // 2
            gc.collect()
            gc.freeze()
            state = apply_all(batches[:half])  # by then the campaigns are known
            measured = sum(len(batch.records) for batch in batches[half:])
            started = time.process_time()
            apply_all(batches[half:], state)
            costs[campaigns].append((time.process_time() - started) / measured)
            gc.unfreeze()
    return min(costs[many]) / min(costs[few])


def ranges(workload: Workload) -> list[Batch]:
    """The workload as ranges of its topics, as a consumer would fetch them."""
    logs: dict[str, list[MemoryRecord]] = {topic: [] for topic in INPUT_TOPICS.values()}
    found: list[Batch] = []
    for chunk in produce(workload):
        for message in chunk:
            log = logs[message.topic]
            log.append(MemoryRecord(len(log), message.timestamp_ms or 0, message.key, message.value))
    cursors = dict.fromkeys(logs, 0)
    share = {topic: max(1, len(log) * BATCH // workload.events) for topic, log in logs.items()}
    while any(cursors[topic] < len(log) for topic, log in logs.items()):
        for topic, log in logs.items():
            at = cursors[topic]
            records = log[at : at + share[topic]]
            if records:
                cursors[topic] = at + len(records)
                found.append(Batch(topic, 0, at, at + len(records), records))
    return found


def applied(workload: Workload) -> PartitionState:
    """A state that has gone through the workload."""
    return apply_all(ranges(workload))


def apply_all(batches: list[Batch], state: PartitionState | None = None) -> PartitionState:
    """Applies ranges, with a tick for every so many records; goes on with a state, or begins one."""
    if state is None:
        state = PartitionState(0, 1, 0, Rules())
        state.begin_at({})
        state.tick(Tick("bench", 1, 0, state.positions(), rules=Rules()))
    waiting, wall_ms = 0, state.seq * 400
    for batch in batches:
        state.apply(batch)
        waiting += len(batch.records)
        if waiting >= TICK_RECORDS:
            waiting, wall_ms = 0, wall_ms + 400
            state.tick(Tick("bench", state.seq + 1, wall_ms, state.positions()))
    return state
