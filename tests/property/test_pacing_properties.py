"""Money is conserved, plans sum up, order within a tick and restarts change nothing, unknown never raises a rate."""

from itertools import pairwise
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.campaigns import CampaignSettings
from streams.events import Input
from streams.signals import LiveSession
from streams.stages.pacing.billing import watched_inputs
from streams.stages.pacing.campaign import CampaignPacer
from streams.stages.pacing.facts import Added, Decision, Facts
from streams.stages.pacing.plan import make_plan, split
from streams.stages.pacing.shape import TrafficShape
from streams.terms import PPM, Billing, BillingModel, OverDelivery, Pacing, PacingMode, PacingPeriod
from tests.unit.pacing_world import DAY, HOUR, MINUTE, MONDAY, UNIT, allowance, campaign, live

MODELS = tuple(BillingModel)
INPUTS = (Input.IMPRESSIONS, Input.CLICKS, Input.PLAYS, Input.CONVERSIONS, Input.ADJUSTMENTS)
QUICK = settings(derandomize=True, max_examples=60, deadline=None)
SEEDS = st.integers(0, 2**32)


def some_campaign(random: Random) -> CampaignSettings:
    model = random.choice(MODELS)
    price = None if model is BillingModel.CLEARING_PRICE else random.randint(1, 3 * UNIT)
    is_live = random.random() < 0.2
    pacing = Pacing(
        mode=random.choice((None, *PacingMode)),
        period=PacingPeriod.LIVE_SESSION if is_live else PacingPeriod.DAY,
        over_delivery=OverDelivery(
            daily_multiplier_ppm=random.choice((PPM, 3 * PPM // 2)), period_days=random.randint(1, 7)
        ),
    )
    has_end = random.random() < 0.5
    return campaign(
        billing=Billing(model=model, price_micros=price),
        pacing=pacing,
        daily=None if is_live else random.choice((None, 20, 100)),
        total=random.choice((None, 150)) if is_live else random.choice((150, 1_000)),
        session=random.choice((5, 50)) if is_live else None,
        time_zone=random.choice(("UTC", "Asia/Kolkata", "America/New_York")),
        flight_start_ms=random.choice((None, MONDAY + 5 * MINUTE)),
        flight_end_ms=MONDAY + random.randint(1, 4) * DAY if has_end else None,
    )


class History:
    """Ticks of a campaign: additions, looks and changes, from a seed."""

    def __init__(self, seed: int, ticks: int = 120) -> None:
        random = Random(seed)
        self.settings = some_campaign(random)
        self.ticks: list[tuple[list[Added], Facts, CampaignSettings]] = []
        now, current, session = MONDAY - random.randint(0, HOUR), self.settings, None
        for _ in range(ticks):
            now += random.choice((0, 1, 5_000, 5_000, 10_000, 10_000, MINUTE, HOUR, 5 * HOUR))
            if random.random() < 0.05:
                current = msgspec.structs.replace(some_campaign(random), billing=current.billing)
            session = self._session(random, now, session)
            self.ticks.append((self._additions(random, now), self._facts(random, now, session), current))

    @staticmethod
    def _session(random: Random, now: int, before: LiveSession | None) -> LiveSession | None:
        if random.random() > 0.1:
            return before
        if before is None or before.state == "ended" or random.random() < 0.3:
            return live(now, random.choice((None, now + HOUR)), name=f"live-{now}")
        return live(now, now, is_over=True, name=random.choice((before.live_session_id, f"live-{MONDAY}")))

    @staticmethod
    def _additions(random: Random, now: int) -> list[Added]:
        found = []
        for _ in range(random.randint(0, 4)):
            origin = (now - random.choice((0, 0, 0, MINUTE, HOUR, 30 * HOUR))) // 10_000 * 10_000
            counts = [random.randint(0, 2_000), random.randint(0, 500), random.randint(0, 40), random.randint(0, 4)]
            sign = -1 if random.random() < 0.05 else 1
            money = sign * random.randint(0, 2_000 * UNIT)
            found.append(
                Added(origin, *(sign * count for count in counts), money, random.choice((0, 0, 0, 100 * UNIT)))
            )
        return found

    @staticmethod
    def _facts(random: Random, now: int, session: LiveSession | None) -> Facts:
        unknown = frozenset(random.sample(INPUTS, random.choice((0, 0, 0, 1, 2))))
        allowances = (allowance(random.randint(1, 300)),) if random.random() < 0.2 else ()
        return Facts(now, now + 1_000, unknown, random.random() < 0.05, allowances, (session,) if session else ())


def play(history: History, shuffle: Random | None = None, restart_at: int = -1) -> tuple[list[Decision], CampaignPacer]:
    pacer, shape, before = CampaignPacer("c-1"), TrafficShape(), history.settings
    decisions = []
    for number, (added, facts, current) in enumerate(history.ticks):
        if number == restart_at:
            packed = msgspec.msgpack.encode([pacer.snapshot(), shape.snapshot()])
            pacer, shape = CampaignPacer("c-1"), TrafficShape()
            kept, shaped = msgspec.msgpack.decode(packed)
            pacer.restore(kept)
            shape.restore(shaped)
        if current is not before:
            pacer.settings_changed(before, current, facts.now_ms)
            before = current
        rows = list(added)
        if shuffle is not None:
            shuffle.shuffle(rows)
        for row in rows:
            pacer.add(current, row)
            shape.add(row.origin_ms, row.impressions)
        decisions.append(pacer.evaluate(current, facts, shape))
    return decisions, pacer


@QUICK
@given(SEEDS)
def test_money_is_conserved_in_every_sum(seed: int) -> None:
    history = History(seed)
    decisions, pacer = play(history)
    rows = [row for added, _, _ in history.ticks for row in added]
    ledger = pacer.ledger
    assert ledger.ever == [sum(r.spend_millimicros for r in rows), sum(r.credited_millimicros for r in rows)]
    in_days = sum(entry[1] for entry in ledger.days.values())
    assert in_days + ledger.closed_credit == ledger.ever[1]
    if all(current.time_zone == history.settings.time_zone for _, _, current in history.ticks):
        assert sum(entry[0] for entry in ledger.days.values()) == ledger.ever[0]
    assert all(d.spend.gross == d.spend.valid + d.spend.credited for d in decisions)


@QUICK
@given(SEEDS)
def test_the_order_of_additions_within_a_tick_does_not_matter(seed: int) -> None:
    history = History(seed)
    decisions, pacer = play(history)
    shuffled, other = play(history, shuffle=Random(seed + 1))
    assert decisions == shuffled
    assert msgspec.msgpack.encode(pacer.snapshot()) == msgspec.msgpack.encode(other.snapshot())


@QUICK
@given(SEEDS, st.integers(0, 119))
def test_a_restart_anywhere_changes_no_decision(seed: int, restart_at: int) -> None:
    history = History(seed)
    decisions, pacer = play(history)
    restarted, other = play(history, restart_at=restart_at)
    assert decisions == restarted
    assert msgspec.msgpack.encode(pacer.snapshot()) == msgspec.msgpack.encode(other.snapshot())


@QUICK
@given(SEEDS)
def test_rates_keep_their_bounds_and_unknown_never_raises(seed: int) -> None:
    history = History(seed)
    decisions, _ = play(history)
    previous, last_ms = 0.0, -1
    for decision, (_, facts, current) in zip(decisions, history.ticks, strict=True):
        assert 0.0 <= decision.rate_when_stale <= decision.rate <= 1.0
        assert decision.rate == round(decision.rate, 6)
        is_unknown = bool(facts.unknown & watched_inputs(current.billing))
        if is_unknown or facts.now_ms == last_ms or facts.is_catching_up:
            assert decision.rate <= previous
        previous, last_ms = decision.rate, facts.now_ms


@QUICK
@given(SEEDS)
def test_nothing_is_let_through_once_the_budget_is_reached(seed: int) -> None:
    for decision in play(History(seed))[0]:
        if decision.spend.valid + decision.in_flight_millimicros >= decision.budget_micros * 1_000:
            assert decision.rate == 0.0
        if decision.forecast is not None:
            assert decision.forecast.low_micros <= decision.forecast.spend_micros <= decision.forecast.high_micros


@given(st.integers(0, 10**15), st.lists(st.floats(0, 1e9), min_size=1, max_size=60))
def test_parts_sum_to_their_total_and_none_is_negative(total: int, weights: list[float]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0


@given(
    st.sampled_from(PacingMode),
    st.integers(0, 10**15),
    st.integers(0, 10**15),
    st.lists(st.integers(1, 3 * HOUR), min_size=1, max_size=30),
    SEEDS,
)
def test_a_plan_sums_to_its_budget_and_its_target_never_falls(
    mode: PacingMode, spent: int, budget: int, lengths: list[int], seed: int
) -> None:
    random, bounds = Random(seed), [MONDAY]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    plan = make_plan(mode, MONDAY, bounds[-1], spent, budget, (bounds, [random.random() for _ in lengths]))
    assert spent + sum(plan.parts) == max(spent, budget)
    assert plan.target_at(bounds[-1]) == max(spent, budget)
    moments = sorted(random.randint(MONDAY, bounds[-1]) for _ in range(20))
    targets = [plan.target_at(moment) for moment in moments]
    assert all(spent <= one <= other <= max(spent, budget) for one, other in pairwise(targets))
