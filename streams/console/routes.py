"""Every operation of the API, once: the router, the judging of parameters and the description are made from this."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from streams.console.access import Principal
from streams.console.documents import (
    AlertPage,
    Campaign,
    CampaignPage,
    Days,
    FlagPage,
    Health,
    InvalidTraffic,
    Ledger,
    Minutes,
    Pacing,
)
from streams.console.parameters import (
    AlertsAsked,
    CampaignsAsked,
    DaysAsked,
    FlagsAsked,
    MinutesAsked,
    Nothing,
    Parameters,
)
from streams.console.service import Service

BASE: Final = "/api/v1"


class Asked(NamedTuple):
    """One request, judged: who asks for what."""

    who: Principal
    campaign_id: str
    parameters: Any


class Operation(NamedTuple):
    """One operation: GET a path (below `BASE`), with these parameters, for this answer."""

    name: str
    path: str
    summary: str
    answer: type[Any]
    handle: Callable[[Service, Asked], Awaitable[Any]]
    parameters: type[Parameters] = Nothing
    operators_only: bool = False

    @property
    def is_of_campaign(self) -> bool:
        """Whether the path names a campaign."""
        return "{campaign_id}" in self.path


async def _health(service: Service, asked: Asked) -> Health:
    return service.health(asked.who)


OPERATIONS: Final = (
    Operation(
        "listCampaigns",
        "/campaigns",
        "Campaigns with their figures, pacing, firing alerts and last half hour.",
        CampaignPage,
        lambda service, asked: service.campaigns(asked.who, asked.parameters),
        CampaignsAsked,
    ),
    Operation(
        "getCampaign",
        "/campaigns/{campaign_id}",
        "One campaign: its figures by window, and its settings.",
        Campaign,
        lambda service, asked: service.campaign(asked.who, asked.campaign_id),
    ),
    Operation(
        "listDays",
        "/campaigns/{campaign_id}/days",
        "A campaign by day, in its own time zone; provisional until settled.",
        Days,
        lambda service, asked: service.days(asked.who, asked.campaign_id, asked.parameters),
        DaysAsked,
    ),
    Operation(
        "listMinutes",
        "/campaigns/{campaign_id}/minutes",
        "A campaign's time series.",
        Minutes,
        lambda service, asked: service.minutes(asked.who, asked.campaign_id, asked.parameters),
        MinutesAsked,
    ),
    Operation(
        "getPacing",
        "/campaigns/{campaign_id}/pacing",
        "A campaign's plan, spend and forecast in its current period.",
        Pacing,
        lambda service, asked: service.pacing(asked.who, asked.campaign_id),
    ),
    Operation(
        "getInvalidTraffic",
        "/campaigns/{campaign_id}/invalid",
        "A campaign's invalid traffic by window and class; by rule for operators.",
        InvalidTraffic,
        lambda service, asked: service.invalid_traffic(asked.who, asked.campaign_id),
    ),
    Operation(
        "listAlerts",
        "/alerts",
        "Alerts in their latest state, the latest change first.",
        AlertPage,
        lambda service, asked: service.alerts(asked.who, asked.parameters),
        AlertsAsked,
    ),
    Operation(
        "listFlags",
        "/flags",
        "Flags on events with their evidence, the latest decision first.",
        FlagPage,
        lambda service, asked: service.flags(asked.who, asked.parameters),
        FlagsAsked,
        operators_only=True,
    ),
    Operation(
        "getLedger",
        "/ledger",
        "Where every consumed record ended, by input and partition.",
        Ledger,
        lambda service, asked: service.ledger(asked.who),
        operators_only=True,
    ),
    Operation(
        "getHealth",
        "/health",
        "How the worker that answers is.",
        Health,
        _health,
        operators_only=True,
    ),
)
