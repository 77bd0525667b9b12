"""What would have been under other rules or settings: ticks of its own, and a source stage that runs anew.

All partitions go through time together, in steps by the records' own timestamps, for evidence crosses campaigns: what
one forwards another reads at its next step. So processes that share the partitions exchange letters between steps, and
compute the steps at the same time; whoever has which partition changes nothing. Recorded verdicts are left out, for
they followed the old rules; reviews stay, for people said them. Settings, sessions, allowances and reviews are in force
for the events for which they were live (`replay_notices` says exactly when), not at their records' times.

It begins at pinned checkpoints from before the range by as much as the rules look back (`reach_ms`): from there on the
new rules hold, and what was decided before stands as it was decided live. Where no checkpoint lies so far back, it
begins at the journal's beginning.
"""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple

import msgspec

from streams.campaigns import CampaignSettings
from streams.errors import CampaignStreamsError, CheckpointGone, CorruptCheckpoint
from streams.jobs.replay_journal import Anchor, recorded_behind, ticks
from streams.jobs.replay_lanes import OWN_LOGS, Lane, Letter, SavedLane, TimedCursor
from streams.jobs.replay_notices import Notices, OwnLog
from streams.jobs.replay_partition import FLUSH_AT, Cursor, Emit, PartitionReplay, Range
from streams.jobs.replay_start import Candidates, Start, begin, begin_of, candidates, empty_state
from streams.ports import CheckpointReader, History, RawRecord
from streams.rules import DAY_MS, HOUR_MS, Rules
from streams.stages.invalid.publishers import reach_of, step_of
from streams.stages.invalid.sources import LATENESS_MS
from streams.state.journal import version_of
from streams.state.partition import TOPICS, PartitionState
from streams.state.recovery import load, named_manifests
from streams.topics import CAMPAIGNS, EVIDENCE, JOURNAL, NOTICE_TOPICS, VERDICTS, partition_of
from streams.verdicts import EvidenceBatch, Review, Verdict, decode_evidence, decode_word

STEP_MS: Final = 5_000
"""Of the records' timestamps: live ticks come more often, but none of them decides a count."""
SILENT_STEPS: Final = 6
"""A gap of more steps without any record is skipped."""
SETTLING_STEPS: Final = 4
"""Behind the last record, or the range's end, for what is on its way between partitions."""
UNDER_WAY_MS: Final = 2_000
"""A verdict that was decided before a checkpoint stands in its topic so soon after it."""
PLACES_APART: Final = 1_000_000
"""What a lane tells is later than anything that was recorded before its checkpoint."""


class Change(NamedTuple):
    """What is different in this run."""

    rules: Rules
    settings: tuple[CampaignSettings, ...] = ()
    """They hold from where the run begins, in the place of what these campaigns had."""


def reach_ms(rules: Rules) -> int:
    """How far before a range new rules must hold, ms, so that nothing that they look back on is of the old ones.

    The campaigns' day (one of 25 hours), windows of sources and their lateness, and what publishers are weighed over.
    Ids, settings and cohorts come with a checkpoint, and do not depend on rules (but see `grown_ms`).
    """
    invalid = rules.invalid
    velocities = (invalid.user_velocity, invalid.device_velocity, invalid.address_velocity)
    fans = (invalid.device_fan_out, invalid.address_fan_out)
    windows = max(bound.window_ms for bound in (*velocities, *fans))
    return max(DAY_MS + HOUR_MS, LATENESS_MS + windows, reach_of(invalid) + step_of(invalid))


def grown_ms(before: Rules, after: Rules) -> int:
    """How far back ids must be read again because they are remembered for longer than they were; 0: not at all."""
    longer = [
        horizon.dedupe_ms for i, horizon in after.horizons.items() if horizon.dedupe_ms > before.horizons[i].dedupe_ms
    ]
    return max(longer, default=0)


class Chosen(NamedTuple):
    """Where all partitions begin: all of them at checkpoints, or all at the journal's beginning."""

    by_partition: list[Candidates]
    needed_ms: int
    """How far back the rules look."""

    def remarks_of(self, start: Start, wanted: Range) -> Start:
        """Tells where a checkpoint lies less far back than is needed."""
        behind_ms = wanted.from_ms - start.newest_ms
        if not start.checkpoint or behind_ms >= self.needed_ms:
            return start
        remark = (
            f"partition {start.partition}: nothing that is kept lies {self.needed_ms // HOUR_MS} h before the range, "
            f"as far as the rules look back, but only {behind_ms / HOUR_MS:.1f} h; what they remember of the time "
            "before follows the recorded rules"
        )
        return start._replace(remarks=(*start.remarks, remark))


async def choose(
    history: History, reader: CheckpointReader | None, partitions: int, wanted: Range, needed_ms: int
) -> Chosen:
    """Checkpoints far enough back in every partition, or none in any; or the oldest, where the journal begins later.

    Evidence crosses partitions: one that began earlier than the others would tell them of a time that they do not run.

    Raises:
        CampaignStreamsError: neither is there.
    """
    found = [await candidates(history, reader, p, wanted.from_ms - needed_ms) for p in range(partitions)]
    if all(each.found for each in found):
        return Chosen(found, needed_ms)
    if all([(await history.span(JOURNAL, p)).first == 0 for p in range(partitions)]):
        return Chosen([Candidates([], each.remarks) for each in found], needed_ms)
    found = [await candidates(history, reader, p, wanted.from_ms) for p in range(partitions)]
    oldest = [Candidates(each.found[::-1], each.remarks) for each in found]
    for partition, each in enumerate(oldest):
        await begin_of(history, partition, each)
    if not all(each.found for each in oldest):
        raise CampaignStreamsError("not every partition has a checkpoint from before the range; give a later range")
    return Chosen(oldest, needed_ms)


class Origin(NamedTuple):
    """Where one lane begins."""

    start: Start
    anchor: Anchor = Anchor()


async def origins(
    history: History, reader: CheckpointReader | None, partitions: int, log_epoch: int, change: Change, wanted: Range
) -> list[Origin]:
    """Where all partitions begin. Every checkpoint is loaded once: whether it can be, and by which rules it stands.

    Raises:
        CampaignStreamsError: nothing reaches back far enough.
    """
    needed_ms = reach_ms(change.rules)
    while True:
        chosen = await choose(history, reader, partitions, wanted, needed_ms)
        found, grown = list[Origin](), 0
        for partition, mine in enumerate(chosen.by_partition):
            state, start = await begin(history, reader, empty_state(partition, partitions, log_epoch), mine)
            used = next((c for c in mine.found if c.start.checkpoint == start.checkpoint), None)
            found.append(Origin(chosen.remarks_of(start, wanted), used.anchor if used else Anchor()))
            grown = max(grown, grown_ms(state.rules, change.rules) if used else 0)
        if 0 < sum(bool(each.start.checkpoint) for each in found) < partitions:  # some could not be loaded after all
            reader = None
        elif grown <= needed_ms:
            return found
        needed_ms = max(needed_ms, grown)


async def state_of(reader: CheckpointReader | None, origin: Origin, empty: PartitionState) -> PartitionState:
    """A lane's state to begin with.

    Raises:
        CheckpointGone: its checkpoint has been deleted meanwhile; a later one stands in its place.
    """
    if not origin.start.checkpoint or reader is None:
        return empty
    manifests, _ = await named_manifests(empty.partition, reader)
    for named in manifests:
        if named.key == origin.start.checkpoint and named.manifest is not None:
            with contextlib.suppress(CorruptCheckpoint):  # the manifest still stands, and its segments have gone
                return (await load(empty, named.manifest, reader))[0]
    raise CheckpointGone(f"checkpoint {origin.start.checkpoint} has been deleted meanwhile; begin the run anew")


# Lanes


class Told(NamedTuple):
    """What was told before the lanes begin, and stays."""

    versions: dict[int, int]
    """By partition: that of its checkpoint's tick; evidence of later ones is told anew. Empty: there is none."""
    wall_ms: int
    """Verdicts recorded up to then stay."""


def told_before(starts: Sequence[Start], log_epoch: int) -> Told:
    """What of the recorded evidence and verdicts belongs to the time before the checkpoints."""
    versions = {each.partition: version_of(log_epoch, each.journal_offset) for each in starts if each.checkpoint}
    wall_ms = max((each.wall_ms for each in starts if each.checkpoint), default=-UNDER_WAY_MS)
    return Told(versions, wall_ms + UNDER_WAY_MS)


class Course(NamedTuple):
    """What all lanes have in common."""

    history: History
    change: Change
    wanted: Range
    told: Told
    emit: Emit


async def lane_of(course: Course, origin: Origin, state: PartitionState, saved: SavedLane | None = None) -> Lane:
    """A lane at its beginning, or where it was saved; `state` stands there."""
    history, partition, is_pinned = course.history, state.partition, bool(origin.start.checkpoint)
    recorded = await recorded_behind(history, partition, origin.anchor)
    if saved is None and not is_pinned:
        state.begin_at({topic: 0 if topic in OWN_LOGS else recorded.starts.get(topic, 0) for topic in TOPICS})
    for topic in recorded.poisoned.keys() - set(OWN_LOGS):
        state.poisoned.setdefault(topic, set()).update(recorded.poisoned[topic])
    begins = saved.begins if saved else state.positions() if is_pinned else recorded.starts
    cursors, others, own = {}, {}, {}
    ends = {topic: recorded.ends.get(topic, 0) for topic in TOPICS}
    for topic, end in ends.items():
        if topic in OWN_LOGS:
            stays = await _recorded(course, topic, state, begins.get(topic, 0), end)
            own[topic] = _own_log(topic, state, stays, course.change, saved)
        elif topic in NOTICE_TOPICS:
            others[topic] = Cursor(history, topic, partition, state.position(topic), end)
        else:
            cursors[topic] = TimedCursor(history, topic, partition, state.position(topic), end)
    place = origin.start.journal_offset + PLACES_APART if is_pinned else 0
    replay = PartitionReplay(history, state, course.wanted, course.emit)
    replay.lost = saved.lost if saved else 0
    kept = {topic: begins.get(topic, 0) for topic in OWN_LOGS}
    place, quiet = (saved.place, saved.quiet) if saved else (place, None)
    notices = Notices(state, own, others, recorded.settings, ticks(history, partition, recorded))
    return Lane(replay, course.change.rules, cursors, notices, kept, ends, place, quiet)


def _own_log(
    topic: str, state: PartitionState, stays: list[RawRecord], change: Change, saved: SavedLane | None
) -> OwnLog:
    if saved is not None:
        position, behind, told = saved.own[topic]
        log = OwnLog(position, [record for record in stays if record.offset >= (behind or 0)], told)
        log.recorded_from = behind
        return log
    log = OwnLog(state.position(topic), stays)
    for settings in change.settings if topic == CAMPAIGNS else ():
        if partition_of(settings.campaign_id, state.partitions) == state.partition:
            log.append(0, settings.campaign_id.encode(), msgspec.json.encode(settings))
    return log


async def _recorded(course: Course, topic: str, state: PartitionState, begin: int, end: int) -> list[RawRecord]:
    """Records of a topic that the run arranges which stay as they are."""
    told, change = course.told, course.change
    if begin >= end or (topic == EVIDENCE and not told.versions):
        return []
    replaced = {settings.campaign_id.encode() for settings in change.settings}
    found: list[RawRecord] = []
    passed: set[int] = set()
    async with contextlib.aclosing(course.history.read(topic, state.partition, begin, end)) as ranges:
        async for batch in ranges:
            for record in batch.records:
                if topic == EVIDENCE:
                    _take_evidence(record, told, found, passed)
                elif topic == VERDICTS:
                    word = decode_word(record.value)
                    was_told = isinstance(word, Verdict) and record.timestamp <= told.wall_ms
                    found.extend([record] if isinstance(word, Review) or was_told else [])
                elif record.key not in replaced:
                    found.append(record)
            if topic == EVIDENCE and len(passed) == state.partitions:
                return found
    return found


def _take_evidence(record: RawRecord, told: Told, found: list[RawRecord], passed: set[int]) -> None:
    """A partition's evidence stands in the order of its ticks: behind a later one nothing of it stays."""
    evidence = decode_evidence(record.value)
    if not isinstance(evidence, EvidenceBatch):
        return
    if evidence.sequence <= told.versions.get(evidence.from_partition, -1):
        found.append(record)
    else:
        passed.add(evidence.from_partition)


# Steps


class Stepped(NamedTuple):
    """What a step came to."""

    events: int
    upcoming_ms: int | None
    """Timestamp of the next record; None: everything is read."""
    letters: list[Letter]
    is_beyond: bool
    """Whether no lane of the process can change a row of the range any more."""


class Lanes:
    """The lanes of one process."""

    def __init__(self, lanes: Sequence[Lane], rules: Rules) -> None:
        self.lanes = lanes
        self.rules = rules
        self._by_partition = {lane.state.partition: lane for lane in lanes}

    async def upcoming_ms(self) -> int | None:
        """Timestamp of the next record of all."""
        found = [at for lane in self.lanes if (at := await lane.upcoming_ms()) is not None]
        return min(found, default=None)

    async def is_beyond(self, now_ms: int) -> bool:
        """Whether no lane can change a row of the range any more, but for what is on its way between partitions."""
        return all([await self._is_beyond(lane, now_ms) for lane in self.lanes])

    async def _is_beyond(self, lane: Lane, now_ms: int) -> bool:
        """A lane that has read everything does not move on, but others may tell it of events that it has in the range.

        They do as long as rules look back on those.
        """
        if lane.is_beyond() or await lane.upcoming_ms() is not None:
            return lane.is_beyond()
        return not lane.stands_in_range() or now_ms >= lane.replay.wanted.to_ms + reach_ms(self.rules)

    def deliver(self, letters: Sequence[Letter]) -> None:
        """What others told at the step before."""
        for letter in letters:
            if letter.to in self._by_partition:
                log = self._by_partition[letter.to].notices.own[letter.topic]
                log.append(letter.timestamp_ms, letter.key, letter.value)

    async def step(self, now_ms: int, letters: Sequence[Letter], *, is_first: bool = False) -> Stepped:
        """Up to a time, and its tick. The first only reads what the run arranges: rules hold before any event."""
        self.deliver(letters)
        events, told = 0, []
        for lane in self.lanes:
            events += await (lane.begin(now_ms) if is_first else lane.read(now_ms))
        for lane in self.lanes:
            told += lane.tick(now_ms)
            if sum(len(each.replay.rows) for each in self.lanes) > FLUSH_AT:
                await self.flush()
        return Stepped(events, await self.upcoming_ms(), told, await self.is_beyond(now_ms))

    async def flush(self) -> None:
        """Emits what waits."""
        for lane in self.lanes:
            await lane.replay.flush()

    async def close(self) -> None:
        """Stops fetching."""
        for lane in self.lanes:
            await lane.close()


class Pace(msgspec.Struct):
    """When the next step is. It depends on the records' timestamps alone."""

    now_ms: int = 0
    settling: int = SETTLING_STEPS
    has_begun: bool = False
    events: int = 0

    def begin(self, upcoming: Sequence[int | None]) -> None:
        """At the first records."""
        self.now_ms = min((at for at in upcoming if at is not None), default=0) // STEP_MS * STEP_MS

    def stepped(self, steps: Sequence[Stepped]) -> None:
        """Every process has made its step: the time of the next one."""
        is_first, self.has_begun = not self.has_begun, True
        self.events += 0 if is_first else sum(step.events for step in steps)
        upcoming = [step.upcoming_ms for step in steps if step.upcoming_ms is not None]
        is_over = not upcoming or all(step.is_beyond for step in steps)
        if not is_first:
            self.settling = self.settling - 1 if is_over else SETTLING_STEPS
            if upcoming and min(upcoming) > self.now_ms + STEP_MS * SILENT_STEPS:  # nobody was there: no steps either
                self.now_ms = min(upcoming) - STEP_MS
        self.now_ms += STEP_MS

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self.settling <= 0


def letters_of(steps: Sequence[Stepped]) -> list[Letter]:
    """What a step told, by sender: whichever process has which partition."""
    return sorted((letter for step in steps for letter in step.letters), key=lambda letter: letter.sender)


async def what_if(
    course: Course, reader: CheckpointReader | None, found: Sequence[Origin], log_epoch: int
) -> AsyncGenerator[int]:
    """Runs all partitions in this process; tells after each step how many records it has read."""
    rules, count, made = course.change.rules, len(found), list[Lane]()
    for partition, origin in enumerate(found):
        state = await state_of(reader, origin, empty_state(partition, count, log_epoch, rules))
        made.append(await lane_of(course, origin, state))
    lanes, pace, letters = Lanes(made, rules), Pace(), list[Letter]()
    try:
        pace.begin([await lanes.upcoming_ms()])
        while not pace.is_done:
            step = await lanes.step(pace.now_ms, letters, is_first=not pace.has_begun)
            letters = letters_of([step])
            pace.stepped([step])
            yield pace.events
        await lanes.flush()
    finally:
        await lanes.close()
