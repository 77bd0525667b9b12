"""Ways to break the code under test on purpose: a simulation that passes them all would prove nothing.

Each is a context in which the code is wrong in one respect. Most are mistakes that were really made once.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from random import Random
from typing import Any, Final, NamedTuple
from unittest import mock

from streams.errors import CampaignStreamsError
from streams.stages.invalid.forwarders import Forwarders
from streams.stages.invalid.publishers import Standing
from streams.stages.invalid.sources import SourceDesk
from streams.state import checkpoints
from streams.state import owner as owner_module
from streams.state.checkpoints import Checkpointer
from streams.state.credits import Credits
from streams.state.dedupe import DedupeIndex
from streams.state.flags import FlagBook
from streams.state.grain import Changed, Grain
from streams.state.inputs import Batch
from streams.state.journal import Claim, Entry, Fold, Tick, version_of
from streams.state.owner import Owner
from streams.state.pins import Pins
from tests.sim import sabotage_pacing
from tests.sim.plan import Plan, plan_of, with_story
from tests.sim.simulation import Failed, run
from tests.sim.world import Broken, Faults, Unsettled

Sabotage = Callable[[], AbstractContextManager[Any]]


def releases_before_reading_back() -> AbstractContextManager[Any]:
    """Takes a tick for confirmed as soon as it is appended, whoever has claimed the partition since."""

    async def guess(self: Owner, _seq: int) -> int:
        end: int = self.ports.journal.end(self.partition)  # type: ignore[attr-defined]
        return end - 1

    return mock.patch.object(Owner, "_read_back", guess)


def publishes_deltas() -> AbstractContextManager[Any]:
    """Rows state what has been added instead of totals so far."""
    real = Grain.fold

    def fold(self: Grain) -> Iterator[tuple[int, Changed]]:
        for pane, changed in real(self):
            yield pane, changed._replace(totals=changed.added)

    return mock.patch.object(Grain, "fold", fold)


def forgets_ids_in_recovery() -> AbstractContextManager[Any]:
    """A checkpoint's packed ids are not loaded."""
    return mock.patch.object(DedupeIndex, "restore_run", return_value=None)


def deletes_the_fallback() -> AbstractContextManager[Any]:
    """Deletes the checkpoint before the newest at once."""
    real = Checkpointer._supersede

    def supersede(self: Checkpointer, newest: Any, manifest: Any) -> None:
        real(self, newest, manifest)
        named = {ref.key for ref in manifest.segments.values()}
        for old in self._manifests[:-1]:
            gone = {ref.key for ref in old.manifest.segments.values()} if old.manifest else set()
            self._outdated.extend([old.key, *sorted(gone - named)])
        self._may_delete = True

    return mock.patch.object(Checkpointer, "_supersede", supersede)


def forgets_what_is_pinned() -> AbstractContextManager[Any]:
    """Only what the two newest manifests name is kept."""
    return mock.patch.object(Pins, "of", return_value=[])


def pins_without_what_is_shared() -> AbstractContextManager[Any]:
    """A pinned manifest is kept, but not the segments that live ones do not name any more."""
    real = checkpoints._segment_keys
    return mock.patch.object(checkpoints, "_segment_keys", lambda manifests: real(manifests[-2:]))


def loses_letters_that_come_meanwhile() -> AbstractContextManager[Any]:
    """Forgets all waiting dead letters once some have been sent."""
    real = Owner._send

    async def send(self: Owner) -> None:
        had_letters = bool(self._unsent)
        await real(self)
        if had_letters:
            self._unsent = {}

    return mock.patch.object(Owner, "_send", send)


def checkpoints_before_letters_are_acknowledged() -> AbstractContextManager[Any]:
    """A checkpoint is begun before what its ticks send out has been acknowledged."""
    real = Owner._send

    async def send(self: Owner) -> None:
        if self._captured is not None:
            captured, offset = self._captured
            self._captured = None
            self._checkpointer.begin(captured, offset, version_of(self.config.log_epoch, offset))
        await real(self)

    return mock.patch.object(Owner, "_send", send)


def forgets_unacknowledged_rows() -> AbstractContextManager[Any]:
    """A checkpoint holds none of the rows that the sink has not taken."""
    return mock.patch.object(owner_module, "encode_rows", return_value=b"\x90")


def gives_old_rows_the_newest_version() -> AbstractContextManager[Any]:
    """Rows that wait since an earlier checkpoint come back with the version of the latest."""
    real = Checkpointer._manifest

    def manifest(self: Checkpointer, work: Any) -> Any:
        newest = max(work.row_versions.values(), default=0)
        work.row_versions = dict.fromkeys(work.row_versions, newest)
        return real(self, work)

    return mock.patch.object(Checkpointer, "_manifest", manifest)


def accepts_gaps() -> AbstractContextManager[Any]:
    """Takes a range that begins above the position for one that continues it."""
    real = Owner.offer

    def offer(self: Owner, batch: Batch) -> int | None:
        expected = self.expected[batch.topic]
        return real(self, batch._replace(from_offset=min(batch.from_offset, expected)))

    return mock.patch.object(Owner, "offer", offer)


def counts_what_overlaps_twice() -> AbstractContextManager[Any]:
    """Does not cut what has been read already from a range."""
    real = owner_module._from

    def whole(batch: Batch, offset: int) -> Batch:
        return real(batch, offset)._replace(records=batch.records)

    return mock.patch.object(owner_module, "_from", whole)


def counts_void_ticks() -> AbstractContextManager[Any]:
    """Takes a tick for valid whatever claim stands before it."""

    def take(self: Fold, entry: Entry) -> Tick | None:
        if isinstance(entry, Claim):
            self.claim_id = entry.claim_id
            self.starts = entry.starts if self.starts is None else self.starts
            return None
        if entry.seq <= self.seq:
            return None
        self.seq = entry.seq
        return entry

    return mock.patch.object(Fold, "take", take)


def forgets_poison() -> AbstractContextManager[Any]:
    """Ticks do not say which records are poison."""
    real = owner_module.Tick

    def tick(**fields: Any) -> Tick:
        return real(**fields | {"poisoned": {}})

    return mock.patch.object(owner_module, "Tick", tick)


def rereads_only_up_to_what_was_replayed() -> AbstractContextManager[Any]:
    """Gives a broken state up for one that ends before its own claim."""
    real = Owner._reload

    async def reload(self: Owner) -> None:
        self._own_offset = self.confirmed_offset
        await real(self)

    return mock.patch.object(Owner, "_reload", reload)


def moves_again_what_is_told_again() -> AbstractContextManager[Any]:
    """A late word is not remembered: told again, it moves its event again."""
    return mock.patch.object(FlagBook, "_hold", return_value=True)


def forgets_late_words_in_recovery() -> AbstractContextManager[Any]:
    """What was said late is not loaded from a checkpoint."""
    return mock.patch.object(FlagBook, "restore", return_value=None)


def forgets_sources_in_recovery() -> AbstractContextManager[Any]:
    """Evidence of sources is not loaded from a checkpoint."""
    return mock.patch.object(SourceDesk, "restore", return_value=None)


def leaves_credits_behind() -> AbstractContextManager[Any]:
    """A conversion moves to another validity, and the cost that was given back for it does not."""
    return mock.patch.object(Credits, "given", return_value=0)


def judges_publishers_before_their_conversions() -> AbstractContextManager[Any]:
    """Publishers are weighed as soon as their clicks are known."""
    real = Forwarders.advance

    def advance(self: Forwarders) -> int:
        self.credited_ms = real(self)
        return self.credited_ms

    return mock.patch.object(Forwarders, "advance", advance)


def lets_the_convicted_go_in_recovery() -> AbstractContextManager[Any]:
    """Who stands convicted of flooding is not loaded from a checkpoint."""
    return mock.patch.object(Standing, "restored", return_value=Standing({}, 0, 0))


class Case(NamedTuple):
    """A sabotage, and what seeds must know so that it shows soon."""

    sabotage: Sabotage
    plan: dict[str, Any]

    @property
    def name(self) -> str:
        """For the test's name."""
        return self.sabotage.__name__


_QUIET: Final = {"pause": 0.0, "move": 0.0, "outage": 0.0, "retention": 0.0, "transient": 0.0, "new_rules": 0.0}
_CRASHING: Final = _QUIET | {"crash": 0.006, "corrupt": 0.0, "workers": 1, "partitions": 1}
_MOVING: Final = {"workers": 3, "partitions": 1, "pause": 0.006, "move": 0.003, "retention": 0.0, "outage": 0.0}
_PROMPT: Final = {"faults": Faults(0.0, 0.0, 0), "checkpoint_ms": 100}
_SLOW: Final = {"faults": Faults(0.0, 0.0, 12), "checkpoint_ms": 3_000}
_TABLES: Final = ("sink.insert report_rows", "sink.insert pane_rows", "sink.insert ledger_rows")
_FAILING: Final = _CRASHING | _PROMPT | {"outage": 0.008, "services": _TABLES}
_MANY: Final = {"records": 1_200, "poison": 0.0, "transient": 0.0}
ALL: Final = (
    Case(releases_before_reading_back, _MOVING),
    Case(publishes_deltas, {}),
    Case(forgets_ids_in_recovery, _CRASHING | _PROMPT | {"duplicate": 0.4}),
    Case(deletes_the_fallback, _CRASHING),
    Case(forgets_what_is_pinned, _CRASHING | _PROMPT | {"pins": Pins(3, 1_000)}),
    Case(pins_without_what_is_shared, _CRASHING | _PROMPT | {"pins": Pins(3, 1_000)}),
    Case(loses_letters_that_come_meanwhile, _CRASHING | _SLOW | {"garbage": 0.5, "crash": 0.002}),
    Case(checkpoints_before_letters_are_acknowledged, _FAILING | {"services": ("outbox",), "garbage": 0.4}),
    Case(forgets_unacknowledged_rows, _FAILING),
    Case(gives_old_rows_the_newest_version, _FAILING | {"crash": 0.003}),
    Case(accepts_gaps, {}),
    Case(counts_what_overlaps_twice, {}),
    Case(counts_void_ticks, _MOVING),
    Case(forgets_poison, _CRASHING | {"poison": 0.05}),
    Case(rereads_only_up_to_what_was_replayed, _CRASHING | {"poison": 0.05}),
    Case(moves_again_what_is_told_again, {}),
    Case(forgets_late_words_in_recovery, _CRASHING | _PROMPT),
    Case(forgets_sources_in_recovery, _CRASHING | _PROMPT | _MANY),
    Case(judges_publishers_before_their_conversions, _MANY),
    Case(lets_the_convicted_go_in_recovery, _CRASHING | _PROMPT | _MANY),
    Case(leaves_credits_behind, _MANY),
    *(Case(sabotage, _CRASHING | _PROMPT | {"story": story}) for sabotage, story in sabotage_pacing.ALL.items()),
)


def _plan(case: Case, seed: int) -> Plan:
    plan = plan_of(Random(seed))
    if story := case.plan.get("story"):
        plan = with_story(plan, story, Random(seed))
    return replace(plan, calm_steps=6_000, **case.plan)


def caught_by(case: Case, seeds: Iterable[int]) -> int | None:
    """The first of the seeds at which a sabotage shows in what comes out, and not only in how long that takes."""
    for seed in seeds:
        with case.sabotage():
            broken = _what_breaks(case, seed)
        if broken is None or (isinstance(broken, Unsettled) and _what_breaks(case, seed) is not None):
            continue
        return seed
    return None


def _what_breaks(case: Case, seed: int) -> BaseException | None:
    try:
        run(seed, plan=_plan(case, seed))
    except Failed as failure:
        if not isinstance(failure.__cause__, Broken | CampaignStreamsError):
            raise  # the sabotage itself does not fit the code any more
        return failure.__cause__
    return None
