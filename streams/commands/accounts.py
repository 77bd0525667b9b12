"""`campaign-streams accounts put | list`: balances and shared budgets, of which ads.accounts keeps the latest."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from streams.accounts import Account, AccountBalance, decode_account, key_of
from streams.commands.campaigns import money, publish, refused
from streams.commands.options import notes, out, print_json, prose, run, time_text
from streams.events import Rejected
from streams.settings import KafkaSettings, load_settings
from streams.topics import ACCOUNTS

EPILOG = """
A file lists balances and shared budgets, alone or beside `campaigns`:

  accounts:
  - {kind: balance, account_id: b1, currency: CNY, cash_micros: 5000000000, as_of: 2026-11-02}
  - kind: shared_budget
    shared_budget_id: s1
    advertiser_id: a1
    currency: CNY
    time_zone: Asia/Shanghai
    daily_micros: 900000000

Fields: schemas/account.json.
"""

app = typer.Typer(
    no_args_is_help=True,
    help="Money that campaigns share: account balances and shared budgets.",
    rich_markup_mode="rich",
)


def put(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML, TOML or JSON.")],
    check: Annotated[bool, typer.Option("--check", help="Validate only; needs no broker.")] = False,
) -> None:
    """Put balances and shared budgets into ads.accounts; the latest of an id holds.

    The whole file is checked first, and every fault of it is shown at once (exit code 2): then nothing is put.
    Campaigns in the same file are checked together with what they draw on (one currency, one advertiser, days that
    begin together), but are not put: `campaigns put` does that. A balance states what is left as of `as_of`; what
    campaigns spend from then on is taken off.
    """
    from streams.jobs.campaign_files import read_account_file
    from streams.jobs.generate import account_messages

    found = read_account_file(file)
    if found.problems:
        refused(file, found.problems)
    count = _counted(len(found.accounts))
    if check:
        out().print(f"{file}: {count} without a fault", soft_wrap=True)
        return
    run(publish(load_settings().kafka, account_messages(found.accounts)))
    out().print(f"{count} put into {ACCOUNTS}")
    if found.campaigns:
        notes().print(f"the {len(found.campaigns):,} campaigns of this file were checked only; use `campaigns put`")


def _counted(count: int) -> str:
    return f"{count:,} account{'' if count == 1 else 's'}"


def list_accounts(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print whole documents, as JSON that can be put again.")
    ] = False,
) -> None:
    """Show every balance and shared budget in ads.accounts as it was put.

    What is left by now, campaigns are told in ads.allowances. Records that are none are counted below.
    """
    known, broken = run(read_accounts(load_settings().kafka))
    if as_json:
        print_json([msgspec.to_builtins(account) for account in known])
    else:
        _show(known)
    if broken:
        notes().print(f"{broken:,} records of {ACCOUNTS} are no accounts")


async def read_accounts(kafka: KafkaSettings) -> tuple[list[Account], int]:
    """The latest document of every id, by id, and the number of records that are none.

    Raises:
        ConfigurationError, BrokerUnavailable: see `whole_topic`.
    """
    from streams.commands.topic_reading import whole_topic

    known: dict[str, Account] = {}
    broken = 0
    async with whole_topic(kafka, ACCOUNTS) as records:
        async for _, record in records:
            if not record.value:
                known.pop((record.key or b"").decode(errors="replace"), None)
                continue
            account = decode_account(record.value)
            if isinstance(account, Rejected):
                broken += 1
            else:
                known[key_of(account)] = account
    return [known[name] for name in sorted(known)], broken


def _show(known: list[Account]) -> None:
    if not known:
        out().print(f"{ACCOUNTS} is empty; `campaign-streams accounts put FILE` puts into it")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), caption="Times are UTC.")
    table.caption_justify = "left"
    for name in ("id", "kind", "advertiser", "currency"):
        table.add_column(name, overflow="fold")
    for name in ("cash", "grant", "daily"):
        table.add_column(name, justify="right")
    table.add_column("as of, or days of", no_wrap=True)
    for account in known:
        table.add_row(*map(Text, _cells(account)))
    out().print(table)


def _cells(account: Account) -> tuple[str, ...]:
    if isinstance(account, AccountBalance):
        amounts = (money(account.cash_micros), money(account.grant_micros), "–")
        return (account.account_id, "balance", "–", account.currency, *amounts, time_text(account.as_of_ms)[:16])
    amounts = ("–", "–", money(account.daily_micros))
    whose = (account.shared_budget_id, "shared budget", account.advertiser_id)
    return (*whose, account.currency, *amounts, account.time_zone)


app.command("put", help=prose(put.__doc__), epilog=prose(EPILOG))(put)
app.command("list", help=prose(list_accounts.__doc__))(list_accounts)
