"""Stories: what paced campaigns live through, beat by beat, while everything around them fails.

Ordinary traffic is dense and short: no budget's day ends in it and no alert's time passes. A story is told to one
partition with few records and long pauses: a beat takes minutes of event time and of wall time alike, and waits (not
for ever: who reads may be down) until a tick has seen it. What comes of it is the checks' concern, not the story's.
"""

import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final

from streams.topics import ALLOWANCES, CAMPAIGNS, SESSIONS
from tests.sim.scheduler import pause
from tests.sim.world import World
from tests.support.events import BOT, HOSTED, MINUTE_MS, Draft, Traffic

PATIENCE: Final = 300
"""Steps that a beat waits for its tick."""
PRICE: Final = 1_000_000
"""Micros of a click, and of a thousand impressions times a thousand: each costs one."""
CLICKS: Final = {"model": "cpc", "price_micros": PRICE}
SHOWN: Final = {"model": "cpm", "price_micros": 1_000 * PRICE}
PLENTY: Final = 10**12
Seen = tuple[int, int]
"""Impressions and clicks of one campaign in one beat."""


class Story:
    """One story, told to one partition. `has_heard`: whether a tick has seen these offsets, no earlier than a time."""

    def __init__(
        self,
        world: World,
        traffic: Traffic,
        partition: int,
        rng: Random,
        has_heard: Callable[[int, dict[str, int], int], bool],
    ) -> None:
        self.world = world
        self.traffic = traffic
        self.partition = partition
        self.rng = rng
        self.has_heard = has_heard
        self.at_ms = traffic.start_ms
        self._serial = 0

    async def tell(self, kind: str) -> None:
        """From its beginning to its end."""
        await STORIES[kind](self)

    # What stories are told with

    async def beat(self, minutes: float = 1.0, **seen: Seen) -> None:
        """Time passes, then campaigns are seen; waits until a tick knows."""
        passed_ms = int(minutes * MINUTE_MS)
        self.at_ms += passed_ms
        self.world.now_ms += passed_ms
        self.traffic.leap(self.partition, self.at_ms)
        for campaign, counts in seen.items():
            for topic, count in zip(("ads.impressions", "ads.clicks"), counts, strict=True):
                for _ in range(count):
                    self.event(topic, campaign)
        ends, wall_ms = self.world.ends(self.partition), self.world.now_ms
        for _ in range(PATIENCE):
            if self.has_heard(self.partition, ends, wall_ms):
                return
            await pause()

    async def beats(self, count: int, minutes: float = 1.0, **seen: Seen) -> None:
        """The same, several times."""
        for _ in range(count):
            await self.beat(minutes, **seen)

    def event(self, topic: str, campaign: str, **more: Any) -> None:
        """One sound event, of now."""
        self._serial += 1
        at_ms = self.at_ms - self.rng.randrange(2_000)
        event = {"event_id": f"s{self._serial}", "event_time_ms": at_ms, "campaign_id": campaign, "currency": "USD"}
        self.append(topic, {**event, "ad_unit_id": "u1", "region": "", **more})

    def append(self, topic: str, document: dict[str, Any]) -> None:
        """Any record."""
        value = json.dumps(document, separators=(",", ":")).encode()
        self.world.logs[topic, self.partition].append(Draft(self.at_ms, document["campaign_id"].encode(), value))

    def settle(self, campaign: str, **terms: Any) -> None:
        """A version of its settings: in force from the next tick on."""
        document = {"campaign_id": campaign, "name": campaign, "currency": "USD", "time_zone": "UTC", "goal": "lead"}
        self.append(CAMPAIGNS, {**document, "advertiser_id": "a1", "billing": CLICKS, **terms})

    def allow(self, campaign: str, pool: str, left: int, **more: Any) -> None:
        """What a pool allots and has left."""
        self._serial += 1
        document = {"campaign_id": campaign, "pool": pool, "pool_id": "p1", "currency": "USD", "left_micros": left}
        if pool == "shared_budget":
            day_ms = 24 * 60 * MINUTE_MS
            document |= {"day_start_ms": self.at_ms // day_ms * day_ms, "pool_micros": 100 * PRICE}
        self.append(ALLOWANCES, {**document, "limit_micros": PLENTY, "sequence": self._serial, **more})

    def session(self, campaign: str, name: str, state: str, minutes: int) -> None:
        """A live session begins or ends."""
        document = {"campaign_id": campaign, "live_session_id": name, "creator_id": "h1", "state": state}
        planned_ms = self.at_ms + minutes * MINUTE_MS
        self.append(SESSIONS, {**document, "event_time_ms": self.at_ms, "planned_end_ms": planned_ms})

    def mode(self) -> dict[str, str]:
        """Any way of pacing."""
        return {"mode": self.rng.choice(["even", "traffic_shaped", "as_soon_as_possible"])}

    def is_stopped(self, campaign: str) -> bool:
        """Whether the latest control lets nothing through."""
        return self.world.outbox.rates.get(campaign, (0, 1.0))[1] == 0.0


async def budget(story: Story) -> None:
    """A day's budget is spent; it is raised by much or little, and spent again; or lowered below what is spent.

    Then the flight's total is, and at last the campaign has no budget any more.
    """
    zone = story.rng.choice(["UTC", "America/New_York", "Asia/Shanghai"])
    terms = {"pacing": story.mode(), "time_zone": zone}
    for daily in (16, story.rng.choice([16.5, 24, 32, 4]), 64):
        story.settle("s1", budget={"daily_micros": int(daily * PRICE)}, **terms)
        await story.beats(story.rng.randint(4, 7), s1=(5, 4))
    for both in ({"daily_micros": 64 * PRICE, "total_micros": 64 * PRICE}, {}):
        story.settle("s1", budget=both, **terms)
        await story.beats(2, s1=(5, 4))


async def balance(story: Story) -> None:
    """An account runs low or is empty, and is topped up."""
    story.settle("s1", account_id="p1", budget={"daily_micros": PLENTY} if story.rng.random() < 0.5 else {})
    for left in (story.rng.choice([0, 10 * PRICE]), 10**4 * PRICE):
        for _ in range(5):
            story.allow("s1", "balance", left, burn_micros_per_h=20 * PRICE)
            await story.beat(4, s1=(4, 1))


async def pool(story: Story) -> None:
    """A shared budget is spent, raised, spent again; one campaign leaves it while that is told."""
    own = story.rng.choice([{}, {"daily_micros": PLENTY}])
    for campaign in ("s1", "s2"):
        story.settle(campaign, budget={**own, "shared_budget_id": "p1"}, pacing=story.mode())
    for left, whole in ((50, 100), (0, 100), (60, 160), (0, 160)):
        for campaign in ("s1", "s2"):
            limit = (20 if left else 1) * PRICE
            story.allow(campaign, "shared_budget", left * PRICE, pool_micros=whole * PRICE, limit_micros=limit)
        await story.beats(3, s1=(4, 2), s2=(2, 1))
    others = [{}, {"daily_micros": PLENTY}, {"shared_budget_id": "p2"}]
    story.settle("s1", budget=story.rng.choice(others), account_id=story.rng.choice(["p1", None]))
    await story.beats(3, s1=(4, 2), s2=(2, 1))


async def stall(story: Story) -> None:
    """Impressions stop while others' go on, and come again."""
    story.settle("s1", budget=story.rng.choice([{"daily_micros": PLENTY}, {}]), alerts={"stalled_ms": MINUTE_MS})
    await story.beats(3, s1=(15, 1), free=(2, 0))
    await story.beats(5, free=(3, 1))
    await story.beats(4, s1=(3, 1), free=(1, 0))


async def session(story: Story) -> None:
    """Two live sessions of one host, the second planned by minutes of the first; a budget for each."""
    pacing = {"period": "live_session"} | (story.mode() if story.rng.random() < 0.7 else {})
    story.settle("s1", budget={"session_micros": 20 * PRICE}, pacing=pacing)
    await story.beats(2, s1=(4, 0))
    for name in ("l1", "l2"):
        story.session("s1", name, "started", 20)
        await story.beats(8, s1=(5, 3))
        story.session("s1", name, "ended", 0)
        await story.beats(2, s1=(2, 0))


async def night(story: Story) -> None:
    """All that was shown has spent its day and is stopped: a lull, in which the next day begins by the wall clock."""
    own: dict[str, Any] = {"daily_micros": 8 * PRICE} if story.rng.random() < 0.5 else {"shared_budget_id": "p1"}
    story.settle("s1", budget=own, pacing={"mode": "as_soon_as_possible"})
    for left in (8, 4, 0):
        if "daily_micros" not in own:
            limit = 100 if left else 0
            story.allow("s1", "shared_budget", left * PRICE, pool_micros=8 * PRICE, limit_micros=limit * PRICE)
        for _ in range(4):
            await story.beat(0.5, **({} if story.is_stopped("s1") else {"s1": (6, 4)}))
    if "daily_micros" in own and story.rng.random() < 0.5:  # a raise that waits for the lull's midnight
        day_ms = 24 * 60 * MINUTE_MS
        raised = {"budget": {"daily_micros": 80 * PRICE}, "valid_from_ms": (story.at_ms // day_ms + 1) * day_ms}
        story.settle("s1", pacing={"mode": "as_soon_as_possible"}, **raised)
    for _ in range(9):
        await story.beat(20)
    if story.rng.random() < 0.5:
        await story.beats(3, s1=(3, 1))


async def silence(story: Story) -> None:
    """The impressions' producer dies while clicks go on; or that of clicks. It comes back."""
    dies = story.rng.choice([(0, 2), (0, 2), (6, 0), (0, 0)])
    alerts = {"stalled_ms": MINUTE_MS}
    story.settle("s1", budget={"daily_micros": 400 * PRICE}, pacing=story.mode(), alerts=alerts)
    await story.beats(8, 0.5, s1=(6, 2))
    await story.beats(4, 2, s1=dies)
    story.settle("s1", budget={"daily_micros": 900 * PRICE}, pacing=story.mode(), alerts=alerts)
    await story.beats(2, 2, s1=dies)
    await story.beats(4, s1=(4, 1))


async def behind(story: Story) -> None:
    """Spend that falls far behind an even plan; where that is not to be told, that the budget will not be spent."""
    off = story.rng.choice([[], ["under_delivery"], ["under_delivery"]])
    _even(story, 2_000, {"off": off})
    await story.beats(2, s1=(24, 0))
    await story.beats(19, 4.5, s1=(2, 0))


async def ahead(story: Story) -> None:
    """An ad server that obeys nothing spends far ahead of an even plan, until its budget is raised."""
    _even(story, 250, {})
    await story.beats(5, s1=(24, 0))
    await story.beats(5, 4, s1=(1, 0))
    _even(story, 10_000, {})
    await story.beats(5, 4, s1=(2, 0))


def _even(story: Story, daily: int, alerts: dict[str, Any]) -> None:
    """A flight of not quite three hours, all in one day."""
    begin_ms = story.traffic.start_ms
    flight = {"flight_start_ms": begin_ms, "flight_end_ms": begin_ms + 170 * MINUTE_MS, "time_zone": "America/New_York"}
    terms = {"billing": SHOWN, "pacing": {"mode": "even"}, "alerts": alerts}
    story.settle("s1", budget={"daily_micros": daily * PRICE}, **terms, **flight)


async def invalid(story: Story) -> None:
    """Far too much of what is shown is invalid."""
    story.settle("s1", budget={"daily_micros": PLENTY}, billing=SHOWN)
    await story.beat(s1=(10, 0))
    for _ in range(3):
        for _ in range(70):
            empty = {"placement_width_px": 0, "placement_height_px": 0, "prefetch": True}
            story.event("ads.impressions", "s1", user_agent=BOT, network=HOSTED, **empty)
        await story.beat(2)
    await story.beats(3, 3, s1=(2, 0))


STORIES: Final[dict[str, Callable[[Story], Awaitable[None]]]] = {
    each.__name__: each for each in (budget, balance, pool, stall, session, night, silence, behind, ahead, invalid)
}
CAST: Final = (*STORIES, "behind", "night")
"""What is drawn from: those that seldom come to their end more often."""
ALONE: Final = frozenset({"night", "silence", "stall"})
"""Stories in which ordinary traffic would tell of time, or be shown."""
