"""`tokens new` and `tokens sql`, and what `doctor` says of access."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.commands.doctor import _console
from streams.console.tokens import TokenBook, read_tokens
from streams.settings import ConsoleSettings, Settings, WorkerSettings
from tests.support.console import made_token, settings_with


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    done = CliRunner().invoke(app, words)
    return done.exit_code, done.stdout, done.stderr


async def test_the_line_goes_to_a_file_and_the_token_to_people(tmp_path: Path) -> None:
    code, line, shown = run("tokens", "new", "--scope", "shop:s 1", "--scope", "creator:k", "--expires", "2999-12-31")
    assert code == 0
    (token,) = (word for word in shown.split() if word.startswith("cs_"))
    assert token not in line
    assert line.count("\n") == 1
    file = tmp_path / "tokens.toml"
    file.write_text(line)
    (entry,) = read_tokens(file).values()
    assert [str(scope) for scope in entry.scopes] == ["shop:s 1", "creator:k"]
    assert str(entry.expires) == "2999-12-31"
    assert await TokenBook(ConsoleSettings(tokens_file=file)).verify(token)


def test_a_scope_with_quotes_stays_one_text() -> None:
    _, line, _ = run("tokens", "new", "--scope", 'shop:a"b\\c')
    ((_, entry),) = tomllib.loads(line).items()
    assert entry["scopes"] == ['shop:a"b\\c']


def test_a_wrong_scope_is_told() -> None:
    done = CliRunner().invoke(app, ["tokens", "new", "--scope", "admin"])
    assert done.exit_code != 0
    assert "no scope" in str(done.exception)


def test_the_sql_of_a_reader_grants_one_database_only() -> None:
    code, text, _ = run("tokens", "sql", "reader_7", "--scope", "advertiser:adv-7")
    assert code == 0
    assert text.count("GRANT") == 1
    assert "GRANT SELECT ON reader_7.* TO reader_7" in text
    assert not re.search("publisher_risk|flag_rows|[.]flags", text)  # risks, rules and evidence are internal
    assert "'adv-7'" in text


@pytest.mark.parametrize(
    ("console", "host", "severity", "told"),
    [
        (ConsoleSettings(), "127.0.0.1", "ok", "nobody else"),
        (ConsoleSettings(), "0.0.0.0", "warning", "no token is configured"),
        (settings_with(made_token("operator")), "0.0.0.0", "ok", "a token is needed; 1 configured"),
    ],
)
def test_the_doctor_says_who_is_served(console: ConsoleSettings, host: str, severity: str, told: str) -> None:
    (finding,) = _console(Settings(console=console, worker=WorkerSettings(web_host=host)))
    assert finding.severity == severity
    assert told in finding.detail
    assert (finding.remedy is None) == (severity == "ok")


def test_the_doctor_warns_of_a_file_that_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text("")
    (finding,) = _console(Settings(console=ConsoleSettings(tokens_file=file)))
    assert (finding.severity, "nobody" in finding.detail) == ("warning", True)
