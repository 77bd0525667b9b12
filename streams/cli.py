"""The command line: `campaign-streams`. Each command lives in a module of its own; here they are only listed."""

import sys

import typer

from streams import __version__
from streams.commands import (
    accounts,
    alerts,
    archive,
    campaigns,
    dead_letters,
    demo,
    doctor,
    flags,
    generate,
    load,
    notifier,
    pacing,
    publishers,
    query,
    reconcile,
    replay,
    sessions,
    tokens,
    top,
    topics,
    worker,
)
from streams.commands.options import prose
from streams.errors import CampaignStreamsError

app = typer.Typer(
    name="campaign-streams",
    help="Live campaign metrics from Kafka: exact CTR and CVR, explainable, seconds old.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("demo", help=prose(demo.demo.__doc__))(demo.demo)
app.command("worker", help=prose(worker.worker.__doc__))(worker.worker)
app.command("load", help=prose(load.load.__doc__), epilog=prose(load.EPILOG))(load.load)
app.command("archive", help=prose(archive.archive.__doc__), epilog=prose(archive.EPILOG))(archive.archive)
app.command("generate", help=prose(generate.generate.__doc__), epilog=prose(generate.EPILOG))(generate.generate)
app.add_typer(campaigns.app, name="campaigns")
app.add_typer(accounts.app, name="accounts")
app.add_typer(sessions.app, name="sessions")
app.add_typer(topics.app, name="topics")
app.command("query", help=prose(query.query.__doc__), epilog=prose(query.EPILOG))(query.query)
app.add_typer(pacing.app, name="pacing")
app.command("top", help=prose(top.top.__doc__))(top.top)
app.command("doctor", help=prose(doctor.doctor.__doc__))(doctor.doctor)
app.command("reconcile", help=prose(reconcile.reconcile.__doc__), epilog=prose(reconcile.EPILOG))(reconcile.reconcile)
app.add_typer(dead_letters.app, name="dead-letters")
app.command("replay", help=prose(replay.replay.__doc__), epilog=prose(replay.EPILOG))(replay.replay)
app.add_typer(replay.app, name="runs")
app.command("notifier", help=prose(notifier.notifier.__doc__))(notifier.notifier)
app.add_typer(alerts.app, name="alerts")
app.add_typer(flags.app, name="flags")
app.add_typer(publishers.app, name="publishers")
app.add_typer(tokens.app, name="tokens")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"campaign-streams {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Settings come from the environment (CAMPAIGN_STREAMS_…) and a TOML file; README lists them."""


def main() -> None:
    """Runs the command line; an operating error is one line that ends with its remedy, and exit code 2."""
    try:
        app()
    except CampaignStreamsError as error:
        typer.echo(f"campaign-streams: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
