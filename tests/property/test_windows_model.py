"""Windows equal naive sums over panes; a restored one goes on like the one it was taken from."""

from random import Random

from hypothesis import given

from streams.rules import DAY_MS, HOUR_MS
from streams.state.windows import DAY, WINDOW_MEASURES, WINDOWS_MS, Windows
from tests.property.histories import BOUNDED, seeds

T0 = 1_700_000_000_000


@given(seeds)
@BOUNDED
def test_windows_are_sums_of_their_last_panes(seed: int) -> None:
    rng = Random(seed)
    pane_ms = rng.choice([5_000, 10_000, 60_000])
    windows, newest, added = Windows(pane_ms), T0, []
    for _ in range(rng.randrange(80)):
        newest += rng.choice([0, 1_000, pane_ms, 10 * pane_ms, HOUR_MS if rng.random() < 0.05 else 0])
        windows.advance(newest)
        campaign, at = f"c{rng.randrange(3)}", newest - rng.choice([0, pane_ms, rng.randrange(2 * HOUR_MS)])
        origin = at - at % pane_ms
        amounts = [(place, rng.randrange(-5, 100)) for place in rng.sample(range(len(WINDOW_MEASURES)), 3)]
        windows.add(campaign, origin, amounts)
        added.append((campaign, origin, newest, amounts))
        if rng.random() < 0.1:
            snapshot, windows = windows.snapshot(), Windows(pane_ms)
            windows.restore(snapshot)
        for window, size_ms in WINDOWS_MS.items():
            last = newest - newest % pane_ms
            assert windows.totals(campaign, window) == _sum(
                (
                    amounts
                    for c, at, then, amounts in added
                    if c == campaign and last - size_ms < at and then - at < HOUR_MS
                )
            )


@given(seeds)
@BOUNDED
def test_the_day_is_the_sum_of_the_campaigns_newest_day(seed: int) -> None:
    rng, windows, newest, added = Random(seed), Windows(10_000), T0, []
    for _ in range(rng.randrange(60)):
        newest += rng.choice([0, HOUR_MS, 3 * HOUR_MS])
        windows.advance(newest)
        origin = max(newest - rng.randrange(8 * HOUR_MS), 0) // 10_000 * 10_000
        amounts = [(0, rng.randrange(100))]
        windows.add("c", origin, amounts)
        added.append((origin, amounts))
        day = max(at // DAY_MS for at, _ in added)
        expected = _sum(amounts for at, amounts in added if at // DAY_MS == day)
        if day == newest // DAY_MS:
            assert windows.totals("c", DAY) == expected


def _sum(parts) -> tuple[int, ...]:
    totals = [0] * len(WINDOW_MEASURES)
    for amounts in parts:
        for place, amount in amounts:
            totals[place] += amount
    return tuple(totals)
