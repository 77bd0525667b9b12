"""Keeps the owners of this worker's partitions: hands them input, ticks them, writes their checkpoints.

The only place where owners, tasks and the wall clock meet. It does no arithmetic.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from streams.agents.items import Assigned, Item, Revoked
from streams.agents.latency import VisibleLatency
from streams.errors import Fenced, Unavailable
from streams.ports import Clock
from streams.settings import WorkerSettings
from streams.state.inputs import Batch
from streams.state.owner import Owner, OwnerConfig, Ports

log = logging.getLogger(__name__)

RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between attempts while a service does not answer; the last one repeats."""
RELEASE_TIMEOUT_S = 20.0
"""A partition that is revoked gets this long for its last tick and checkpoint; then it is dropped as it is."""


class Keeper:
    """The owners of one worker. `seek` is called with (topic, partition, offset) where input must be read again."""

    def __init__(self, config: OwnerConfig, ports: Ports, clock: Clock, settings: WorkerSettings) -> None:
        self.config = config
        self.ports = ports
        self.clock = clock
        self.settings = settings
        self.owners: dict[int, Owner] = {}
        self.seek: Callable[[str, int, int], None] = lambda topic, partition, offset: None
        self.silent_topics: Callable[[int], list[str]] = lambda partition: []
        self.is_catching_up: Callable[[], bool] = lambda: False
        self.released = asyncio.Event()
        """Set whenever a tick has released rows."""
        self.tick_seconds = 0.0
        self.checkpoint_seconds = 0.0
        self.fenced = 0
        self.outages = 0
        self.corrupt_checkpoints = 0
        self.checkpointed_ms: dict[int, int] = {}
        """By partition: wall time of its last checkpoint, or of its opening."""
        self.stopping = False
        self.visible = VisibleLatency()
        self._attempts: dict[str, int] = {}

    # The channel's items, in order

    async def handle(self, item: Item) -> None:
        """One item from the channel."""
        if isinstance(item, Batch):
            self._offer(item)
        elif isinstance(item, Assigned):
            await self._open(item)
        elif isinstance(item, Revoked):
            await self.release(item.partitions)
            item.done.set()

    def _offer(self, batch: Batch) -> None:
        owner = self.owners.get(batch.partition)
        if owner is None:
            return
        wanted = owner.offer(batch)
        if batch.records:
            self.visible.arrived(batch.partition, batch.records[0].timestamp)
        if wanted is not None:
            self.seek(batch.topic, batch.partition, wanted)

    async def _open(self, item: Assigned) -> None:
        await asyncio.gather(*(self._open_one(partition, item) for partition in sorted(item.partitions)))
        item.done.set()

    async def _open_one(self, partition: int, item: Assigned) -> None:
        owner = Owner(partition, self.config, self.ports, lambda: uuid.uuid4().hex)
        starts, end = dict(item.starts[partition]), item.settings_ends[partition]
        while not self.stopping:
            try:
                await owner.open(starts, end, self.clock.now_ms())
            except Fenced as error:
                self.fenced += 1
                log.warning("%s", error)
                return
            except Unavailable as error:
                await self._wait(f"opening partition {partition}", error)
            else:
                self._attempts.pop(f"opening partition {partition}", None)
                self.owners[partition] = owner
                self.checkpointed_ms[partition] = self.clock.now_ms()
                self.corrupt_checkpoints += len(owner.corrupt)
                for text in owner.corrupt:
                    log.error("partition %d: %s; the checkpoint before it is used", partition, text)
                log.info("partition %d: opened at tick %d", partition, owner.state.seq)
                return

    async def release(self, partitions: frozenset[int]) -> None:
        """Last tick and checkpoint of each, then it is dropped. One that is fenced meanwhile is dropped by its tick."""
        await asyncio.gather(*(self._release_one(self.owners[p]) for p in partitions if p in self.owners))

    async def _release_one(self, owner: Owner) -> None:
        await self._finish_one(owner)
        self.owners.pop(owner.partition, None)

    async def finish(self) -> None:
        """Last tick and checkpoint of every partition; their rows are still to be taken."""
        await asyncio.gather(*(self._finish_one(owner) for owner in self.owners.values()))

    async def _finish_one(self, owner: Owner) -> None:
        try:
            await asyncio.wait_for(self._last_checkpoint(owner), RELEASE_TIMEOUT_S)
        except (Unavailable, Fenced, TimeoutError) as error:
            log.warning("partition %d: given up without a last checkpoint: %s", owner.partition, error or "time-out")

    async def _last_checkpoint(self, owner: Owner) -> None:
        async with self._lock_of(owner):
            await self._checkpoint(owner)  # one that waits would keep the last tick from being captured
            owner.request_checkpoint()
            await owner.advance(self.clock.now_ms())
            await self._checkpoint(owner)

    # The clockwork

    def _lock_of(self, owner: Owner, name: str = "tick_lock") -> asyncio.Lock:
        """`advance` and `checkpoint` may interleave, but each must not run twice at a time: a lock for each."""
        lock: asyncio.Lock | None = getattr(owner, name, None)
        if lock is None:
            lock = asyncio.Lock()
            setattr(owner, name, lock)
        return lock

    async def tick_all(self) -> None:
        """One tick of every owner."""
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._guard(owner, "ticking", self._tick) for owner in list(self.owners.values())))
        self.tick_seconds = asyncio.get_running_loop().time() - started
        if self.dirty_rows:
            self.released.set()  # once for all partitions: few large insertions

    async def _tick(self, owner: Owner) -> None:
        async with self._lock_of(owner):
            if self.owners.get(owner.partition) is not owner:
                return
            oldest_ms = self.visible.proposed(owner.partition)
            silent = self.silent_topics(owner.partition)
            confirmed = await owner.advance(self.clock.now_ms(), silent, self.is_catching_up())
            self.visible.confirmed(owner.partition, oldest_ms, confirmed, owner.confirmed_version)
        if owner.must_seek:
            owner.must_seek = False
            log.error("partition %d: the code failed on a record; reloaded from the last checkpoint", owner.partition)
            for topic, offset in owner.expected.items():
                self.seek(topic, owner.partition, offset)

    async def checkpoint_all(self) -> None:
        """Writes whatever the last ticks have captured."""
        started = asyncio.get_running_loop().time()
        waiting = [owner for owner in self.owners.values() if owner.has_checkpoint_to_write]
        await asyncio.gather(*(self._guard(owner, "checkpointing", self._checkpoint) for owner in waiting))
        if waiting:
            self.checkpoint_seconds = asyncio.get_running_loop().time() - started

    async def _checkpoint(self, owner: Owner) -> None:
        async with self._lock_of(owner, "checkpoint_lock"):
            if await owner.checkpoint():
                self.checkpointed_ms[owner.partition] = self.clock.now_ms()

    async def _guard(self, owner: Owner, doing: str, action: Callable[[Owner], Awaitable[None]]) -> None:
        what = f"{doing} partition {owner.partition}"
        try:
            await action(owner)
            self._attempts.pop(what, None)
        except Fenced as error:
            self.fenced += 1
            log.warning("%s", error)
            if self.owners.get(owner.partition) is owner:
                del self.owners[owner.partition]
        except Unavailable as error:
            await self._wait(what, error)

    async def _wait(self, what: str, error: Unavailable) -> None:
        attempt = self._attempts[what] = self._attempts.get(what, 0) + 1
        delay = RETRY_S[min(attempt, len(RETRY_S)) - 1]
        self.outages += 1
        if attempt in (1, 5) or attempt % 20 == 0:
            log.warning("%s: %s; attempt %d, next in %.1f s", what, error, attempt, delay)
        await asyncio.sleep(delay)

    # What others ask

    @property
    def dirty_rows(self) -> int:
        """Rows that ClickHouse has not acknowledged."""
        return sum(len(owner.dirty) for owner in self.owners.values())

    @property
    def is_saturated(self) -> bool:
        """Whether intake must pause until ClickHouse has taken rows."""
        return self.dirty_rows >= self.settings.max_dirty_rows
