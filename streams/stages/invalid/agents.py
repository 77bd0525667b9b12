"""User agents that declare themselves no person's browser: crawlers by a list, and libraries and tools by their names.

An agent is matched once and its verdict remembered (`AgentBits`), for agents repeat. A match must be cheap still, for
there are tens of thousands of honest ones: 1,500 patterns as one expression cost over a millisecond an agent. So each
pattern is filed under three characters that every text it matches must hold (`CrawlerIndex`: about 15 µs an agent).
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from streams.invalid import BIT, Rule

MAX_CACHED: Final = 65_536
"""Agents whose verdict is remembered; beyond it all are forgotten. What is found never depends on it."""
GRAM: Final = 3
_COMMON: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) (Macintosh; Intel Mac OS X 10_15_7) (X11; Linux x86_64; rv:109.0) "
    "(Linux; U; Android 13; zh-CN; SM-G Build/TP1A; wv) (iPhone; CPU iPhone OS 16_0 like Mac OS X) (compatible; +http"
    "://www. .com/) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.0.0 Mobile/15E148 Safari/604.1 "
    "Firefox/ Edg/ OPR/ Gecko/20100101 bot Bot spider Spider crawler Crawler"
)
"""What most agents hold anyway: patterns are not filed under its parts, where they have others."""
_OPTIONAL: Final = frozenset("?*{")
_CLASSES: Final = re.compile(r"\\[A-Za-z0-9]")
_LAST: Final = {"[": "]", "{": "}", "(": ")"}


class _Entry(NamedTuple):
    place: int
    literal: str
    expression: re.Pattern[str] | None  # None: the literal is all of it


class CrawlerIndex:
    """Finds the first of many regular expressions (case matters, as in the package) that a text matches."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = patterns
        self._entries: dict[str, list[_Entry]] = {}
        self._others: list[tuple[int, re.Pattern[str]]] = []
        for place, pattern in enumerate(patterns):
            expression = re.compile(pattern)
            literals = required_literals(pattern)
            if min(map(len, literals)) < GRAM:
                self._others.append((place, expression))
                continue
            is_plain = literals == [re.sub(r"\\([^A-Za-z0-9])", r"\1", pattern)]
            for literal in literals:
                entry = _Entry(place, literal, None if is_plain else expression)
                self._entries.setdefault(self._gram_of(literal), []).append(entry)

    def find(self, agent: str) -> str | None:
        """The first pattern, in the list's order, that the agent matches."""
        grams = {agent[i : i + GRAM] for i in range(len(agent) - GRAM + 1)}
        found = [place for place, expression in self._others if expression.search(agent)]
        for gram in filter(self._entries.__contains__, grams):
            found += [
                entry.place
                for entry in self._entries[gram]
                if entry.literal in agent and (entry.expression is None or entry.expression.search(agent))
            ]
        return self.patterns[min(found)] if found else None

    def _gram_of(self, literal: str) -> str:
        """The rarest three characters of a literal, as far as one can tell without looking at traffic."""
        grams = [literal[i : i + GRAM] for i in range(len(literal) - GRAM + 1)]
        return min(grams, key=lambda gram: (gram in _COMMON, len(self._entries.get(gram, ()))))


def required_literals(pattern: str) -> list[str]:
    """Of each alternative (`a|b`) the longest run of characters that its matches must hold; '' where there is none."""
    alternatives: list[list[str]] = [[""]]
    for atom, is_literal in _atoms(pattern):
        runs = alternatives[-1]
        if is_literal:
            runs[-1] += atom
        elif atom == "|":
            alternatives.append([""])
        else:
            if atom in _OPTIONAL:  # the character before may be absent
                runs[-1] = runs[-1][:-1]
            runs.append("")
    return [max(runs, key=len) for runs in alternatives]


def _atoms(pattern: str) -> Iterator[tuple[str, bool]]:
    """Characters that stand for themselves, and everything else; groups and sets are passed over as one."""
    at = 0
    while at < len(pattern):
        begin = pattern[at]
        if begin == "\\":
            is_class = _CLASSES.match(pattern, at) is not None
            yield (begin, False) if is_class else (pattern[at + 1 : at + 2], True)
            at += 2
        elif begin in _LAST:
            yield begin, False
            at = _end_of(pattern, at)
        else:
            yield begin, begin not in ".^$*+?|"
            at += 1


def _end_of(pattern: str, begin: int) -> int:
    """Where a group, a set or a repetition ends. Where groups or sets are nested, nothing behind is a literal."""
    opening, closing = pattern[begin], _LAST[pattern[begin]]
    end = pattern.find(closing, begin + 2)  # a set may begin with its own closing bracket
    is_simple = end > 0 and pattern[end - 1] != "\\" and opening not in pattern[begin + 1 : end]
    if opening == "(":
        inner = pattern[begin + 1 : end]
        is_simple = is_simple and "\\" not in inner and ("[" not in inner or "]" in inner)
    return end + 1 if is_simple else len(pattern)


# Libraries and tools

_TOOLS: Final = (
    "apachebench async-http-client aiohttp axios commons-httpclient curl deno go-http-client grpc-go guzzlehttp httpie "
    "http_request2 jakarta java jersey libcurl libwww-perl lua-resty-http lwp lwp::simple mechanize "
    "microsoft-cryptoapi node-fetch node.js pecl::http perl php php-curl-class postmanruntime python python-httpx "
    "python-requests python-urllib python-urllib3 reactor-netty reqwest rest-client restsharp ruby scrapy superagent "
    "typhoeus undici unirest unirest-java ureq urllib3 vert.x-webclient wget winhttp wrk zend_http_client"
)
_APP_LIBRARIES: Final = "afnetworking alamofire apache-httpclient cfnetwork cronet dart darwin okhttp"
TOOLS: Final = frozenset(_TOOLS.split(" "))
"""Names of an agent's first product that is a library or a tool, lower case: what HTTP libraries and command line
tools of the common languages send by default (by their documentation, 2026). Names that an app may well bear (Siege,
Insomnia) are left out."""
APP_LIBRARIES: Final = frozenset(_APP_LIBRARIES.split(" "))
"""What apps for phones also use. They are told from tools only by the app's own product beside them
(`Shop/5.2 okhttp/4.9.0`); alone, no app says that it is one."""
_AUTOMATION: Final = (
    *("headless", "phantomjs", "slimerjs", "casperjs", "selenium", "webdriver/", "puppeteer", "playwright"),
    *("cypress/", "jsdom/", "htmlunit", "testcafe/", "zombie.js/", "windowspowershell/"),
)
"""Browsers driven by programs say so anywhere in their agents."""
_COMMENT: Final = re.compile(r"\([^()]*\)")
_BARE: Final = re.compile(r"Mozilla/\d+\.\d+")


class NonBrowser(NamedTuple):
    """Why an agent is no browser's and no app's."""

    kind: str
    token: str


def non_browser(agent: str) -> NonBrowser | None:
    """What tells that an agent is neither a browser's nor an app's; None: nothing does.

    Only what names itself is found: an unknown name is left alone, for apps make up their own.
    """
    text = agent.strip()
    if text in ("", "-"):
        return NonBrowser("empty", text)
    if _BARE.fullmatch(text):  # browsers add their platform
        return NonBrowser("bare", text)
    text = text.lower()
    for name in _AUTOMATION:
        if name in text:
            return NonBrowser("automation", name.rstrip("/"))
    names = [product.split("/")[0] for product in _COMMENT.sub(" ", text).split()]
    if names and names[0] in TOOLS:
        return NonBrowser("tool", names[0])
    if names and APP_LIBRARIES.issuperset(names):
        return NonBrowser("library", names[0])
    return None


class AgentBits(dict[str | None, int]):
    """Look up `found[agent]`: bits of the rules that a user agent falls under. An unknown agent is under none."""

    def __init__(self, crawlers: CrawlerIndex) -> None:
        super().__init__()
        self.crawlers = crawlers

    def __missing__(self, agent: str | None) -> int:
        bits = 0
        if agent is not None:
            is_crawler = self.crawlers.find(agent) is not None
            bits |= BIT[Rule.DECLARED_BOT] * is_crawler
            bits |= BIT[Rule.NON_BROWSER_AGENT] * (non_browser(agent) is not None)
        if len(self) >= MAX_CACHED:
            self.clear()
        self[agent] = bits
        return bits


@lru_cache(maxsize=2)
def agent_bits(patterns: tuple[str, ...]) -> AgentBits:
    """One table for all that judge by the same list: partitions and inputs see the same agents."""
    return AgentBits(CrawlerIndex(patterns))
