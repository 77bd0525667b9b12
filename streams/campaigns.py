"""What a version in the topic ads.campaigns holds, and how one is checked.

Settings are versioned: every record is a whole document that holds from `valid_from_ms` on, until a later version
does. The pipeline decodes them leniently (`decode_campaign`: unknown fields are tolerated, the first fault decides);
files are checked strictly and completely (`problems_of`: every fault of a document at once).
"""

from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from streams.documents import Fault, Problem, decode_document, money_faults, struct_problems
from streams.events import ConversionType, Currency, Id, Reason, Rejected, TimeMs
from streams.terms import Alerting, Billing, BillingModel, Budget, Pacing, PacingPeriod

Name = Annotated[str, Meta(max_length=256)]
ZoneName = Annotated[str, Meta(min_length=1, max_length=64)]


class CampaignSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a campaign's settings. The record's key is the campaign id."""

    campaign_id: Annotated[Id, Meta(description="Campaign. The record's key.")]
    name: Annotated[Name, Meta(description="Name for people.")] = ""
    advertiser_id: Annotated[Id | None, Meta(description="Advertiser.")] = None
    agency_id: Annotated[Id | None, Meta(description="Agency.")] = None
    shop_id: Annotated[Id | None, Meta(description="Shop that the campaign is for, if one.")] = None
    creator_id: Annotated[Id | None, Meta(description="Creator or host that the campaign is for, if one.")] = None
    account_id: Annotated[Id | None, Meta(description="Account that is billed.")] = None
    currency: Annotated[
        Currency, Meta(description="ISO 4217 code. A campaign has one; other money is counted and refused.")
    ]
    time_zone: Annotated[ZoneName, Meta(description="IANA time zone of the campaign's day.")] = "UTC"
    goal: Annotated[
        ConversionType | None, Meta(description="Conversion type that CVR is about; null: as the rules say.")
    ] = None
    flight_start_ms: Annotated[
        TimeMs | None, Meta(description="Begin of the flight, epoch ms UTC, included; null: open.")
    ] = None
    flight_end_ms: Annotated[
        TimeMs | None, Meta(description="End of the flight, epoch ms UTC, excluded; null: open.")
    ] = None
    valid_from_ms: Annotated[
        TimeMs | None, Meta(description="This version holds from then on, epoch ms UTC; null: when it was appended.")
    ] = None
    billing: Annotated[Billing, Meta(description="How spend comes about.")] = Billing()
    budget: Annotated[Budget, Meta(description="What may be spent; empty: measured, but not paced.")] = Budget()
    pacing: Annotated[Pacing, Meta(description="How the budget is spread over its period.")] = Pacing()
    alerts: Annotated[Alerting, Meta(description="Thresholds, receivers and language of alerts.")] = Alerting()
    schema_version: Annotated[int, Meta(ge=1, le=1000, description="Version of this document's schema.")] = 1


_DECODER: Final = msgspec.json.Decoder(CampaignSettings)
_FIXED_PRICE: Final = frozenset({BillingModel.CPM, BillingModel.CPC, BillingModel.CPA, BillingModel.PAID_PLAY})
_OPTIMISED: Final = frozenset({BillingModel.OCPM, BillingModel.OCPC})
_USUALLY_PUSHED: Final = Alerting().push


def encode_campaign(settings: CampaignSettings) -> bytes:
    """The record's value: JSON in the order of the fields."""
    return msgspec.json.encode(settings)


def decode_campaign(raw: bytes | None) -> CampaignSettings | Rejected:
    """Decodes a value of ads.campaigns. Never raises; the first fault decides the reason."""
    return decode_document(_DECODER, raw, faults_of)


def problems_of(document: object) -> list[Problem]:
    """Every fault of one document (builtin values, as read from YAML or TOML), strictly: misspelt names too.

    Rules across fields are judged once the fields themselves are right.
    """
    problems = struct_problems(document, CampaignSettings)
    if problems:
        return problems + _rules_of_sound_fields(document, problems)
    return [Problem(f.path, f.problem) for f in faults_of(msgspec.convert(document, CampaignSettings))]


def faults_of(settings: CampaignSettings) -> list[Fault]:
    """Rules that types cannot express."""
    return [
        *money_faults(settings.currency, settings.time_zone),
        *_flight_faults(settings),
        *_billing_faults(settings),
        *_budget_faults(settings),
        *_alerting_faults(settings.alerts),
    ]


def _flight_faults(settings: CampaignSettings) -> list[Fault]:
    start, end = settings.flight_start_ms, settings.flight_end_ms
    if start is None or end is None or end > start:
        return []
    return [Fault(Reason.OUT_OF_RANGE, "flight_end_ms", "must be after flight_start_ms")]


def _billing_faults(settings: CampaignSettings) -> list[Fault]:
    billing, model = settings.billing, settings.billing.model
    found = []
    if model in _FIXED_PRICE and billing.price_micros is None:
        found.append(Fault(Reason.MISSING_FIELD, "billing.price_micros", f"is missing: {model} needs a price"))
    if model is BillingModel.CLEARING_PRICE and billing.price_micros is not None:
        text = "has no place here: with clearing_price the events carry the price; did you mean another model?"
        found.append(Fault(Reason.OUT_OF_RANGE, "billing.price_micros", text))
    if model is BillingModel.CPA and billing.conversion_type is None and settings.goal is None:
        text = "is missing: cpa needs it, or a goal"
        found.append(Fault(Reason.MISSING_FIELD, "billing.conversion_type", text))
    if model in _OPTIMISED and settings.goal is None:
        found.append(Fault(Reason.MISSING_FIELD, "goal", f"is missing: {model} is judged by its goal"))
    if model in _OPTIMISED and billing.target_cost_micros is None:
        text = f"is missing: {model} is judged by its target cost"
        found.append(Fault(Reason.MISSING_FIELD, "billing.target_cost_micros", text))
    return found


def _budget_faults(settings: CampaignSettings) -> list[Fault]:
    budget, is_session = settings.budget, settings.pacing.period is PacingPeriod.LIVE_SESSION
    found = []
    if budget.daily_micros and budget.total_micros and budget.daily_micros > budget.total_micros:
        found.append(Fault(Reason.OUT_OF_RANGE, "budget.daily_micros", "is more than budget.total_micros"))
    if is_session and budget.session_micros is None:
        text = "is missing: pacing.period live_session needs it"
        found.append(Fault(Reason.MISSING_FIELD, "budget.session_micros", text))
    if not is_session and budget.session_micros is not None:
        text = "has no place here: it needs pacing.period live_session"
        found.append(Fault(Reason.OUT_OF_RANGE, "budget.session_micros", text))
    return found


def _alerting_faults(alerts: Alerting) -> list[Fault]:
    found, ladder, quiet = [], alerts.ladder_percent, alerts.quiet_hours
    if any(step >= following for step, following in pairwise(ladder)):
        text = f"must rise from step to step; did you mean {', '.join(map(str, sorted(set(ladder))))}?"
        found.append(Fault(Reason.OUT_OF_RANGE, "alerts.ladder_percent", text))
    if alerts.push != _USUALLY_PUSHED:  # which nobody chose: what is off is then not pushed, of course
        text = "is in alerts.push as well; leave it in one of them"
        both = [kind for kind in alerts.off if kind in alerts.push]
        found += [Fault(Reason.OUT_OF_RANGE, "alerts.off", f"{kind} {text}") for kind in dict.fromkeys(both)]
    if quiet is not None and quiet.begins == quiet.ends:
        text = (
            "is when they begin: so none would be quiet; leave quiet_hours out, or put what is not to be pushed in off"
        )
        found.append(Fault(Reason.OUT_OF_RANGE, "alerts.quiet_hours.ends", text))
    return found


def _rules_of_sound_fields(document: object, problems: list[Problem]) -> list[Problem]:
    """The rules of those fields that have no problem yet, so that one reading shows everything."""
    if not isinstance(document, dict):
        return []
    wrong = {problem.path.partition(".")[0].partition("[")[0] for problem in problems}
    names = {field.encode_name for field in msgspec.structs.fields(CampaignSettings)}
    sound = {name: value for name, value in document.items() if name in names - wrong}
    draft = msgspec.convert({"campaign_id": "?", "currency": "USD", **sound}, CampaignSettings)
    judged = [fault for fault in faults_of(draft) if fault.path.partition(".")[0] not in wrong]
    return [Problem(fault.path, fault.problem) for fault in judged]
