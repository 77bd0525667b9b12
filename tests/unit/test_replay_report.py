"""A report's files: what each holds, and what no name of a campaign can do in them."""

import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path

import msgspec
import pytest

from streams.errors import ConfigurationError
from streams.jobs.replay_compare import Difference, Side, with_named_currencies
from streams.jobs.replay_report import Report, figures_of
from streams.jobs.report_files import MAX_ON_PAGE, as_csv, as_html, as_json, check_paths, write_report
from tests.support.reports import HOSTILE, made_report


def test_json_is_the_whole_report() -> None:
    report = made_report()
    assert msgspec.json.decode(as_json(report), type=Report) == report


def test_csv_has_a_line_for_each_campaign_with_before_after_and_difference() -> None:
    report = made_report()
    lines = list(csv.DictReader(io.StringIO(as_csv(report).decode())))
    assert len(lines) == len(report.campaigns) == 40
    for line, campaign in zip(lines, report.campaigns, strict=True):
        assert line["campaign_id"] == campaign.campaign_id
        for name in ("impressions", "spend_micros", "invalid_clicks", "alerts"):
            assert int(line[f"{name}_after"]) - int(line[f"{name}_before"]) == int(line[f"{name}_difference"])
        assert line["remarks"] == "live rows have gone <b>"
        assert float(line["ctr_before"]) == campaign.before.clicks / campaign.before.impressions
    money = [abs(int(line["spend_micros_difference"])) for line in lines]
    assert money == sorted(money, reverse=True)


def test_a_name_is_no_formula_in_a_spreadsheet() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(made_report()).decode())))
    assert [line["name"] for line in lines if "HYPERLINK" in line["name"]] == [f"'{HOSTILE[4]}"]


def test_the_page_holds_its_own_policy_and_nothing_from_elsewhere() -> None:
    page = as_html(made_report()).decode()
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [kind.strip() for kind, _ in scripts] == [
        'id="licences" type="text/plain"',
        'id="data" type="application/json"',
        "",
    ]
    digest = base64.b64encode(hashlib.sha256(scripts[2][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "<" not in scripts[1][1]
    assert [each["name"] for each in json.loads(scripts[1][1])["campaigns"][: len(HOSTILE)]] == list(HOSTILE)
    assert all(name in scripts[0][1] for name in ("preact", "uplot", "MIT"))


def test_a_page_is_bounded_and_says_how_many_there_are() -> None:
    page = as_html(made_report(MAX_ON_PAGE + 5)).decode()
    (data,) = re.findall(r'type="application/json">(.*?)</script>', page)
    document = json.loads(data)
    assert (len(document["campaigns"]), document["campaigns_in_all"]) == (MAX_ON_PAGE, MAX_ON_PAGE + 5)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["report.pdf"], "says no format; end its name in .csv, .json, .html"),
        (["report"], "says no format"),
        (["nowhere/report.csv"], "cannot be written"),
        (["a.csv", "a.csv"], "named twice"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, names: list[str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        check_paths([tmp_path / name for name in names])
    assert list(tmp_path.iterdir()) == []


def test_a_report_replaces_the_one_before_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "REPORT.JSON"
    check_paths([path])
    for campaigns in (9, 3):
        write_report(made_report(campaigns), path)
        assert len(json.loads(path.read_bytes())["campaigns"]) == campaigns
    assert [each.name for each in tmp_path.iterdir()] == ["REPORT.JSON"]


def test_ratios_are_absent_over_zero_and_explain_themselves_above_one() -> None:
    assert figures_of(Side()).ctr is None
    found = figures_of(Side(impressions=200, clicks=10, conversions=12))
    assert found.ctr is not None
    assert (found.ctr.value, found.ctr.note) == (0.05, "")
    assert found.ctr.low < 0.05 < found.ctr.high
    assert found.cvr is not None
    assert found.cvr.note == "more conversions than clicks"


def test_events_without_a_currency_join_their_campaign_s_only_one_and_money_never_does() -> None:
    one, two = Side(clicks=1), Side(clicks=2, spend_micros=5)
    found = [
        Difference("a", "", one, one),
        Difference("a", "CNY", two, two),
        Difference("b", "", one, one),
        Difference("b", "CNY", two, two),
        Difference("b", "USD", two, two),
        Difference("c", "", two, two),
        Difference("c", "CNY", two, two),
    ]
    joined = {(each.campaign_id, each.currency): each.before.clicks for each in with_named_currencies(found)}
    assert joined == {("a", "CNY"): 3, ("b", ""): 1, ("b", "CNY"): 2, ("b", "USD"): 2, ("c", ""): 2, ("c", "CNY"): 2}
