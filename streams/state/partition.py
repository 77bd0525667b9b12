"""The state of one partition: everything that its logs have come to, and what a tick makes of it.

`apply` consumes ranges of one input each; `tick` looks across inputs and yields what goes out. Both are pure: the
same ranges and the same ticks give the same rows, whoever runs them, live, in recovery or in a replay.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import add
from typing import Any, Final

import msgspec

from streams.blocks import MEASURED, Blocks, RowBlock
from streams.campaigns import decode_campaign
from streams.events import Input
from streams.records import COMMON, DECISION_KEY, DIMENSIONS, MEASURES, MEASURES_OF, VALID, DeadLetter, Row, Table
from streams.rules import Rules
from streams.signals import Signal, decode_allowance, decode_session
from streams.stages.count import CREDITED, SPEND
from streams.stages.intake import NOTHING, Intake
from streams.stages.pacing.facts import Added
from streams.state.additions import WINDOW_PLACES, added
from streams.state.campaigns import CampaignBook
from streams.state.credits import Billed, Credits
from streams.state.effects import JOURNAL_INPUT, Effect, Effected, Effects, credit, spread
from streams.state.flags import Move
from streams.state.forwarding import Forwarded
from streams.state.grain import Changed
from streams.state.inputs import DIMENSION_BITS, DIMENSION_MASK, Batch, InputState
from streams.state.journal import Tick
from streams.state.judging import Judged, JudgingDesk
from streams.state.keys import Names
from streams.state.live_sessions import refusal
from streams.state.notices import NoticeInput
from streams.state.pacing import Looked, PacingDesk, World
from streams.state.silence import UsualRates
from streams.state.windows import WINDOW_INDEX, Amounts, Windows
from streams.topics import (
    ALLOWANCES,
    CAMPAIGNS,
    EVIDENCE,
    INPUT_TOPICS,
    READ_TOPICS,
    SESSIONS,
    VERDICTS,
    partition_of,
)
from streams.verdicts import Flag, Verdict, decode_evidence, decode_word

TOPICS: Final = READ_TOPICS
INPUT_OF: Final = {topic: source for source, topic in INPUT_TOPICS.items()}
MAX_ROUTED: Final = 100_000
"""Campaigns whose partition has been checked; beyond it the memory of them starts anew."""
CATCH_UP_FACTOR: Final = 6
"""While a partition catches up, an open report pane is published this much more rarely; a closed one as ever."""


class Output(msgspec.Struct):
    """What a tick gives out. Rows lack their version, which is the tick's place in the journal."""

    rows: dict[Table, Sequence[Row]]
    """Those of measured tables are `Blocks`."""
    dead_letters: list[DeadLetter]
    signals: list[Signal | Flag | Verdict | Forwarded] = msgspec.field(default_factory=list)
    """What others are told, in order; without the sequence, which is the tick's place as well."""


class PartitionState:
    """One partition's state. `partitions` is the count of the input topics, to see misrouted campaigns."""

    def __init__(self, partition: int, partitions: int, log_epoch: int, rules: Rules) -> None:
        self.partition = partition
        self.partitions = partitions
        self.log_epoch = log_epoch
        self.rules = rules
        self.campaigns = CampaignBook()
        self.desk = PacingDesk(partition, log_epoch)
        self.judging = JudgingDesk(partition, partitions, log_epoch, rules)
        self.notices: dict[str, NoticeInput[Any]] = {
            CAMPAIGNS: NoticeInput("campaigns", decode_campaign, self.campaigns.stage),
            SESSIONS: NoticeInput("sessions", decode_session, self.desk.stage_session),
            ALLOWANCES: NoticeInput("allowances", decode_allowance, self.desk.stage_allowance),
            EVIDENCE: NoticeInput("evidence", decode_evidence, self.judging.stage_evidence),
            VERDICTS: NoticeInput("verdicts", decode_word, self.judging.stage_word),
        }
        self.inputs = {source: InputState(source, rules) for source in Input}
        self.windows = Windows(rules.pane_ms)
        self.credits = Credits()
        self.effects = Effects(rules)
        self.seq = 0
        self.rules_seq = 0
        self.misrouted = 0
        self.poisoned: dict[str, set[int]] = {}
        self.rates = UsualRates()
        self._additions: list[tuple[list[tuple[str, int]], Amounts]] = []
        """What the running tick adds: of each input (campaign, origin pane ms), and sums as the windows get them."""
        self._corrected: list[tuple[str, Added]] = []
        """What the running tick corrects, by campaign."""
        self._reported_ms = 0
        self._was_catching_up = False
        self._routed: set[str] = set()
        self._letters: list[DeadLetter] = []
        self._compile()

    def _compile(self) -> None:
        self._intakes = {source: Intake(source, self.rules, self.log_epoch) for source in Input}
        self._fingerprint = self.rules.fingerprint()
        self._dimension_places = {d: at for at, d in enumerate(self.rules.dimensions)}
        # Nothing in a state refers back to it: one that is given up goes at once, and not when cycles are looked for.
        self.notices[SESSIONS].refuse = partial(refusal, skew_ms=self.rules.future_skew_ms)

    def begin_at(self, starts: dict[str, int]) -> None:
        """The first offsets ever, by topic."""
        for topic, source in INPUT_OF.items():
            self.inputs[source].begin_at(starts.get(topic, 0))
        for topic, notice in self.notices.items():
            notice.begin_at(starts.get(topic, 0))

    def position(self, topic: str) -> int:
        """The next offset of a topic."""
        notice = self.notices.get(topic)
        return notice.position if notice is not None else self.inputs[INPUT_OF[topic]].position

    def positions(self) -> dict[str, int]:
        """The next offset by topic."""
        return {topic: self.position(topic) for topic in TOPICS}

    def apply(self, batch: Batch) -> None:
        """Consumes one range of one topic; it must continue the topic's position."""
        poisoned = self.poisoned.get(batch.topic, NOTHING)
        notice = self.notices.get(batch.topic)
        if notice is not None:
            self._letters.extend(notice.apply(batch, self.log_epoch, poisoned))
            return
        source = INPUT_OF[batch.topic]
        self._intakes[source].apply(self.inputs[source], batch, self.campaigns, poisoned)

    def tick(self, tick: Tick) -> Output:
        """Looks across the inputs, which must stand where the tick says. The tick's rules hold afterwards."""
        if self.positions() != tick.applied:
            raise AssertionError(f"positions {self.positions()} are not those of the tick, {tick.applied}")
        self.seq = tick.seq
        if tick.rules and tick.seq == 1:
            self._change_rules(tick.rules, tick.seq)
        self._additions = []
        rows: dict[Table, list[Row]] = {table: [] for table in Table if table not in MEASURED}
        blocks: dict[Table, list[RowBlock]] = {table: [] for table in MEASURED}
        self._advance_windows()
        unknown = self._unknown(tick)
        self._take_settings(rows, tick, unknown)
        report_due = self._is_report_time(tick.wall_ms, tick.is_catching_up)
        for state in self.inputs.values():
            self._fold_panes(state, blocks[Table.PANES])
        judged = self._judge(tick, rows, blocks)
        self._tell_desk()
        for state in self.inputs.values():
            closed = state.report.has_closed_pane(state.newest_ms) or state.cohorts.has_closed_pane(state.newest_ms)
            if report_due or tick.rules or closed:
                self._fold_reports(state, blocks[Table.REPORTS], rows[Table.COHORTS])
            state.tidy()
            rows[Table.LEDGER].extend(self._ledger_rows(state))
        for notice in self.notices.values():
            rows[Table.LEDGER].extend(notice.ledger_rows(self.log_epoch, self.partition))
        if report_due:
            self._reported_ms = tick.wall_ms
        self._was_catching_up = tick.is_catching_up
        looked = self._look(tick, unknown)
        rows.update(looked.rows)
        self.judging.tidy(self.inputs, self.newest_ms())
        letters = self._take_letters()
        self._forget_poisoned()
        if tick.rules and tick.seq > 1:
            self._change_rules(tick.rules, tick.seq)
        told = [*looked.alerts, *looked.controls, *looked.reports]
        signals: list[Any] = [*told, *judged.flags, *judged.verdicts, *judged.forwarded]
        measured = {table: Blocks(parts) for table, parts in blocks.items()}
        return Output({table: found for table, found in {**rows, **measured}.items() if found}, letters, signals)

    def _is_report_time(self, wall_ms: int, is_catching_up: bool) -> bool:
        if self._was_catching_up and not is_catching_up:
            return True  # nobody waits for what was caught up with
        every_ms = self.rules.report_every_ms * (CATCH_UP_FACTOR if is_catching_up else 1)
        phase_ms = every_ms * self.partition // self.partitions  # partitions take turns
        return (wall_ms + phase_ms) // every_ms != (self._reported_ms + phase_ms) // every_ms

    def has_something_due(self, wall_ms: int, is_catching_up: bool) -> bool:
        """Whether a tick at this time would look at a campaign, or publish report rows that wait."""
        if self.desk.has_look_due(wall_ms) or self.judging.has_something_due(wall_ms):
            return True
        waits = any(not state.report.is_clean or not state.cohorts.is_clean for state in self.inputs.values())
        return waits and self._is_report_time(wall_ms, is_catching_up)

    def _advance_windows(self) -> None:
        newest = self.newest_ms()
        if newest >= 0:
            self.windows.advance(newest)

    def newest_ms(self) -> int:
        """The newest event time of all inputs; -1 before the first event. No row is of a later time."""
        return max(state.newest_ms for state in self.inputs.values())

    def _take_settings(self, rows: dict[Table, list[Row]], tick: Tick, unknown: frozenset[Input]) -> None:
        newest_ms, wall_ms = self.newest_ms(), tick.wall_ms
        now_ms = self.desk.time_ms(newest_ms, wall_ms, unknown, tick.is_catching_up)
        now_ms = now_ms if newest_ms >= 0 else wall_ms  # before the first event, the tick's own time
        accepted, changes = self.campaigns.activate(self.rules.pane_ms, now_ms, newest_ms)
        rows[Table.CAMPAIGNS] = [self.campaigns.row(version) for version in accepted]
        self.desk.take_staged()
        for before, after in changes:
            self.windows.zones[after.settings.campaign_id] = after.settings.time_zone
            self.desk.settings_changed(before, after, now_ms, wall_ms, self.campaigns.current)

    def _fold_panes(self, state: InputState, blocks: list[RowBlock]) -> None:
        head = (*self._prefix(state), state.panes.pane_ms, self.rules_seq)
        names_of, measures = state.keys.names.__getitem__, _COLUMNS[state.source]
        changes: list[tuple[Changed, list[Names]]] = []
        for effect_ms, changed in state.panes.fold():
            names = list(map(names_of, changed.key.tolist()))
            columns = (changed.origin // 1000, effect_ms // 1000, names, None, measures, changed.totals, None)
            blocks.append(RowBlock(Table.PANES, head, *columns, self._fingerprint))
            changes.append((changed, names))
        if changes and WINDOW_PLACES[state.source]:
            self._add_to_windows(*added(state.source, changes, self._is_foreign))

    def _add_to_windows(self, moved: list[tuple[str, int]], sums: Amounts) -> None:
        """The one place where a tick's additions of an input are known by campaign (organic traffic has none: '')."""
        paid = [at for at, (campaign, _) in enumerate(moved) if campaign]
        if len(paid) < len(moved):
            moved, sums = [moved[at] for at in paid], sums[paid]
        for campaign, _ in moved:
            if campaign not in self._routed:
                self._check_route(campaign)
        self.windows.add_all(moved, sums)
        self._additions.append((moved, sums))

    def _judge(self, tick: Tick, rows: dict[Table, list[Row]], blocks: dict[Table, list[RowBlock]]) -> Judged:
        """What moves between validities and what is given back, as rows of the journal, and in windows and pacing."""
        judged = self.judging.look(self.inputs, self.rules, tick)
        rows[Table.FLAGS], rows[Table.RISKS] = judged.rows, judged.risks
        effects = [effect for move in judged.moves for effect in self._moved_effects(move)]
        effects.extend(self._give_back())
        prefix = (self.log_epoch, JOURNAL_INPUT, self.partition)
        for effected in self.effects.apply(effects, self.newest_ms()):
            head = (*prefix, self.effects.pane_ms(effected.table), self.rules_seq)
            if effected.table is Table.COHORTS:
                rows[Table.COHORTS].extend(self._effect_cohorts(head, effected))
            else:
                blocks[effected.table].append(self._effect_block(head, effected))
        return judged

    def _effect_block(self, head: Row, effected: Effected) -> RowBlock:
        changed, width = effected.changed, len(DECISION_KEY)
        names = [key[:width] for key in effected.names]
        dimensions = [key[width:] for key in effected.names] if effected.table is Table.REPORTS else None
        columns = (changed.origin // 1000, effected.effect_ms // 1000, names, dimensions, MEASURES, changed.totals)
        return RowBlock(effected.table, head, *columns, None, self._fingerprint)

    def _effect_cohorts(self, head: Row, effected: Effected) -> Iterator[Row]:
        changed = effected.changed
        for hour, (*names, age_ms), totals in zip(
            changed.origin.tolist(), effected.names, changed.totals.tolist(), strict=True
        ):
            yield (*head, effected.effect_ms // 1000, *names, hour // 1000, age_ms, *totals, self._fingerprint)

    def _moved_effects(self, move: Move) -> list[Effect]:
        """What an event had added, out of one validity and into another."""
        event, found = move.event, []
        given = self.credits.given(event.digest, event.at_ms) if move.source is Input.CONVERSIONS else 0
        for validity, sign in ((move.before, -1), (move.after, 1)):
            amounts = list(event.amounts)
            amounts[CREDITED] += given
            cohort = (*event.cohort[:2], *(sign * each for each in event.cohort[2:]))
            measures = spread(move.source, amounts, sign)
            found.append(Effect(event.at_ms, event.names, validity.value, event.dimensions, measures, cohort))
            if validity.value == VALID and event.names[0]:  # organic traffic has no windows, and no spend
                self._correct(move, sign, given)
        return found

    def _correct(self, move: Move, sign: int, given: int) -> None:
        """Windows, pacing and cohorts: an event has become valid (sign 1) or is no longer."""
        event, campaign = move.event, move.event.names[0]
        cost = 0 if self._is_foreign(campaign, event.names[4]) else event.amounts[SPEND] - given
        origin = event.at_ms - event.at_ms % self.rules.pane_ms
        values = [(at, sign * event.amounts[place]) for place, at in WINDOW_PLACES[move.source] if at != _SPENT]
        self.windows.add(campaign, origin, [*values, (_SPENT, sign * cost)])
        sums = dict(values)
        shown, plays, clicks, conversions = (sums.get(at, 0) for at in _ADDED[:-1])
        self._corrected.append((campaign, Added(origin, shown, plays, clicks, conversions, 0, -sign * cost)))
        if event.cohort:
            self.desk.add_cohort(campaign, event.cohort[0], event.cohort[1], sign * event.cohort[2])

    def _give_back(self) -> list[Effect]:
        """Credits what has been billed and rejected."""
        conversions, adjustments = self.inputs[Input.CONVERSIONS], self.inputs[Input.ADJUSTMENTS]
        horizon_ms = self.rules.horizons[Input.ADJUSTMENTS].dedupe_ms
        found = self.credits.match(conversions.billed, adjustments.rejections, self.newest_ms(), horizon_ms)
        self.credits.forget_given(conversions.traces.recent.floor_ms)
        conversions.billed, adjustments.rejections = [], []
        return [self._credit(billed) for billed in found]

    def _credit(self, billed: Billed) -> Effect:
        validity = self.judging.book.validity(Input.CONVERSIONS, billed.digest, billed.at_ms, billed.validity)
        if validity == VALID:  # otherwise it is not spent any more
            campaign, origin = billed.names[0], billed.at_ms - billed.at_ms % self.rules.pane_ms
            self.windows.add(campaign, origin, [(_SPENT, -billed.cost_millimicros)])
            self._corrected.append((campaign, Added(origin, 0, 0, 0, 0, 0, billed.cost_millimicros)))
        return Effect(billed.at_ms, billed.names, validity, billed.dimensions, credit(billed.cost_millimicros))

    def _tell_desk(self) -> None:
        """What this tick has added to its campaigns, by origin pane."""
        free: dict[int, int] = {}
        added: dict[tuple[str, int], list[int]] = {}
        for moved, sums in self._additions:
            for place, row in zip(moved, sums[:, _ADDED].tolist(), strict=True):
                if place[0] in self.desk.held:
                    into = added.get(place)
                    added[place] = row if into is None else list(map(add, into, row))
                else:
                    free[place[1]] = free.get(place[1], 0) + row[0]
        self._additions = []
        settings = self.campaigns.current
        for (campaign, origin), amounts in added.items():
            self.desk.add(campaign, Added(origin, *amounts), settings)
            self.desk.add_traffic(campaign, origin, amounts[0], settings)
        for campaign, correction in self._corrected:
            self.desk.add(campaign, correction, settings)
        self._corrected = []
        for origin, impressions in free.items():
            self.desk.add_traffic("", origin, impressions, settings)

    def _unknown(self, tick: Tick) -> frozenset[Input]:
        consumed = {source: state.consumed() for source, state in self.inputs.items()}
        silent = [INPUT_OF[topic] for topic in tick.silent if topic in INPUT_OF]
        return self.rates.unknown(tick.wall_ms, consumed, silent, tick.is_catching_up)

    def _look(self, tick: Tick, unknown: frozenset[Input]) -> Looked:
        heard = {source: state.newest_ms for source, state in self.inputs.items()}
        world = World(
            now_ms=self.newest_ms(),
            wall_ms=tick.wall_ms,
            unknown=unknown,
            alarming=self.rates.alarming(unknown),
            last_heard=heard,
            is_catching_up=tick.is_catching_up,
            settings=self.campaigns.current,
            windows=self.windows,
        )
        return self.desk.look(world)

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

    def _fold_reports(self, state: InputState, blocks: list[RowBlock], cohorts: list[Row]) -> None:
        head = (*self._prefix(state), state.report.pane_ms, self.rules_seq)
        state.report_revision += not state.report.is_clean
        dimensions_of = state.dimensions.names
        for effect_ms, changed in state.report.fold():
            state.reach.fold(effect_ms, state.report)
            names = list(map(state.keys.names.__getitem__, (changed.key >> DIMENSION_BITS).tolist()))
            numbers = (changed.key & DIMENSION_MASK).tolist()
            spread = {number: self._all_dimensions(dimensions_of[number]) for number in set(numbers)}
            dimensions = list(map(spread.__getitem__, numbers))
            columns = (changed.origin // 1000, effect_ms // 1000, names, dimensions, _COLUMNS[state.source])
            users = state.reach.of(changed.origin, changed.key)
            blocks.append(RowBlock(Table.REPORTS, head, *columns, changed.totals, users, self._fingerprint))
        head = (*self._prefix(state), state.cohorts.pane_ms, self.rules_seq)
        for effect_ms, changed in state.cohorts.fold():
            rows = zip(*(column.tolist() for column in changed), strict=True)
            for hour, number, totals, new in rows:
                *names_of, age_ms = state.cohort_keys.names[number]
                if names_of[_VALIDITY] == VALID:
                    self.desk.add_cohort(names_of[0], hour, age_ms, new[0])
                cohort = (*head, effect_ms // 1000, *names_of, hour // 1000, age_ms)
                cohorts.append((*cohort, *totals, self._fingerprint))

    def _all_dimensions(self, values: Row) -> Row:
        """The configured dimensions in their places, the others empty."""
        places = self._dimension_places
        return tuple([values[places[d]] if d in places else "" for d in DIMENSIONS])

    def _ledger_rows(self, state: InputState) -> Iterator[Row]:
        for (entry, reason), count in state.changed_ledger():
            yield (*self._prefix(state), entry, reason, count)

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
        self.effects.open_grains(rules)
        self.judging.change_rules(rules)
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
            "was_catching_up": self._was_catching_up,
            "poisoned": [(topic, sorted(offsets)) for topic, offsets in self.poisoned.items()],
            "notices": {topic: notice.snapshot() for topic, notice in self.notices.items()},
            "campaigns": self.campaigns.snapshot(),
            "rates": self.rates.snapshot(),
            "credits": self.credits.snapshot(),
            "effects": self.effects.snapshot(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes back what `snapshot` gave; call before the inputs and windows are restored."""
        self.rules = msgspec.convert(snapshot["rules"], Rules)
        self.rules_seq = snapshot["rules_seq"]
        self.inputs = {source: InputState(source, self.rules) for source in Input}
        self.seq, self.misrouted = snapshot["seq"], snapshot["misrouted"]
        self._reported_ms = snapshot["reported_ms"]
        self._was_catching_up = snapshot["was_catching_up"]
        self.poisoned = {topic: set(offsets) for topic, offsets in snapshot["poisoned"]}
        for topic, notice in self.notices.items():
            notice.restore(snapshot["notices"][topic])
        self.campaigns.restore(snapshot["campaigns"])
        self.rates.restore(snapshot["rates"])
        self.credits.restore(snapshot["credits"])
        self.effects = Effects(self.rules)
        self.effects.restore(snapshot["effects"])
        self.windows = Windows(self.rules.pane_ms)
        self.judging.change_rules(self.rules)  # sources, too, are judged by these until a tick brings others
        self._compile()

    def restore_windows(self, snapshot: dict[str, Any]) -> None:
        """Takes back the windows; the settings must be there already."""
        self.windows.restore(snapshot)
        self.windows.zones = self.campaigns.zones


_SPENT: Final = WINDOW_INDEX["spend_millimicros"]
_ADDED: Final = [
    WINDOW_INDEX[name] for name in ("impressions", "plays_started", "clicks", "conversions", "spend_millimicros")
]
"""The fields of `Added`, behind the origin: of valid traffic. What came with an excluding flag was never billed."""
_VALIDITY: Final = DECISION_KEY.index("validity")
_COLUMNS: Final = {source: (*COMMON, *MEASURES_OF[source]) for source in Input}
"""What an input's totals are."""
