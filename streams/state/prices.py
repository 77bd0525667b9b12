"""What an event of a campaign costs: the tariffs that its settings bring, and the times from which each holds.

A tariff holds by the event's own pane, so spend does not depend on when an event arrives. It never rewrites the past:
a version that becomes known at a tick holds from a pane that no event has reached by then. A campaign's first version
also holds for whatever comes before it, for nothing contradicts it there.
"""

from bisect import bisect_right
from operator import itemgetter
from typing import Any, Final, NamedTuple

from streams.campaigns import CampaignSettings
from streams.events import Conversion, ConversionType, Event, Input, Milestone, Play, TouchType
from streams.terms import BillingModel

OWN_PRICE: Final = -1
"""No tariff: the event costs what it says itself."""
BY_EVENT: Final = -2
"""Depends on the event: `PriceBook.price_of` tells."""
MAX_TARIFFS: Final = 64
"""Tariffs of a campaign that are remembered; beyond it the oldest is forgotten, and the next holds in its place."""

_SOURCE: Final = {
    BillingModel.CPM: Input.IMPRESSIONS,
    BillingModel.OCPM: Input.IMPRESSIONS,
    BillingModel.CPC: Input.CLICKS,
    BillingModel.OCPC: Input.CLICKS,
    BillingModel.PAID_PLAY: Input.PLAYS,
    BillingModel.CPA: Input.CONVERSIONS,
}


class Tariff(NamedTuple):
    """What one billable event costs. A price per mille in micros is a price each in millimicros."""

    source: Input
    price_millimicros: int
    kind: str = ""
    """Of plays the milestone, of conversions the type that is billed."""


class Dated(NamedTuple):
    """A tariff and the event time, ms, from which it holds; None: the events' own prices."""

    from_ms: int
    tariff: Tariff | None


def tariff_of(settings: CampaignSettings) -> Tariff | None:
    """The tariff that settings bring; None where events carry their prices."""
    billing = settings.billing
    if billing.price_micros is None or billing.model is BillingModel.CLEARING_PRICE:
        return None
    source = _SOURCE[billing.model]
    if source is Input.IMPRESSIONS:
        return Tariff(source, billing.price_micros)
    kind = {
        Input.PLAYS: billing.play_milestone.value,
        Input.CONVERSIONS: (billing.conversion_type or settings.goal or ConversionType.OTHER).value,
    }
    return Tariff(source, billing.price_micros * 1000, kind.get(source, ""))


class _Costs(dict[str | None, int]):
    """Cost by campaign; a campaign without a tariff has its events' own prices."""

    def __missing__(self, campaign: str | None) -> int:
        return OWN_PRICE


class PriceBook:
    """The tariffs of one partition's campaigns. Empty as long as no campaign has any."""

    def __init__(self) -> None:
        self.costs: dict[Input, _Costs] = {source: _Costs() for source in Input}
        """By input: what a counted event of a campaign costs, millimicros; OWN_PRICE, or BY_EVENT."""
        self._dated: dict[str, list[Dated]] = {}

    def __len__(self) -> int:
        return len(self._dated)

    def add(self, settings: CampaignSettings, from_ms: int, unreached_ms: int) -> None:
        """A version was accepted that holds from this pane on; no event has reached `unreached_ms` yet, nor so it.

        Until then another may come before it, so that it is kept even where it changes no price.
        """
        campaign, latest = settings.campaign_id, Dated(from_ms, tariff_of(settings))
        known = self._dated.get(campaign, [])
        if len(known) == 1 and known[0].from_ms > 0:  # the first holds before its own time as well
            known = [Dated(0, known[0].tariff), *known]
        dated = sorted([*(d for d in known if d.from_ms != from_ms), latest], key=itemgetter(0))
        dated = _changes(dated, unreached_ms)
        self._dated[campaign] = dated if len(dated) <= MAX_TARIFFS else _changes(dated)[-MAX_TARIFFS:]
        self._compile(campaign)

    def _compile(self, campaign: str) -> None:
        dated = _changes(self._dated[campaign])
        for source, costs in self.costs.items():
            cost = _cost_of(source, dated)
            if cost == OWN_PRICE:
                costs.pop(campaign, None)
            else:
                costs[campaign] = cost

    def price_of(self, event: Event) -> int:
        """What this event costs, millimicros; OWN_PRICE where no tariff holds at its time."""
        dated = self._dated[event.campaign_id or ""]
        at = bisect_right(dated, event.event_time_ms, key=itemgetter(0))
        tariff = dated[max(0, at - 1)].tariff
        if tariff is None:
            return OWN_PRICE
        return tariff.price_millimicros if is_billable(event, tariff) else 0

    def snapshot(self) -> list[Any]:
        """The book as plain values."""
        return [(campaign, [(d.from_ms, d.tariff) for d in dated]) for campaign, dated in self._dated.items()]

    def restore(self, snapshot: list[Any]) -> None:
        """Takes back what `snapshot` gave."""
        self.__init__()  # type: ignore[misc]
        for campaign, dated in snapshot:
            self._dated[campaign] = [Dated(at, _tariff(values)) for at, values in dated]
            self._compile(campaign)


def _changes(dated: list[Dated], until_ms: int | None = None) -> list[Dated]:
    """Without those that change nothing, as far as they hold from `until_ms` at the latest."""
    return [
        d
        for at, d in enumerate(dated)
        if not at or d.tariff != dated[at - 1].tariff or (until_ms is not None and d.from_ms > until_ms)
    ]


def _tariff(values: list[Any] | None) -> Tariff | None:
    return None if values is None else Tariff(Input(values[0]), values[1], values[2])


def _cost_of(source: Input, dated: list[Dated]) -> int:
    if len(dated) > 1:
        return BY_EVENT if any(d.tariff for d in dated) else OWN_PRICE
    tariff = dated[0].tariff
    if tariff is None:
        return OWN_PRICE
    if tariff.source is not source:
        return 0
    return BY_EVENT if tariff.kind else tariff.price_millimicros


def is_billable(event: Event, tariff: Tariff) -> bool:
    """Whether a counted event is one that the tariff bills: a conversion only where it is credited to a touch."""
    if event.input is not tariff.source:  # type: ignore[attr-defined]
        return False
    if type(event) is Play:
        return event.loop == 1 and event.milestone is Milestone(tariff.kind)
    if type(event) is Conversion:
        touch = event.attribution
        is_credited = touch is not None and touch.touch_type is not TouchType.NONE
        return is_credited and event.conversion_type is ConversionType(tariff.kind)
    return True
