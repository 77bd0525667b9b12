"""A keeper of owners for unit tests: every port in memory, a clock that is set, and waits that take no time."""

from typing import Final

from streams.agents.items import Assigned, Revoked
from streams.agents.keeper import Keeper
from streams.agents.publisher import Publisher
from streams.settings import WorkerSettings
from streams.state.owner import OwnerConfig, Ports
from streams.state.partition import TOPICS
from tests.unit.given import T0
from tests.unit.owning import World

PARTITIONS: Final = 1


class SetClock:
    """A clock that stands where it is set."""

    def __init__(self, now_ms: int = T0) -> None:
        self.time_ms = now_ms

    def now_ms(self) -> int:
        return self.time_ms


class Kept:
    """One worker's keeper and publisher over a `World`; several may share one."""

    def __init__(
        self, world: World | None = None, top: int = 3, max_rows: int = 1_000, max_dirty_rows: int = 500_000
    ) -> None:
        self.world = world or World()
        self.clock = SetClock()
        self.settings = WorkerSettings(max_dirty_rows=max_dirty_rows, top_campaigns=top)
        config = OwnerConfig(PARTITIONS, 0, "worker", self.world.rules, 1_000)
        ports = Ports(self.world.journal, self.world.store, self.world.outbox)
        self.keeper = Keeper(config, ports, self.clock, self.settings)
        self.publisher = Publisher(self.keeper, self.world.sink, max_rows)
        self.sought: list[tuple[str, int, int]] = []
        self.keeper.seek = lambda topic, partition, offset: self.sought.append((topic, partition, offset))

    def highwater(self, topic: str, partition: int) -> int | None:
        """The end of a topic, as the source knows it."""
        return self.world.log.end(topic, partition)

    async def assign(self, partition: int = 0) -> None:
        """The partition is assigned to this worker."""
        end = self.world.log.end("ads.campaigns", partition)
        item = Assigned(frozenset({partition}), {partition: dict.fromkeys(TOPICS, 0)}, {partition: end})
        await self.keeper.handle(item)
        assert item.done.is_set()

    async def revoke(self, partition: int = 0) -> None:
        """The partition is taken away."""
        item = Revoked(frozenset({partition}))
        await self.keeper.handle(item)
        assert item.done.is_set()

    async def feed(self, partition: int = 0) -> None:
        """Hands over what stands in the topics, as one range each."""
        for topic in TOPICS:
            owner = self.keeper.owners.get(partition)
            if owner is not None and owner.expected[topic] < self.world.log.end(topic, partition):
                await self.keeper.handle(self.world.fetch(topic, owner.expected[topic]))

    async def tick(self) -> None:
        """A second later: a tick of every owner."""
        self.clock.time_ms += 1_000
        await self.keeper.tick_all()

    async def step(self) -> None:
        """Feeds, and ticks until all of it stands behind a tick."""
        for _ in range(3):
            await self.feed()
            await self.tick()
