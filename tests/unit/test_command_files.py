"""`load --dry-run`, `generate --to-file`, `campaigns put --check` and the help: commands that need no service."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.commands.demo import DEFAULT_DIRECTORY, MARKER
from streams.errors import ConfigurationError
from streams.events import EVENT_TYPES, Input, Rejected
from streams.jobs.campaign_files import read_campaign_file
from streams.stages.decode import Decoder

COMMANDS = ["load", "generate", "query", "top", "doctor", "reconcile", "campaigns put", "campaigns list"]
COMMANDS += ["dead-letters list", "dead-letters redrive", "demo", "worker"]

MAPPING = """
name = "test"
[fields]
event_id = "id"
event_time_ms = { column = "at", time = "epoch_ms" }
campaign_id = "campaign"
[[events]]
input = "impressions"
when = { kind = "i" }
[[events]]
input = "clicks"
when = { kind = "c" }
"""
ROWS = "id,at,campaign,kind\na,2000,c1,i\nb,1000,c1,c\nc,never,c1,i\nd,3000,c1,x\n"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "100"})


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A CSV with four rows, of which one does not fit and one is of no kind, and its mapping."""
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    return str(tmp_path / "rows.csv"), str(tmp_path / "mapping.toml")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0, result.output
    assert len(result.output.split()) > 25


@pytest.mark.parametrize("words", [("--duration", "60x"), ("--from", "log.csv", "--mapping", "nosuch")])
def test_a_demo_that_cannot_begin_leaves_what_the_one_before_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("id\n1\n")
    DEFAULT_DIRECTORY.mkdir()
    for name in (MARKER, "left.json"):
        (DEFAULT_DIRECTORY / name).touch()
    assert invoke("demo", *words).exit_code != 0
    assert (DEFAULT_DIRECTORY / "left.json").exists()


def test_a_dry_run_shows_events_misfits_and_times(files: tuple[str, str]) -> None:
    result = invoke("load", files[0], "--mapping", files[1], "--dry-run")
    assert result.exit_code == 0, result.output
    wanted = ["4 rows read, 2 events would be published", "rows.csv:4: event_time_ms", "1 rows did not fit"]
    wanted += ["1970-01-01 00:00:01 to 1970-01-01 00:00:02", "1 rows are of no kind"]
    assert [what for what in wanted if what not in result.output] == []


def test_a_report_in_json_is_complete(files: tuple[str, str]) -> None:
    report = json.loads(invoke("load", files[0], "--mapping", files[1], "--dry-run", "--json").stdout)
    assert (report["rows"], report["misfits"], report["rows_without_event"], report["published"]) == (4, 1, 1, 0)
    assert (report["events"]["impressions"], report["events"]["clicks"]) == (1, 1)
    assert report["examples"][0]["line"] == 4


def test_misfits_fail_a_strict_load_only(files: tuple[str, str]) -> None:
    assert invoke("load", files[0], "--mapping", files[1], "--dry-run", "--strict").exit_code == 1


def test_a_file_of_which_no_row_fits_fails(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("id,at,campaign,kind\na,x,c1,i\n")
    assert invoke("load", str(tmp_path / "other.csv"), "--mapping", files[1], "--dry-run").exit_code == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["load", "absent.csv", "--mapping", "ipinyou"], "no such file: absent.csv"),
        (["load", __file__, "--mapping", "ipinyuo"], "ipinyou, open_bandit"),
        (["generate", "--from", "2026-01-01"], "--history"),
        (["generate", "--history", "--duration", "5m"], "--length"),
        (["generate", "--history", "--length", "5x", "--to-file", "x"], "--length"),
        (["generate", "--history", "--time-zone", "Mars", "--to-file", "x"], "time_zone"),
        (["campaigns", "put", "absent.yaml"], "absent.yaml"),
        (["reconcile", "absent.csv"], "no such file: absent.csv"),
        (["reconcile", __file__, "--tolerance", "x"], "--tolerance"),
        (["dead-letters", "list", "--reason", "lat"], "did you mean late"),
        (["query", " "], "statement is empty"),
        (["query", "SELECT 1", "--data-dir", "absent"], "absent holds no demo"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(words: list[str], told: str) -> None:
    error = invoke(*words).exception
    assert isinstance(error, ConfigurationError)
    assert told in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "words", [["load", "x.csv"], ["top", "--window", "7m"], ["generate", "--rate", "0"], ["query"]]
)
def test_a_wrong_option_is_a_usage_error(words: list[str]) -> None:
    assert invoke(*words).exit_code == 2


def test_history_in_files_is_valid_reproducible_and_has_its_campaigns(tmp_path: Path) -> None:
    words = ("generate", "--history", "--length", "2m", "--rate", "40", "--campaigns", "3", "--seed", "7", "--json")
    reports = [json.loads(invoke(*words, "--to-file", str(tmp_path / name)).stdout) for name in ("a", "b")]
    assert reports[0] == reports[1]
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / name).read_bytes() for name in names] == [
        (tmp_path / "b" / name).read_bytes() for name in names
    ]
    written = 0
    for source in EVENT_TYPES:
        file = tmp_path / "a" / f"{source.value}.ndjson"
        lines = file.read_bytes().splitlines() if file.exists() else []
        assert not [line for line in lines if isinstance(Decoder(source).decode(line), Rejected)]
        assert len(lines) == reports[0]["events"][source.value]
        written += len(lines)
    assert written == reports[0]["delivered"] > 0
    found = read_campaign_file(tmp_path / "a" / "campaigns.yaml")
    assert (len(found.campaigns), found.problems) == (3, [])


def test_another_seed_gives_other_traffic(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        words = ("generate", "--history", "--length", "1m", "--rate", "40", "--seed", seed)
        assert invoke(*words, "--to-file", str(tmp_path / seed)).exit_code == 0
    files = [(tmp_path / seed / f"{Input.IMPRESSIONS.value}.ndjson").read_bytes() for seed in ("1", "2")]
    assert files[0] != files[1]


def test_every_fault_of_a_campaigns_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("campaigns:\n- {campaign_id: a, currency: cny}\n- {campaign_id: 5, curency: USD}\n")
    result = invoke("campaigns", "put", str(file))
    assert result.exit_code == 2
    wanted = ["campaigns[0].currency", "did you mean CNY", "campaigns[1].campaign_id", "campaigns[1].curency"]
    assert [what for what in wanted if what not in result.stderr] == []


def test_a_sound_campaigns_file_passes_its_check(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text('campaign_id = "a"\ncurrency = "CNY"\n')
    result = invoke("campaigns", "put", str(tmp_path / "good.toml"), "--check")
    assert (result.exit_code, "1 campaign without a fault" in result.output) == (0, True)
