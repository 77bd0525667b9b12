"""Money that several campaigns draw on: account balances and shared budgets, the topic ads.accounts.

Keyed by the account's or the shared budget's id; the latest document of a key holds. The agent `streams.agents.pools`
reads them and hands every campaign its allowance (`streams.signals.Allowance`), which is an input like any other.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from streams.documents import Fault, Problem, decode_document, money_faults, struct_problems
from streams.events import AmountMicros, Currency, Id, Reason, Rejected, SignedAmountMicros, TimeMs
from streams.terms import Micros

ZoneName = Annotated[str, Meta(min_length=1, max_length=64)]


class AccountBalance(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="balance"):
    """What an account has left, as its ledger of record states it. Grants are spent before cash."""

    account_id: Annotated[Id, Meta(description="Account. The record's key.")]
    currency: Annotated[Currency, Meta(description="ISO 4217 code of both balances.")]
    cash_micros: Annotated[SignedAmountMicros, Meta(description="Cash, micros; negative: owed.")]
    grant_micros: Annotated[AmountMicros, Meta(description="Grants and vouchers, micros.")] = 0
    as_of_ms: Annotated[TimeMs, Meta(description="Spend up to then is in these balances, epoch ms UTC.")]


class SharedBudget(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="shared_budget"):
    """A daily budget that several campaigns of one advertiser draw on."""

    shared_budget_id: Annotated[Id, Meta(description="Shared budget; campaigns name it. The record's key.")]
    advertiser_id: Annotated[Id, Meta(description="Advertiser whose campaigns may draw on it.")]
    currency: Annotated[Currency, Meta(description="ISO 4217 code. Campaigns of another currency get no allowance.")]
    time_zone: Annotated[ZoneName, Meta(description="IANA time zone of the budget's day.")] = "UTC"
    daily_micros: Annotated[Micros, Meta(description="Per day, all campaigns together, micros.")]


Account = AccountBalance | SharedBudget
_DECODER: Final[msgspec.json.Decoder[AccountBalance | SharedBudget]] = msgspec.json.Decoder(
    AccountBalance | SharedBudget
)
KINDS: Final[dict[str, type[AccountBalance] | type[SharedBudget]]] = {
    "balance": AccountBalance,
    "shared_budget": SharedBudget,
}


def key_of(account: Account) -> str:
    """The record's key."""
    return account.account_id if isinstance(account, AccountBalance) else account.shared_budget_id


def encode_account(account: Account) -> bytes:
    """The record's value, JSON."""
    return msgspec.json.encode(account)


def decode_account(raw: bytes | None) -> Account | Rejected:
    """Decodes a value of ads.accounts. Never raises; the first fault decides the reason."""
    return decode_document(_DECODER, raw, faults_of)


def faults_of(account: Account) -> list[Fault]:
    """Rules that types cannot express."""
    return money_faults(account.currency, account.time_zone if isinstance(account, SharedBudget) else None)


def problems_of(document: object) -> list[Problem]:
    """Every fault of one document of a file, strictly."""
    if not isinstance(document, dict):
        return [Problem("", f"must be a table, not {type(document).__name__}")]
    kind = KINDS.get(str(document.get("kind")))
    if kind is None:
        return [Problem("kind", f"must be one of {', '.join(KINDS)}")]
    problems = struct_problems({name: value for name, value in document.items() if name != "kind"}, kind)
    return problems or [Problem(f.path, f.problem) for f in faults_of(msgspec.convert(document, kind))]


def currency_fault(shared: SharedBudget, currency: str) -> Fault | None:
    """A budget shared over two currencies is none: currencies are never summed."""
    if shared.currency == currency:
        return None
    text = f"{shared.shared_budget_id} is in {shared.currency}, this campaign in {currency}"
    return Fault(Reason.OUT_OF_RANGE, "budget.shared_budget_id", text)
