"""`campaign-streams tokens new`: a token for the console, shown once, and the line that lets it in."""

import sys
from datetime import date, datetime
from typing import Annotated

import typer

from streams.commands.options import notes, prose

app = typer.Typer(no_args_is_help=True, help="Tokens for the console and its API.", rich_markup_mode="rich")

EPILOG = """
Examples:

  campaign-streams tokens new --scope operator

  campaign-streams tokens new --scope advertiser:adv-7 --expires 2027-12-31 2>token.txt >>tokens.toml
"""


def new(
    scope: Annotated[
        list[str],
        typer.Option(help="What its holder sees: operator, or agency:ID, advertiser:ID, shop:ID, creator:ID; repeat."),
    ],
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Its last day, UTC. Without: it does not expire.")
    ] = None,
) -> None:
    """Make a token: it is shown once, on standard error; the line for the file goes to standard output.

    The line holds a hash (scrypt), never the token. Put it into the file that console.tokens_file names: a worker that
    runs takes it within seconds. Delete the line, and the token ends. Operators see everything; the others see the
    campaigns whose settings name them, and of these what is billed.
    """
    from streams.console.tokens import new_token

    last: date | None = expires.date() if expires else None
    made = new_token(tuple(scope), last)
    notes().print(f"the token, shown this once:\n\n  {made.token}\n\nits line for console.tokens_file:\n")
    sys.stdout.write(made.line + "\n")


def sql(
    reader: Annotated[str, typer.Argument(help="Name of the database and of the role that it makes.")],
    scope: Annotated[
        list[str], typer.Option(help="What the role sees: agency:ID, advertiser:ID, shop:ID, creator:ID; repeat.")
    ],
    database: Annotated[str, typer.Option(help="The database that the workers write to.")] = "campaign_streams",
) -> None:
    """Print the SQL that gives somebody the same view of a ClickHouse server itself.

    Run it as the server's administrator, then `GRANT READER TO USER`. It makes a database with views of the scope's
    own campaigns, with what is billed and nothing else, and a role that may read that database only. The embedded
    ClickHouse knows no roles.
    """
    from streams.console.access import parse_scopes
    from streams.console.direct import direct_access_sql

    for statement in direct_access_sql(database, reader, parse_scopes(tuple(scope))):
        sys.stdout.write(f"{statement};\n\n")


app.command("new", help=prose(new.__doc__), epilog=prose(EPILOG))(new)
app.command("sql", help=prose(sql.__doc__))(sql)
