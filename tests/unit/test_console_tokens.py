"""Tokens are kept as hashes only, compared in constant time, and end when their line goes."""

import os
import time
from datetime import date
from pathlib import Path

import pytest

from streams.console import tokens as module
from streams.console.access import LOCAL_OPERATOR, Kind, Scope
from streams.console.tokens import TokenBook, hash_of, new_token, read_tokens
from streams.errors import ConfigurationError
from streams.settings import ConsoleSettings
from tests.support.console import entry_of, made_token, settings_with

ADVERTISER = made_token("advertiser:adv-1")


def test_a_token_is_not_in_its_line() -> None:
    secret = ADVERTISER.token.split("_", 2)[2]
    assert len(secret) >= 43
    assert secret not in ADVERTISER.line


def test_the_same_secret_never_has_the_same_hash() -> None:
    one, other = hash_of("s"), hash_of("s")
    assert str(one) != str(other)
    assert one.matches("s")
    assert not one.matches("t")


async def test_the_right_token_tells_who_it_is() -> None:
    book = TokenBook(settings_with(ADVERTISER))
    who = await book.verify(ADVERTISER.token)
    assert who is not None
    assert who.scopes == (Scope(Kind.ADVERTISER, "adv-1"),)
    assert not who.is_operator


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t + "x", lambda t: "", lambda t: "cs_é_ü", str.upper])
async def test_any_other_text_is_nobody(spoil) -> None:  # type: ignore[no-untyped-def]
    book = TokenBook(settings_with(ADVERTISER))
    assert await book.verify(spoil(ADVERTISER.token)) is None


async def test_an_unknown_id_costs_a_hash_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the time would tell which ids there are."""
    made = []
    real = module._scrypt
    monkeypatch.setattr(module, "_scrypt", lambda *given: made.append(1) or real(*given))
    await TokenBook(settings_with(ADVERTISER)).verify("cs_0000000000_x")
    assert made == [1]


async def test_a_right_token_is_hashed_once_and_then_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    book = TokenBook(settings_with(ADVERTISER))
    await book.verify(ADVERTISER.token)
    monkeypatch.setattr(module, "_scrypt", lambda *given: pytest.fail("hashed again"))
    assert await book.verify(ADVERTISER.token)
    assert ADVERTISER.token not in repr(vars(book))


async def test_an_expired_token_is_nobody() -> None:
    token = new_token(("operator",), date(2020, 1, 1))
    assert await TokenBook(settings_with(token)).verify(token.token) is None


async def test_a_line_that_goes_ends_its_token_and_one_that_comes_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)
    other, file = made_token("operator"), tmp_path / "tokens.toml"
    file.write_text(ADVERTISER.line + "\n")
    book = TokenBook(ConsoleSettings(tokens_file=file))
    who = await book.verify(ADVERTISER.token)
    assert who is not None
    assert book.holds(who)
    file.write_text(other.line + "\n# changed\n")
    assert not book.holds(who)
    assert await book.verify(ADVERTISER.token) is None
    assert await book.verify(other.token)


async def test_a_file_that_breaks_leaves_tokens_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)
    file = tmp_path / "tokens.toml"
    file.write_text(ADVERTISER.line)
    book = TokenBook(ConsoleSettings(tokens_file=file))
    file.write_text("no = [toml")
    os.utime(file, (time.time() + 5, time.time() + 5))
    assert await book.verify(ADVERTISER.token)


def test_a_file_without_tokens_serves_nobody(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text("")
    book = TokenBook(ConsoleSettings(tokens_file=file))
    assert book.is_configured
    assert not book.holds(LOCAL_OPERATOR)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[", "no TOML"),
        ('abcd = {scopes = ["operator"]}', "hash"),
        ('abcd = {scopes = ["operator"], hash = "plain"}', "none"),
        ('abcd = {scopes = ["admin"], hash = "HASH"}', "no scope"),
        ('abcd = {scopes = [], hash = "HASH"}', "scopes"),
        ('abcd = {scopes = ["operator:x"], hash = "HASH"}', "no scope"),
        ('abcd = {scopes = ["advertiser:"], hash = "HASH"}', "no scope"),
        ('abcd = {scopes = ["operator"], hash = "scrypt$2$8$1$AAAAAAAAAAAAAAAAAAAAAA==$' + "A" * 43 + '="}', "weak"),
    ],
)
def test_a_wrong_entry_is_told_with_its_reason(text: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(text.replace("HASH", entry_of(ADVERTISER)[1]["hash"]))
    with pytest.raises(ConfigurationError, match=what):
        read_tokens(file)


def test_a_missing_file_keeps_a_worker_from_starting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TokenBook(ConsoleSettings(tokens_file=tmp_path / "none.toml"))


def test_hashes_are_masked_where_settings_are_shown() -> None:
    assert entry_of(ADVERTISER)[1]["hash"] not in repr(settings_with(ADVERTISER))
