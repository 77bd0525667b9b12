"""The hot path: decode, judge, de-duplicate and count the records of one input, in offset order.

Pure, small and flat: nothing here awaits, logs or touches a metric, and what an event adds depends on the records
before it in its own log alone, never on how they were batched.
"""

from collections.abc import Sequence, Set
from operator import attrgetter
from typing import Final

import xxhash

from streams.events import EVENT_TYPES, Conversion, Event, Input, Reason, Rejected, TouchType, Traffic
from streams.ports import RawRecord
from streams.records import DeadLetter, Entry
from streams.rules import HOUR_MS, Rules
from streams.stages.count import (
    ADJUSTED_BY_ORDER,
    DUPLICATES,
    LATE,
    MONEY_REJECTED,
    PRICED,
    SPEND,
    age_bucket_ms,
    count_money,
    has_money,
    make_count,
)
from streams.stages.decode import Decoder
from streams.state.dedupe import PACK_AT, digest_all
from streams.state.grain import Key
from streams.state.inputs import Batch, InputState

NOTHING: Final[Set[int]] = frozenset()


class Intake:
    """Applies batches of one input to its state, under one set of rules."""

    def __init__(self, source: Input, rules: Rules, log_epoch: int) -> None:
        self.source = source
        self.rules = rules
        self.log_epoch = log_epoch
        self._decoder = Decoder(source)
        self._count = make_count(source, rules)
        self._counting_types = frozenset(rules.cvr_conversion_types)
        getter = attrgetter(*rules.dimensions) if rules.dimensions else None
        single = len(rules.dimensions) == 1
        self._dimensions = (lambda e: (getter(e),)) if single and getter else (getter or (lambda _: ()))

    def apply(self, state: InputState, batch: Batch, currencies: dict[str, str], poisoned: Set[int] = NOTHING) -> None:
        """Consumes the batch's whole range. `batch.from_offset` must be the state's position."""
        if batch.from_offset != state.position:
            raise AssertionError(f"a range from {batch.from_offset} does not continue position {state.position}")
        missing = batch.to_offset - batch.from_offset - len(batch.records)
        if missing:
            state.enter(Entry.LOST_RETENTION if batch.is_lost else Entry.NO_RECORD, count=missing)
        if batch.records:
            events = self._decoder.decode_all([record.value for record in batch.records])
            if poisoned:
                events = self._without(poisoned, batch.records, events)
            self._admit(state, batch, events, currencies)
            if len(state.dedupe.fresh) > PACK_AT:
                state.dedupe.pack(state.newest_ms)
        state.position = batch.to_offset

    @staticmethod
    def _without(
        poisoned: Set[int], records: Sequence[RawRecord], events: Sequence[Event | Rejected]
    ) -> Sequence[Event | Rejected]:
        """Records on which this code has failed before: rejected, so that they cannot stop the partition."""
        return [
            Rejected(Reason.INTERNAL_ERROR) if record.offset in poisoned else event
            for record, event in zip(records, events, strict=True)
        ]

    def _admit(  # one loop, flat on purpose: a call an event costs more than its branches
        self, state: InputState, batch: Batch, events: Sequence[Event | Rejected], currencies: dict[str, str]
    ) -> None:
        kind, rules, source = EVENT_TYPES[self.source], self.rules, self.source
        digests = digest_all([event.event_id if type(event) is kind else "" for event in events])  # type: ignore[union-attr]
        dedupe, panes, report = state.dedupe, state.panes, state.report
        found, fresh, buckets, bucket_ms = dedupe.find_packed(digests), dedupe.fresh, dedupe.counts, dedupe.bucket_ms
        count, dimensions, hash_user = self._count, self._dimensions, xxhash.xxh3_64_intdigest
        is_priced, has_users = source in PRICED, source is Input.IMPRESSIONS
        is_conversion, is_adjustment = source is Input.CONVERSIONS, source is Input.ADJUSTMENTS
        pane_ms, report_ms, skew = rules.pane_ms, rules.report_pane_ms, rules.future_skew_ms
        lateness = dedupe.horizon.lateness_ms
        newest, oldest = state.newest_ms, max(state.newest_ms - lateness, dedupe.floor_ms)
        move_at = panes.effect_pane_ms + pane_ms if newest >= 0 else 0
        pane_lookup, report_lookup = panes.lookup, report.lookup
        counted = duplicates = late = 0

        for record, event, digest in zip(batch.records, events, digests, strict=True):
            if type(event) is not kind:
                self._reject(state, batch, record, event)  # type: ignore[arg-type]
                continue
            at = event.event_time_ms
            if at > record.timestamp + skew:
                self._reject(state, batch, record, Rejected(Reason.FUTURE, "$.event_time_ms"))
                continue
            campaign, currency = event.campaign_id, event.currency
            if campaign is None and event.traffic is Traffic.PAID:
                self._reject(state, batch, record, Rejected(Reason.PAID_WITHOUT_CAMPAIGN, "$.campaign_id"))
                continue
            money = event.clearing_price_millimicros if is_priced else has_money(event)  # type: ignore[attr-defined]
            if money and currency is None:
                self._reject(state, batch, record, Rejected(Reason.MONEY_WITHOUT_CURRENCY, "$.currency"))
                continue
            if at > newest:
                newest = at
                oldest = max(newest - lateness, dedupe.floor_ms)
                if at >= move_at:
                    move_at = self._move(state, at)
                    pane_lookup, report_lookup = panes.lookup, report.lookup

            fixed = currencies.get(campaign, currency) if campaign is not None else currency
            ad_unit, creative, experiments = event.ad_unit_id, event.creative_id, event.experiments
            variant = f"{experiments[0].id}={experiments[0].arm}" if experiments else None
            key = (at - at % pane_ms, campaign, ad_unit, creative, variant, fixed)
            pane = pane_lookup.get(key)
            if pane is None:
                pane = panes.start(key)
            report_key = (at - at % report_ms, campaign, ad_unit, creative, variant, fixed, *dimensions(event))
            totals = report_lookup.get(report_key)
            if totals is None:
                totals = report.start(report_key)

            if at < oldest:
                late += 1
                pane[LATE] += 1
                totals[LATE] += 1
                state.dead_letters.append(self._dead_letter(batch, record, Entry.LATE, Entry.LATE.value, "$"))
                continue
            known = fresh.get(digest, -1)
            if known < 0 and found:
                known = found.get(digest, -1)
            if known >= 0 and dedupe.is_live(known, newest):
                duplicates += 1
                pane[DUPLICATES] += 1
                totals[DUPLICATES] += 1
                continue
            bucket = at // bucket_ms
            if bucket not in buckets:
                dedupe.open_bucket(bucket, newest)
                oldest = max(oldest, dedupe.floor_ms)
            buckets[bucket] += 1
            fresh[digest] = bucket

            counted += 1
            count(event, pane, totals)
            if money:
                if currency != fixed:
                    pane[MONEY_REJECTED] += 1
                    totals[MONEY_REJECTED] += 1
                elif is_priced:
                    pane[SPEND] += money
                    totals[SPEND] += money
                else:
                    count_money(event, pane, totals)
            if has_users and event.user_id is not None:
                totals[-1].add(hash_user(event.user_id.encode()))  # type: ignore[attr-defined]
            if is_conversion:
                self._cohort(state, event, key, currency == fixed)
            elif is_adjustment and money and currency == fixed:
                self._adjust_order(state, event, key, report_key)

        state.newest_ms = newest
        for entry, amount in ((Entry.COUNTED, counted), (Entry.DUPLICATE, duplicates), (Entry.LATE, late)):
            if amount:
                state.enter(entry, count=amount)

    def _move(self, state: InputState, newest_ms: int) -> int:
        """The newest event time has left its pane; returns when it will leave the next."""
        effect = newest_ms - newest_ms % self.rules.pane_ms
        state.panes.move_to(effect)
        minute = newest_ms - newest_ms % self.rules.report_pane_ms
        if minute > state.report.effect_pane_ms:
            state.report.move_to(minute)
            state.cohorts.move_to(minute)
        return effect + self.rules.pane_ms

    def _cohort(self, state: InputState, event: Event, key: Key, money_counts: bool) -> None:
        """CVR by click time: the conversion again, by the hour of its click and its age."""
        assert type(event) is Conversion
        touch = event.attribution
        if event.conversion_type not in self._counting_types or touch is None:
            return
        if touch.touch_type is not TouchType.CLICK or touch.touch_time_ms is None:
            return
        hour = touch.touch_time_ms - touch.touch_time_ms % HOUR_MS
        cohort = (hour, *key[1:], age_bucket_ms(event.event_time_ms - touch.touch_time_ms))
        values = state.cohorts.lookup.get(cohort)
        if values is None:
            values = state.cohorts.start(cohort)
        values[0] += 1
        values[1] += (event.value_micros or 0) if money_counts else 0

    def _adjust_order(self, state: InputState, event: Event, key: Key, report_key: Key) -> None:
        """The amount again, in the pane of what was adjusted: net value by order date."""
        at: int = event.adjusted_event_time_ms  # type: ignore[attr-defined]
        amount: int = event.amount_micros  # type: ignore[attr-defined]
        pane = state.panes.start((at - at % self.rules.pane_ms, *key[1:]))
        report = state.report.start((at - at % self.rules.report_pane_ms, *report_key[1:]))
        pane[ADJUSTED_BY_ORDER] += amount
        report[ADJUSTED_BY_ORDER] += amount

    def _reject(self, state: InputState, batch: Batch, record: RawRecord, rejected: Rejected) -> None:
        state.enter(Entry.REJECTED, rejected.reason.value)
        letter = self._dead_letter(batch, record, Entry.REJECTED, rejected.reason.value, rejected.path)
        state.dead_letters.append(letter)

    def _dead_letter(self, batch: Batch, record: RawRecord, entry: Entry, reason: str, path: str) -> DeadLetter:
        return DeadLetter(
            topic=batch.topic,
            partition=batch.partition,
            offset=record.offset,
            log_epoch=self.log_epoch,
            timestamp_ms=record.timestamp,
            entry=entry,
            reason=reason,
            path=path,
            key=record.key,
            value=record.value,
        )
