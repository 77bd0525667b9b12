"""The worker's state in one JSON document, for `top`, the demo and the tests."""

from typing import Any

from streams.agents.keeper import Keeper
from streams.agents.metrics import Highwater, top_campaigns
from streams.agents.publisher import Publisher
from streams.stages.rates import wilson
from streams.state.partition import TOPICS
from streams.state.windows import WINDOW_INDEX, WINDOW_MEASURES


def status(keeper: Keeper, publisher: Publisher, highwater: Highwater, top: int) -> dict[str, Any]:
    """Ledger, lag, health, and the top campaigns with their windows (`top` 0: none). Ratios over zero are null."""
    owners = list(keeper.owners.values())
    return {
        "partitions": sorted(keeper.owners),
        "recovering": sorted(o.partition for o in owners if o.is_recovering),
        "ledger": _ledger(keeper),
        "lag_records": lag_records(keeper, highwater),
        "dirty_rows": keeper.dirty_rows,
        "ticked": all(o.is_settled for o in owners),
        "visible_ms": keeper.visible.summary(),
        "waiting_reports": sum(
            not s.report.is_clean or not s.cohorts.is_clean for o in owners for s in o.state.inputs.values()
        ),
        "waiting_evidence": sum(o.state.judging.forwarding.has_untold for o in owners),
        "inserted_rows": publisher.inserted_rows,
        "insertion_errors": publisher.errors,
        "sink_up": publisher.failures_in_a_row == 0,
        "newest_event_ms": max((s.newest_ms for o in owners for s in o.state.inputs.values()), default=-1),
        "campaigns": campaigns(keeper, top) if top else [],
    }


def lag_records(keeper: Keeper, highwater: Highwater) -> int:
    """Records that Kafka has and that were not applied yet."""
    owners = keeper.owners.values()
    return sum(max(0, (highwater(t, o.partition) or 0) - o.state.position(t)) for o in owners for t in TOPICS)


def _ledger(keeper: Keeper) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for owner in keeper.owners.values():
        for source, state in owner.state.inputs.items():
            entries = found.setdefault(source.value, {"consumed": 0})
            entries["consumed"] += state.consumed()
            for (entry, reason), count in state.ledger.items():
                name = f"{entry}/{reason}" if reason else entry
                entries[name] = entries.get(name, 0) + count
    return found


def campaigns(keeper: Keeper, top: int) -> list[dict[str, Any]]:
    """The top campaigns, each with its windows."""
    owners = list(keeper.owners.values())
    windows = [owner.state.windows for owner in owners]
    names = {c: v.settings.name for o in owners for c, v in o.state.campaigns.current.items()}
    currencies = {c: currency for o in owners for c, currency in o.state.campaigns.currencies.items()}
    by_campaign: dict[str, dict[str, Any]] = {}
    for window, shares in top_campaigns(windows, top).items():
        for campaign, totals in shares.items():
            entry = by_campaign.setdefault(
                campaign,
                {
                    "campaign_id": campaign,
                    "name": names.get(campaign, ""),
                    "currency": currencies.get(campaign, ""),
                    "windows": {},
                },
            )
            entry["windows"][window] = _window(totals)
    return list(by_campaign.values())


def _window(totals: tuple[int, ...]) -> dict[str, Any]:
    counts: dict[str, Any] = dict(zip(WINDOW_MEASURES, totals, strict=True))
    for name, numerator, denominator in (("ctr", "clicks", "impressions"), ("cvr", "conversions", "clicks")):
        rate = wilson(totals[WINDOW_INDEX[numerator]], totals[WINDOW_INDEX[denominator]])
        counts[name] = None if rate is None else {"value": rate.value, "low": rate.low, "high": rate.high}
    return counts
