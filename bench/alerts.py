"""Alerts against truth: a closed loop of days with injected incidents, and many quiet weeks for false alerts.

**loop**: the market of `bench.market` (demand, delays, ad server and noise are simulated; pacing and alerts are the
product's own), 10 s a step. Three weeks of quiet history are learned first, hour by hour, as a loaded history would
be; the first simulated day settles the pacing and is not judged. Then incidents are injected, each into a campaign
whose volume allows to see it in principle (`VOLUME`: expected clicks or conversions while it lasts), and once a topic
dies in the evening. An incident is found if an alert of its kind (or of a kind that explains it better) fires for its
campaign before an hour after its end. Alerts outside of injected incidents are judged by the market's truth
(`Judge.is_true`): what was really spent and served, not what the pipeline saw.

**weeks**: quiet campaigns of three orders of magnitude, 13 weeks in steps of 20 minutes, of which ten are judged:
daily and weekly cycles, trends and drifts, days and hours that vary by themselves, heavy-tailed noise, counts that vary
more than Poisson, accounts that are topped up in time. Whatever fires there is false. There is no pacing in it: the
kinds about budgets are judged in the loop only.

`false_per_campaign_week` is the sum of both over all kinds: what is false in the loop, where something happens to most
campaigns, and in the weeks, where nothing does (kinds other than those about budgets are in both, and count twice).
Each is given alone, too, and by kind.
A receiver is an advertiser of ten campaigns; pushed changes of one cause within an hour are one message, what is not
pushed is one digest a day on which there is any.
"""

import os
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from bench.alerts_judge import Judge
from bench.alerts_loop import Loop
from bench.alerts_weeks import quiet_weeks

Figures = dict[str, float | int]


def closed_loop(seed: int, count: int, days: int) -> dict[str, Any]:
    """One market."""
    loop = Loop(seed, count, days)
    judge = Judge(loop)
    loop.run(judge.note)
    return judge.result()


def summed_up(loops: list[dict[str, Any]], weeks: list[dict[str, Any]]) -> Figures:
    """The figures of all runs."""
    injected, found, delays = Counter[str](), Counter[str](), defaultdict[str, list[float]](list)
    for loop in loops:
        injected += loop["injected"]
        found.update(loop["found"])
        for kind, values in loop["delays"].items():
            delays[kind] += values
    false_loop, false_weeks = Counter[str](), Counter[str]()
    for loop in loops:
        false_loop.update(loop["false"])
    for week in weeks:
        false_weeks.update(week["false"])
    loop_weeks, quiet = (sum(r["campaign_weeks"] for r in runs) for runs in (loops, weeks))
    total = {
        n: sum(r[n] for r in loops) for n in ("receiver_days", "pushed", "digests", "pushed_false", "digests_false")
    }
    quiet_days = sum(week["receiver_days"] for week in weeks)
    quiet_pushed = sum(week["pushed_false"] for week in weeks)
    outages = sum(loop["stalled_by_outage"] for loop in loops)
    pushed_strict = sum(loop["strict"]["pushed_false"] for loop in loops)
    every = [value for kind, values in delays.items() if kind != "balance_low" for value in values]
    figures: Figures = {
        "incidents": sum(injected.values()),
        "found": sum(found.values()),
        "missed_but_told_within_3h": sum(loop["late"] for loop in loops),
        "delay_s_p50": float(np.median(every)) if every else 0.0,
        "false_per_campaign_week": false_loop.total() / loop_weeks + false_weeks.total() / quiet,
        "messages_per_receiver_day": (total["pushed"] + total["digests"]) / total["receiver_days"],
        "pushed_per_receiver_day": total["pushed"] / total["receiver_days"],
        "false_messages_per_receiver_day": quiet_pushed / quiet_days + total["pushed_false"] / total["receiver_days"],
        "natural_exhaustions": sum(loop["exhaustions"] for loop in loops),
        "natural_exhaustions_found": sum(loop["exhaustions_found"] for loop in loops),
        "campaign_alerts_while_impressions_are_dead": sum(loop["alerts_while_dead"] for loop in loops),
        "loop.campaign_weeks": loop_weeks,
        "loop.false": false_loop.total(),
        "loop.false_per_campaign_week": false_loop.total() / loop_weeks,
        "loop.stalled_by_outage": outages,
        "false_per_campaign_week_if_outages_were_false": (false_loop.total() + outages) / loop_weeks
        + false_weeks.total() / quiet,
        "false_messages_per_receiver_day_if_outages_were_false": quiet_pushed / quiet_days
        + pushed_strict / total["receiver_days"],
        "weeks.campaign_weeks": quiet,
        "weeks.false": false_weeks.total(),
        "weeks.false_per_campaign_week": false_weeks.total() / quiet,
        "weeks.pushed_false": quiet_pushed,
    }
    for kind in sorted(injected):
        figures[f"{kind}.incidents"], figures[f"{kind}.found"] = injected[kind], found[kind]
        if kind != "balance_low" and delays[kind]:
            figures[f"{kind}.delay_s_p50"] = float(np.median(delays[kind]))
    figures.update({f"loop.false.{kind}": n for kind, n in sorted(false_loop.items())})
    figures.update({f"weeks.false.{kind}": n for kind, n in sorted(false_weeks.items())})
    return figures


async def run(quick: bool) -> Figures:
    """Both simulations, in as many processes as there are processors."""
    seeds, count, days, quiet = ((11,), 16, 2, 6) if quick else ((11, 12, 13, 14), 60, 3, 60)
    with ProcessPoolExecutor(max_workers=max(1, min(2, os.cpu_count() or 1))) as pool:
        loops = [pool.submit(closed_loop, seed, count, days) for seed in seeds]
        weeks = [pool.submit(quiet_weeks, seed, quiet) for seed in seeds]
        return summed_up([job.result() for job in loops], [job.result() for job in weeks])
