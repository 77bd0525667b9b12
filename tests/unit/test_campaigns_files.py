"""Files of campaign settings: YAML and TOML, every fault of a file at once."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.documents import Problem
from streams.errors import ConfigurationError
from streams.jobs.campaign_files import read_campaign_file
from streams.settings import CONFIG_VARIABLE


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_single_campaign_and_a_list_are_read_alike(tmp_path: Path) -> None:
    one = read_campaign_file(written(tmp_path, "one.yaml", 'campaign_id: "1"\ncurrency: CNY\n'))
    bare = read_campaign_file(written(tmp_path, "bare.yml", '- {campaign_id: "1", currency: CNY}\n'))
    toml = read_campaign_file(written(tmp_path, "list.toml", '[[campaigns]]\ncampaign_id = "1"\ncurrency = "CNY"\n'))
    as_json = read_campaign_file(written(tmp_path, "list.json", '[{"campaign_id": "1", "currency": "CNY"}]'))
    assert one == bare == toml == as_json
    assert one.problems == []
    assert [campaign.campaign_id for campaign in one.campaigns] == ["1"]


def test_every_fault_of_every_campaign_is_reported_with_its_path(tmp_path: Path) -> None:
    text = """
campaigns:
  - {campaign_id: a, currency: CNY}
  - {campaign_id: b, currency: cny, time_zone: Mars/Base}
  - {campaign_id: 3, currency: USD}
  - nonsense
"""
    found = read_campaign_file(written(tmp_path, "c.yaml", text))
    assert [problem.path for problem in found.problems] == [
        "campaigns[1].currency",
        "campaigns[1].time_zone",
        "campaigns[2].campaign_id",
        "campaigns[3]",
    ]
    assert [campaign.campaign_id for campaign in found.campaigns] == ["a"]


def test_times_may_be_written_as_dates_in_the_campaigns_own_zone(tmp_path: Path) -> None:
    text = """
campaign_id: a
currency: CNY
time_zone: Asia/Shanghai
flight_start: 2026-11-01
flight_end: 2026-11-11
valid_from: 2026-10-31T12:00:00Z
"""
    (campaign,) = read_campaign_file(written(tmp_path, "c.yaml", text)).campaigns
    assert campaign.flight_start_ms == 1_793_462_400_000  # 2026-10-31T16:00Z
    assert campaign.flight_end_ms == campaign.flight_start_ms + 11 * 86_400_000  # the last day is included
    assert campaign.valid_from_ms == 1_793_448_000_000


def test_dates_in_toml_and_in_quotes_mean_the_same(tmp_path: Path) -> None:
    head = 'campaign_id = "a"\ncurrency = "CNY"\ntime_zone = "Asia/Shanghai"\n'
    dated = read_campaign_file(written(tmp_path, "a.toml", head + "flight_start = 2026-11-01T08:30:00\n"))
    quoted = read_campaign_file(written(tmp_path, "b.toml", head + 'flight_start = "2026-11-01T00:30:00Z"\n'))
    assert dated == quoted
    assert dated.campaigns[0].flight_start_ms == 1_793_493_000_000


@pytest.mark.parametrize("value", ["soon", "9999-12-31", "12", "[]"])
def test_a_date_that_is_none_is_a_problem(tmp_path: Path, value: str) -> None:
    text = f"campaign_id: a\ncurrency: CNY\nflight_end: {value}\n"
    assert [p.path for p in read_campaign_file(written(tmp_path, "c.yaml", text)).problems] == ["flight_end"]


def test_a_time_given_twice_is_a_problem(tmp_path: Path) -> None:
    text = "campaign_id: a\ncurrency: CNY\nflight_start: 2026-11-01\nflight_start_ms: 5\n"
    found = read_campaign_file(written(tmp_path, "c.yaml", text))
    assert found.problems == [Problem("flight_start", "stands beside flight_start_ms; give one of them")]


def test_the_same_version_twice_is_a_problem_but_two_versions_are_not(tmp_path: Path) -> None:
    text = """
- {campaign_id: a, currency: CNY}
- {campaign_id: a, currency: CNY, valid_from_ms: 5}
- {campaign_id: a, currency: CNY}
"""
    found = read_campaign_file(written(tmp_path, "c.yaml", text))
    assert found.problems == [Problem("campaigns[2].campaign_id", "repeats campaigns[0] with the same valid_from_ms")]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", "a: [1\n"), ("a.toml", "a = \n"), ("a.yaml", "!!python/object:os.system {}\n"), ("a.yaml", "")],
)
def test_a_file_that_cannot_be_parsed_is_a_problem_not_an_exception(tmp_path: Path, name: str, text: str) -> None:
    found = read_campaign_file(written(tmp_path, name, text))
    assert found.campaigns == []
    assert [problem.path for problem in found.problems] == [""]


def test_settings_beside_the_list_are_not_lost_silently(tmp_path: Path) -> None:
    found = read_campaign_file(written(tmp_path, "c.yaml", "currency: CNY\ncampaigns: [{campaign_id: a}]\n"))
    assert "currency" in found.problems[0].problem


def test_an_absent_file_and_an_unknown_format_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give a file that can be read"):
        read_campaign_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="rename or convert"):
        read_campaign_file(written(tmp_path, "c.ini", ""))
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: \xe9\n")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        read_campaign_file(path)


ROUTED = """
campaigns:
  - {campaign_id: a, currency: CNY, alerts: {routes: [ops, opps]}}
  - {campaign_id: b, currency: CNY, time_zone: Mars/Base, alerts: {routes: [nowhere]}}
  - {campaign_id: c, currency: CNY, alerts: {routes: [3]}}
  - {campaign_id: d, currency: CNY, alerts: {routes: [ops]}}
"""


def test_routes_that_do_not_exist_are_refused_where_routes_are_known(tmp_path: Path) -> None:
    path = written(tmp_path, "c.yaml", ROUTED)
    found = read_campaign_file(path, routes=("ops", "default"))
    assert [problem.path for problem in found.problems] == [
        "campaigns[0].alerts.routes[1]",
        "campaigns[1].time_zone",
        "campaigns[1].alerts.routes[0]",
        "campaigns[2].alerts.routes[0]",
    ]
    assert "'opps' is none of the routes in [delivery.routes]; known are default, ops" in found.problems[0].problem
    assert [campaign.campaign_id for campaign in found.campaigns] == ["d"]
    unknown = read_campaign_file(path)
    assert [problem.path for problem in unknown.problems] == ["campaigns[1].time_zone", "campaigns[2].alerts.routes[0]"]


def test_campaigns_put_knows_the_routes_of_the_settings(tmp_path: Path) -> None:
    file = written(tmp_path, "c.yaml", "campaigns: [{campaign_id: a, currency: CNY, alerts: {routes: [opps]}}]")
    config = written(tmp_path, "s.toml", '[delivery.routes.ops]\nurl = "https://example.org/x"\nsecret = "s"\n')
    words = ("campaigns", "put", str(file), "--check")
    env = {"COLUMNS": "160"}
    assert CliRunner().invoke(app, words, env=env).exit_code == 0
    refused = CliRunner().invoke(app, words, env={**env, CONFIG_VARIABLE: str(config)})
    assert refused.exit_code == 2
    assert "campaigns[0].alerts.routes[0]: 'opps' is none of the routes" in refused.output
