"""Who asks, and what that may see.

An operator sees everything. Any other scope names an agency, an advertiser, a shop or a creator, and sees the campaigns
whose settings name it, and of these only what is billed: fields that are marked `OPERATORS` are left out of every
answer (`streams.console.documents.shown_to`), and no filter or order can be asked for them.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from streams.errors import ConfigurationError

MAX_SCOPES: Final = 100


class Kind(StrEnum):
    """What a scope names. All but `operator` are fields of a campaign's settings."""

    OPERATOR = "operator"
    AGENCY = "agency"
    ADVERTISER = "advertiser"
    SHOP = "shop"
    CREATOR = "creator"


class Scope(NamedTuple):
    """One of the things that a token lets its holder see. The name is empty for operators."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind.value


class Principal(NamedTuple):
    """Who asks: the token's id (empty where none is configured), and its scopes."""

    token_id: str
    scopes: tuple[Scope, ...]

    @property
    def is_operator(self) -> bool:
        """Whether everything may be seen."""
        return any(scope.kind is Kind.OPERATOR for scope in self.scopes)

    def names(self, kind: Kind) -> list[str]:
        """What its scopes of one kind name, in order."""
        return sorted(scope.name for scope in self.scopes if scope.kind is kind)


LOCAL_OPERATOR: Final = Principal("", (Scope(Kind.OPERATOR),))
"""Whoever is on this machine, while no token is configured."""


def parse_scope(text: str) -> Scope:
    """`operator`, or KIND:ID.

    Raises:
        ConfigurationError: it is none; the message names the kinds.
    """
    kind, _, name = text.strip().partition(":")
    kinds = ", ".join(f"{each}:ID" for each in Kind if each is not Kind.OPERATOR)
    try:
        found = Scope(Kind(kind), name)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no scope; write operator, {kinds}") from None
    if (found.kind is Kind.OPERATOR) == bool(name) or len(name) > 128 or not name.isprintable():
        raise ConfigurationError(f"{text!r} is no scope; write operator, {kinds}")
    return found


def parse_scopes(texts: tuple[str, ...]) -> tuple[Scope, ...]:
    """The scopes of one token, each once.

    Raises:
        ConfigurationError: one is none, or there are none or too many.
    """
    if not 0 < len(texts) <= MAX_SCOPES:
        raise ConfigurationError(f"a token has 1 to {MAX_SCOPES} scopes; this one has {len(texts)}")
    return tuple(dict.fromkeys(map(parse_scope, texts)))


class Condition(NamedTuple):
    """A condition on the view `campaigns`, with the values that are bound to it."""

    sql: str
    values: dict[str, object]


def own_campaigns(principal: Principal) -> Condition:
    """Which rows of the view `campaigns` the principal may see; `1` for operators.

    A scope's name is a bound value, never text of the statement. Without a scope nothing is seen.
    """
    if principal.is_operator:
        return Condition("1", {})
    columns = {
        Kind.AGENCY: "agency_id",
        Kind.ADVERTISER: "advertiser_id",
        Kind.SHOP: "JSONExtractString(settings, 'shop_id')",
        Kind.CREATOR: "JSONExtractString(settings, 'creator_id')",
    }
    parts, values = [], dict[str, object]()
    for kind, column in columns.items():
        names = [name for name in principal.names(kind) if name]
        if names:
            parts.append(f"{column} IN {{own_{kind}:Array(String)}}")
            values[f"own_{kind}"] = names
    return Condition(" OR ".join(parts) or "0", values)


def for_advertisers(database: str = "") -> str:
    """Which rows of the view `alerts` others than operators may see: meant for them, and firing or fired.

    A pending alert may never fire, also one that was lost while it waited.
    """
    rows = f"{database}.alert_rows" if database else "alert_rows"
    return (
        "audience = 'advertiser' AND state != 'pending'"
        f" AND alert_id IN (SELECT alert_id FROM {rows} WHERE state != 'pending')"
    )
