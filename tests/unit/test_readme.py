"""What README.md says can be done: its settings, commands, queries, examples and links are those of the code."""

import os
import re
import shlex
import tomllib
from pathlib import Path

import click
import msgspec
import pytest
import typer
import yaml  # type: ignore[import-untyped]
from pydantic import SecretStr

from streams import __version__
from streams.adapters.clickhouse_query import ClickHouseReader
from streams.adapters.kafka_admin import topic_plans
from streams.cli import app
from streams.events import Conversion, Event, Impression, Rejected
from streams.invalid import GENERAL, InvalidRules, Mode, Rule
from streams.jobs import readme
from streams.jobs.campaign_files import campaigns_in
from streams.jobs.mending import Mend, MendSpec
from streams.jobs.redrive import plan_redrive
from streams.records import Table
from streams.rules import DAY_MS, DEFAULT_HORIZONS, Horizon, Rules
from streams.settings import ClickHouseSettings, KafkaSettings, Settings, load_settings
from streams.stages.decode import Decoder
from streams.state.flags import MAX_TOLD
from tests.unit.test_redrive import letter

ROOT = readme.README.parent
TEXT = readme.README.read_text()
EXAMPLE = ROOT / "deploy" / "campaign-streams.example.toml"
PROGRAM = "campaign-streams"


def fenced(language: str) -> list[str]:
    """The code blocks of a language, without what they are indented by."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE)
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) for indent, block in blocks]


def shell_lines() -> list[list[str]]:
    """The words of every shell command, without comments."""
    return [shlex.split(line, comments=True) for line in _unfolded("\n".join(fenced("sh")))]


def _unfolded(text: str) -> list[str]:
    """Quotes may span lines."""
    lines, held = [], ""
    for line in text.splitlines():
        held = f"{held}\n{line}" if held else line
        if held.count('"') % 2 == 0:
            lines.append(held)
            held = ""
    assert not held
    return [line for line in lines if line.strip()]


def called() -> list[list[str]]:
    """The calls of our program in code blocks and in the text: words after its name."""
    blocks = [words[1:] for words in shell_lines() if words and words[0] == PROGRAM]
    inline = re.findall(rf"`{PROGRAM} ([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
    return [*blocks, *(words.split() for words in inline)]


def queries() -> list[str]:
    return [words[-1] for words in called() if words[0] == "query" and " " in words[-1]]


def commands() -> dict[str, click.Command]:
    """Every command by its whole name, as `campaigns put`."""
    found: dict[str, click.Command] = {}
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found.update({f"{name} {sub}": each for sub, each in inner.items()} if inner else {name: command})
    return found


def named(words: list[str]) -> str:
    """The command that a call names."""
    return next((name for name in (" ".join(words[:2]), words[0]) if name in commands()), "")


# Settings


def test_the_settings_table_is_current() -> None:
    assert readme.with_settings(TEXT) == TEXT, "run python -m streams.jobs.readme"


def test_the_settings_table_has_every_setting_and_rule() -> None:
    rows = {row.name: row for rows in readme.settings_rows().values() for row in rows}
    sections = {name: field.annotation for name, field in Settings.model_fields.items() if name != "rules"}
    assert all(f"{name}.{field}" in rows for name, kind in sections.items() for field in kind.model_fields)  # type: ignore[union-attr]
    assert {f"rules.{field}" for field in Rules.__struct_fields__} - rows.keys() == {"rules.horizons", "rules.invalid"}
    assert all(f"rules.horizons.INPUT.{field}" in rows for field in Horizon.__struct_fields__)
    assert [row.name for row in rows.values() if not row.text] == []


def test_the_settings_table_shows_no_more_than_there_is() -> None:
    assert readme.RULES_TEXTS.keys() == set(Rules.__struct_fields__) - {"horizons", "invalid"}
    assert readme.HORIZON_TEXTS.keys() == set(Horizon.__struct_fields__)


def test_a_changed_table_is_found_and_mended() -> None:
    stale = TEXT.replace("| `worker.web_port` | `6066`", "| `worker.web_port` | `6067`")
    assert stale != TEXT
    assert readme.with_settings(stale) == TEXT


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        readme.with_settings("no table here")


def test_no_secret_shows_in_the_table() -> None:
    rows = {row.name: row for rows in readme.settings_rows().values() for row in rows}
    assert rows["identity.key"].default == rows["kafka.sasl_password"].default == "–"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No settings but the test's own."""
    for name in list(os.environ):
        if name.startswith("CAMPAIGN_STREAMS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def loaded(text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a TOML text; the password comes from the environment, as the text says."""
    Path("given.toml").write_text(text)
    monkeypatch.setenv("CAMPAIGN_STREAMS_CONFIG", "given.toml")
    monkeypatch.setenv("CAMPAIGN_STREAMS_KAFKA__SASL_PASSWORD", "secret")
    return load_settings()


def test_the_example_settings_load(clean_environment: pytest.MonkeyPatch) -> None:
    settings = loaded(EXAMPLE.read_text(), clean_environment)
    assert settings.kafka.security_protocol == "SASL_SSL"
    assert settings.kafka.sasl_password is not None
    assert settings.parsed_rules().horizons["clicks"].dedupe_ms == 2 * DAY_MS  # type: ignore[index]


def test_the_commented_lines_of_the_example_are_settings_too(clean_environment: pytest.MonkeyPatch) -> None:
    text = re.sub(r"^# (ssl_\w+ =)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert loaded(text, clean_environment).kafka.ssl_keyfile == Path("/etc/campaign-streams/client.key")


def test_the_settings_in_the_text_load(clean_environment: pytest.MonkeyPatch) -> None:
    routes, switched, _, services = fenced("toml")
    delivery = loaded(routes, clean_environment).delivery
    assert {name: route.kind for name, route in delivery.routes.items()} == {"default": "webhook", "ops": "apprise"}
    invalid = loaded(switched, clean_environment).parsed_rules().invalid
    assert {rule: invalid.mode(rule) for rule in invalid.modes} == {
        Rule.CLICK_TOO_SOON: Mode.ON,
        Rule.USER_VELOCITY: Mode.ON,
        Rule.DATA_CENTRE: Mode.OBSERVE,
    }
    settings = loaded(services, clean_environment)
    assert settings.kafka.sasl_username == tomllib.loads(services)["kafka"]["sasl_username"]
    assert settings.clickhouse.dsn.get_secret_value().startswith("clickhouses://")


def test_the_mend_in_the_text_makes_an_event() -> None:
    (text,) = [text for text in fenced("toml") if "[events.fields]" in text]
    document = {"event_id": "e1", "campaign_id": "c1", "currency": "CNY", "app_version": "7.2", "ts": 1_790_000_000}
    value = msgspec.json.encode({**document, "click_type": "btn", "price_fen": 3, "impressionId": "i1"})
    one = letter(value=value, timestamp_ms=1_790_000_000_000)
    mend = Mend(msgspec.convert(tomllib.loads(text), MendSpec))
    (sent,) = plan_redrive([one], Rules(), {"ads.clicks": 4}, mend=mend).sends
    assert msgspec.json.decode(sent.value or b"")["impression_id"] == "i1"


def test_the_campaigns_in_the_text_are_without_a_fault() -> None:
    (text,) = fenced("yaml")
    found = campaigns_in(yaml.safe_load(text))
    assert found.problems == []
    assert found.campaigns[0].budget.daily_micros == 5_000_000_000


def test_the_rules_that_the_text_calls_on_are_and_sophisticated_ones_observe() -> None:
    modes = {rule: InvalidRules().mode(rule) for rule in Rule}
    observed = {Rule.NON_BROWSER_AGENT, Rule.ACTIVITY_CAP}  # general rules that the text does not name
    assert {rule for rule, mode in modes.items() if mode is Mode.ON} == {*GENERAL, Rule.REVIEW} - observed
    assert Mode.OFF not in modes.values()
    assert f"tells {MAX_TOLD:,}" in " ".join(TEXT.split())


def test_the_variables_in_the_text_are_read(clean_environment: pytest.MonkeyPatch) -> None:
    variables = set(re.findall(r"CAMPAIGN_STREAMS_[A-Z_]+", TEXT))
    values = {"KAFKA__GROUP_ID": "mine", "RULES": '{"pane_ms": 5000}', "KAFKA__SASL_PASSWORD": "secret"}
    values |= {"CONSOLE__TOKEN": "cs_0"}
    assert variables == {f"CAMPAIGN_STREAMS_{name}" for name in (*values, "CONFIG")}
    for name, value in values.items():
        clean_environment.setenv(f"CAMPAIGN_STREAMS_{name}", value)
    settings = load_settings()
    assert (settings.kafka.group_id, settings.parsed_rules().pane_ms) == ("mine", 5000)
    assert settings.console.token == SecretStr("cs_0")


# The command line


def test_every_command_is_in_the_table_and_no_other() -> None:
    table = re.findall(rf"^\| `{PROGRAM} ([^`]+)` \|", TEXT, re.MULTILINE)
    assert sorted(table) == sorted(commands())


def test_every_call_names_a_command_and_its_options() -> None:
    known = commands()
    wrong = []
    for words in called():
        if words[0] in ("COMMAND", "--help"):
            continue
        name = named(words)
        options = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
        wanted = {opt for parameter in known[name].params for opt in parameter.opts} if name else set()
        if not name or options - wanted:
            wrong.append(" ".join(words))
    assert wrong == []
    assert len(called()) > 20


def test_the_options_given_to_make_demo_are_those_of_demo() -> None:
    options = {opt for parameter in commands()["demo"].params for opt in parameter.opts}
    given = re.findall(r'make demo ARGS="([^"]+)"', TEXT)
    assert given
    assert {word for args in given for word in args.split() if word.startswith("--")} <= options


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spans = [*re.findall(r"`make ([^`]+)`", TEXT), *(" ".join(w[1:]) for w in _make_calls())]
    used = {word for span in spans for word in re.sub(r'\w+=("[^"]*"|\S+)', "", span).split() if word.isalpha()}
    assert {"demo", "test", "bench", "sim", "lint", "types"} <= used
    assert used <= targets


def _make_calls() -> list[list[str]]:
    without_variables = ([word for word in words if "=" not in word] for words in shell_lines())
    return [words for words in without_variables if words and words[0] == "make"]


# The numbers


@pytest.mark.parametrize("sql", queries())
async def test_every_query_is_answered(sql: str, migrated_settings: ClickHouseSettings) -> None:
    reader = ClickHouseReader(migrated_settings)
    try:
        assert (await reader.query(sql)).columns
    finally:
        await reader.close()


def test_the_queries_ask_the_views_that_are_explained() -> None:
    explained = set(
        re.findall(r"^\| `(\w+)` \|", TEXT.split("## Reading the numbers")[1].split("## ")[0], re.MULTILINE)
    )
    asked = {view for sql in queries() for view in re.findall(r"(?:FROM|JOIN) (\w+)", sql)}
    assert asked == {
        "campaign_totals",
        "campaign_minutes",
        "campaign_cohorts",
        "campaign_days",
        "campaign_reach",
        "campaign_pacing",
        "invalid_traffic",
        "ledger",
    }
    assert asked <= explained


async def test_every_view_for_people_is_explained(migrated_settings: ClickHouseSettings) -> None:
    reader = ClickHouseReader(migrated_settings)
    try:
        found = {str(row[0]) for row in (await reader.query("SHOW TABLES")).rows}
    finally:
        await reader.close()
    tables = {table.value for table in Table} | {"rule_sets", "schema_migrations", "all_rows"}
    tables |= {"pacing_periods", "pacing_periods_from_rows"}  # what campaign_pacing reads
    tables |= {name for name in found if name.startswith(("run_", "shown_"))}  # twins of rows
    explained = re.findall(r"^\| `(\w+)` \|", TEXT.split("## Reading the numbers")[1].split("## ")[0], re.MULTILINE)
    assert sorted(explained) == sorted(found - tables)


# Kafka


def test_the_topics_in_the_text_are_those_that_are_created() -> None:
    plans = topic_plans(KafkaSettings())
    listed = [
        cell for line in TEXT.splitlines() if line.lstrip().startswith("| `ads.") for cell in line.split("|")[1:2]
    ]
    assert sorted(re.findall(r"`(ads\.[a-z-]+)`", "".join(listed))) == sorted(plan.name for plan in plans)
    assert set(re.findall(r"ads\.[a-z-]+", TEXT)) == {plan.name for plan in plans}


def test_inputs_are_created_without_an_age_limit_as_the_text_advises() -> None:
    inputs = [plan for plan in topic_plans(KafkaSettings()) if plan.name.removeprefix("ads.") in set(DEFAULT_HORIZONS)]
    assert len(inputs) == len(DEFAULT_HORIZONS)
    assert {plan.config["retention.ms"] for plan in inputs} == {"-1"}
    assert {int(plan.config["retention.bytes"]) for plan in inputs} == {16 * 1024**3}
    assert "16 GiB a partition" in TEXT


def test_the_horizons_in_the_text_are_the_defaults() -> None:
    spoken = {"10 minutes": 600_000, "24 hours": DAY_MS, "30 days": 30 * DAY_MS}
    sentence = re.search(r"remembered by event time: (.*?)20 million", TEXT, re.DOTALL)
    assert sentence
    told: dict[str, int] = {}
    for length, inputs in re.findall(r"(10 minutes|24 hours|30 days) for ([a-z\s]+?)(?:,|$)", sentence[1]):
        told |= dict.fromkeys(re.findall(r"[a-z]+s\b", inputs), spoken[length])
    assert told == {source.value: horizon.dedupe_ms for source, horizon in DEFAULT_HORIZONS.items()}
    assert told == {source.value: horizon.lateness_ms for source, horizon in DEFAULT_HORIZONS.items()}
    assert {horizon.max_ids for horizon in DEFAULT_HORIZONS.values()} == {20_000_000}


def test_the_example_events_are_valid_and_have_no_unknown_field() -> None:
    documents = [msgspec.json.decode(block) for block in fenced("json")]
    kinds: list[type[Event]] = [Impression, Conversion]
    assert len(documents) == len(kinds)
    for kind, document in zip(kinds, documents, strict=True):
        assert not isinstance(Decoder(kind.input).decode(msgspec.json.encode(document)), Rejected)  # type: ignore[attr-defined]
        assert document.keys() <= set(kind.__struct_fields__)


# The rest


def test_every_link_and_folder_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    layout = next(block for block in fenced("text") if "adapters/" in block)
    top = re.findall(r"^(\w+/)", layout, re.MULTILINE)
    inner = [f"streams/{name}" for name in re.findall(r"^  (\w+/)", layout, re.MULTILINE)]
    files = [f"streams/{name}" for name in re.findall(r"\w+\.py", layout)]
    assert links
    assert len(top) == 6
    assert [path for path in (*links, *top, *inner, *files) if not (ROOT / path).exists()] == []


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == __version__
