"""What people read: a title and a text in their language, composed of the alerts' own sentences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from streams.signals import Alert, AlertState
from streams.stages.delivery.messages import Message, MessageKind, message_id
from streams.terms import AlertKind

NAMED: Final = 5
"""Campaigns that a group names; the others are a number."""
MAX_TEXT: Final = 3_500
"""Characters: chat systems cut off at about 4,000."""
LANGUAGES: Final = ("en", "zh")
PRODUCT: Final = "[Campaign Streams]"

_KINDS: Final[dict[AlertKind, tuple[str, str]]] = {
    AlertKind.EXHAUSTED: ("budget exhausted", "预算耗尽"),
    AlertKind.EXHAUSTED_EARLY: ("budget exhausted early", "预算提前耗尽"),
    AlertKind.STALLED: ("delivery stalled", "投放停滞"),
    AlertKind.BALANCE_LOW: ("balance low", "余额不足"),
    AlertKind.COST_OVERRUN: ("cost overrun", "转化成本超标"),
    AlertKind.OVER_DELIVERY: ("over-delivery", "投放超速"),
    AlertKind.UNDER_DELIVERY: ("under-delivery", "投放不足"),
    AlertKind.EXPECTED_UNDER_DELIVERY: ("expected under-delivery", "预计投放不足"),
    AlertKind.BUDGET_LADDER: ("budget milestone", "预算进度"),
    AlertKind.CTR_ANOMALY: ("unusual CTR", "点击率异常"),
    AlertKind.CVR_ANOMALY: ("unusual CVR", "转化率异常"),
    AlertKind.CPA_ANOMALY: ("unusual CPA", "转化成本异常"),
    AlertKind.CONVERSIONS_COLLAPSED: ("conversions collapsed", "转化骤降"),
    AlertKind.INVALID_TRAFFIC: ("invalid traffic", "无效流量"),
    AlertKind.INPUT_SILENT: ("input silent", "输入中断"),
}


class _Words(NamedTuple):
    alert: str
    resolved: str
    firing_part: str
    resolved_part: str
    campaigns: str
    alerts: str
    colon: str
    joint: str
    more: str
    digest: str
    summary: str
    left_out: str


_EN: Final = _Words(
    alert="Alert",
    resolved="Resolved",
    firing_part="{n:,} firing",
    resolved_part="{n:,} resolved",
    campaigns="{n:,} campaigns",
    alerts="{n:,} alerts",
    colon=": ",
    joint=", ",
    more="… and {n:,} more",
    digest="Digest",
    summary="Held back by the hourly cap",
    left_out="{n:,} older alerts were left out of this digest; `campaign-streams alerts tail` shows them.",
)
_ZH: Final = _Words(
    alert="告警",
    resolved="已恢复",
    firing_part="{n:,} 条告警中",
    resolved_part="{n:,} 条已恢复",
    campaigns="{n:,} 个计划",
    alerts="{n:,} 条告警",
    colon="：",
    joint="，",
    more="……另有 {n:,} 条",
    digest="告警摘要",
    summary="因每小时上限合并发送",
    left_out="另有 {n:,} 条较早的告警未列入本摘要，可用 `campaign-streams alerts tail` 查看。",
)


class Written(NamedTuple):
    """A message's words."""

    title: str
    text: str


def language_of(alerts: Iterable[Alert], wanted: str | None) -> str:
    """The receiver's language, else the one that most alerts ask for."""
    if wanted in LANGUAGES:
        return wanted
    asked = Counter(alert.language for alert in alerts if alert.language in LANGUAGES)
    return max(sorted(asked), key=lambda language: asked[language], default="en")


def written(kind: MessageKind, alerts: Sequence[Alert], language: str, left_out: int = 0) -> Written:
    """Title and text. Alerts of a kind and state stand together; the first `NAMED` of them with their sentences."""
    words = _ZH if language == "zh" else _EN
    groups: dict[tuple[bool, AlertKind], list[Alert]] = {}
    for alert in alerts:
        groups.setdefault((alert.state is AlertState.RESOLVED, alert.kind), []).append(alert)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])  # firing first
    lines: list[str] = []
    for (is_resolved, alert_kind), group in ordered:
        lines += _group(words, is_resolved, alert_kind, group, is_alone=len(alerts) == 1)
    if left_out:
        lines.append(words.left_out.format(n=left_out))
    return Written(f"{PRODUCT} {_title(words, kind, alerts)}", _cut("\n".join(lines), words))


def _group(words: _Words, is_resolved: bool, kind: AlertKind, group: Sequence[Alert], is_alone: bool) -> list[str]:
    sentences = [_sentence(words, alert) for alert in group[:NAMED]]
    if is_alone:
        return sentences
    state = words.resolved if is_resolved else words.alert
    lines = [f"{state}{words.colon}{_kind(words, kind)}{words.joint}{_count(words, group)}"]
    lines += [f"• {sentence}" for sentence in sentences]
    if len(group) > NAMED:
        lines.append(words.more.format(n=len(group) - NAMED))
    return lines


def _sentence(words: _Words, alert: Alert) -> str:
    """The alert's own sentence, after the campaign's name where it does not tell it."""
    text = alert.text.zh if words is _ZH else alert.text.en
    name = alert.campaign_name or alert.campaign_id
    return text if not name or name in text else f"{name}{words.colon}{text}"


def _title(words: _Words, kind: MessageKind, alerts: Sequence[Alert]) -> str:
    firing = sum(alert.state is AlertState.FIRING for alert in alerts)
    resolved = len(alerts) - firing
    if kind is MessageKind.PUSH and alerts:
        kinds = {alert.kind for alert in alerts}
        what = _kind(words, next(iter(kinds))) if len(kinds) == 1 else words.alerts.format(n=len(alerts))
        state = words.alert if firing else words.resolved
        one = alerts[0].campaign_name or alerts[0].campaign_id
        whom = one if len(alerts) == 1 else _count(words, alerts)
        return f"{state}{words.colon}{what}{words.joint}{whom}" if whom else f"{state}{words.colon}{what}"
    parts = [words.firing_part.format(n=firing)] * bool(firing)
    parts += [words.resolved_part.format(n=resolved)] * bool(resolved)
    head = words.digest if kind is MessageKind.DIGEST else words.summary
    return f"{head}{words.colon}{words.joint.join(parts)}"


def _count(words: _Words, alerts: Sequence[Alert]) -> str:
    campaigns = {alert.campaign_id for alert in alerts if alert.campaign_id}
    return words.campaigns.format(n=len(campaigns)) if len(campaigns) > 1 else words.alerts.format(n=len(alerts))


def _kind(words: _Words, kind: AlertKind) -> str:
    return _KINDS[kind][1 if words is _ZH else 0]


def _cut(text: str, words: _Words) -> str:
    """At the end of a line, with the number of lines that are missing."""
    if len(text) <= MAX_TEXT:
        return text
    kept = text[: MAX_TEXT - 40].rpartition("\n")[0] or text[: MAX_TEXT - 40]
    return f"{kept}\n{words.more.format(n=text.count(chr(10)) - kept.count(chr(10)))}"


_TEST: Final = {
    "en": ("TEST: this route works", "This is a test of the route {route}. No campaign is affected; nothing is to do."),
    "zh": ("测试：此通道可用", "这是对通道 {route} 的测试，不涉及任何计划，无需处理。"),
}


def trial_message(route: str, language: str, now_ms: int) -> Message:
    """A message without alerts that says that it is a test; its id is of its own moment."""
    title, text = _TEST[language]
    return Message(
        message_id=message_id(route, [("test", str(now_ms))]),
        route=route,
        kind=MessageKind.TEST,
        language=language,
        title=f"{PRODUCT} {title}",
        text=text.format(route=route),
        composed_ms=now_ms,
        alerts=(),
    )
