"""Rows of a few hours of made-up campaigns, in every table that dashboards read: seeded, hence always the same."""

import random
from collections.abc import Iterator
from typing import Any, Final

from streams.events import Input
from streams.records import COLUMNS, DIMENSIONS, MEASURES_OF, Row, Table
from tests.support.rows import PANE_S, make_row

BEGIN_S: Final = PANE_S - PANE_S % 3600
MINUTES: Final = 120
END_S: Final = BEGIN_S + MINUTES * 60
CAMPAIGNS: Final = {"c1": ("adv-1", "CNY"), "c2": ("adv-1", "CNY"), "c3": ("adv-2", "USD"), "o'neill": ("adv-3", "EUR")}
CREATIVES: Final = (("v1", "price=a", "CN-SH", "feed"), ("v2", "price=b", "CN-BJ", "search"))
VALIDITIES: Final = {"valid": 1.0, "givt": 0.04, "sivt": 0.02}
ENTRIES: Final = {
    "consumed": 115,
    "counted": 100,
    "duplicate": 4,
    "late": 1,
    "rejected": 5,
    "lost_retention": 2,
    "no_record": 3,
}
WHAT_IF: Final = "stricter"
RULES: Final = (("declared_bot", "givt"), ("click_flood", "sivt"))


def generated_rows(seed: int = 7) -> dict[Table, list[Row]]:
    """Rows by table."""
    rng = random.Random(seed)
    found: dict[Table, list[Row]] = {table: [] for table in Table}
    for number, (campaign, (advertiser, currency)) in enumerate(CAMPAIGNS.items()):
        found[Table.CAMPAIGNS] += _settings(campaign, advertiser, currency)
        for minute in range(MINUTES):
            at = {"campaign_id": campaign, "currency": currency, "minute": BEGIN_S + 60 * minute}
            for values in _traffic(rng, dict(at), minute):
                found[Table.REPORTS].append(make_row(Table.REPORTS, **values, pane_ms=60_000))
                values = {name: value for name, value in values.items() if name not in DIMENSIONS}
                found[Table.PANES].append(make_row(Table.PANES, **values))
            found[Table.PACING].append(_pacing(at, minute, number))
        found[Table.COHORTS].append(_cohort(campaign, currency))
        found[Table.ALERTS] += _alerts(campaign, advertiser)
        found[Table.FLAGS] += _flags(rng, campaign, currency)
    for values in _traffic(rng, {"campaign_id": "", "currency": "", "minute": BEGIN_S}, 0):
        found[Table.REPORTS].append(make_row(Table.REPORTS, **values, pane_ms=60_000))
    found[Table.LEDGER] = list(_ledger())
    found[Table.RISKS] = list(_risks())
    return found


def _risks() -> Iterator[Row]:
    parts = {name: [4.5, 0.0] for name in ("seen_shares", "typical_shares", "deviations", "log_odds")}
    for number, score in enumerate((None, 0.018, 0.62)):
        yield make_row(
            Table.RISKS,
            publisher_id=f"pub-{number}",
            weighed_from=BEGIN_S - 86_400,
            weighed_to=BEGIN_S + 1_200,
            clicks=100 * (number + 1),
            conversions=number,
            distinct_users=90,
            distinct_addresses=70,
            distinct_agents=30,
            score=score,
            unscored="few_clicks" if score is None else "",
            traits=["same_minute", "shared_users"],
            **parts,
        )


def run_rows(run: str) -> dict[Table, list[Row]]:
    """Rows of a run: the live ones again, or, of a what-if, fewer clicks and spend, other alerts and more flags."""
    live = generated_rows()
    found = {table: rows for table, rows in live.items() if table not in (Table.CAMPAIGNS, Table.LEDGER, Table.RISKS)}
    if run != WHAT_IF:
        return found
    for table in (Table.PANES, Table.REPORTS):
        found[table] = [_lowered(table, row) for row in found[table]]
    found[Table.ALERTS] = found[Table.ALERTS][:-1]
    excluding = COLUMNS[Table.FLAGS].index("mode")
    found[Table.FLAGS] = [(*row[:excluding], "on", *row[excluding + 1 :]) for row in found[Table.FLAGS]]
    rate = COLUMNS[Table.PACING].index("rate_ppm")
    found[Table.PACING] = [(*row[:rate], 650_000, *row[rate + 1 :]) for row in found[Table.PACING]]
    return found


def _lowered(table: Table, row: Row) -> Row:
    lower = {COLUMNS[table].index(name) for name in ("clicks", "impressions", "conversions", "spend_millimicros")}
    return tuple(int(value) * 9 // 10 if at in lower else value for at, value in enumerate(row))


def _settings(campaign: str, advertiser: str, currency: str) -> Iterator[Row]:
    for valid_from_s in (BEGIN_S - 86_400, BEGIN_S + 1_800):
        yield make_row(
            Table.CAMPAIGNS,
            campaign_id=campaign,
            name=f"Campaign {campaign}",
            advertiser_id=advertiser,
            currency=currency,
            valid_from=valid_from_s * 1_000,
        )


def _traffic(rng: random.Random, at: dict[str, Any], minute: int) -> Iterator[dict[str, Any]]:
    """What a row of either grain says, one for each input, creative and validity."""
    pane = at.pop("minute")
    ctr = 0.02 if minute < MINUTES // 2 else 0.03
    for creative, variant, region, channel in CREATIVES:
        for validity, share in VALIDITIES.items():
            counts = _counts(rng, 400 * share, ctr)
            for source, measures in MEASURES_OF.items():
                own = {name: counts[name] for name in measures if name in counts}
                if own:
                    yield {
                        **at,
                        **own,
                        **_common(source, counts, validity),
                        "input": source.value,
                        "origin_pane": pane,
                        "effect_pane": pane,
                        "creative_id": creative,
                        "variant": variant,
                        "region": region,
                        "channel": channel,
                        "publisher_id": "pub-1",
                        "validity": validity,
                    }


def _common(source: Input, counts: dict[str, int], validity: str) -> dict[str, int]:
    judged = counts.get(source.value, 0)
    spend = 18_000_000 * judged if source is Input.IMPRESSIONS else 0
    credited = spend // 10 if validity == "valid" else 0
    return {"judged": judged, "undecided": judged // 20, "spend_millimicros": spend, "credited_millimicros": credited}


def _counts(rng: random.Random, impressions: float, ctr: float) -> dict[str, int]:
    shown = int(rng.uniform(0.8, 1.2) * impressions)
    clicks = int(shown * ctr * rng.uniform(0.8, 1.2) + rng.random())
    conversions = min(clicks, int(clicks * 0.1 + rng.random()))
    return {
        "impressions": shown,
        "measured_impressions": shown,
        "viewable_impressions": shown // 2,
        "plays_started": shown // 2,
        "plays_3s": shown // 4,
        "plays_completed": shown // 8,
        "clicks": clicks,
        "conversions": conversions,
        "orders": conversions,
        "paid_orders": int(conversions * rng.random() * 1.5),
    }


def _pacing(at: dict[str, Any], minute: int, number: int) -> Row:
    target = (minute + 1) * 1_000_000
    spend = int(target * (0.8 + 0.2 * number))
    return make_row(
        Table.PACING,
        **at,
        budget_micros=500_000_000 if number else 50_000_000,
        target_micros=target,
        gross_spend_micros=spend + 1_000,
        credited_micros=1_000,
        spend_micros=spend,
        in_flight_micros=10_000,
        rate_ppm=700_000,
        reason="behind" if number == 0 else "ahead",
        forecast_micros=spend * 12,
        forecast_low_micros=spend * 11,
        forecast_high_micros=spend * 13,
        exhausts_at=END_S + 3_600 if number > 1 else None,
    )


def _cohort(campaign: str, currency: str) -> Row:
    return make_row(Table.COHORTS, campaign_id=campaign, currency=currency, click_hour=BEGIN_S, conversions=9)


def _alerts(campaign: str, advertiser: str) -> Iterator[Row]:
    about = {"campaign_id": campaign, "advertiser_id": advertiser, "text_en": "Fewer clicks.", "text_zh": "点击减少。"}
    yield make_row(
        Table.ALERTS, **about, alert_id=f"1-{campaign}", kind="ctr_anomaly", began=BEGIN_S + 600, changed=BEGIN_S + 600
    )
    yield make_row(
        Table.ALERTS,
        **about,
        alert_id=f"2-{campaign}",
        kind="under_delivery",
        state="resolved",
        began=BEGIN_S + 900,
        changed=BEGIN_S + 1_800,
    )


def _flags(rng: random.Random, campaign: str, currency: str) -> Iterator[Row]:
    for number in range(40):
        rule, kind = RULES[number % 2]
        at = BEGIN_S + rng.randrange(MINUTES * 60 - 60)
        about = {
            "event": f"{campaign}-{number}",
            "event_id": f"{campaign}-{number}",
            "input": "clicks",
            "event_time": at,
            "decided": at + rng.randrange(60),
            "campaign_id": campaign,
            "creative_id": CREATIVES[number % 2][0],
            "publisher_id": f"pub-{number % 3}",
            "currency": currency,
            "cost_millimicros": 1_000_000,
            "class": kind,
        }
        mode, state = "observe" if number % 5 == 0 else "on", "withdrawn" if number == 2 else "raised"
        yield make_row(Table.FLAGS, **about, rule=rule, state=state, mode=mode)
        if number in (0, 4):
            said = {"state": "overturned" if number == 0 else "confirmed", "review_ms": 1000 * at, "mode": "on"}
            yield make_row(Table.FLAGS, **about, **said, rule="review", reviewer="ana", review_reason="Seen by hand.")


def _ledger() -> Iterator[Row]:
    for source in ("impressions", "clicks"):
        for entry, records in ENTRIES.items():
            reason = "not_json" if entry == "rejected" else ""
            yield make_row(Table.LEDGER, input=source, partition=1, entry=entry, reason=reason, records=records)
