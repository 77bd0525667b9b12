"""Files of balances and shared budgets, alone and beside campaigns that draw on them; sessions from the terminal."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.accounts import AccountBalance, SharedBudget, decode_account, encode_account, key_of, problems_of
from streams.cli import app
from streams.documents import Problem
from streams.errors import ConfigurationError
from streams.events import Reason, Rejected
from streams.jobs.campaign_files import CampaignFile, read_account_file, read_campaign_file

ACCOUNTS = """
accounts:
  - {kind: balance, account_id: b1, currency: CNY, cash_micros: 5, as_of: 2026-11-02T08:00:00+08:00}
  - {kind: shared_budget, shared_budget_id: s1, advertiser_id: a1, currency: CNY, time_zone: Asia/Shanghai,
     daily_micros: 9}
"""


def read(tmp_path: Path, text: str) -> CampaignFile:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return read_account_file(path)


def paths(found: CampaignFile) -> list[str]:
    return [problem.path for problem in found.problems]


def with_campaign(fields: str) -> str:
    return f"{ACCOUNTS}\ncampaigns:\n  - {{campaign_id: c1, {fields}}}\n"


def test_balances_and_shared_budgets_are_read_alone_and_beside_campaigns(tmp_path: Path) -> None:
    alone = read(tmp_path, ACCOUNTS)
    assert alone.problems == []
    balance, shared = alone.accounts
    assert balance == AccountBalance(account_id="b1", currency="CNY", cash_micros=5, as_of_ms=1_793_577_600_000)
    assert isinstance(shared, SharedBudget)
    both = read(
        tmp_path,
        with_campaign(
            "advertiser_id: a1, account_id: b1, currency: CNY, time_zone: Asia/Singapore,"
            " budget: {shared_budget_id: s1}"
        ),
    )
    assert (both.problems, both.accounts) == ([], alone.accounts)
    assert [campaign.campaign_id for campaign in both.campaigns] == ["c1"]
    assert read_campaign_file(tmp_path / "file.yaml") == both


def test_an_account_survives_the_topic_unchanged(tmp_path: Path) -> None:
    for account in read(tmp_path, ACCOUNTS).accounts:
        assert decode_account(encode_account(account)) == account
        assert key_of(account) in ("b1", "s1")
    assert decode_account(b'{"kind":"loan"}') == Rejected(Reason.UNKNOWN_VALUE, "$.kind")


def test_every_fault_of_every_account_is_reported_with_its_path(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
accounts:
  - {kind: balance, account_id: b1, currency: cny, cash_micros: 5, grant_micros: -1, as_of_ms: 1}
  - {kind: shared_budget, shared_budget_id: s1, advertiser_id: a1, currency: CNY, time_zone: Mars/Base, daily_micros: 1}
  - {kind: loan}
  - nonsense
  - {kind: balance, account_id: b2, currency: CNY, cash_micros: 5, as_of: soon}
  - {kind: shared_budget, shared_budget_id: s3, advertiser_id: a1, currency: CNY, daily_micros: -5, dayly: 1}
  - {kind: balance, account_id: b3, currency: CNY, cash_micros: 5, as_of: 2026-11-02, as_of_ms: 1}
""",
    )
    assert paths(found) == [
        "accounts[0].grant_micros",
        "accounts[1].time_zone",
        "accounts[2].kind",
        "accounts[3]",
        "accounts[4].as_of",
        "accounts[5].dayly",
        "accounts[5].daily_micros",
        "accounts[6].as_of",
    ]
    assert found.accounts == []


def test_two_documents_of_one_id_are_a_fault_whatever_their_kinds(tmp_path: Path) -> None:
    text = ACCOUNTS + "  - {kind: balance, account_id: s1, currency: CNY, cash_micros: 5, as_of_ms: 1}\n"
    assert read(tmp_path, text).problems == [
        Problem("accounts[2]", "has the same id as accounts[1]; the later would take its place")
    ]


@pytest.mark.parametrize(
    ("fields", "path", "told"),
    [
        ("advertiser_id: a1, currency: USD, time_zone: Asia/Shanghai", "budget.shared_budget_id", "s1 is in CNY"),
        ("advertiser_id: a2, currency: CNY, time_zone: Asia/Shanghai", "budget.shared_budget_id", "of advertiser a1"),
        ("currency: CNY, time_zone: Asia/Shanghai", "budget.shared_budget_id", "this campaign of none"),
        ("advertiser_id: a1, currency: CNY", "time_zone", "midnight of Asia/Shanghai"),
    ],
)
def test_a_campaign_that_does_not_fit_its_shared_budget_is_a_fault(
    tmp_path: Path, fields: str, path: str, told: str
) -> None:
    (problem,) = read(tmp_path, with_campaign(f"{fields}, budget: {{shared_budget_id: s1}}")).problems
    assert problem.path == f"campaigns[0].{path}"
    assert told in problem.problem


def test_a_campaign_of_another_currency_than_its_account_is_a_fault(tmp_path: Path) -> None:
    found = read(tmp_path, with_campaign("account_id: b1, currency: USD"))
    assert found.problems == [Problem("campaigns[0].account_id", "b1 is in CNY, this campaign in USD")]


def test_a_budget_shared_over_two_currencies_is_a_fault_without_its_document_too(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("""
campaigns:
  - {campaign_id: c1, currency: CNY, budget: {shared_budget_id: s1}}
  - {campaign_id: c2, currency: USD, budget: {shared_budget_id: s1}}
  - {campaign_id: c3, currency: USD, budget: {shared_budget_id: s2}}
""")
    (problem,) = read_campaign_file(path).problems
    assert problem.path == "campaigns[1].budget.shared_budget_id"
    assert "campaigns[0], which is in CNY" in problem.problem


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("budget: {daily_micros: -5}", "budget.daily_micros"),
        ("budget: {daily_micros: 5, total_micros: 4}", "budget.daily_micros"),
        ("budget: {daily_micro: 5}", "budget.daily_micro"),
        ("budget: {session_micros: 5}", "budget.session_micros"),
        ("flight_start: 2026-11-03, flight_end: 2026-11-01", "flight_end_ms"),
        ("time_zone: Mars/Base", "time_zone"),
        ("billing: {model: cpc}", "billing.price_micros"),
        ("alerts: {quiet_hours: {begins: '24:00', ends: '07:00'}}", "alerts.quiet_hours.begins"),
        ("alerts: {quiet_hours: {begins: '07:00', ends: '07:00'}}", "alerts.quiet_hours.ends"),
        ("alerts: {push: [stalled], 'off': [stalled]}", "alerts.off"),
        ("alerts: {ladder_percent: [50, 50]}", "alerts.ladder_percent"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_path_of_the_field(
    tmp_path: Path, fields: str, path: str
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"campaigns:\n  - {{campaign_id: c1, currency: CNY, {fields}}}\n")
    result = invoke("campaigns", "put", str(file), "--check")
    assert result.exit_code == 2
    assert f"campaigns[0].{path}:" in result.output


def test_what_is_listed_where_there_is_nothing_puts_nothing(tmp_path: Path) -> None:
    """As a drain does without accounts."""
    (tmp_path / "none.json").write_text("[]\n")
    for kind in ("accounts", "campaigns"):
        result = invoke(kind, "put", str(tmp_path / "none.json"), "--check")
        assert (result.exit_code, result.output.count("0 ")) == (0, 1)


def test_a_file_of_the_wrong_kind_names_what_is_missing(tmp_path: Path) -> None:
    assert "holds no accounts" in read(tmp_path, "campaign_id: c1\ncurrency: CNY\n").problems[0].problem
    assert paths(read(tmp_path, "accounts: []\n")) == ["accounts"]
    assert paths(read(tmp_path, "accounts: {}\n")) == ["accounts"]
    assert paths(read(tmp_path, "a: [1\n")) == [""]
    assert read(tmp_path, f"{ACCOUNTS}\ncurrency: CNY\n").problems
    (tmp_path / "file.yaml").write_text(ACCOUNTS)
    assert "holds no campaigns" in read_campaign_file(tmp_path / "file.yaml").problems[0].problem


@pytest.mark.parametrize("document", [None, 3, "x", {}, {"kind": 7}])
def test_what_is_no_account_is_a_problem_and_no_exception(document: object) -> None:
    assert problems_of(document)


# Commands


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "160"})


def test_a_file_is_checked_without_a_broker(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ACCOUNTS)
    result = invoke("accounts", "put", str(tmp_path / "a.yaml"), "--check")
    assert result.exit_code == 0, result.output
    assert "2 accounts without a fault" in result.output
    (tmp_path / "a.yaml").write_text(ACCOUNTS.replace("daily_micros: 9", "daily_micros: 0"))
    result = invoke("accounts", "put", str(tmp_path / "a.yaml"), "--check")
    assert result.exit_code == 2
    assert "1 fault; nothing was appended" in result.output
    assert "accounts[1].daily_micros:" in result.output


@pytest.mark.parametrize("command", ["accounts put", "accounts list", "sessions start", "sessions end"])
def test_every_command_explains_itself_in_the_terminal(command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0, result.output
    assert len(result.output.split()) > 25


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--planned-end", "2026-11-02T19:00"], "--planned-end: 2026-11-02 19:00:00 is not after the begin"),
        (["--planned-end", "soon"], "--planned-end: 'soon' is no time"),
        (["--creator", ""], r"creator_id"),
    ],
)
def test_a_session_that_makes_no_sense_is_refused_with_its_option(words: list[str], told: str) -> None:
    result = invoke("sessions", "start", "c1", "--session", "l1", "--at", "2026-11-02T20:00", *words)
    assert isinstance(result.exception, ConfigurationError)
    assert told in str(result.exception)
