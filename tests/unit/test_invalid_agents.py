"""Real user agents: the package's own instances are caught; browsers, apps' web views and real logs' agents are not."""

import re

import crawleruseragents
import pytest

from streams.adapters.lists import LEFT_OUT, NARROWED, crawler_patterns
from streams.invalid import BIT, Rule
from streams.jobs.traffic_agents import CRAWLERS, DESKTOPS, PHONES, TABLETS, TELEVISIONS
from streams.stages.invalid import agents
from streams.stages.invalid.agents import AgentBits, CrawlerIndex, agent_bits, non_browser
from tests.unit.test_load_real_logs import IPINYOU, loaded, needs

PATTERNS, VERSION = crawler_patterns()
INSTANCES = [
    (entry["pattern"], agent)
    for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA
    for agent in entry.get("instances", ())
]
BROWSERS = (*PHONES, *TABLETS, *DESKTOPS, *TELEVISIONS)
OTHERS = (
    "SogouMobileBrowser/6.0.0 Mozilla/5.0 (Linux; Android 12; PGT-AN10) AppleWebKit/537.36 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; U; Android 13; zh-cn; M2012K11AC) AppleWebKit/537.36 MQQBrowser/14.2 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; U; Android 12; zh-CN; VOG-AL00) AppleWebKit/537.36 UCBrowser/15.5.8 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; ELE-AL00) AppleWebKit/537.36 Chrome/99 HuaweiBrowser/14.0.4 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; SM-S908B) AppleWebKit/537.36 SamsungBrowser/25.0 Chrome/121 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 QRCode/1.2",
    "Dalvik/2.1.0 (Linux; U; Android 13; 2211133C Build/TKQ1.220905.001)",
    "Shop/5.2 okhttp/4.9.0",
    "Kuaishou/12.4.20 (iPhone; iOS 17.2; Scale/3.00) CFNetwork/1490 Darwin/23.2.0",
)
"""Browsers and apps that look a little like something else."""


def is_bot(agent: str) -> bool:
    return bool(agent_bits(PATTERNS)[agent] & BIT[Rule.DECLARED_BOT])


def test_every_instance_of_the_package_is_caught_but_of_patterns_that_people_match() -> None:
    assert len(INSTANCES) > 2_000
    missed = [(pattern, agent) for pattern, agent in INSTANCES if not is_bot(agent)]
    assert {pattern for pattern, _ in missed} == set(LEFT_OUT)
    libraries = [agent for _, agent in missed if non_browser(agent)]
    assert {agent.split("/")[0].lower() for agent in libraries} == {"okhttp", "apache-httpclient"}
    assert len(missed) - len(libraries) == 3  # people's: a build of Android, Facebook's app, a browser for single sites


@pytest.mark.parametrize("agent", [*BROWSERS, *OTHERS])
def test_browsers_and_apps_are_nobodys_bots(agent: str) -> None:
    assert agent_bits(PATTERNS)[agent] == 0


def test_generated_crawlers_are_bots() -> None:
    assert all(map(is_bot, CRAWLERS))


@needs(IPINYOU)
def test_no_agent_of_a_real_log_of_people_is_flagged() -> None:
    """2,122 user agents of one evening in China, 2013."""
    found = {event.user_agent for _, event in loaded(IPINYOU, "ipinyou")[0]}
    assert len(found) > 2_000
    assert [agent for agent in found if agent_bits(PATTERNS)[agent]] == []


def test_patterns_that_are_left_out_or_narrowed_are_still_the_packages() -> None:
    known = {entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA}
    assert set(LEFT_OUT) | set(NARROWED) <= known
    assert not set(LEFT_OUT) & set(PATTERNS)
    assert len(PATTERNS) == len(known) - len(LEFT_OUT)
    assert VERSION


def test_the_index_finds_what_every_pattern_one_by_one_finds_first() -> None:
    index, expressions = CrawlerIndex(PATTERNS), [re.compile(pattern) for pattern in PATTERNS]
    for agent in (*(agent for _, agent in INSTANCES[::5]), *BROWSERS[::4], "", "a", "bo"):
        first = next((each.pattern for each in expressions if each.search(agent)), None)
        assert index.find(agent) == first, agent


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        ("curl/8.5.0", "tool"),
        ("python-requests/2.32.3", "tool"),
        ("Go-http-client/2.0", "tool"),
        ("Java/17.0.2", "tool"),
        ("okhttp/4.9.0", "library"),
        ("CFNetwork/1490 Darwin/23.2.0", "library"),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0.0.0 Safari/537.36", "automation"),
        ("Mozilla/5.0 (Unknown; Linux) AppleWebKit/538.1 PhantomJS/2.1.1 Safari/538.1", "automation"),
        ("", "empty"),
        (" - ", "empty"),
        ("Mozilla/5.0", "bare"),
    ],
)
def test_what_is_no_browser_says_so(agent: str, kind: str) -> None:
    found = non_browser(agent)
    assert found is not None
    assert found.kind == kind
    assert agent_bits(PATTERNS)[agent] & BIT[Rule.NON_BROWSER_AGENT]


def test_verdicts_are_remembered_within_a_bound_and_do_not_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "MAX_CACHED", 3)
    found = AgentBits(CrawlerIndex(("Googlebot",)))
    asked = ["Googlebot/2.1", None, "curl/8", BROWSERS[0], "Googlebot/2.1", BROWSERS[1], None, "curl/8"]
    bot, tool = BIT[Rule.DECLARED_BOT], BIT[Rule.NON_BROWSER_AGENT]
    sizes = []
    for agent, bits in zip(asked, [bot, 0, tool, 0, bot, 0, 0, tool], strict=True):
        assert found[agent] == bits
        sizes.append(len(found))
    assert max(sizes) == 3
