"""Where a replay begins: at the newest pinned checkpoint of which no row can lie in the range, or at the beginning.

A checkpoint is the live state itself, with everything that windows, ids and cohorts remember. Its rows reach up to the
newest event time that its state has seen; so whoever starts at one from before the range gives every row of the range,
as if from the journal's beginning. What could not be used, and why, is told.
"""

from collections.abc import Sequence
from typing import NamedTuple

from streams.errors import CampaignStreamsError, CorruptCheckpoint
from streams.jobs.replay_journal import Anchor, beginning_is_gone, tick_at
from streams.ports import CheckpointReader, History
from streams.rules import Rules
from streams.state.checkpoint import FORMAT, Manifest
from streams.state.partition import PartitionState
from streams.state.recovery import load, named_manifests
from streams.topics import JOURNAL

MAX_REMARKS = 20


class Start(NamedTuple):
    """Where one partition's replay has begun."""

    partition: int
    checkpoint: str = ""
    """Key of its manifest; empty: the journal's beginning."""
    journal_offset: int = -1
    wall_ms: int = 0
    newest_ms: int = -1
    """Newest event time that the checkpoint's state had seen; -1: none."""
    remarks: tuple[str, ...] = ()
    """What could not be used, and why."""
    missing: tuple[tuple[str, int], ...] = ()
    """By topic: offsets that have to be read again, and that retention has removed."""


class Candidate(NamedTuple):
    """A checkpoint whose tick the journal holds. It has not been loaded yet."""

    manifest: Manifest
    start: Start
    applied: dict[str, int]

    @property
    def anchor(self) -> Anchor:
        """Behind which the journal is read."""
        return Anchor(self.manifest.journal_offset, self.manifest.claim_id, self.manifest.seq)


class Candidates(NamedTuple):
    """Checkpoints from before a time, the newest first, and what is to be told of the others."""

    found: list[Candidate]
    remarks: list[str]


async def candidates(history: History, reader: CheckpointReader | None, partition: int, before_ms: int) -> Candidates:
    """Checkpoints that a replay of rows from `before_ms` on (event time) can start from."""
    if reader is None:
        return Candidates([], [])
    manifests, corrupt = await named_manifests(partition, reader)
    remarks = [f"partition {partition}: {text}" for text in corrupt]
    found: list[Candidate] = []
    for named in reversed(manifests):
        manifest = named.manifest
        if manifest is None or not manifest.wall_ms or manifest.newest_ms >= before_ms:
            continue
        about = f"partition {partition}: checkpoint {named.key}"
        if manifest.format != FORMAT:
            remarks.append(f"{about} is of format {manifest.format}, and this version reads {FORMAT}")
            continue
        tick = await tick_at(history, partition, manifest.journal_offset)
        if tick is None or (tick.claim_id, tick.seq) != (manifest.claim_id, manifest.seq):
            remarks.append(f"{about}: the journal does not hold its tick (any more)")
            continue
        start = Start(partition, named.key, manifest.journal_offset, manifest.wall_ms, manifest.newest_ms)
        found.append(Candidate(manifest, start, tick.applied))
    return Candidates(found, remarks[:MAX_REMARKS])


async def begin(
    history: History, reader: CheckpointReader | None, empty: PartitionState, chosen: Candidates
) -> tuple[PartitionState, Start]:
    """The state to go on from: that of the first candidate that can be loaded, or the empty one.

    Raises:
        CampaignStreamsError: there is none, and the journal's beginning has been removed.
    """
    remarks = list(chosen.remarks)
    for candidate in chosen.found:
        assert reader is not None
        try:
            state, _ = await load(empty, candidate.manifest, reader)
        except CorruptCheckpoint as error:
            remarks.append(f"partition {empty.partition}: checkpoint {candidate.start.checkpoint}: {error}")
            continue
        return state, candidate.start._replace(remarks=tuple(remarks[:MAX_REMARKS]))
    return empty, await begin_of(history, empty.partition, Candidates([], remarks))


async def begin_of(history: History, partition: int, chosen: Candidates) -> Start:
    """Where a replay begins, if the first candidate can be loaded.

    Raises:
        CampaignStreamsError: there is no candidate, and the journal's beginning has been removed.
    """
    remarks = tuple(chosen.remarks[:MAX_REMARKS])
    if chosen.found:
        return chosen.found[0].start._replace(remarks=remarks)
    first = (await history.span(JOURNAL, partition)).first
    if first > 0:
        raise CampaignStreamsError("; ".join([beginning_is_gone(partition, first), *remarks]))
    return Start(partition, remarks=remarks)


async def missing(
    history: History, partition: int, positions: dict[str, int], ends: dict[str, int]
) -> tuple[tuple[str, int], ...]:
    """By topic: offsets between a start and the end that retention has removed."""
    found = []
    for topic, end in ends.items():
        if positions.get(topic, 0) < end:
            gone = min(end, (await history.span(topic, partition)).first) - positions.get(topic, 0)
            if gone > 0:
                found.append((topic, gone))
    return tuple(found)


def empty_state(partition: int, partitions: int, log_epoch: int, rules: Rules | None = None) -> PartitionState:
    """A state that has seen nothing."""
    return PartitionState(partition, partitions, log_epoch, rules or Rules())


def first_event_ms(state: PartitionState) -> int:
    """The oldest event time of its inputs; -1: none."""
    return min((held.first_ms for held in state.inputs.values() if held.first_ms >= 0), default=-1)


def reach_back(starts: Sequence[Start], first_ms: int) -> int:
    """Event time that a replay has reached back to: that of its earliest checkpoint, or its first event's; 0: none."""
    if not starts or not all(start.checkpoint for start in starts):
        return max(0, first_ms)
    return max(0, min(start.newest_ms for start in starts))
