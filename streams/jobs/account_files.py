"""Accounts and shared budgets in files: checked like campaign settings, and against the campaigns of the same file.

A file lists them under `accounts`, alone or beside `campaigns`; each says its `kind`, balance or shared_budget. Besides
the fields of `streams.accounts` a balance may give `as_of`, a date or a date with a time; without an offset it is UTC.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from streams.accounts import KINDS, Account, AccountBalance, SharedBudget, currency_fault, key_of, problems_of
from streams.campaigns import CampaignSettings
from streams.documents import Problem

MAX_ACCOUNTS: Final = 10_000
"""As many pools as one agent serves (`streams.stages.pools.MAX_POOLS`)."""
_DAY: Final = timedelta(days=1)
_SEASONS: Final = (datetime(2026, 1, 15), datetime(2026, 7, 15))


class Placed(NamedTuple):
    """A campaign and where it stands in its file (`campaigns[3]`)."""

    where: str
    settings: CampaignSettings


def accounts_in(documents: object) -> tuple[list[Account], list[Problem]]:
    """What a list under `accounts` holds: those without a fault, and every fault."""
    if not isinstance(documents, list) or not documents:
        return [], [Problem("accounts", "must be a list of balances and shared budgets")]
    if len(documents) > MAX_ACCOUNTS:
        return [], [Problem("accounts", f"holds {len(documents)}, more than {MAX_ACCOUNTS}; split it")]
    accounts: list[Account] = []
    problems: list[Problem] = []
    first_at: dict[str, str] = {}
    for number, document in enumerate(documents):
        where = f"accounts[{number}]"
        account, faults = _account(document)
        if account is not None:
            earlier = first_at.setdefault(key_of(account), where)
            if earlier != where:
                faults = [Problem("", f"has the same id as {earlier}; the later would take its place")]
            accounts.append(account)
        problems += [Problem(under(where, fault.path), fault.problem) for fault in faults]
    return accounts, problems


def shared_money_problems(campaigns: Iterable[Placed], accounts: Sequence[Account]) -> list[Problem]:
    """What campaigns draw on must fit them: one currency, one advertiser, days that begin together."""
    shared = {account.shared_budget_id: account for account in accounts if isinstance(account, SharedBudget)}
    balances = {account.account_id: account for account in accounts if isinstance(account, AccountBalance)}
    first_of: dict[str, Placed] = {}
    problems: list[Problem] = []
    for placed in campaigns:
        settings = placed.settings
        balance = balances.get(settings.account_id or "")
        if balance is not None and balance.currency != settings.currency:
            text = f"{balance.account_id} is in {balance.currency}, this campaign in {settings.currency}"
            problems.append(Problem(under(placed.where, "account_id"), text))
        name = settings.budget.shared_budget_id
        if name is None:
            continue
        found = _misfits(shared[name], settings) if name in shared else _differs(first_of.get(name), placed)
        first_of.setdefault(name, placed)
        problems += [Problem(under(placed.where, problem.path), problem.problem) for problem in found]
    return problems


def epoch_ms(value: object, zone: ZoneInfo, ends: bool) -> int | None:
    """A date or a date with a time as people write it, in epoch ms; None: it is none. A bare date is its begin."""
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, date):
        return None
    if not isinstance(value, datetime):
        if value == date.max:
            return None
        value = datetime.combine(value + _DAY if ends else value, time())
    aware = value if value.tzinfo else value.replace(tzinfo=zone)
    return round(aware.timestamp() * 1000)


def under(where: str, path: str) -> str:
    """A path inside a document, from the file's top."""
    return ".".join(filter(None, (where, path)))


def _account(document: object) -> tuple[Account | None, list[Problem]]:
    if not isinstance(document, dict):
        return None, problems_of(document)
    plain = {name: value for name, value in document.items() if name != "as_of"}
    faults = []
    if "as_of" in document:
        moment = epoch_ms(document["as_of"], ZoneInfo("UTC"), ends=False)
        if "as_of_ms" in document:
            faults.append(Problem("as_of", "stands beside as_of_ms; give one of them"))
        elif moment is None:
            faults.append(Problem("as_of", "must be a date or a date with a time, for example 2026-11-30T08:00:00Z"))
            plain["as_of_ms"] = 0  # its absence is not another fault
        else:
            plain["as_of_ms"] = moment
    faults += problems_of(plain)
    kind = KINDS.get(str(plain.pop("kind", "")))
    return (None if faults or kind is None else msgspec.convert(plain, kind)), faults


def _misfits(shared: SharedBudget, settings: CampaignSettings) -> list[Problem]:
    fault = currency_fault(shared, settings.currency)
    found = [Problem(fault.path, fault.problem)] if fault else []
    name = shared.shared_budget_id
    if shared.advertiser_id != settings.advertiser_id:
        text = f"{name} is of advertiser {shared.advertiser_id}, this campaign of {settings.advertiser_id or 'none'}"
        found.append(Problem("budget.shared_budget_id", text))
    if not _days_begin_together(shared.time_zone, settings.time_zone):
        text = f"days of {name} begin at midnight of {shared.time_zone}, which is another time"
        found.append(Problem("time_zone", text))
    return found


def _differs(first: Placed | None, placed: Placed) -> list[Problem]:
    """Against the first campaign of the file that names the same budget."""
    if first is None or first.settings.currency == placed.settings.currency:
        return []
    name, here = placed.settings.budget.shared_budget_id, placed.settings.currency
    text = f"{name} is shared with {first.where}, which is in {first.settings.currency}, this campaign in {here}"
    return [Problem("budget.shared_budget_id", text)]


def _days_begin_together(one: str, other: str) -> bool:
    offsets = [[season.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for season in _SEASONS] for zone in (one, other)]
    return offsets[0] == offsets[1]
