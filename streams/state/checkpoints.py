"""Writes checkpoints in an order that no crash can harm.

1. The tick that the capture was taken at is confirmed, and what it sends out is acknowledged (the owner's part).
2. Every changed segment is stored, under a key of its own.
3. The manifest is stored: from here on the checkpoint exists.
4. A tick that was proposed after step 3 is confirmed: so whoever claims the partition sees this manifest.
5. What neither of the last two manifests names, nor a pinned one (`streams.state.pins`), is deleted.
"""

from collections.abc import Sequence

import msgspec

from streams.ports import CheckpointStore
from streams.state.checkpoint import (
    FORMAT,
    IMMUTABLE,
    ROWS,
    Capture,
    Manifest,
    SegmentRef,
    checksum_of,
    encode_manifest,
)
from streams.state.pins import NO_PINS, Pins
from streams.state.recovery import NamedManifest


class _Work(msgspec.Struct):
    """One checkpoint being written. It keeps the base that it was captured on, whatever happens meanwhile."""

    captured: Capture
    journal_offset: int
    base: dict[str, SegmentRef]
    row_versions: dict[str, int]
    stored: dict[str, SegmentRef]


class Checkpointer:
    """The checkpoints of one claim on one partition. One is written at a time."""

    def __init__(self, partition: int, claim_id: str, store: CheckpointStore, pins: Pins = NO_PINS) -> None:
        self.partition = partition
        self.claim_id = claim_id
        self.store = store
        self.pins = pins
        self.captured_version = 0
        """Rows up to this version are in segments already."""
        self.written = 0
        self.bytes_written = 0
        self._base: dict[str, SegmentRef] = {}
        self._manifests: list[NamedManifest] = []
        self._unfit: set[str] = set()
        """Manifests that could not be loaded: they are no day's last."""
        self._row_versions: dict[str, int] = {}
        self._work: _Work | None = None
        self._outdated: list[str] = []
        self._may_delete = False
        self._proposed_seq = 0
        self._delete_after_seq = 0

    def loaded(self, manifests: Sequence[NamedManifest], used: NamedManifest | None) -> None:
        """The manifests that are there, oldest first. Only the used one is built upon.

        The others await deletion, but for those that are pinned; newer ones than the used have failed.
        """
        self._work = None
        self._outdated, self._may_delete, self._delete_after_seq = [], False, 0
        self._row_versions = {}
        self.captured_version = 0
        self._base = used.manifest.segments if used is not None and used.manifest is not None else {}
        at = manifests.index(used) if used is not None else -1
        self._unfit = {named.key for named in manifests[at + 1 :]}
        self._manifests = [named for named in manifests if named is not used]
        if used is not None:
            self._manifests.append(used)

    @property
    def is_busy(self) -> bool:
        """Whether a captured checkpoint waits to be written."""
        return self._work is not None

    def immutable_names(self) -> set[str]:
        """Segments of the base whose content never changes under their name."""
        return {name for name in self._base if name.startswith(IMMUTABLE)}

    def row_segments(self, oldest_dirty: int | None) -> dict[str, bytes]:
        """Names of earlier segments of rows that are still needed; their bytes stand in the store already."""
        kept = {n: v for n, v in self._row_versions.items() if oldest_dirty is not None and v >= oldest_dirty}
        self._row_versions = kept
        return dict.fromkeys(kept, b"")

    def begin(self, captured: Capture, journal_offset: int, version: int) -> None:
        """Step 1 is done: this capture is to be written."""
        self.captured_version = version
        for name in captured.changed:
            if name.startswith(ROWS):
                self._row_versions[name] = version
        versions = {name: self._row_versions[name] for name in captured.names if name.startswith(ROWS)}
        self._work = _Work(captured, journal_offset, self._base, versions, {})

    def abandon(self) -> None:
        """The state was given up: what it captured is not written any more."""
        self._work = None

    def tick_proposed(self, seq: int) -> None:
        """A tick is about to be appended."""
        self._proposed_seq = seq

    def tick_confirmed(self, seq: int) -> None:
        """Step 4, if the tick was proposed after the last manifest was acknowledged."""
        self._may_delete = bool(self._outdated) and seq > self._delete_after_seq

    async def run(self) -> bool:
        """Steps 2, 3 and 5. Returns whether a manifest was written."""
        if self._may_delete:
            outdated, self._outdated, self._may_delete = self._outdated, [], False
            try:
                await self.store.delete(self.partition, outdated)
            except BaseException:
                self._outdated = [*outdated, *self._outdated]
                raise
        work = self._work
        if work is None or not await self._store_segments(work):
            return False
        named = NamedManifest(f"{self.claim_id}/{work.captured.seq}", self._manifest(work))
        assert named.manifest is not None
        await self.store.put_manifest(self.partition, named.key, encode_manifest(named.manifest))
        if self._work is not work:  # given up meanwhile: it may be recovered from, but is not built upon
            if all(known.key != named.key for known in self._manifests):  # unless it has been recovered from already
                self._manifests.insert(0, named)
            return False
        self._work = None
        self._supersede(named, named.manifest)
        self.written += 1
        return True

    async def _store_segments(self, work: _Work) -> bool:
        """Step 2; what an outage interrupted goes on where it was. False when given up meanwhile."""
        for name, data in work.captured.changed.items():
            if name not in work.stored:
                key = f"{self.claim_id}/{work.captured.seq}/{name}"
                place = await self.store.put(self.partition, key, data)
                if self._work is not work:
                    return False
                work.stored[name] = SegmentRef(key, place, len(data), checksum_of(data))
                self.bytes_written += len(data)
        return True

    def _manifest(self, work: _Work) -> Manifest:
        names = sorted(work.captured.names)
        segments = {name: work.stored.get(name) or work.base[name] for name in names}
        seq, offset = work.captured.seq, work.journal_offset
        times = work.captured.wall_ms, work.captured.newest_ms
        return Manifest(FORMAT, self.claim_id, seq, offset, segments, work.row_versions, *times)

    def _supersede(self, newest: NamedManifest, manifest: Manifest) -> None:
        pinned = self.pins.of([named for named in [*self._manifests, newest] if named.key not in self._unfit])
        keys = {named.key for named in pinned}
        older, before = self._manifests[:-1], self._manifests[-1:]
        gone = [old for old in older if old.key not in keys]
        kept = [*(old for old in older if old.key in keys), *before, newest]
        self._outdated.extend([old.key for old in gone] + sorted(_segment_keys(gone) - _segment_keys(kept)))
        self._manifests, self._base = kept, manifest.segments
        self._may_delete = False
        self._delete_after_seq = self._proposed_seq


def _segment_keys(manifests: Sequence[NamedManifest]) -> set[str]:
    return {ref.key for named in manifests if named.manifest for ref in named.manifest.segments.values()}
