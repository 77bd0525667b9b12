"""A replay's report as a page in a real browser: from its file alone, whatever campaigns are called."""

from pathlib import Path
from typing import Any

import pytest

from streams.jobs.report_files import write_report
from tests.e2e.test_console_browser import CHROMIUM, PHONE, opened, violations
from tests.support.reports import HOSTILE, made_report

playwright = pytest.importorskip("playwright.async_api", reason="pip install 'campaign-streams[dev]' brings playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install one (Debian: chromium)")


async def drawn(page: Any) -> int:
    """How many plots have a coloured line: axes and texts are nearly grey."""
    return int(
        await page.evaluate("""() => [...document.querySelectorAll(".chart canvas")].filter((canvas) => {
            const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let coloured = 0;
            for (let at = 0; at < all.length; at += 4) {
                const [red, green, blue, alpha] = all.slice(at, at + 4);
                coloured += alpha > 200 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60;
            }
            return coloured > 100;
        }).length""")
    )


@pytest.mark.slow
async def test_the_page_draws_itself_from_its_file_and_runs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(made_report(12), path)
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            for scheme, more in (("light", {}), ("dark", {}), ("dark", {"viewport": PHONE})):
                async with opened(browser, path.as_uri(), color_scheme=scheme, offline=True, **more) as watched:
                    await looked_at(watched.page)
                    if scheme == "light":
                        await searched(watched.page)
        finally:
            await browser.close()


async def looked_at(page: Any) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await page.get_by_role("heading", name="stricter beside live").wait_for()
    assert await drawn(page) == 4
    assert await page.title() == "stricter beside live"
    assert await page.locator("#rules tbody tr").count() == 1
    assert await page.get_by_text("Mind: live rows have gone <b>.").is_visible()
    assert await violations(page) == []
    assert requests == []


async def searched(page: Any) -> None:
    rows = page.locator("#campaigns tbody tr")
    assert await rows.count() == 9  # every fifth of twelve does not differ
    for name in HOSTILE:
        await page.get_by_label("Find").fill(name.split("\u2028")[0].strip())
        assert await rows.count() >= 1
        assert name.split("\u2028")[0].strip() in (await rows.first.locator("th").inner_text()).replace("\u2028", " ")
    await page.get_by_label("Find").fill("")
    await page.get_by_label("Show").select_option("all")
    assert await rows.count() == 12
