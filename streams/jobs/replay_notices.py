"""When low-rate records take effect in a what-if: at the place among the events at which they took effect live.

A what-if has ticks of its own, and a record's timestamp does not say when a worker read it: settings are put today,
and loaded events are of last week. What does say so is the journal. A recorded record of settings, sessions,
allowances or verdicts was in force from the recorded tick on that was the first to have applied it, its **tick**; the
events that live counted under it are those that stand behind that tick, in any input. So here:

* **settings** (ads.campaigns: prices, currencies, zones, budgets) are in force before the first event behind their
  tick is counted, and behind all that live had counted by then: where a step would read such an event, it stops there,
  reads every input up to the same tick, however much younger its records are, and ticks. So every event is counted
  under the settings that it was counted under live, and a price begins in the same pane. (Where live had read one
  input hours ahead of another at that tick, as it does with files that are loaded one by one, the what-if has, too.)
* **sessions, allowances**, and evidence that was under way at a pinned checkpoint, are in force from the tick of the
  step on that reads the first event behind theirs (pacing looks at ticks only). Allowances stand as they were told
  live: the pools are not reckoned anew;
* **reviews**, and verdicts that were under way, are heard at the first tick at which every event before theirs has
  been read, for they name events that must be there; so their effect pane is that of the live correction;
* whatever has no event before its tick that is still to be read is in force at once: at the first tick, before any
  event, what live had read before its own first event, or what stands at a pinned checkpoint.

What only stands in the topic behind the last tick was never in force, and is not read. What the run itself is given
(`--settings`) is in force from the first tick on, in the place of everything recorded of these campaigns; what it
tells itself (evidence, verdicts) is read at the step behind.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from operator import attrgetter
from typing import Final

from streams.adapters.memory import MemoryRecord
from streams.jobs.replay_journal import RecordedTick
from streams.jobs.replay_partition import Cursor
from streams.ports import Batch, RawRecord
from streams.state.partition import PartitionState
from streams.topics import CAMPAIGNS, EVIDENCE, VERDICTS

EVER_MS: Final = 2**62
ALL_READ: Final = 2**62
"""In the place of the next record's offset where there is none."""

Kept = tuple[int, bytes | None, bytes | None]
"""Timestamp, key and value of a record that was told in the run."""
Applied = Mapping[str, int]
"""How far a recorded tick had applied every topic."""
Heads = Mapping[str, int]
"""By input topic: offset of the next record that is to be read."""

_offset_of: Final = attrgetter("offset")


class OwnLog:
    """A topic-partition that the run itself arranges: what was recorded and stays, and what is told in the run."""

    def __init__(self, position: int, recorded: Iterable[RawRecord] = (), told: Iterable[Kept] = ()) -> None:
        self.position = position
        """Offset of the next record, as the state counts them."""
        self.recorded_from: int | None = None
        """Offset behind the last recorded one that was taken; None: none was."""
        self._recorded = list(recorded)
        self._taken = 0
        self._told: deque[Kept] = deque(told)

    def append(self, timestamp_ms: int, key: bytes | None, value: bytes | None) -> None:
        """Something is told."""
        self._told.append((timestamp_ms, key, value))

    def waiting(self, up_to: int) -> int:
        """How many recorded ones from before this offset have not been taken."""
        return bisect_left(self._recorded, up_to, lo=self._taken, key=_offset_of) - self._taken

    def take_recorded(self, up_to: int) -> list[RawRecord]:
        """Recorded ones from before this offset, in the places that they have here."""
        begin, self._taken = self._taken, self._taken + self.waiting(up_to)
        chosen = self._recorded[begin : self._taken]
        if chosen:
            self.recorded_from = chosen[-1].offset + 1
        return self._placed([(record.timestamp, record.key, record.value) for record in chosen])

    def take_told(self, before_ms: int) -> list[RawRecord]:
        """What was told before this time, in the places that it has here."""
        found: list[Kept] = []
        while self._told and self._told[0][0] < before_ms:
            found.append(self._told.popleft())
        return self._placed(found)

    def _placed(self, kept: Iterable[Kept]) -> list[RawRecord]:
        found: list[RawRecord] = [MemoryRecord(at, *each) for at, each in enumerate(kept, self.position)]
        self.position += len(found)
        return found

    def snapshot(self) -> tuple[int, int | None, list[Kept]]:
        """Plain values, without what is recorded: that is read again."""
        return self.position, self.recorded_from, list(self._told)


class Notices:
    """The low-rate inputs of one lane, each record at its place."""

    def __init__(
        self,
        state: PartitionState,
        own: dict[str, OwnLog],
        others: Mapping[str, Cursor],
        settings: Iterable[Applied],
        ticks: AsyncGenerator[RecordedTick],
    ) -> None:
        """`settings`: the recorded ticks that were the first to stand behind new settings; `ticks`: all of them."""
        self.own = own
        self.read: dict[str, int] = {}
        """By input topic: offset behind the last record that the lane has read. What was removed is not read."""
        self.lost = 0
        self._state = state
        self._others = others
        self._settings = deque(settings)
        self._ticks = ticks
        self._ahead: Applied | None = None
        """The first recorded tick that is neither reached nor passed."""
        self._unheard: deque[Applied] = deque()
        """Ticks with verdicts or reviews that were passed, and not reached: some input lags behind them."""
        self._seen = 0
        """Offset up to which those stand there."""

    def settings_ahead(self) -> Applied | None:
        """The tick behind which nothing must be read before its settings are in force; None: no settings are left."""
        log = self.own[CAMPAIGNS]
        while self._settings and not log.waiting(self._settings[0].get(CAMPAIGNS, 0)):
            self._settings.popleft()
        return self._settings[0] if self._settings else None

    def take_settings(self) -> int:
        """Applies those of that tick; they are in force at the next tick. Returns how many."""
        return self._apply(CAMPAIGNS, self.own[CAMPAIGNS].take_recorded(self._settings.popleft().get(CAMPAIGNS, 0)))

    async def take(self, heads: Heads, before_ms: int) -> int:
        """At a step's end, before its tick: everything whose turn it is. Returns how many records that was."""
        count = 0
        while (ahead := self.settings_ahead()) is not None and is_reached(ahead, heads):
            count += self.take_settings()
        applied = await self._follow(heads)
        if applied is not None:
            for topic, cursor in self._others.items():
                async for batch in cursor.up_to(applied.get(topic, 0)):
                    self._state.apply(batch)
                    count += len(batch.records)
                    self.lost += (batch.to_offset - batch.from_offset) if batch.is_lost else 0
            count += self._apply(EVIDENCE, self.own[EVIDENCE].take_recorded(applied.get(EVIDENCE, 0)))
        while self._unheard and is_reached(self._unheard[0], heads):
            heard = self._unheard.popleft()
            count += self._apply(VERDICTS, self.own[VERDICTS].take_recorded(heard.get(VERDICTS, 0)))
        for topic, log in self.own.items():
            count += self._apply(topic, log.take_told(before_ms))
        return count

    async def _follow(self, heads: Heads) -> Applied | None:
        """The last recorded tick that is reached or passed; None: it is none that was not so before."""
        last = None
        while True:
            if self._ahead is None:
                recorded = await anext(self._ticks, None)
                if recorded is None:
                    return last
                self._ahead = recorded.tick.applied
            if not is_reached(self._ahead, heads) and not self._is_passed(self._ahead):
                return last
            last, self._ahead = self._ahead, None
            spoken = last.get(VERDICTS, 0)
            if self.own[VERDICTS].waiting(spoken) > self.own[VERDICTS].waiting(self._seen):
                self._unheard.append(last)
                self._seen = spoken

    def _is_passed(self, applied: Applied) -> bool:
        """Whether something has been read that stands behind it."""
        return any(behind > applied.get(topic, 0) for topic, behind in self.read.items())

    def _apply(self, topic: str, records: list[RawRecord]) -> int:
        if records:
            begin, end = records[0].offset, records[-1].offset + 1
            self._state.apply(Batch(topic, self._state.partition, begin, end, records))
        return len(records)

    async def close(self) -> None:
        """Stops fetching."""
        await self._ticks.aclose()
        for cursor in self._others.values():
            await cursor.close()


def is_reached(applied: Applied, heads: Heads) -> bool:
    """Whether nothing is left to be read that a recorded tick had applied."""
    return all(head >= applied.get(topic, 0) for topic, head in heads.items())
