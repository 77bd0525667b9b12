"""A report for tests of its files: campaigns of hostile names, two currencies, a change of rules."""

from random import Random
from typing import Final

from streams.jobs.replay_compare import Difference, Side
from streams.jobs.replay_report import Report, RulesChange, Series, line_of, totals_of

BEGIN_S: Final = 1_790_000_000 - 1_790_000_000 % 3600
HOSTILE: Final = (
    "<script>document.title = 'taken'</script>",
    "</script><script>document.title = 'taken'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    '=HYPERLINK("http://example.invalid")',
    '夏日大促 & co \u2028 "quoted"',
)


def made_report(campaigns: int = 40) -> Report:
    """Always the same."""
    rng = Random(7)
    found = [_difference(rng, number) for number in range(campaigns)]
    found.sort(key=lambda each: (-abs(each.money_micros), each.campaign_id))
    times = [BEGIN_S + 60 * minute for minute in range(120)]
    plots = [
        ("spend_micros", "CNY", 10**6),
        ("spend_micros", "USD", 10**5),
        ("clicks", "", 50),
        ("invalid_clicks", "", 5),
    ]
    changes = [
        RulesChange(side="live", before="a" * 16, after="b" * 16, first_s=BEGIN_S, last_s=BEGIN_S + 60, partitions=4)
    ]
    return Report(
        run="stricter",
        kind="what_if",
        other="live",
        from_s=BEGIN_S,
        to_s=BEGIN_S + 7_200,
        only_campaigns=(),
        remarks=["live rows have gone <b>"],
        rules={"live": ["a" * 16, "b" * 16], "stricter": ["c" * 16]},
        rules_changes=changes,
        totals=totals_of(found),
        campaigns=[
            line_of(each, HOSTILE[at] if at < len(HOSTILE) else f"Campaign {at}") for at, each in enumerate(found)
        ],
        differing=sum(each.before != each.after for each in found),
        step_s=60,
        series=[_series(rng, times, *plot) for plot in plots],
    )


def _difference(rng: Random, number: int) -> Difference:
    before = Side(*(rng.randrange(1, 10**size) for size in (6, 4, 2, 9, 4, 2, 1, 6, 1)))
    taken = 0 if number % 5 == 0 else rng.randrange(before.clicks)
    after = before._replace(
        clicks=before.clicks - taken,
        invalid_clicks=before.invalid_clicks + taken,
        spend_micros=before.spend_micros - 1_000 * taken,
        invalid_spend_micros=before.invalid_spend_micros + 1_000 * taken,
    )
    return Difference(f"c{number}", "USD" if number % 3 == 0 else "CNY", before, after)


def _series(rng: Random, times: list[int], measure: str, currency: str, size: int) -> Series:
    before = [rng.randrange(size, 2 * size) for _ in times]
    after = [value - rng.randrange(size // 4 + 1) for value in before]
    return Series(measure=measure, currency=currency, times_s=times, before=before, after=after)
