"""The state of one partition: everything that its logs have come to, and what a tick makes of it.

`apply` consumes ranges of one input each; `tick` looks across inputs and yields what goes out. Both are pure: the
same ranges and the same ticks give the same rows, whoever runs them, live, in recovery or in a replay.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from streams.campaigns import decode_campaign
from streams.events import Input, Reason, Rejected
from streams.records import DECISION_KEY, DIMENSIONS, MEASURES, MEASURES_OF, OFFSET_OF, DeadLetter, Entry, Row, Table
from streams.rules import LIMIT, Rules
from streams.stages.count import BASE, SPEND, index_of
from streams.stages.intake import NOTHING, Intake, dead_letter
from streams.state.campaigns import CampaignBook
from streams.state.grain import Changed
from streams.state.inputs import Batch, InputState, LedgerKey
from streams.state.journal import Tick
from streams.state.windows import WINDOW_INDEX, Amounts, Windows
from streams.topics import CAMPAIGNS, INPUT_TOPICS, partition_of

TOPICS: Final[tuple[str, ...]] = (*INPUT_TOPICS.values(), CAMPAIGNS)
"""What a partition reads, by topic."""
INPUT_OF: Final = {topic: source for source, topic in INPUT_TOPICS.items()}
MAX_ROUTED: Final = 100_000
"""Campaigns whose partition has been checked; beyond it the memory of them starts anew."""
VALID: Final = "valid"
CATCH_UP_FACTOR: Final = 6
"""While a partition catches up, an open report pane is published this much more rarely; a closed one as ever."""


class Output(msgspec.Struct):
    """What a tick gives out. Rows lack their version, which is the tick's place in the journal."""

    rows: dict[Table, list[Row]]
    dead_letters: list[DeadLetter]


class PartitionState:
    """One partition's state. `partitions` is the count of the input topics, to see misrouted campaigns."""

    def __init__(self, partition: int, partitions: int, log_epoch: int, rules: Rules) -> None:
        self.partition = partition
        self.partitions = partitions
        self.log_epoch = log_epoch
        self.rules = rules
        self.campaigns = CampaignBook()
        self.campaigns_start = self.campaigns_position = 0
        self.campaign_ledger: dict[LedgerKey, int] = {}
        self._published_campaign_ledger: dict[LedgerKey, int] = {}
        self.inputs = {source: InputState(source, rules) for source in Input}
        self.windows = Windows(rules.pane_ms)
        self.seq = 0
        self.rules_seq = 0
        self.misrouted = 0
        self.poisoned: dict[str, set[int]] = {}
        self._reported_ms = 0
        self._routed: set[str] = set()
        self._letters: list[DeadLetter] = []
        self._compile()

    def _compile(self) -> None:
        self._intakes = {source: Intake(source, self.rules, self.log_epoch) for source in Input}
        self._fingerprint = self.rules.fingerprint()
        self._dimension_places = {d: at for at, d in enumerate(self.rules.dimensions)}

    def begin_at(self, starts: dict[str, int]) -> None:
        """The first offsets ever, by topic."""
        for topic, source in INPUT_OF.items():
            self.inputs[source].begin_at(starts.get(topic, 0))
        self.campaigns_start = self.campaigns_position = starts.get(CAMPAIGNS, 0)

    def position(self, topic: str) -> int:
        """The next offset of a topic."""
        return self.campaigns_position if topic == CAMPAIGNS else self.inputs[INPUT_OF[topic]].position

    def positions(self) -> dict[str, int]:
        """The next offset by topic."""
        return {topic: self.position(topic) for topic in TOPICS}

    def apply(self, batch: Batch) -> None:
        """Consumes one range of one topic; it must continue the topic's position."""
        if batch.topic == CAMPAIGNS:
            self._apply_campaigns(batch)
            return
        source = INPUT_OF[batch.topic]
        poisoned = self.poisoned.get(batch.topic, NOTHING)
        self._intakes[source].apply(self.inputs[source], batch, self.campaigns.currencies, poisoned)

    def _apply_campaigns(self, batch: Batch) -> None:
        for record in batch.records:
            poisoned = record.offset in self.poisoned.get(batch.topic, NOTHING)
            settings = Rejected(Reason.INTERNAL_ERROR) if poisoned else decode_campaign(record.value)
            if isinstance(settings, Rejected):
                self._campaign_entry(Entry.REJECTED, settings.reason.value)
                reason, path = settings.reason.value, settings.path
                self._letters.append(dead_letter(self.log_epoch, batch, record, Entry.REJECTED, reason, path))
            else:
                self._campaign_entry(Entry.COUNTED)
                self.campaigns.stage(settings, record.timestamp)
        missing = batch.to_offset - batch.from_offset - len(batch.records)
        if missing:
            entry = Entry.LOST_RETENTION if batch.is_lost else Entry.NO_RECORD
            self._campaign_entry(entry, count=missing)
        self.campaigns_position = batch.to_offset

    def _campaign_entry(self, entry: Entry, reason: str = "", count: int = 1) -> None:
        key = (entry.value, reason)
        self.campaign_ledger[key] = self.campaign_ledger.get(key, 0) + count

    def tick(self, tick: Tick) -> Output:
        """Looks across the inputs, which must stand where the tick says. The tick's rules hold afterwards."""
        if self.positions() != tick.applied:
            raise AssertionError(f"positions {self.positions()} are not those of the tick, {tick.applied}")
        self.seq = tick.seq
        if tick.rules and tick.seq == 1:
            self._change_rules(tick.rules, tick.seq)
        rows: dict[Table, list[Row]] = {table: [] for table in Table}
        self._advance_windows()
        self._take_settings(rows, tick.wall_ms)
        report_due = self._is_report_time(tick.wall_ms, tick.is_catching_up)
        for state in self.inputs.values():
            self._fold_panes(state, rows[Table.PANES])
            closed = state.report.has_closed_pane(state.newest_ms) or state.cohorts.has_closed_pane(state.newest_ms)
            if report_due or tick.rules or closed:
                self._fold_reports(state, rows)
            state.tidy()
            rows[Table.LEDGER].extend(self._ledger_rows(state))
        rows[Table.LEDGER].extend(self._campaign_ledger_rows())
        if report_due:
            self._reported_ms = tick.wall_ms
        letters = self._take_letters()
        self._forget_poisoned()
        if tick.rules and tick.seq > 1:
            self._change_rules(tick.rules, tick.seq)
        return Output({table: found for table, found in rows.items() if found}, letters)

    def _is_report_time(self, wall_ms: int, is_catching_up: bool) -> bool:
        every_ms = self.rules.report_every_ms * (CATCH_UP_FACTOR if is_catching_up else 1)
        phase_ms = every_ms * self.partition // self.partitions  # partitions take turns
        return (wall_ms + phase_ms) // every_ms != (self._reported_ms + phase_ms) // every_ms

    def has_report_due(self, wall_ms: int, is_catching_up: bool) -> bool:
        """Whether a tick at this time would publish report rows that wait."""
        waits = any(not state.report.is_clean or not state.cohorts.is_clean for state in self.inputs.values())
        return waits and self._is_report_time(wall_ms, is_catching_up)

    def _advance_windows(self) -> None:
        newest = self._newest_ms()
        if newest >= 0:
            self.windows.advance(newest)

    def _newest_ms(self) -> int:
        return max(state.newest_ms for state in self.inputs.values())

    def _take_settings(self, rows: dict[Table, list[Row]], wall_ms: int) -> None:
        newest_ms = self._newest_ms()
        now_ms = newest_ms if newest_ms >= 0 else wall_ms  # before the first event, the tick's own time
        accepted, in_force = self.campaigns.activate(self.rules.pane_ms, now_ms)
        rows[Table.CAMPAIGNS] = [self.campaigns.row(version) for version in accepted]
        for version in in_force:
            self.windows.zones[version.settings.campaign_id] = version.settings.time_zone

    def _fold_panes(self, state: InputState, rows: list[Row]) -> None:
        prefix = (*self._prefix(state), state.panes.pane_ms, self.rules_seq)
        before, after = _PADDING[state.source]
        last = (self._fingerprint,)
        changes: list[Changed] = []
        for effect_ms, changed in state.panes.fold():
            effect = effect_ms // 1000
            rows.extend(
                [
                    (*prefix, origin // 1000, effect, *names, VALID, *(t[:BASE] + before + t[BASE:] + after), *last)
                    for (origin, *names), t, _ in changed
                ]
            )
            changes.extend(changed)
        if changes and WINDOW_PLACES[state.source]:
            self._add_to_windows(*self._moved(state.source, changes))

    def _moved(self, source: Input, changes: list[Changed]) -> tuple[list[tuple[str, int]], Amounts]:
        """What this tick adds, by (campaign, origin pane ms): a row of sums in the order of WINDOW_MEASURES each.

        Spend in another currency than the campaign's is left out.
        """
        places, indices = (list(part) for part in zip(*WINDOW_PLACES[source], strict=True))
        known: dict[tuple[str, int], int] = {}
        at = np.array([known.setdefault((key[1], key[0]), len(known)) for key, _, _ in changes])
        added = np.array([delta for _, _, delta in changes], dtype=np.int64)
        spends = np.flatnonzero(added[:, SPEND]).tolist()
        foreign = [row for row in spends if self._is_foreign(changes[row][0][1], changes[row][0][5])]
        added[foreign, SPEND] = 0
        order = np.argsort(at, kind="stable")
        starts = np.flatnonzero(np.diff(at[order], prepend=-1))
        chosen: Amounts = added[order][:, places]
        if int(np.abs(chosen).max()) > LIMIT // len(chosen):  # a sum might not fit: exact, and slow
            chosen = chosen.astype(object)
        sums = np.zeros((len(known), len(WINDOW_INDEX)), dtype=chosen.dtype)
        sums[:, indices] = np.add.reduceat(chosen, starts, axis=0)
        return list(known), sums

    def _add_to_windows(self, moved: list[tuple[str, int]], sums: Amounts) -> None:
        """The one place where a tick's additions of an input are known by campaign (organic traffic has none: '')."""
        paid = [at for at, (campaign, _) in enumerate(moved) if campaign]
        if len(paid) < len(moved):
            moved, sums = [moved[at] for at in paid], sums[paid]
        for campaign, _ in moved:
            if campaign not in self._routed:
                self._check_route(campaign)
        self.windows.add_all(moved, sums)

    def _is_foreign(self, campaign: str, currency: str) -> bool:
        """Whether this is not the currency of the campaign's windows: currencies are never summed."""
        if not campaign:
            return False
        own = self.campaigns.currencies.get(campaign) or self.windows.currencies.get(campaign)
        if own is None and self.windows.takes(campaign):
            own = self.windows.currencies[campaign] = currency
        return own != currency

    def _prefix(self, state: InputState) -> Row:
        return (self.log_epoch, state.source.value, self.partition)

    def _check_route(self, campaign: str) -> None:
        """A campaign seen in a partition that its key does not lead to: counted, and alarmed on."""
        if campaign in self._routed or not campaign:
            return
        if len(self._routed) >= MAX_ROUTED:
            self._routed.clear()
        self._routed.add(campaign)
        if partition_of(campaign, self.partitions) != self.partition:
            self.misrouted += 1

    def _fold_reports(self, state: InputState, rows: dict[Table, list[Row]]) -> None:
        prefix = (*self._prefix(state), state.report.pane_ms, self.rules_seq)
        before, after = _PADDING[state.source]
        last = self._fingerprint
        reports, reach = rows[Table.REPORTS], state.reach
        width = len(DECISION_KEY) - 1
        wide: dict[Row, Row] = {}
        state.report_revision += not state.report.is_clean
        for effect_ms, changed in state.report.fold():
            reach.fold(effect_ms, state.report)
            effect = effect_ms // 1000
            for key, totals, _ in changed:
                origin, names, dimensions = key[0], key[1 : width + 1], key[width + 1 :]
                spread = wide.get(dimensions)
                if spread is None:
                    spread = wide[dimensions] = self._all_dimensions(dimensions)
                own = totals[:BASE] + before + totals[BASE:] + after
                users = reach.totals.get(key, ())
                reports.append((*prefix, origin // 1000, effect, *names, VALID, *spread, *own, users, last))
        for effect_ms, changed in state.cohorts.fold():
            for (hour, *cohort_names, age_ms), totals, _ in changed:
                cohort = (*prefix, effect_ms // 1000, *cohort_names, VALID, hour // 1000, age_ms)
                rows[Table.COHORTS].append((*cohort, *totals, self._fingerprint))

    def _all_dimensions(self, values: Row) -> Row:
        """The configured dimensions in their places, the others empty."""
        places = self._dimension_places
        return tuple([values[places[d]] if d in places else "" for d in DIMENSIONS])

    def _ledger_rows(self, state: InputState) -> Iterator[Row]:
        for (entry, reason), count in state.changed_ledger():
            yield (*self._prefix(state), entry, reason, count)

    def _campaign_ledger_rows(self) -> Iterator[Row]:
        consumed = {("consumed", ""): self.campaigns_position - self.campaigns_start}
        now = {**self.campaign_ledger, **consumed}
        for key, count in now.items():
            if self._published_campaign_ledger.get(key) != count:
                yield (self.log_epoch, "campaigns", self.partition, *key, count)
        self._published_campaign_ledger = now

    def _take_letters(self) -> list[DeadLetter]:
        letters, self._letters = self._letters, []
        for state in self.inputs.values():
            letters.extend(state.dead_letters)
            state.dead_letters = []
        return letters

    def _forget_poisoned(self) -> None:
        """What has been passed needs no memory: a checkpoint from here on never comes back to it."""
        ahead = {t: {o for o in offsets if o >= self.position(t)} for t, offsets in self.poisoned.items()}
        self.poisoned = {topic: offsets for topic, offsets in ahead.items() if offsets}

    def _change_rules(self, rules: Rules, seq: int) -> None:
        """Everything has been folded. At the first tick there are no events yet, and so no rules that were in force."""
        self.rules, self.rules_seq = rules, seq
        for source, state in self.inputs.items():
            if seq == 1:
                begin = state.position
                state = self.inputs[source] = InputState(source, rules)
                state.begin_at(begin)
            state.change_rules(rules)
        if rules.pane_ms != self.windows.pane_ms:
            zones, self.windows = self.windows.zones, Windows(rules.pane_ms)
            self.windows.zones = zones
        self._compile()

    def snapshot(self) -> dict[str, object]:
        """The partition's own part, as plain values; inputs, windows and settings are segments of their own."""
        return {
            "seq": self.seq,
            "rules": msgspec.to_builtins(self.rules),
            "rules_seq": self.rules_seq,
            "misrouted": self.misrouted,
            "reported_ms": self._reported_ms,
            "poisoned": [(topic, sorted(offsets)) for topic, offsets in self.poisoned.items()],
            "campaigns_start": self.campaigns_start,
            "campaigns_position": self.campaigns_position,
            "campaign_ledger": list(self.campaign_ledger.items()),
            "published_campaign_ledger": list(self._published_campaign_ledger.items()),
            "campaigns": self.campaigns.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; call before the inputs and windows are restored."""
        self.rules = msgspec.convert(snapshot["rules"], Rules)
        self.rules_seq = snapshot["rules_seq"]
        self.inputs = {source: InputState(source, self.rules) for source in Input}
        self.seq, self.misrouted = snapshot["seq"], snapshot["misrouted"]
        self._reported_ms = snapshot["reported_ms"]
        self.poisoned = {topic: set(offsets) for topic, offsets in snapshot["poisoned"]}
        self.campaigns_start = snapshot["campaigns_start"]
        self.campaigns_position = snapshot["campaigns_position"]
        self.campaign_ledger = {(e, r): n for (e, r), n in snapshot["campaign_ledger"]}
        self._published_campaign_ledger = {(e, r): n for (e, r), n in snapshot["published_campaign_ledger"]}
        self.campaigns.restore(snapshot["campaigns"])
        self.windows = Windows(self.rules.pane_ms)
        self._compile()

    def restore_windows(self, snapshot: dict[str, Any]) -> None:
        """Takes back the windows; the settings must be there already."""
        self.windows.restore(snapshot)
        self.windows.zones = self.campaigns.zones


_PADDING: Final = {
    source: ([0] * (OFFSET_OF[source] - BASE), [0] * (len(MEASURES) - OFFSET_OF[source] - len(MEASURES_OF[source])))
    for source in Input
}


def _window_places(source: Input) -> list[tuple[int, int]]:
    """(place in the input's values, place in WINDOW_MEASURES)."""
    own = [(index_of(source, m), WINDOW_INDEX[m]) for m in MEASURES_OF[source] if m in WINDOW_INDEX]
    return [*own, (SPEND, WINDOW_INDEX["spend_millimicros"])]


WINDOW_PLACES: Final = {source: _window_places(source) for source in Input}
