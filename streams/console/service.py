"""What the console knows, for whoever asks: questions to ClickHouse, and their answers as documents.

Every method takes the principal, and every statement carries its condition: what is not the principal's own is not
found, and `shown_to` takes out what only operators see.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final, Protocol

import msgspec

from streams.console import statements
from streams.console.access import Principal, own_campaigns
from streams.console.documents import (
    AlertPage,
    Campaign,
    CampaignLine,
    CampaignPage,
    DayLine,
    Days,
    Figures,
    FlagPage,
    Health,
    InvalidTraffic,
    Ledger,
    LedgerLine,
    MinutePoint,
    Minutes,
    PaceLine,
    PacePoint,
    Pacing,
    RuleCount,
    Spark,
    Terms,
    shown_to,
)
from streams.console.figures import (
    DAY_S,
    NO_ZONE,
    WINDOWS_S,
    alert_of,
    at,
    day_start_s,
    figures_of,
    flag_of,
    invalid_of,
    maybe_at,
    period_of,
    reason_of,
    settled_before_s,
)
from streams.console.parameters import (
    MAX_MINUTES,
    AlertsAsked,
    BadCursor,
    CampaignsAsked,
    DaysAsked,
    FlagsAsked,
    MinutesAsked,
    Place,
    decode_cursor,
    encode_cursor,
)
from streams.console.problems import not_found
from streams.console.source import Record, Source

SPARK_MINUTES: Final = 30
PACE_POINTS: Final = 300
SHOWN_WINDOWS: Final[tuple[str, ...]] = ("1m", "5m", "15m", "1h", "day", "total")
LONG_AGO_S: Final = 0
NO_ROWS: Final[Record] = {"n_currency": "", "n_last": 0, **dict.fromkeys((f"n_{name}" for name in statements.SUMS), 0)}


class Backstage(Protocol):
    """What only the worker itself can tell."""

    def health(self) -> Health:
        """How it is."""
        ...


class Service:
    """Answers for one worker's console; every worker answers the same, but for its own health."""

    def __init__(self, source: Source, backstage: Backstage, now_s: Callable[[], float] = time.time) -> None:
        self.source = source
        self.backstage = backstage
        self._now_s = now_s

    async def as_of_s(self) -> int:
        """End of every window: the newest event's pane, or now if that is earlier. History ends in the past."""
        rows = await self.source.rows(statements.AS_OF)
        newest = int(rows[0]["newest"])
        return min(int(self._now_s()), newest + 10) if newest else int(self._now_s())

    async def campaigns(self, who: Principal, asked: CampaignsAsked) -> CampaignPage:
        """A page of campaigns with figures, pacing, alerts and the last half hour."""
        own, as_of = own_campaigns(who), await self.as_of_s()
        order = f"campaigns {asked.window} {asked.sort} {asked.order} {asked.search or ''}"
        after = decode_cursor(asked.cursor, order)
        values: dict[str, object] = {
            **own.values,
            **self._range(asked.window, as_of),
            **await self._days(as_of),
            "search": asked.search or "",
            "entries": asked.limit + 1,
        }
        if after is not None:
            values |= {"after": _value(after, asked.sort), "after_id": after.entry_id}
        sql = statements.campaigns(own, asked.window, asked.sort, asked.order, after is not None)
        rows = await self.source.rows(sql, values)
        shown, more = rows[: asked.limit], len(rows) > asked.limit
        cursor = encode_cursor(Place(order, shown[-1]["place"], shown[-1]["campaign_id"])) if more else None
        lines = await self._lines(who, shown, as_of)
        return shown_to(who, CampaignPage(window=asked.window, as_of=at(as_of), campaigns=lines, next_cursor=cursor))

    def _range(self, window: str, as_of: int) -> dict[str, object]:
        """Where a window begins. A day is at most 25 h long and the zones differ; each campaign's own begin follows."""
        length = WINDOWS_S.get(window)
        since = as_of - length if length else (as_of - 2 * DAY_S if window == "day" else LONG_AGO_S)
        return {"since": max(0, since), "until": as_of + 1 if window != "total" else 2**32 - 1}

    async def _days(self, as_of: int) -> dict[str, object]:
        zones = [row["time_zone"] for row in await self.source.rows(statements.ZONES)]
        starts = [day_start_s(as_of, zone) for zone in zones]
        return {
            "zones": [*zones, NO_ZONE],
            "starts": [*starts, day_start_s(as_of, NO_ZONE)],
            "utc_start": day_start_s(as_of, NO_ZONE),
        }

    async def _lines(self, who: Principal, shown: list[Record], as_of: int) -> list[CampaignLine]:
        ids = [row["campaign_id"] for row in shown]
        if not ids:
            return []
        begins = as_of - as_of % 60 - (SPARK_MINUTES - 1) * 60
        of = {"ids": ids, "since": begins, "until": begins + SPARK_MINUTES * 60}
        found = await asyncio.gather(
            self.source.rows(statements.SPARKS, of),
            self.source.rows(statements.PACING, {"ids": ids}),
            self.source.rows(statements.firing(who.is_operator), {"ids": ids}),
        )
        sparks, paces, firing = (_by(rows, "id") for rows in found)
        return [
            CampaignLine(
                campaign_id=row["campaign_id"],
                name=row["name"],
                advertiser_id=row["advertiser_id"],
                currency=row["currency"],
                time_zone=row["time_zone"],
                figures=figures_of(row, settled_s=settled_before_s(int(self._now_s()), row["time_zone"])),
                pacing=_pace(paces.get(row["campaign_id"])),
                spark=_spark(sparks.get(row["campaign_id"], []), begins),
                firing_alerts=sum(int(each["firing"]) for each in firing.get(row["campaign_id"], [])),
            )
            for row in shown
        ]

    async def _head(self, who: Principal, campaign_id: str) -> Record:
        """Name, zone and settings of a campaign that the principal may see.

        Raises:
            Trouble: there is none such; whether it is somebody else's is not told.
        """
        own = own_campaigns(who)
        rows = await self.source.rows(statements.one_campaign(own), {**own.values, "campaign_id": campaign_id})
        if not rows:
            raise not_found("campaign")
        return rows[0] | {"time_zone": rows[0]["time_zone"] or NO_ZONE}

    async def campaign(self, who: Principal, campaign_id: str) -> Campaign:
        """One campaign: figures by window, and its settings."""
        head, as_of = await self._head(who, campaign_id), await self.as_of_s()
        rows = await self._windows(campaign_id, head["time_zone"], as_of)
        settled_s = settled_before_s(int(self._now_s()), head["time_zone"])
        windows: dict[str, Figures] = {
            name: figures_of(row, settled_s=settled_s, prefix="n_") for name, row in rows.items()
        }
        found = Campaign(
            campaign_id=campaign_id,
            name=head["name"],
            advertiser_id=head["advertiser_id"],
            agency_id=head["agency_id"],
            currency=head["currency"] or _first_currency(rows),
            time_zone=head["time_zone"],
            as_of=at(as_of),
            settled_before=at(settled_s),
            windows=windows,
            settings=_terms(head),
        )
        return shown_to(who, found)

    async def _windows(self, campaign_id: str, zone: str, as_of: int) -> dict[str, Record]:
        starts = [as_of - WINDOWS_S[name] for name in SHOWN_WINDOWS if name in WINDOWS_S]
        starts += [day_start_s(as_of, zone), LONG_AGO_S]
        values: dict[str, object] = {
            "campaign_id": campaign_id,
            "names": list(SHOWN_WINDOWS),
            "starts": [max(0, start) for start in starts],
        }
        found = {row["window"]: row for row in await self.source.rows(statements.WINDOWS, values)}
        return {name: found.get(name, NO_ROWS) for name in SHOWN_WINDOWS}

    async def days(self, who: Principal, campaign_id: str, asked: DaysAsked) -> Days:
        """A campaign by day."""
        head = await self._head(who, campaign_id)
        zone = head["time_zone"]
        settled_s = settled_before_s(int(self._now_s()), zone)
        values = {"campaign_id": campaign_id, "zone": zone, "entries": asked.limit}
        rows = await self.source.rows(statements.DAYS, values)
        lines = [
            DayLine(day=date.fromisoformat(row["day"]), figures=figures_of(row, settled_s=settled_s, prefix="n_"))
            for row in rows
        ]
        currency = head["currency"] or next((row["n_currency"] for row in rows if row["n_currency"]), "")
        return shown_to(who, Days(time_zone=zone, currency=currency, days=lines))

    async def minutes(self, who: Principal, campaign_id: str, asked: MinutesAsked) -> Minutes:
        """A campaign by minute, or by longer steps."""
        head = await self._head(who, campaign_id)
        until = int(asked.ends.timestamp()) if asked.ends else await self.as_of_s() + 1
        since = int(asked.begins.timestamp()) if asked.begins else until - 7_200
        values = {
            "campaign_id": campaign_id,
            "since": _bounded(since),
            "until": _bounded(until),
            "step_s": asked.step_s,
            "entries": MAX_MINUTES,
        }
        rows = await self.source.rows(statements.MINUTES, values)
        points = [
            MinutePoint(
                minute=at(row["at"]),
                impressions=int(row["n_impressions"]),
                clicks=int(row["n_clicks"]),
                conversions=int(row["n_conversions"]),
                spend_micros=row["n_spend_micros"],
                invalid_clicks=int(row["n_givt_clicks"]) + int(row["n_sivt_clicks"]),
            )
            for row in rows
        ]
        currency = head["currency"] or next((row["n_currency"] for row in rows if row["n_currency"]), "")
        answer = Minutes(time_zone=head["time_zone"], currency=currency, step_s=asked.step_s, minutes=points)
        return shown_to(who, answer)

    async def pacing(self, who: Principal, campaign_id: str) -> Pacing:
        """The current period of a campaign, with its curve."""
        head = await self._head(who, campaign_id)
        rows = await self.source.rows(statements.PACING, {"ids": [campaign_id]})
        zone = head["time_zone"]
        if not rows:
            return Pacing(currency=head["currency"], time_zone=zone, period=None, points=[])
        row, as_of = rows[0], await self.as_of_s()
        begins = int(row["begins"] or 0)
        passed_s = max(60, as_of - begins) if begins else 30 * DAY_S
        step = max(60, -(-passed_s // PACE_POINTS // 60) * 60)
        values = {
            "campaign_id": campaign_id,
            "begins": begins,
            "period_kind": row["period_kind"],
            "step_s": step,
            "entries": PACE_POINTS * 2,
        }
        points = [
            PacePoint(
                minute=at(each["at"]),
                target_micros=each["target"],
                spend_micros=each["spend"],
                forecast_micros=each["forecast"],
                rate=each["last_rate"],
            )
            for each in await self.source.rows(statements.PACE_POINTS, values)
        ]
        return shown_to(who, Pacing(currency=row["currency"], time_zone=zone, period=period_of(row), points=points))

    async def invalid_traffic(self, who: Principal, campaign_id: str) -> InvalidTraffic:
        """Invalid traffic of a campaign by window and class; its rules for operators."""
        head, as_of = await self._head(who, campaign_id), await self.as_of_s()
        rows = await self._windows(campaign_id, head["time_zone"], as_of)
        reasons = await self.source.rows(statements.REASON_COUNTS, {"campaign_id": campaign_id})
        counts = await self.source.rows(statements.RULE_COUNTS, {"campaign_id": campaign_id}) if who.is_operator else []
        found = InvalidTraffic(
            as_of=at(as_of),
            windows={name: invalid_of(row, "n_") for name, row in rows.items()},
            credited_micros=rows["total"]["n_credited_micros"],
            currency=head["currency"] or _first_currency(rows),
            reasons=list(map(reason_of, reasons)),
            rules=[
                RuleCount(
                    rule=row["rule"],
                    invalid_class=row["class"],
                    mode=row["mode"],
                    state=row["state"],
                    flags=int(row["flags"]),
                )
                for row in counts
            ],
        )
        return shown_to(who, found)

    async def alerts(self, who: Principal, asked: AlertsAsked) -> AlertPage:
        """A page of alerts, the latest change first."""
        own = own_campaigns(who)
        order = f"alerts {asked.campaign_id or ''} {asked.state or ''} {asked.kind or ''}"
        after = decode_cursor(asked.cursor, order)
        values: dict[str, object] = {
            **own.values,
            "campaign_id": asked.campaign_id or "",
            "state": asked.state or "",
            "kind": asked.kind.value if asked.kind else "",
            "entries": asked.limit + 1,
        }
        if after is not None:
            values |= {"after": _value(after, "changed"), "after_id": after.entry_id}
        rows = await self.source.rows(statements.alerts(own, after is not None), values)
        shown, more = rows[: asked.limit], len(rows) > asked.limit
        cursor = encode_cursor(Place(order, shown[-1]["changed_s"], shown[-1]["alert_id"])) if more else None
        return shown_to(who, AlertPage(alerts=[alert_of(row) for row in shown], next_cursor=cursor))

    async def flags(self, who: Principal, asked: FlagsAsked) -> FlagPage:
        """A page of flags with their evidence, the latest decision first. For operators (the route sees to it)."""
        order = f"flags {asked.campaign_id or ''} {asked.rule or ''} {asked.invalid_class or ''} {asked.state or ''}"
        after = decode_cursor(asked.cursor, order)
        values: dict[str, object] = {
            "campaign_id": asked.campaign_id or "",
            "rule": asked.rule.value if asked.rule else "",
            "class": asked.invalid_class or "",
            "state": asked.state or "",
            "entries": asked.limit + 1,
        }
        if after is not None:
            values |= {"after": int(_value(after, "decided")), "after_id": after.entry_id}
        rows = await self.source.rows(statements.flags(after is not None), values)
        shown, more = rows[: asked.limit], len(rows) > asked.limit
        cursor = encode_cursor(Place(order, shown[-1]["decided_s"], shown[-1]["flag_id"])) if more else None
        return FlagPage(flags=[flag_of(row, _evidence(row["evidence"])) for row in shown], next_cursor=cursor)

    async def ledger(self, who: Principal) -> Ledger:
        """Where every record ended, by input and partition. For operators."""
        rows = await self.source.rows(statements.LEDGER)
        lines = [msgspec.convert(row, LedgerLine) for row in rows]
        return Ledger(lines=lines, is_balanced=all(line.balance == 0 for line in lines))

    def health(self, who: Principal) -> Health:
        """How this worker is. For operators."""
        return self.backstage.health()


def _value(after: Place, sort: str) -> float | str:
    """The last value of the page before, as its order needs it."""
    if isinstance(after.value, str) != (sort == "name"):
        raise BadCursor("is the cursor of a list in another order; begin without one")
    return after.value


def _bounded(epoch_s: int) -> int:
    return max(0, min(2**32 - 1, epoch_s))


def _by(rows: list[Record], column: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return found


def _pace(rows: list[Record] | None) -> PaceLine | None:
    if not rows:
        return None
    row = rows[0]
    names = ("status", "budget_micros", "target_micros", "spend_micros", "forecast_micros", "rate")
    return PaceLine(**{name: row[name] for name in names})


def _spark(rows: list[Record], begins: int) -> Spark:
    series: dict[str, list[int]] = {name: [0] * SPARK_MINUTES for name in ("impressions", "clicks", "spend")}
    for row in rows:
        place = int(row["place"])
        if 0 <= place < SPARK_MINUTES:
            for name, values in series.items():
                values[place] = int(row[f"n_{name}"])
    return Spark(
        begins=at(begins), impressions=series["impressions"], clicks=series["clicks"], spend_micros=series["spend"]
    )


def _first_currency(rows: Mapping[str, Record]) -> str:
    return next((row["n_currency"] for row in rows.values() if row["n_currency"]), "")


def _evidence(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _terms(head: Record) -> Terms | None:
    """The terms from a campaign's document, as far as it can be read: it may be of a later version."""
    if not head["settings"]:
        return None
    document = _evidence(head["settings"])
    if not isinstance(document, dict):
        return None
    billing, budget = (document.get(name) or {} for name in ("billing", "budget"))
    return Terms(
        goal=document.get("goal"),
        billing_model=str(billing.get("model", "clearing_price")),
        price_micros=billing.get("price_micros"),
        daily_budget_micros=budget.get("daily_micros"),
        total_budget_micros=budget.get("total_micros"),
        flight_start=maybe_at(_seconds(document.get("flight_start_ms"))),
        flight_end=maybe_at(_seconds(document.get("flight_end_ms"))),
        valid_from=at(head["held_from"]),
        whole=document,
    )


def _seconds(epoch_ms: int | None) -> int | None:
    return None if epoch_ms is None else epoch_ms // 1000
