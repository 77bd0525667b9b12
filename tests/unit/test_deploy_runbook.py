"""deploy/RUNBOOK.md names what exists: commands with their options, settings, metrics, topics, links."""

import re
from itertools import pairwise

import click
import typer

from streams.agents.app import STOPS_WITHIN_S
from streams.cli import app
from streams.jobs.dead_letters import choice_of
from streams.jobs.readme import settings_rows
from tests.support.tools import DEPLOY, REPOSITORY
from tests.unit.test_deploy_prometheus import entries, exported

TEXT = (DEPLOY / "RUNBOOK.md").read_text(encoding="utf-8")
PROCEDURES = {
    *("Upgrading", "Adding partitions", "Re-driving dead letters", "Restoring", "Replaying after a bug"),
    *("Rotating keys and tokens", "Sizing"),
}


def anchors() -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def calls() -> list[list[str]]:
    return calls_of(TEXT)


def calls_of(text: str) -> list[list[str]]:
    """The words of every command, in line or in a block."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    inline = re.findall(r"`campaign-streams ([^`]+)`", text)
    return [words.split() for words in (*inline, *re.findall(r"^ *campaign-streams (.+)$", blocks, re.MULTILINE))]


def test_every_call_names_a_command_and_its_options() -> None:
    root = typer.main.get_command(app)
    for words in calls():
        command: click.Command = root.commands[words[0]]  # type: ignore[attr-defined]
        command = getattr(command, "commands", {}).get(words[1], command) if len(words) > 1 else command
        assert not hasattr(command, "commands"), words
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
    assert len(calls()) > 20


def test_every_choice_of_dead_letters_exists() -> None:
    chosen = [words for words in calls() if words[0] == "dead-letters"]
    assert any("--topic" in words for words in chosen)
    for words in chosen:
        given = dict(pairwise(words))
        reason, topic = (given.get(name) for name in ("--reason", "--topic"))
        choice_of(*(None if value is None or value.isupper() else value for value in (reason, topic)))


def test_what_a_drain_puts_again_was_kept_as_whole_documents() -> None:
    """That what is listed so can be put again: tests/integration/test_pools_commands.py."""
    section = TEXT.split("### Adding partitions\n")[1].split("\n### ")[0]
    steps = [" ".join(words) for words in calls_of(section)]
    for kind in ("campaigns", "accounts"):
        assert [step for step in steps if step.startswith(f"{kind} list")] == [f"{kind} list --json > {kind}.json"]
        assert f"{kind} put {kind}.json" in steps
    kept = [step for step in steps if step.startswith("archive ")]
    assert any("ads.sessions" in step for step in kept)
    assert any(step.startswith("sessions start ") for step in steps)


def test_every_setting_exists() -> None:
    known = {row.name for rows in settings_rows().values() for row in rows}
    named = set(re.findall(r"`((?:kafka|clickhouse|worker|identity|delivery|rules)\.[\w.]+)", TEXT))
    assert named
    assert named <= known


def test_every_metric_exists() -> None:
    named = set(re.findall(r"`((?:campaign_streams|process)_\w+)`", TEXT))
    assert named
    assert named <= exported() | {"process_resident_memory_bytes"}


def test_every_topic_exists() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"ads\.[a-z-]+", TEXT)) <= set(re.findall(r"ads\.[a-z-]+", readme))


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = link.partition("#")
        assert not path or (DEPLOY / path).exists(), link
        assert not anchor or path or anchor in anchors(), link


def test_every_procedure_is_there() -> None:
    assert set(entries("Procedures")) == PROCEDURES


def test_the_stated_times_are_those_of_the_code() -> None:
    assert f"at most {STOPS_WITHIN_S:.0f} s" in TEXT


def test_the_figures_are_those_of_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    sizing = TEXT.split("### Sizing\n")[1]
    measured = readme.split("| full pipeline, dense panes |")[1].split("\n\n")[0]
    figures = re.findall(r"\d[\d,.]* (?:events/s|s|kB|bytes)\b", "| full pipeline, dense panes |" + measured)
    told = re.findall(r"^\|[^|]*\| (\d[\d,.]* (?:events/s|s|kB|bytes)) \|", sizing, re.MULTILINE)
    assert len(told) >= 5
    for figure in told:
        assert figure in figures
