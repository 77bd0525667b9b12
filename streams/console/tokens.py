"""Tokens: made once, kept only as a hash, and compared in constant time.

A token is `cs_ID_SECRET`. The id finds the entry; the secret (256 random bits) is hashed with scrypt. That costs tens
of milliseconds on purpose, so a token that was right is remembered by its SHA-256 for a while; a wrong one never is.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import secrets
import time
import tomllib
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from streams.console.access import Principal, Scope, parse_scopes
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.settings import ConsoleSettings, TokenSettings

log = logging.getLogger(__name__)

PREFIX: Final = "cs"
COST, BLOCK, PARALLEL = 1 << 14, 8, 1
MAX_COST: Final = 1 << 17
MAX_TOKENS: Final = 10_000
MAX_REMEMBERED: Final = 1_000
REMEMBERED_S: Final = 300.0
LOOK_AGAIN_S: Final = 2.0
"""The file is looked at so often, at most."""
VERIFYING: Final = 2
"""Hashes at a time: each takes 16 MiB."""
_ID: Final = re.compile(r"[a-z0-9]{4,32}")
_HASH: Final = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d)\$([A-Za-z0-9+/=]{16,64})\$([A-Za-z0-9+/=]{24,88})")


class Hash(NamedTuple):
    """A hash with what it takes to make it again."""

    cost: int
    block: int
    parallel: int
    salt: bytes
    digest: bytes

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt${self.cost}${self.block}${self.parallel}${salt}${digest}"

    def matches(self, secret: str) -> bool:
        """Whether the secret is the one that was hashed. Takes its time."""
        made = _scrypt(secret, self.salt, self.cost, self.block, self.parallel, len(self.digest))
        return hmac.compare_digest(made, self.digest)


class Entry(NamedTuple):
    """A token as it is kept."""

    token_id: str
    hash: Hash
    scopes: tuple[Scope, ...]
    expires: date | None

    def holds(self) -> bool:
        """Whether it has not expired."""
        return self.expires is None or datetime.now(UTC).date() <= self.expires


class NewToken(NamedTuple):
    """A token, to be shown once, and its line for the file."""

    token: str
    line: str


def _scrypt(secret: str, salt: bytes, cost: int, block: int, parallel: int, length: int) -> bytes:
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=cost, r=block, p=parallel, dklen=length, maxmem=256 * cost * block + (1 << 20)
    )


def hash_of(secret: str) -> Hash:
    """A new hash, with a salt of its own."""
    salt = secrets.token_bytes(16)
    return Hash(COST, BLOCK, PARALLEL, salt, _scrypt(secret, salt, COST, BLOCK, PARALLEL, 32))


def new_token(scopes: tuple[str, ...], expires: date | None = None) -> NewToken:
    """Makes a token.

    Raises:
        ConfigurationError: a scope is none.
    """
    texts = [str(scope) for scope in parse_scopes(scopes)]
    token_id = secrets.token_hex(5)
    secret = secrets.token_urlsafe(32)
    listed = ", ".join(_quoted(text) for text in texts)
    until = f", expires = {expires.isoformat()}" if expires else ""
    line = f'{token_id} = {{scopes = [{listed}]{until}, hash = "{hash_of(secret)}"}}'
    return NewToken(f"{PREFIX}_{token_id}_{secret}", line)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _parse_hash(token_id: str, text: str) -> Hash:
    found = _HASH.fullmatch(text)
    remedy = "make one with `campaign-streams tokens new`"
    if not found:
        raise ConfigurationError(f"console tokens: the hash of {token_id} is none; {remedy}")
    cost, block, parallel = (int(found[at]) for at in (1, 2, 3))
    if not (COST <= cost <= MAX_COST and cost & (cost - 1) == 0 and 8 <= block <= 16 and 1 <= parallel <= 4):
        raise ConfigurationError(f"console tokens: the hash of {token_id} is too weak or too costly; {remedy}")
    try:
        salt, digest = (base64.b64decode(found[at], validate=True) for at in (4, 5))
    except ValueError:
        raise ConfigurationError(f"console tokens: the hash of {token_id} is none; {remedy}") from None
    return Hash(cost, block, parallel, salt, digest)


def entries_of(tokens: Mapping[str, TokenSettings]) -> dict[str, Entry]:
    """Tokens as they are compared.

    Raises:
        ConfigurationError: one is wrong; the message names its id.
    """
    if len(tokens) > MAX_TOKENS:
        raise ConfigurationError(f"console tokens: {len(tokens)} of at most {MAX_TOKENS}; remove some")
    return {
        token_id: Entry(
            token_id, _parse_hash(token_id, each.hash.get_secret_value()), parse_scopes(each.scopes), each.expires
        )
        for token_id, each in tokens.items()
    }


_TOKENS: Final = TypeAdapter(dict[str, TokenSettings])


def read_tokens(path: Path) -> dict[str, Entry]:
    """The tokens of a file.

    Raises:
        ConfigurationError: it cannot be read, or an entry is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return entries_of(_TOKENS.validate_python(document))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"console.tokens_file: {path} cannot be read ({error}); mend the path") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"console.tokens_file: {path} is no TOML ({error}); mend the line") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise ConfigurationError(f"console.tokens_file: {path}: {wrong}; mend the entry") from None


class TokenBook:
    """All tokens that hold: of the settings, and of the file, which is read again when it changes."""

    def __init__(self, settings: ConsoleSettings) -> None:
        """Raises ConfigurationError where a token is wrong: better no worker than one that is open."""
        self._path = settings.tokens_file
        self._fixed = entries_of(settings.tokens)
        self.is_configured = settings.is_closed
        """Without any token, only this machine is served. A file without tokens serves nobody."""
        self._entries = dict(self._fixed)
        self._stamp: tuple[int, int] | None = None
        self._looked = -LOOK_AGAIN_S
        self._remembered: OrderedDict[bytes, tuple[Entry, float]] = OrderedDict()
        self._busy = asyncio.Semaphore(VERIFYING)
        self._nobody = Hash(COST, BLOCK, PARALLEL, bytes(16), bytes(32))
        if self._path is not None:
            self._entries |= read_tokens(self._path)
            self._stamp = _stamp_of(self._path)

    @property
    def count(self) -> int:
        """Tokens, also those that have expired."""
        return len(self._entries)

    def _refresh(self) -> None:
        """Takes what has changed in the file. A file that is broken or gone leaves things as they are, and is told."""
        now = time.monotonic()
        if self._path is None or now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        stamp = _stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._entries = self._fixed | read_tokens(self._path)
        except CampaignStreamsError as error:
            log.error("%s; the tokens as they were still hold", error)

    def holds(self, principal: Principal) -> bool:
        """Whether a principal's token is still there and has not expired: asked while a stream is open."""
        if not self.is_configured:
            return True
        self._refresh()
        entry = self._entries.get(principal.token_id)
        return entry is not None and entry.holds() and entry.scopes == principal.scopes

    def remembered(self, token: str) -> Principal | None:
        """Whose token it is, if it was right a while ago and still holds. Costs next to nothing."""
        self._refresh()
        kept = self._remembered.get(_fingerprint(token))
        if kept is None:
            return None
        entry, until = kept
        if time.monotonic() > until or self._entries.get(entry.token_id) != entry or not entry.holds():
            del self._remembered[_fingerprint(token)]
            return None
        return Principal(entry.token_id, entry.scopes)

    async def verify(self, token: str) -> Principal | None:
        """Whose token it is; None: nobody's. An unknown id takes as long as a wrong secret."""
        found = self.remembered(token)
        if found is not None:
            return found
        token_id, secret = _split(token)
        entry = self._entries.get(token_id)
        async with self._busy:
            matches = await asyncio.to_thread((entry.hash if entry else self._nobody).matches, secret)
        if entry is None or not matches or not entry.holds():
            return None
        self._remembered[_fingerprint(token)] = (entry, time.monotonic() + REMEMBERED_S)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return Principal(entry.token_id, entry.scopes)


def _fingerprint(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _split(token: str) -> tuple[str, str]:
    prefix, _, rest = token.partition("_")
    token_id, _, secret = rest.partition("_")
    is_ours = prefix == PREFIX and _ID.fullmatch(token_id) is not None
    return (token_id, secret) if is_ours and secret.isascii() else ("", "")


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
