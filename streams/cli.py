"""The command line: `campaign-streams`. Each command lives in a module of its own; here they are only listed."""

import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from streams import __version__
from streams.commands.options import prose
from streams.errors import CampaignStreamsError

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nobody multiplies matrices; numpy's threads spin when they begin

COMMANDS: Final = {
    "demo": "demo.demo",
    "worker": "worker.worker",
    "load": "load.load",
    "archive": "archive.archive",
    "generate": "generate.generate",
    "query": "query.query",
    "top": "top.top",
    "doctor": "doctor.doctor",
    "reconcile": "reconcile.reconcile",
    "replay": "replay.replay",
    "notifier": "notifier.notifier",
    "campaigns": "campaigns.app",
    "accounts": "accounts.app",
    "sessions": "sessions.app",
    "topics": "topics.app",
    "pacing": "pacing.app",
    "dead-letters": "dead_letters.app",
    "runs": "runs.app",
    "alerts": "alerts.app",
    "flags": "flags.app",
    "publishers": "publishers.app",
    "tokens": "tokens.app",
}
"""What is typed, and the module and function or group (`app`) in streams.commands: in the order of `--help`."""


def _command(name: str) -> Any:
    """Imports a command's module and makes Click's command of it."""
    module_name, member = COMMANDS[name].split(".")
    module = import_module(f"streams.commands.{module_name}")
    around = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    if member == "app":
        around.add_typer(module.app, name=name)
    else:
        function = getattr(module, member)
        around.command(name, help=prose(function.__doc__), epilog=prose(getattr(module, "EPILOG", "")))(function)
    return get_group(around).commands[name]


class _Commands(Mapping[str, Any]):
    """Each command is made when it is first looked up: none waits for what the others import."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class CommandLine(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # nothing adds to it

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names; looks at none of them."""
        return list(self.commands)


app = typer.Typer(
    name="campaign-streams",
    cls=CommandLine,
    help="Live campaign metrics from Kafka: exact CTR and CVR, explainable, seconds old.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


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
