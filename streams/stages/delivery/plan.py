"""Who is told of what: routes and limits, as plain values from the settings."""

from collections.abc import Mapping
from typing import Final

import msgspec

from streams.signals import Alert, Audience
from streams.stages.delivery.local_time import Every

DEFAULT_ROUTE: Final = "default"


class RoutePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver."""

    name: str
    advertisers: tuple[str, ...] = ()
    agencies: tuple[str, ...] = ()
    is_for_operations: bool = False
    language: str | None = None
    """None: what most of a message's alerts ask for."""
    hourly_cap: int = 12
    digest: Every = "daily"
    digest_hour: int = 9
    time_zone: str = "UTC"


class DeliveryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All receivers, and the bounds (law 8); what happens beyond each is told in `dispatcher`."""

    routes: tuple[RoutePlan, ...] = ()
    group_wait_ms: int = 20_000
    push_resolved: bool = True
    push_within_ms: int = 21_600_000
    lookback_ms: int = 172_800_000
    max_under_way: int = 20
    """Messages composed and not yet delivered, of a receiver."""
    max_alerts: int = 100_000
    max_digest_alerts: int = 10_000
    max_message_alerts: int = 4_000
    max_commands: int = 10_000


class Routing:
    """Finds the routes of an alert."""

    def __init__(self, routes: tuple[RoutePlan, ...]) -> None:
        self._known = {route.name for route in routes}
        self._operations = tuple(route.name for route in routes if route.is_for_operations)
        self._advertisers = _index({route.name: route.advertisers for route in routes})
        self._agencies = _index({route.name: route.agencies for route in routes})

    def routes_of(self, alert: Alert) -> tuple[str, ...]:
        """Operations' alerts go to operations' routes alone. Others: the routes that the alert names and that exist,
        else its advertiser's, else its agency's, else `default`. Empty: nobody is told.
        """
        if alert.audience is Audience.OPERATIONS:
            return self._operations
        named = tuple(dict.fromkeys(name for name in alert.routes if name in self._known))
        default = (DEFAULT_ROUTE,) if DEFAULT_ROUTE in self._known else ()
        return named or self._advertisers.get(alert.advertiser_id) or self._agencies.get(alert.agency_id) or default

    def unknown_in(self, alert: Alert) -> int:
        """How many of the routes that the alert names do not exist."""
        return sum(name not in self._known for name in alert.routes)


def _index(served: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, ids in served.items():
        for each in ids:
            found[each] = (*found.get(each, ()), name)
    return found
