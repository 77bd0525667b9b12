"""The real pure pipeline as a judge of a stream: partitions that are fed, ticked, and heard by each other.

What a tick sends to a topic that partitions read (evidence, verdicts) is appended there, and is read before the next
tick, as live. Rows, controls and alerts are thrown away.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Protocol

from streams.adapters.memory import MemoryRecord
from streams.events import Input
from streams.jobs.traffic_simulation import GeneratedEvent
from streams.rules import Rules
from streams.state.checkpoint import capture
from streams.state.inputs import Batch
from streams.state.journal import Tick
from streams.state.outgoing import outgoing
from streams.state.partition import TOPICS, PartitionState
from streams.topics import INPUT_TOPICS, partition_of
from streams.verdicts import Flag

SILENT_TICKS: Final = 3
"""A topic from which so many ticks brought nothing is told as silent."""
_EVENT_TOPICS: Final = tuple(INPUT_TOPICS[source] for source in Input)


class Judging(Protocol):
    """What the benchmark needs of whatever judges."""

    def feed(self, event: GeneratedEvent) -> None:
        """One delivery; of each input and partition they come in the order of their offsets."""
        ...

    def tick(self, wall_ms: int) -> Iterable[Flag]:
        """Looks across what has been fed; the flags that are told, in order."""
        ...

    def state_bytes(self) -> int:
        """What a checkpoint of everything remembered would take."""
        ...


class PipelineJudging:
    """`PartitionState`, for each partition."""

    def __init__(self, rules: Rules, partitions: int) -> None:
        self._partitions = partitions
        self.states = [PartitionState(p, partitions, 0, rules) for p in range(partitions)]
        self._waiting: list[dict[str, list[MemoryRecord]]] = [defaultdict(list) for _ in self.states]
        self._quiet = [dict.fromkeys(TOPICS, 0) for _ in self.states]
        self._places: dict[str, int] = {}
        for state in self.states:
            state.begin_at({})
            state.tick(Tick("bench", 1, 0, state.positions(), rules=rules))

    def feed(self, event: GeneratedEvent) -> None:
        """One delivery."""
        place = self._places.get(event.key)
        if place is None:
            place = self._places[event.key] = partition_of(event.key, self._partitions)
        self._append(place, INPUT_TOPICS[event.input], event.key.encode(), event.value, event.deliver_at_ms)

    def _append(self, partition: int, topic: str, key: bytes | None, value: bytes | None, at_ms: int) -> None:
        waiting = self._waiting[partition][topic]
        offset = self.states[partition].position(topic) + len(waiting)
        waiting.append(MemoryRecord(offset, at_ms, key, value))

    def tick(self, wall_ms: int) -> list[Flag]:
        """Every partition reads what waits, and ticks; what they tell each other waits for their next."""
        return [flag for partition in range(self._partitions) for flag in self._tick(partition, wall_ms)]

    def _tick(self, partition: int, wall_ms: int) -> list[Flag]:
        state, waiting, quiet = self.states[partition], self._waiting[partition], self._quiet[partition]
        for topic in TOPICS:
            records = waiting.pop(topic, [])
            quiet[topic] = 0 if records else quiet[topic] + 1
            if records:
                first = records[0].offset
                state.apply(Batch(topic, partition, first, first + len(records), list(records)))
        silent = tuple(topic for topic in _EVENT_TOPICS if quiet[topic] >= SILENT_TICKS)
        output = state.tick(Tick("bench", state.seq + 1, wall_ms, state.positions(), silent=silent))
        for _, message in outgoing(output, state.seq):
            if message.topic in TOPICS:
                to = message.partition
                if to is None:
                    to = partition_of((message.key or b"").decode(), self._partitions)
                self._append(to, message.topic, message.key, message.value, wall_ms)
        return [signal for signal in output.signals if isinstance(signal, Flag)]

    def state_bytes(self) -> int:
        """Of every partition's checkpoint."""
        return sum(len(data) for state in self.states for data in capture(state, [], {}).changed.values())
