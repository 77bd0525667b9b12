"""What-ifs say only what is to be different: files over the settings, and what is told of that."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.adapters.lists import with_lists
from streams.cli import app
from streams.commands.replay_change import MAX_TOLD, change_of, differences
from streams.errors import ConfigurationError
from streams.events import ClickType, ConversionType, Input
from streams.invalid import InvalidRules, Lists, Mode, Rule
from streams.rules import Rules
from streams.settings import Settings

OWN = {
    "pane_ms": 5_000,
    "dimensions": ["region"],
    "horizons": {"clicks": {"lateness_ms": 3_600_000}},
    "invalid": {
        "click_after_ms": 250,
        "click_after_by_type_ms": {"card": 100},
        "conversion_after_ms": {"lead": 700},
        "user_velocity": {"clicks": 90, "window_ms": 300_000},
        "modes": {"click_too_soon": "on", "user_velocity": "on", "prefetch": "off"},
    },
}


@pytest.fixture
def settings() -> Settings:
    """Of a worker that hardly goes by any default."""
    return Settings.model_validate({"rules": OWN})


def changed(settings: Settings, path: Path, text: str) -> Rules:
    path.write_text(text)
    change = change_of(settings, path, None)
    assert change is not None
    return change.rules


def test_what_a_file_of_rules_does_not_name_stays_as_the_settings_have_it(settings: Settings, tmp_path: Path) -> None:
    text = """
        [rules.horizons.clicks]
        max_ids = 1000
        [rules.invalid]
        click_after_by_type_ms = {cover = 50}
        conversion_after_ms = {install = 5000}
        [rules.invalid.user_velocity]
        clicks = 40
        [rules.invalid.modes]
        declared_bot = "off"
        prefetch = "observe"
    """
    before, rules = settings.parsed_rules(), changed(settings, tmp_path / "r.toml", text)
    assert (rules.pane_ms, rules.dimensions, rules.report_pane_ms) == (5_000, ("region",), before.report_pane_ms)
    clicks = rules.horizons[Input.CLICKS]
    assert (clicks.lateness_ms, clicks.dedupe_ms, clicks.max_ids) == (3_600_000, 86_400_000, 1_000)
    assert {i: h for i, h in rules.horizons.items() if i is not Input.CLICKS} == {
        i: h for i, h in before.horizons.items() if i is not Input.CLICKS
    }
    invalid = rules.invalid
    assert invalid.click_after_ms == 250
    assert invalid.click_after_by_type_ms == {ClickType.CARD: 100, ClickType.COVER: 50}
    assert invalid.conversion_after_ms == {ConversionType.LEAD: 700, ConversionType.INSTALL: 5_000}
    assert (invalid.user_velocity.clicks, invalid.user_velocity.window_ms) == (40, 300_000)
    modes = {rule: invalid.mode(rule) for rule in Rule}
    named = {Rule.DECLARED_BOT: Mode.OFF, Rule.PREFETCH: Mode.OBSERVE}
    assert modes == {rule: before.invalid.mode(rule) for rule in Rule} | named
    assert (modes[Rule.CLICK_TOO_SOON], modes[Rule.USER_VELOCITY]) == (Mode.ON, Mode.ON)


def test_of_maps_with_defaults_only_what_is_named_changes(tmp_path: Path) -> None:
    rules = changed(Settings(), tmp_path / "r.toml", "[rules.invalid.conversion_after_ms]\ninstall = 9000")
    assert rules.invalid.conversion_after_ms == InvalidRules().conversion_after_ms | {ConversionType.INSTALL: 9_000}


def test_a_file_that_names_nothing_gives_the_settings_rules_and_their_lists(settings: Settings, tmp_path: Path) -> None:
    own = with_lists(settings.parsed_rules(), settings)
    assert own.invalid.lists != Lists()
    assert changed(settings, tmp_path / "r.toml", "[rules]\n") == own
    assert differences(own, own) == []


def test_what_differs_is_told_by_its_place(settings: Settings, tmp_path: Path) -> None:
    text = (
        '[rules]\ndimensions = ["channel", "region"]\n[rules.invalid]\nclick_after_ms = 300\nmodes.data_centre = "off"'
    )
    rules = changed(settings, tmp_path / "r.toml", text)
    assert differences(with_lists(settings.parsed_rules(), settings), rules) == [
        "dimensions: region → channel, region",
        "invalid.click_after_ms: 250 → 300",
        "invalid.modes.data_centre: on → off",
    ]
    assert differences(settings.parsed_rules(), with_lists(settings.parsed_rules(), settings)) == [
        "invalid.lists: other lists"
    ]
    many = InvalidRules(modes=dict.fromkeys(Rule, Mode.OFF), conversion_after_ms=dict.fromkeys(ConversionType, 9))
    told = differences(Rules(), Rules(invalid=many, pane_ms=1_000, max_pane_keys=2))
    assert len(told) <= MAX_TOLD + 1
    assert all(len(line) < 200 for line in told)


def test_the_command_tells_it_before_it_reads_anything(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('[rules.invalid.modes]\nprefetch = "off"')
    asked = ["replay", "--from", "2026-01-01", "--to", "2026-01-02", "--dry-run", "--archive", str(tmp_path)]
    shown = CliRunner().invoke(app, [*asked, "--rules", str(path)], env=dict(os.environ))
    assert "rules that differ from the settings: 1\n  invalid.modes.prefetch: on → off\n" in shown.stderr
    assert "holds no archive" in str(shown.exception)


def test_the_help_names_the_table() -> None:
    shown = CliRunner().invoke(app, ["replay", "--help"], env={"COLUMNS": "300"})
    assert "a TOML file whose table [rules] says what is to be different" in shown.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("campaigns:\n- {campaign_id: c1, currency: XXZ}", "currency: .*; `campaigns put --check` shows all of them"),
        ("rules: {}", "rules: "),
        ("[1", ""),
    ],
)
def test_of_bad_campaign_settings_the_place_and_the_fault_are_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"--settings: {path}: .*{words}") as refused:
        change_of(Settings(), None, path)
    assert "Problem(" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[rules.invalid.modes]\nuser_velocityy = "on"', "Invalid enum value 'user_velocityy'"),
        ("[rules]\npane_ms = 7500", "pane_ms"),
        ("[rules]\npanes = 1", "unknown field `panes`"),
        ("[rules]\ninvalid = 3", "invalid"),
        ("rules = 3", r"has no table \[rules\]"),
        ("[rules", "cannot be read as TOML"),
    ],
)
def test_of_a_bad_file_of_rules_the_file_is_named(settings: Settings, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"--rules: {tmp_path}/r\.toml.*{words}") as refused:
        changed(settings, tmp_path / "r.toml", text)
    assert "of the settings" not in str(refused.value)
