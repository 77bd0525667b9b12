"""What alerts say: in both languages the same figures, formatted as people read them."""

import re

import pytest

from streams.rules import DAY_MS, HOUR_MS, MINUTE_MS
from streams.signals import AlertState, Text
from streams.stages.alerting import figures
from streams.stages.alerting.facts import Condition, Figures, Signal
from streams.stages.alerting.figures import Place
from streams.stages.alerting.sentences import CLOSED, FIRING, INPUT_NAMES, RESOLVED, figures_of, sentence
from streams.terms import AlertKind

NOON = 1_700_481_600_000
"""2023-11-20 12:00 UTC, 20:00 in Shanghai."""
PLACE = Place("CNY", "Asia/Shanghai", NOON)
VALUES: Figures = (
    *(("spend", 4_100_000_000), ("budget", 10_000_000_000), ("target", 5_200_000_000), ("off", 1_100_000_000)),
    *(("forecast", 6_300_000_000), ("high", 7_400_000_000), ("left", 8_500_000_000), ("burn", 96_700_000)),
    *(("at", NOON - 2 * HOUR_MS), ("since", NOON - DAY_MS), ("ends", NOON + 4 * HOUR_MS - 60_000)),
    *(("left_ms", 3.5 * HOUR_MS), ("gap_ms", 42 * MINUTE_MS), ("lasts_ms", 19 * HOUR_MS), ("least_ms", DAY_MS)),
    *(("share", 230_000), ("step", 75), ("change", 58), ("times", 2.4), ("missed", 3_210), ("events", 44)),
    *(("invalid", 412), ("gross", 1_510), ("limit", 0.2), ("account", "acc-17"), ("pool", "b-8"), ("cost", 12_340_000)),
    *(("partition", 3), ("inputs", "impressions,clicks")),
)


def signal_of(kind: AlertKind, form: str) -> Signal:
    if kind is AlertKind.CONVERSIONS_COLLAPSED:
        seen, expected = 3.0, 61.0
    elif kind is AlertKind.CPA_ANOMALY:
        seen, expected = 66_000_000.0, 31_500_000.0
    else:
        seen, expected = 0.0123, 0.0297
    figures = (*VALUES, ("seen", seen), ("expected", expected))
    return Signal(Condition.MET, seen, expected, "", figures, form=form)


def digits(text: str) -> list[str]:
    """Numbers in a sentence, sorted; the month's name is a number, too."""
    for number, month in enumerate(figures.MONTHS, 1):
        text = text.replace(f" {month} ", f" {number} ")
    return sorted(re.findall(r"\d[\d,.:]*\d|\d", text))


FORMS = [*FIRING, (AlertKind.CTR_ANOMALY, "down_other_days"), (AlertKind.CVR_ANOMALY, "up_other_days")]


@pytest.mark.parametrize(("kind", "form"), FORMS, ids=lambda value: str(value))
def test_both_languages_carry_the_same_figures(kind: AlertKind, form: str) -> None:
    text = sentence(kind, AlertState.FIRING, signal_of(kind, form), "春季大促", PLACE)
    english, chinese = digits(text.en), digits(text.zh)
    if kind is AlertKind.CVR_ANOMALY or kind is AlertKind.CPA_ANOMALY:
        chinese.remove("1")  # "within an hour" is a figure in Chinese only
    assert english == chinese
    assert english or form == "shared"


@pytest.mark.parametrize(("kind", "form"), FORMS, ids=lambda value: str(value))
def test_a_sentence_has_no_gap_and_no_word_of_the_other_language(kind: AlertKind, form: str) -> None:
    text = sentence(kind, AlertState.FIRING, signal_of(kind, form), "X", PLACE)
    for told in (text.en, text.zh):
        assert "{" not in told
        assert "None" not in told
    assert not re.search(r"[\u4e00-\u9fff]", text.en)
    words = re.sub(r"acc-17|b-8|UTC|X", "", text.zh)
    assert not re.search(r"[A-Za-z]{2,}", words), words
    assert text.en.endswith(".")
    assert text.zh.endswith("。")
    assert len(text.en) < 320
    assert len(text.zh) < 130


@pytest.mark.parametrize("kind", list(AlertKind))
def test_every_kind_has_a_sentence_for_its_beginning_and_its_end(kind: AlertKind) -> None:
    forms = [form for found, form in FIRING if found is kind]
    assert forms
    for form in forms:
        ended = sentence(kind, AlertState.RESOLVED, signal_of(kind, form), "X", PLACE)
        assert digits(ended.en) == digits(ended.zh)
        for reason in CLOSED:
            closed = sentence(kind, AlertState.RESOLVED, signal_of(kind, form), "X", PLACE, reason)
            assert "X" in closed.en
            assert "X" in closed.zh


def test_the_name_of_a_campaign_may_hold_anything() -> None:
    text = sentence(AlertKind.STALLED, AlertState.FIRING, signal_of(AlertKind.STALLED, ""), "{spend} 100% {0}", PLACE)
    assert "“{spend} 100% {0}”" in text.en
    assert "“{spend} 100% {0}”" in text.zh


def test_a_stall_reads_as_people_write() -> None:
    told = sentence(AlertKind.STALLED, AlertState.FIRING, signal_of(AlertKind.STALLED, ""), "Spring sale", PLACE)
    assert told == Text(
        "Campaign “Spring sale” has had no impressions since 19 Nov 20:00, for 42 minutes; about 3,210 would be usual. "
        "It has budget left and should be delivering: check its ads, bids and targeting.",
        "广告计划“Spring sale”自11月19日20:00起已有42分钟没有展示，往常这段时间约有3,210次展示。"
        "该计划预算充足且在投放期内，请检查创意、出价和定向。",
    )


def test_what_is_silent_is_named_in_both_languages() -> None:
    told = figures_of(AlertKind.INPUT_SILENT, Signal(Condition.MET, figures=(("inputs", "clicks,plays"),)), PLACE)
    assert told["inputs_en"].en == "clicks and plays"
    assert told["inputs_zh"].zh == "点击、播放"
    assert len(INPUT_NAMES) == 6


@pytest.mark.parametrize(
    ("micros", "currency", "shown"),
    [
        (1_234_567_890, "CNY", "¥1,235"),
        (56_700_000, "USD", "$56.70"),
        (999_990_000, "EUR", "€999.99"),
        (50_000, "GBP", "£0.0500"),
        (-5_000_000, "USD", "-$5.00"),
        (0, "USD", "$0.00"),
        (123_400_000, "SEK", "SEK 123.40"),
        (123_400_000, "JPY", "JPY 123"),
    ],
)
def test_money_is_told_with_its_currency(micros: int, currency: str, shown: str) -> None:
    assert figures.money(micros, PLACE._replace(currency=currency)) == Text(shown, shown)


@pytest.mark.parametrize(
    ("share", "shown"), [(0.62, "62%"), (0.0123, "1.23%"), (0.00045, "0.045%"), (0.0, "0%"), (1.0, "100%")]
)
def test_shares_are_told_in_percent(share: float, shown: str) -> None:
    assert figures.percent(share).en == figures.percent(share).zh == shown


@pytest.mark.parametrize(
    ("ms", "english", "chinese"),
    [
        (MINUTE_MS, "1 minute", "1分钟"),
        (42 * MINUTE_MS, "42 minutes", "42分钟"),
        (119 * MINUTE_MS, "119 minutes", "119分钟"),
        (2 * HOUR_MS, "2 hours", "2小时"),
        (3.5 * HOUR_MS, "3.5 hours", "3.5小时"),
        (19.4 * HOUR_MS, "19 hours", "19小时"),
        (99 * HOUR_MS, "99 hours", "99小时"),
        (430 * HOUR_MS, "18 days", "18天"),
        (0, "1 minute", "1分钟"),
    ],
)
def test_durations_are_told_in_minutes_hours_or_days(ms: float, english: str, chinese: str) -> None:
    assert figures.duration(ms) == Text(english, chinese)


def test_a_time_is_local_and_has_its_date_on_another_day() -> None:
    assert figures.moment(NOON - HOUR_MS, PLACE) == Text("19:00", "19:00")
    assert figures.moment(NOON - DAY_MS, PLACE) == Text("19 Nov 20:00", "11月19日20:00")
    assert figures.moment(NOON, PLACE._replace(time_zone="America/New_York")).en == "07:00"


def test_no_sentence_is_of_a_kind_that_does_not_exist() -> None:
    assert {kind for kind, _ in FIRING} == set(AlertKind)
    assert set(RESOLVED) <= set(AlertKind)
