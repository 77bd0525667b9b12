"""The hot path: decode, judge, de-duplicate and measure the records of one input, in offset order.

Pure: nothing here awaits, logs or touches a metric, and what an event adds depends on the records before it in its own
log alone, never on how they were batched. Batches go through as columns; only what is rare is looked at one by one.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from itertools import compress, repeat
from operator import attrgetter, eq
from typing import Any, Final

import numpy as np
import xxhash

from streams.events import (
    AdjustmentType,
    Conversion,
    ConversionType,
    Event,
    Input,
    Reason,
    Rejected,
    TouchType,
    Traffic,
)
from streams.invalid import validity_of
from streams.ports import RawRecord
from streams.records import DIMENSIONS, MAX_LETTER_BYTES, MAX_LETTER_KEY_BYTES, VALID, DeadLetter, Entry
from streams.rules import HOUR_MS, Rules
from streams.stages.count import (
    ADJUSTED_BY_ORDER,
    DUPLICATES,
    JUDGED,
    LATE,
    MONEY_REJECTED,
    PRICED,
    SPEND,
    UNDECIDED,
    age_bucket_ms,
    count_money,
    has_money,
)
from streams.stages.decode import Decoder
from streams.stages.measure import Flags, Rows, make_measure
from streams.state import dedupe
from streams.state.campaigns import CampaignBook
from streams.state.credits import Billed
from streams.state.grain import Block
from streams.state.inputs import DIMENSION_BITS, Batch, InputState
from streams.state.keys import Ints, Names
from streams.state.prices import BY_EVENT, PriceBook
from streams.state.reach import Users
from streams.state.recent import Counted
from streams.state.traces import JUDGED_LATER

NOTHING: Final[Set[int]] = frozenset()
_CAMPAIGN: Final = attrgetter("campaign_id")
_CURRENCY: Final = attrgetter("currency")
_PRICE: Final = attrgetter("clearing_price_millimicros")
_FUTURE: Final = Rejected(Reason.FUTURE, "$.event_time_ms")
_NO_CAMPAIGN: Final = Rejected(Reason.PAID_WITHOUT_CAMPAIGN, "$.campaign_id")
_NO_CURRENCY: Final = Rejected(Reason.MONEY_WITHOUT_CURRENCY, "$.currency")


class Intake:
    """Applies batches of one input to its state, under one set of rules."""

    def __init__(self, source: Input, rules: Rules, log_epoch: int) -> None:
        self.source = source
        self.rules = rules
        self.log_epoch = log_epoch
        self.is_priced = source in PRICED
        self._decoder = Decoder(source)
        self._measure = make_measure(source, rules)
        self._counting_types = frozenset(rules.cvr_conversion_types)
        self._dimensions = _dimensions_getter(rules.dimensions)
        self._excluding = rules.invalid.excluding

    def apply(self, state: InputState, batch: Batch, campaigns: CampaignBook, poisoned: Set[int] = NOTHING) -> None:
        """Consumes the batch's whole range. `batch.from_offset` must be the state's position."""
        if batch.from_offset != state.position:
            raise AssertionError(f"a range from {batch.from_offset} does not continue position {state.position}")
        missing = batch.to_offset - batch.from_offset - len(batch.records)
        if missing:
            state.enter(Entry.LOST_RETENTION if batch.is_lost else Entry.NO_RECORD, count=missing)
        if batch.records:
            records, events = self._decode(state, batch, poisoned)
            records, events = self._judge(state, batch, records, events)
            if events:
                self._admit(state, batch, records, events, campaigns)
            if len(state.dedupe.fresh) > dedupe.PACK_AT:
                state.dedupe.pack(state.newest_ms)
        state.position = batch.to_offset

    # Rejections

    def _decode(
        self, state: InputState, batch: Batch, poisoned: Set[int]
    ) -> tuple[Sequence[RawRecord], Sequence[Event]]:
        """The records that are events, and the events."""
        found = self._decoder.decode_all([record.value for record in batch.records])
        faults: dict[int, Rejected] = {}
        if Rejected in set(map(type, found)):
            faults = {i: event for i, event in enumerate(found) if type(event) is Rejected}
        if poisoned:
            faults |= {i: POISONED for i, record in enumerate(batch.records) if record.offset in poisoned}
        return self._without(faults, state, batch, batch.records, found)  # type: ignore[arg-type]

    def _judge(
        self, state: InputState, batch: Batch, records: Sequence[RawRecord], events: Sequence[Event]
    ) -> tuple[Sequence[RawRecord], Sequence[Event]]:
        """What the types cannot say: a time beyond the record's own, paid traffic or money without its owner."""
        faults: dict[int, Rejected] = {}  # of two faults the one found last is told
        if None in map(_CURRENCY, events):
            money = _PRICE if self.is_priced else has_money
            faults = {i: _NO_CURRENCY for i, e in enumerate(events) if e.currency is None and money(e)}
        if None in map(_CAMPAIGN, events):
            owned = enumerate(events)
            faults |= {i: _NO_CAMPAIGN for i, e in owned if e.campaign_id is None and e.traffic is Traffic.PAID}
        stamps = np.maximum(np.array([record.timestamp for record in records], dtype=np.int64), 0)
        ahead = _times(events) - stamps
        faults |= dict.fromkeys(np.flatnonzero(ahead > self.rules.future_skew_ms).tolist(), _FUTURE)
        return self._without(faults, state, batch, records, events)

    def _without(
        self,
        faults: dict[int, Rejected],
        state: InputState,
        batch: Batch,
        records: Sequence[RawRecord],
        events: Sequence[Event],
    ) -> tuple[Sequence[RawRecord], Sequence[Event]]:
        if not faults:
            return records, events
        for i, rejected in sorted(faults.items()):
            state.enter(Entry.REJECTED, rejected.reason.value)
            letter = self._dead_letter(batch, records[i], Entry.REJECTED, rejected.reason.value, rejected.path)
            state.dead_letters.append(letter)
        kept = [i for i in range(len(records)) if i not in faults]
        return [records[i] for i in kept], [events[i] for i in kept]

    # Admission

    def _admit(
        self,
        state: InputState,
        batch: Batch,
        records: Sequence[RawRecord],
        events: Sequence[Event],
        book: CampaignBook,
    ) -> None:
        size = len(events)
        at = _times(events)
        newest = np.maximum(np.maximum.accumulate(at), state.newest_ms)
        outcomes = state.dedupe.admit([event.event_id for event in events], at, newest)
        state.newest_ms = int(newest[-1])
        state.first_ms = int(at[0]) if state.first_ms < 0 else state.first_ms
        counted = outcomes == dedupe.COUNTED
        amounts = self._measure(events, counted)
        amounts[:, DUPLICATES] = outcomes == dedupe.DUPLICATE
        amounts[:, LATE] = outcomes == dedupe.LATE
        self._enter(state, batch, records, outcomes)

        bits = state.judge.judge(events, counted)
        amounts[:, JUDGED] = counted
        amounts[:, UNDECIDED] = counted & ~state.judge.is_decidable(events)
        campaigns = [event.campaign_id for event in events]
        own = [event.currency for event in events]
        fixed = list(map(book.currencies.get, campaigns, own)) if book.currencies else own  # type: ignore[arg-type]
        pays = self._add_money(events, own, fixed, counted, amounts)
        if book.prices:
            self._bill(events, campaigns, book.prices, counted, amounts)
        if self.source is Input.ADJUSTMENTS:
            self._reject(state, events, counted)
        ad_units, creatives = [event.ad_unit_id for event in events], [event.creative_id for event in events]
        validity = self._validities(bits)
        keys = list(zip(campaigns, ad_units, creatives, _variants(events), fixed, validity, strict=True))
        key = np.fromiter(map(state.keys.__getitem__, keys), dtype=np.int64, count=size)
        dimensions = map(state.dimensions.__getitem__, map(self._dimensions, events))
        report_key = (key << DIMENSION_BITS) | np.fromiter(dimensions, dtype=np.int64, count=size)
        pane_ms, report_ms = self.rules.pane_ms, self.rules.report_pane_ms
        effect = newest - newest % pane_ms
        pane = Block(effect, at - at % pane_ms, key, amounts)
        report = Block(newest - newest % report_ms, at - at % report_ms, report_key, amounts)
        if self.source is Input.ADJUSTMENTS:
            pane, report = self._with_orders(events, counted & pays, pane, report)
        state.panes.add(pane)
        state.report.add(report)
        if self.source is Input.CONVERSIONS and book.prices:
            self._remember_billed(state, events, keys, amounts[:, SPEND])
        if self.source is Input.IMPRESSIONS:
            self._add_users(state, events, counted, report)
        cohorts = {}
        if self.source is Input.CONVERSIONS:
            cohorts = self._add_cohorts(state, events, counted & pays, counted, keys, report.effect)
        self._trace(state, events, counted, bits, keys, amounts, cohorts, newest)

    def _enter(self, state: InputState, batch: Batch, records: Sequence[RawRecord], outcomes: dedupe.Outcomes) -> None:
        tally = np.bincount(outcomes, minlength=3).tolist()
        for entry, count in zip((Entry.COUNTED, Entry.DUPLICATE, Entry.LATE), tally, strict=True):
            if count:
                state.enter(entry, count=count)
        for i in np.flatnonzero(outcomes == dedupe.LATE).tolist():
            state.dead_letters.append(self._dead_letter(batch, records[i], Entry.LATE, Entry.LATE.value, "$"))

    def _add_money(
        self,
        events: Sequence[Event],
        own: Sequence[str | None],
        fixed: Sequence[str | None],
        counted: Flags,
        amounts: Rows,
    ) -> Flags:
        """Adds amounts in the campaign's currency; counts the others as refused. Returns whose money is taken."""
        takes = np.ones(len(events), dtype=bool)
        if fixed is not own:
            takes = np.array(list(map(eq, own, fixed)), dtype=bool)
        if self.is_priced:
            prices = np.array([event.clearing_price_millimicros or 0 for event in events], dtype=np.int64)  # type: ignore[attr-defined]
            amounts[:, SPEND] = prices * (counted & takes)
            amounts[:, MONEY_REJECTED] = counted & ~takes & (prices > 0)
            return takes
        for i in np.flatnonzero(counted).tolist():
            if has_money(events[i]):
                if takes[i]:
                    values = [0] * amounts.shape[1]
                    count_money(events[i], values)
                    amounts[i] += values
                else:
                    amounts[i, MONEY_REJECTED] = 1
        return takes

    def _bill(
        self, events: Sequence[Event], campaigns: Sequence[str | None], prices: PriceBook, counted: Flags, amounts: Rows
    ) -> None:
        """Where a tariff holds, it decides what an event costs, whatever the event says."""
        costs = prices.costs[self.source]
        cost = np.fromiter(map(costs.__getitem__, campaigns), dtype=np.int64, count=len(events))
        for i in np.flatnonzero((cost == BY_EVENT) & counted).tolist():
            cost[i] = prices.price_of(events[i])
        amounts[:, SPEND] = np.where(cost >= 0, cost * counted, amounts[:, SPEND])

    def _remember_billed(self, state: InputState, events: Sequence[Event], keys: Sequence[Names], costs: Ints) -> None:
        """Leads that were billed: an adjustment may reject them later."""
        for i in np.flatnonzero(costs).tolist():
            event = events[i]
            if event.conversion_type is ConversionType.LEAD:  # type: ignore[attr-defined]
                *names, validity = _named(keys[i])
                dimensions = _named(self._all_dimensions(event))
                digest = xxhash.xxh3_128_digest(event.event_id.encode())
                billed = Billed(digest, event.event_time_ms, tuple(names), dimensions, int(costs[i]), validity)
                state.billed.append(billed)

    # What later words need

    def _validities(self, bits: Ints) -> Iterable[str]:
        """What each event counts as."""
        if not bits.any():
            return repeat(VALID, len(bits))
        kinds = {value: validity_of(value, self._excluding).value for value in np.unique(bits).tolist()}
        return map(kinds.__getitem__, bits.tolist())

    def _trace(
        self,
        state: InputState,
        events: Sequence[Event],
        counted: Flags,
        bits: Ints,
        keys: Sequence[Names],
        amounts: Rows,
        cohorts: dict[int, tuple[int, ...]],
        newest: Ints,
    ) -> None:
        """Remembers what a later word may reach: clicks and conversions all, of the others what is flagged."""
        if self.source is Input.IMPRESSIONS:
            state.traces.sample(events, counted & (bits & self._excluding == 0))
        chosen = counted if self.source in JUDGED_LATER else counted & (bits != 0)
        places = np.flatnonzero(chosen)
        if not len(places):
            return
        at = places.tolist()
        dimensions = [_named(self._all_dimensions(events[i])) for i in at]
        chosen_bits = bits[places]
        state.traces.add(
            [events[i] for i in at],
            Counted(
                [events[i].event_id for i in at],
                np.array([events[i].event_time_ms for i in at], dtype=np.int64),
                chosen_bits,
                chosen_bits & self._excluding,
                [_named(keys[i])[:-1] for i in at],
                dimensions,
                amounts[places],
                [cohorts.get(i, ()) for i in at],
            ),
            state.judge,
            newest[places].tolist(),
            (newest - newest % self.rules.pane_ms)[places].tolist(),
        )

    def _all_dimensions(self, event: Event) -> Names:
        """In the tables' order, those that are not configured empty: rules may change before it is used."""
        return tuple([getattr(event, name) if name in self.rules.dimensions else "" for name in DIMENSIONS])

    def _reject(self, state: InputState, events: Sequence[Event], counted: Flags) -> None:
        for i in np.flatnonzero(counted).tolist():
            event = events[i]
            if event.adjustment_type is AdjustmentType.REJECTED_LEAD:  # type: ignore[attr-defined]
                state.rejections.append(xxhash.xxh3_128_digest(event.adjusted_event_id.encode()))  # type: ignore[attr-defined]

    def _add_users(self, state: InputState, events: Sequence[Event], counted: Flags, report: Block) -> None:
        users = [event.user_id for event in events]
        if None in users:
            counted = counted & np.fromiter((user is not None for user in users), dtype=bool, count=len(users))
        chosen = compress(users, counted.tolist())
        hashes = map(xxhash.xxh3_64_intdigest, map(str.encode, chosen))  # type: ignore[arg-type]
        found = np.fromiter(hashes, dtype=np.uint64, count=int(counted.sum()))
        state.reach.add(Users(report.effect[counted], report.origin[counted], report.key[counted], found))

    def _add_cohorts(
        self,
        state: InputState,
        events: Sequence[Event],
        pays: Flags,
        counted: Flags,
        keys: Sequence[Names],
        effect: Ints,
    ) -> dict[int, tuple[int, ...]]:
        """CVR by click time: the conversion again, by the hour of its click and its age.

        Returns click hour ms, age bucket ms, conversions and value micros, by the event's place.
        """
        found: list[tuple[int, ...]] = []
        cohorts: dict[int, tuple[int, ...]] = {}
        for i in np.flatnonzero(counted).tolist():
            clicked_ms = self._click_time(events[i])
            if clicked_ms is not None:
                age = age_bucket_ms(events[i].event_time_ms - clicked_ms)
                number = state.cohort_keys[(*keys[i], age)]
                value = (events[i].value_micros or 0) if pays[i] else 0  # type: ignore[attr-defined]
                hour_ms = clicked_ms - clicked_ms % HOUR_MS
                found.append((int(effect[i]), hour_ms, number, 1, value))
                cohorts[i] = (hour_ms, age, 1, value)
        if found:
            rows = np.array(found, dtype=np.int64)
            state.cohorts.add(Block(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:]))
        return cohorts

    def _click_time(self, event: Event) -> int | None:
        """When the click was that this conversion is credited to, if it counts towards CVR."""
        assert type(event) is Conversion
        touch = event.attribution
        if (
            event.conversion_type not in self._counting_types
            or touch is None
            or touch.touch_type is not TouchType.CLICK
        ):
            return None
        return touch.touch_time_ms

    def _with_orders(self, events: Sequence[Event], pays: Flags, pane: Block, report: Block) -> tuple[Block, Block]:
        """The amounts again, in the panes of what was adjusted: net value by order date.

        Each stands behind its own event: keys are admitted in offset order, and effect panes never go back.
        """
        chosen = [i for i in np.flatnonzero(pays).tolist() if has_money(events[i])]
        if not chosen:
            return pane, report
        adjusted = [(events[i].adjusted_event_time_ms, events[i].amount_micros) for i in chosen]  # type: ignore[attr-defined]
        at, money = np.array(adjusted, dtype=np.int64).T
        amounts = np.zeros((len(chosen), pane.amounts.shape[1]), dtype=np.int64)
        amounts[:, ADJUSTED_BY_ORDER] = money
        place = np.concatenate((np.arange(len(events)) * 2, np.array(chosen) * 2 + 1))
        order = np.argsort(place, kind="stable")
        blocks = []
        for block, pane_ms in ((pane, self.rules.pane_ms), (report, self.rules.report_pane_ms)):
            again = Block(block.effect[chosen], at - at % pane_ms, block.key[chosen], amounts)
            blocks.append(Block(*(np.concatenate(pair)[order] for pair in zip(block, again, strict=True))))
        return blocks[0], blocks[1]

    def _dead_letter(self, batch: Batch, record: RawRecord, entry: Entry, reason: str, path: str) -> DeadLetter:
        return dead_letter(self.log_epoch, batch, record, entry, reason, path)


def dead_letter(log_epoch: int, batch: Batch, record: RawRecord, entry: Entry, reason: str, path: str) -> DeadLetter:
    """The letter for one record, its bytes bounded."""
    return DeadLetter(
        topic=batch.topic,
        partition=batch.partition,
        offset=record.offset,
        log_epoch=log_epoch,
        timestamp_ms=record.timestamp,
        entry=entry,
        reason=reason,
        path=path,
        key=record.key and record.key[:MAX_LETTER_KEY_BYTES],
        value=record.value and record.value[:MAX_LETTER_BYTES],
        value_bytes=len(record.value or b""),
    )


POISONED: Final = Rejected(Reason.INTERNAL_ERROR)
"""A record on which this code has failed before: rejected, so that it cannot stop the partition."""


def _times(events: Sequence[Event]) -> Ints:
    return np.array([event.event_time_ms for event in events], dtype=np.int64)


def _variants(events: Sequence[Event]) -> list[str | None]:
    """The first experiment and its arm, or None."""
    experiments = [event.experiments for event in events]
    if not any(experiments):
        return [None] * len(events)
    return [f"{taken[0].id}={taken[0].arm}" if taken else None for taken in experiments]


def _named(names: Names) -> Names:
    return tuple(["" if name is None else name for name in names])


def _dimensions_getter(dimensions: Sequence[str]) -> Callable[[Any], Names]:
    if not dimensions:
        return lambda event: ()
    getter = attrgetter(*dimensions)
    return getter if len(dimensions) > 1 else lambda event: (getter(event),)
