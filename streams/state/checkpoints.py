"""Writes checkpoints in an order that no crash can harm.

1. The tick that the capture was taken at is confirmed, and what it sends out is acknowledged (the owner's part).
2. Every changed segment is stored, under a key of its own.
3. The manifest is stored: from here on the checkpoint exists.
4. A tick that was proposed after step 3 is confirmed: so whoever claims the partition sees this manifest.
5. What neither of the last two manifests names is deleted.
"""

from collections.abc import Sequence

from streams.ports import CheckpointStore
from streams.state.checkpoint import FORMAT, Capture, Manifest, SegmentRef, checksum_of, encode_manifest
from streams.state.recovery import NamedManifest


class Checkpointer:
    """The checkpoints of one claim on one partition. One is written at a time."""

    def __init__(self, partition: int, claim_id: str, store: CheckpointStore) -> None:
        self.partition = partition
        self.claim_id = claim_id
        self.store = store
        self.captured_version = 0
        """Rows up to this version are in segments already."""
        self.written = 0
        self.bytes_written = 0
        self._manifests: list[NamedManifest] = []
        self._row_versions: dict[str, int] = {}
        self._work: tuple[Capture, int, int] | None = None
        self._stored: dict[str, SegmentRef] = {}
        self._outdated: list[str] = []
        self._may_delete = False
        self._proposed_seq = 0
        self._delete_after_seq = 0

    def loaded(self, manifests: Sequence[NamedManifest], used: NamedManifest | None) -> None:
        """The manifests that are there, oldest first. Those newer than the used one are corrupt: never built upon."""
        self._work = None
        self._manifests = list(manifests)
        self._row_versions = {}
        self.captured_version = 0
        if used is not None:
            others = [named for named in manifests if named is not used]
            self._manifests = [*others, used]

    @property
    def is_busy(self) -> bool:
        """Whether a captured checkpoint waits to be written."""
        return self._work is not None

    def immutable_names(self) -> set[str]:
        """Segments of the last manifest whose content never changes under their name."""
        if not self._manifests:
            return set()
        return {n for n in self._manifests[-1].manifest.segments if n.startswith(("runs/", "rows/"))}

    def row_segments(self, oldest_dirty: int | None) -> dict[str, bytes]:
        """Names of earlier segments of rows that are still needed; their bytes stand in the store already."""
        kept = {n: v for n, v in self._row_versions.items() if oldest_dirty is not None and v >= oldest_dirty}
        self._row_versions = kept
        return dict.fromkeys(kept, b"")

    def begin(self, captured: Capture, journal_offset: int, version: int) -> None:
        """Step 1 is done: this capture is to be written."""
        self._work = (captured, journal_offset, version)
        self._stored = {}
        self.captured_version = version
        for name in captured.changed:
            if name.startswith("rows/"):
                self._row_versions[name] = version

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
            await self.store.delete(self.partition, self._outdated)
            self._outdated, self._may_delete = [], False
        if self._work is None:
            return False
        work = self._work
        captured, journal_offset, _ = work
        manifest = await self._store_all(captured, journal_offset)
        if self._work is not work:
            return False  # given up meanwhile
        key = f"{self.claim_id}/{captured.seq}"
        await self.store.put_manifest(self.partition, key, encode_manifest(manifest))
        self._supersede(NamedManifest(key, manifest))
        self._work = None if self._work is work else self._work
        self.written += 1
        return True

    async def _store_all(self, captured: Capture, journal_offset: int) -> Manifest:
        for name, data in captured.changed.items():
            if name not in self._stored:
                key = f"{self.claim_id}/{captured.seq}/{name}"
                place = await self.store.put(self.partition, key, data)
                self._stored[name] = SegmentRef(key, place, len(data), checksum_of(data))
                self.bytes_written += len(data)
        earlier = self._manifests[-1].manifest.segments if self._manifests else {}
        segments = {name: self._stored.get(name) or earlier[name] for name in sorted(captured.names)}
        return Manifest(FORMAT, self.claim_id, captured.seq, journal_offset, segments)

    def _supersede(self, newest: NamedManifest) -> None:
        gone, kept = self._manifests[:-1], [*self._manifests[-1:], newest]
        named = {ref.key for manifest in kept for ref in manifest.manifest.segments.values()}
        dropped = {ref.key for manifest in gone for ref in manifest.manifest.segments.values()} - named
        self._outdated.extend([manifest.key for manifest in gone] + sorted(dropped))
        self._manifests = kept
        self._may_delete = False
        self._delete_after_seq = self._proposed_seq
