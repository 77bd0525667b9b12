"""What an alert says, in English and Chinese: what happened, since when, what was expected, and what it means.

Both sentences of a kind carry the same figures (a test compares them). No jargon: readers are advertisers.
"""

from collections.abc import Callable
from typing import Final

from streams.signals import AlertState, Text
from streams.stages.alerting import figures
from streams.stages.alerting.facts import Signal
from streams.stages.alerting.figures import Place
from streams.terms import PPM, AlertKind

CAMPAIGN: Final = "campaign"

FIRING: Final[dict[tuple[AlertKind, str], Text]] = {
    (AlertKind.EXHAUSTED, "day"): Text(
        "Campaign “{name}” has spent its budget for today, {budget}, at {at} and no longer delivers. "
        "Raise the budget if it should go on today.",
        "广告计划“{name}”今天的预算{budget}已于{at}用完，投放已停止。如需今天继续投放，请提高预算。",
    ),
    (AlertKind.EXHAUSTED, "day_beyond"): Text(
        "Campaign “{name}” has spent its budget for today, {budget}, and as much beyond it as a day may: {spend} by "
        "{at}. It no longer delivers. Raise the budget if it should go on today.",
        "广告计划“{name}”今天的预算{budget}以及允许超出的部分已于{at}用完，共消耗{spend}，投放已停止。"
        "如需今天继续投放，请提高预算。",
    ),
    (AlertKind.EXHAUSTED, "live_session"): Text(
        "Campaign “{name}” has spent its budget for this live session, {budget}, at {at} and no longer delivers. "
        "Raise the budget if it should go on.",
        "广告计划“{name}”本场直播的预算{budget}已于{at}用完，投放已停止。如需继续投放，请提高预算。",
    ),
    (AlertKind.EXHAUSTED, "session_day"): Text(
        "Campaign “{name}” has spent its budget for today, {budget}, at {at} and no longer delivers in this live "
        "session. Raise the daily budget if it should go on today.",
        "广告计划“{name}”今天的预算{budget}已于{at}用完，本场直播的投放已停止。如需今天继续投放，请提高日预算。",
    ),
    (AlertKind.EXHAUSTED, "flight"): Text(
        "Campaign “{name}” has spent its total budget, {budget}, at {at} and no longer delivers. "
        "Its flight is over, on later days too, unless the total budget is raised.",
        "广告计划“{name}”的总预算{budget}已于{at}用完，投放已结束，次日也不会恢复。如需继续投放，请提高总预算。",
    ),
    (AlertKind.EXHAUSTED, "shared"): Text(
        "The shared budget {pool} is spent for today, so campaign “{name}” no longer delivers. "
        "Raise the shared budget if it should go on today.",
        "共享预算{pool}今天的额度已用完，广告计划“{name}”已停止投放。如需今天继续投放，请提高共享预算。",
    ),
    (AlertKind.EXHAUSTED_EARLY, "day"): Text(
        "Campaign “{name}” has already spent its budget for today, {budget}, at {at}, {left_ms} before the day ends, "
        "and no longer delivers. Raise the budget if it should go on today.",
        "广告计划“{name}”今天的预算{budget}在{at}就已用完，距离今天结束还有{left_ms}，投放已停止。"
        "如需今天继续投放，请提高预算。",
    ),
    (AlertKind.EXHAUSTED_EARLY, "day_beyond"): Text(
        "Campaign “{name}” has already spent its budget for today, {budget}, and as much beyond it as a day may: "
        "{spend} by {at}, {left_ms} before the day ends. It no longer delivers. Raise the budget if it should go on "
        "today.",
        "广告计划“{name}”今天的预算{budget}以及允许超出的部分在{at}就已用完，共消耗{spend}，距离今天结束还有{left_ms}，"
        "投放已停止。如需今天继续投放，请提高预算。",
    ),
    (AlertKind.EXHAUSTED_EARLY, "live_session"): Text(
        "Campaign “{name}” has already spent its budget for this live session, {budget}, at {at}, about {left_ms} "
        "before the session is due to end, and no longer delivers. Raise the budget if it should go on.",
        "广告计划“{name}”本场直播的预算{budget}在{at}就已用完，距离直播预计结束还有约{left_ms}，投放已停止。"
        "如需继续投放，请提高预算。",
    ),
    (AlertKind.EXHAUSTED_EARLY, "session_day"): Text(
        "Campaign “{name}” has already spent its budget for today, {budget}, at {at}, about {left_ms} before this live "
        "session is due to end, and no longer delivers. Raise the daily budget if it should go on today.",
        "广告计划“{name}”今天的预算{budget}在{at}就已用完，距离直播预计结束还有约{left_ms}，投放已停止。"
        "如需今天继续投放，请提高日预算。",
    ),
    (AlertKind.EXHAUSTED_EARLY, "flight"): Text(
        "Campaign “{name}” has already spent its total budget, {budget}, at {at}, {left_ms} before its flight ends, "
        "and no longer delivers. Its flight is over, on later days too, unless the total budget is raised.",
        "广告计划“{name}”的总预算{budget}在{at}就已用完，距离投放期结束还有{left_ms}，投放已结束，次日也不会恢复。"
        "如需继续投放，请提高总预算。",
    ),
    (AlertKind.STALLED, ""): Text(
        "Campaign “{name}” has had no impressions since {since}, for {gap_ms}; about {missed} would be usual. "
        "It has budget left and should be delivering: check its ads, bids and targeting.",
        "广告计划“{name}”自{since}起已有{gap_ms}没有展示，往常这段时间约有{missed}次展示。"
        "该计划预算充足且在投放期内，请检查创意、出价和定向。",
    ),
    (AlertKind.BALANCE_LOW, ""): Text(
        "Account {account} has {left} left. At about {burn} an hour that lasts {lasts_ms}, less than {least_ms}. "
        "Top it up so that its campaigns keep delivering.",
        "账户{account}的余额为{left}，按近期每小时约{burn}的消耗，只够投放{lasts_ms}，不足{least_ms}。"
        "请及时充值，以免投放中断。",
    ),
    (AlertKind.BALANCE_LOW, "empty"): Text(
        "Account {account} has no balance left ({left}). Its campaigns do not deliver until it is topped up.",
        "账户{account}的余额已用完（{left}），充值前该账户的广告计划无法投放。",
    ),
    (AlertKind.COST_OVERRUN, ""): Text(
        "Since {since}, a conversion of campaign “{name}” has cost about {cost}, {times} times the target of {target}; "
        "{spend} was spent in that time. Check bids, targeting and landing page.",
        "自{since}起，广告计划“{name}”的转化成本约为{cost}，是目标成本的{times}倍（目标{target}），期间消耗{spend}。"
        "请检查出价、定向和落地页。",
    ),
    (AlertKind.COST_OVERRUN, "none"): Text(
        "Since {since}, campaign “{name}” has spent {spend} with hardly any conversion; the target cost is {target}. "
        "Check the landing page and whether conversions are reported.",
        "自{since}起，广告计划“{name}”消耗了{spend}，但几乎没有转化，目标成本为{target}。"
        "请检查落地页以及转化数据是否正常回传。",
    ),
    (AlertKind.OVER_DELIVERY, ""): Text(
        "Campaign “{name}” spends faster than planned: {spend} so far, {target} was planned by now. "
        "It is ahead by {off}, {share} of its budget of {budget}.",
        "广告计划“{name}”消耗过快：目前已消耗{spend}，按计划此时应为{target}，超前{off}，占预算{budget}的{share}。",
    ),
    (AlertKind.UNDER_DELIVERY, ""): Text(
        "Campaign “{name}” spends slower than planned: {spend} so far, {target} was planned by now. It is behind by "
        "{off}, {share} of its budget of {budget}. Higher bids or wider targeting would bring more traffic.",
        "广告计划“{name}”消耗过慢：目前已消耗{spend}，按计划此时应为{target}，落后{off}，占预算{budget}的{share}。"
        "可提高出价或放宽定向，以获取更多流量。",
    ),
    (AlertKind.EXPECTED_UNDER_DELIVERY, ""): Text(
        "Campaign “{name}” will probably not spend its budget: about {forecast} of {budget} by {ends}, {share}, and "
        "{high} at best. Higher bids or wider targeting would bring more traffic.",
        "广告计划“{name}”的预算可能花不完：到{ends}预计消耗{forecast}，预算为{budget}，完成{share}，最多消耗{high}。"
        "可提高出价或放宽定向，以获取更多流量。",
    ),
    (AlertKind.BUDGET_LADDER, "day"): Text(
        "Campaign “{name}” has spent {step} of its budget for today: {spend} of {budget}.",
        "广告计划“{name}”今天的预算已消耗{step}：已用{spend}，预算{budget}。",
    ),
    (AlertKind.BUDGET_LADDER, "live_session"): Text(
        "Campaign “{name}” has spent {step} of its budget for this live session: {spend} of {budget}.",
        "广告计划“{name}”本场直播的预算已消耗{step}：已用{spend}，预算{budget}。",
    ),
    (AlertKind.BUDGET_LADDER, "flight"): Text(
        "Campaign “{name}” has spent {step} of its total budget: {spend} of {budget}.",
        "广告计划“{name}”的总预算已消耗{step}：已用{spend}，预算{budget}。",
    ),
    (AlertKind.CTR_ANOMALY, "down"): Text(
        "Since {since}, the click-through rate of campaign “{name}” has been {seen}. {usual_en} it is {expected}, "
        "so it is {change} lower. Check its ads and placements.",
        "自{since}起，广告计划“{name}”的点击率为{seen}，{usual_zh}为{expected}，下降了{change}。请检查创意和广告位。",
    ),
    (AlertKind.CTR_ANOMALY, "up"): Text(
        "Since {since}, the click-through rate of campaign “{name}” has been {seen}. {usual_en} it is {expected}, "
        "so it is {change} higher. If nothing was changed, check where the clicks come from.",
        "自{since}起，广告计划“{name}”的点击率为{seen}，{usual_zh}为{expected}，上升了{change}。"
        "如近期没有调整，请检查点击来源。",
    ),
    (AlertKind.CVR_ANOMALY, "down"): Text(
        "Of the clicks of campaign “{name}” since {since}, {seen} converted within an hour. {usual_en} it is "
        "{expected}, so it is {change} lower. Check the landing page and whether conversions are reported.",
        "自{since}起，广告计划“{name}”点击后1小时内的转化率为{seen}，{usual_zh}为{expected}，下降了{change}。"
        "请检查落地页以及转化数据是否正常回传。",
    ),
    (AlertKind.CVR_ANOMALY, "up"): Text(
        "Of the clicks of campaign “{name}” since {since}, {seen} converted within an hour. {usual_en} it is "
        "{expected}, so it is {change} higher. If nothing was changed, check that conversions are reported once.",
        "自{since}起，广告计划“{name}”点击后1小时内的转化率为{seen}，{usual_zh}为{expected}，上升了{change}。"
        "如近期没有调整，请检查转化数据是否重复回传。",
    ),
    (AlertKind.CPA_ANOMALY, "down"): Text(
        "Since {since}, campaign “{name}” has paid {seen} for each conversion that came within an hour of its click. "
        "{usual_en} it is {expected}; for the same money, {change} fewer conversions came.",
        "自{since}起，广告计划“{name}”点击后1小时内转化的平均成本为{seen}，{usual_zh}为{expected}，"
        "同样的消耗带来的转化少了{change}。",
    ),
    (AlertKind.CONVERSIONS_COLLAPSED, ""): Text(
        "Since {since}, campaign “{name}” has spent {spend}, as much as usual, but brought {seen} conversions where "
        "about {expected} would be usual. Check the landing page and whether conversions are reported.",
        "自{since}起，广告计划“{name}”消耗{spend}，与往常相当，但只有{seen}次转化，往常约有{expected}次。"
        "请检查落地页以及转化数据是否正常回传。",
    ),
    (AlertKind.INVALID_TRAFFIC, ""): Text(
        "In the last hour, {seen} of the {inputs_en} of campaign “{name}” were invalid: {invalid} of {gross}. "
        "The limit is {limit}. Check where its traffic comes from.",
        "最近一小时，广告计划“{name}”的{inputs_zh}中有{seen}为无效流量（{gross}次中有{invalid}次），超过上限{limit}。"
        "请检查流量来源。",
    ),
    (AlertKind.INPUT_SILENT, ""): Text(
        "Partition {partition} has received no {inputs_en} since {since} UTC. What depends on them is unknown, not "
        "zero: rates hold or fall, campaigns do not begin, and advertisers get no alerts that rest on it. "
        "If nothing was due, see the runbook.",
        "分区{partition}自{since}（UTC）起没有收到{inputs_zh}数据，相关指标按未知处理，而不是按零处理："
        "投放速率不会上升，广告计划不会开始投放，也不会据此向广告主发送提醒。如本来就不应有数据，请查阅运维手册。",
    ),
}
"""By kind and form. A kind without forms has one, ''."""

RESOLVED: Final[dict[AlertKind, Text]] = {
    AlertKind.EXHAUSTED: Text(
        "Campaign “{name}” has budget again: a new period has begun, the budget was raised, or spend was credited.",
        "广告计划“{name}”又有可用预算：新的预算周期已开始，预算已提高，或有消耗被退回。",
    ),
    AlertKind.STALLED: Text(
        "Campaign “{name}” has impressions again, as of {now}.", "广告计划“{name}”已于{now}恢复展示。"
    ),
    AlertKind.BALANCE_LOW: Text(
        "The balance of account {account} lasts long enough again.", "账户{account}的余额已恢复充足。"
    ),
    AlertKind.COST_OVERRUN: Text(
        "The cost per conversion of campaign “{name}” is no longer far above its target of {target}.",
        "广告计划“{name}”的转化成本已不再明显高于目标成本{target}。",
    ),
    AlertKind.OVER_DELIVERY: Text(
        "Campaign “{name}” spends as planned again.", "广告计划“{name}”的消耗已恢复到计划进度。"
    ),
    AlertKind.EXPECTED_UNDER_DELIVERY: Text(
        "Campaign “{name}” may spend its budget after all.", "广告计划“{name}”的预算现在有望花完。"
    ),
    AlertKind.BUDGET_LADDER: Text(
        "The {step} step of the budget of campaign “{name}” is over: a later step or a new period has begun, "
        "the budget was raised, or spend was credited.",
        "广告计划“{name}”的预算{step}提醒已结束：已到下一档，新的预算周期已开始，预算已提高，或有消耗被退回。",
    ),
    AlertKind.CTR_ANOMALY: Text(
        "The click-through rate of campaign “{name}” is as usual again.", "广告计划“{name}”的点击率已恢复正常。"
    ),
    AlertKind.CVR_ANOMALY: Text(
        "The conversion rate of campaign “{name}” is as usual again.", "广告计划“{name}”的转化率已恢复正常。"
    ),
    AlertKind.CPA_ANOMALY: Text(
        "The cost per conversion of campaign “{name}” is as usual again.", "广告计划“{name}”的转化成本已恢复正常。"
    ),
    AlertKind.CONVERSIONS_COLLAPSED: Text(
        "Campaign “{name}” brings conversions again.", "广告计划“{name}”已恢复转化。"
    ),
    AlertKind.INVALID_TRAFFIC: Text(
        "The share of invalid {inputs_en} of campaign “{name}” is below the limit again.",
        "广告计划“{name}”的无效{inputs_zh}占比已回到上限以下。",
    ),
    AlertKind.INPUT_SILENT: Text(
        "Partition {partition} receives {inputs_en} again.", "分区{partition}已恢复接收{inputs_zh}数据。"
    ),
}
CLOSED: Final = {
    "ended": Text(
        "Campaign “{name}” is not running now, so this alert is closed.", "广告计划“{name}”当前不在投放期，提醒已关闭。"
    ),
    "off": Text("This kind of alert was turned off for campaign “{name}”.", "广告计划“{name}”已关闭此类提醒。"),
    "left": Text(
        "This alert is closed: campaign “{name}” does not draw on that account or shared budget any more.",
        "广告计划“{name}”已不再使用该账户或共享预算，提醒已关闭。",
    ),
    "unpaced": Text(
        "This alert is closed: campaign “{name}” has no budget any more that limits its spend.",
        "广告计划“{name}”已不再设置预算，提醒已关闭。",
    ),
    "moot": Text(
        "This alert about campaign “{name}” is closed: another one explains it.",
        "广告计划“{name}”的这条提醒已关闭，原因见其他提醒。",
    ),
}
"""Resolutions that have another reason than the alert's own."""

_ALIKE: Final = {
    AlertKind.EXHAUSTED_EARLY: AlertKind.EXHAUSTED,
    AlertKind.UNDER_DELIVERY: AlertKind.OVER_DELIVERY,
}
_USUAL: Final = {
    True: Text("Usually at this time of the week", "以往每周同一时段"),
    False: Text("At the same hour of the last days", "最近几天同一时段"),
}
INPUT_NAMES: Final = {
    "impressions": Text("impressions", "展示"),
    "plays": Text("plays", "播放"),
    "clicks": Text("clicks", "点击"),
    "conversions": Text("conversions", "转化"),
    "adjustments": Text("adjustments", "订单调整"),
    "engagements": Text("engagements", "互动"),
}

Format = Callable[[float, Place], Text]
_MONEY: Final = ("spend", "budget", "target", "off", "forecast", "high", "left", "burn", "cost")
_FORMATS: Final[dict[str, Format]] = {
    **dict.fromkeys(_MONEY, figures.money),
    **dict.fromkeys(("at", "since", "ends"), figures.moment),
    **dict.fromkeys(("left_ms", "gap_ms", "lasts_ms", "least_ms"), lambda ms, _place: figures.duration(ms)),
    **dict.fromkeys(("missed", "invalid", "gross", "events"), lambda number, _place: figures.count(number)),
    "share": lambda ppm, _place: figures.percent(ppm / PPM),
    "limit": lambda share, _place: figures.percent(share),
    "step": lambda percent, _place: figures.percent(percent / 100),
    "change": lambda percent, _place: figures.percent(percent / 100),
    "times": lambda times, _place: figures.same(f"{times:.1f}"),
    "partition": lambda number, _place: figures.same(str(int(number))),
}


def sentence(kind: AlertKind, state: AlertState, signal: Signal, name: str, place: Place, closed: str = "") -> Text:
    """Of a change: for a resolution, `signal` is what was told when it fired, and `closed` another reason than its own.

    Raises KeyError for a form that has no sentence: a mistake of the rules.
    """
    told = figures_of(kind, signal, place)
    if state is not AlertState.RESOLVED:
        form = signal.form.removesuffix("_other_days")
        text = FIRING.get((kind, form)) or FIRING[kind, ""]
    elif closed:
        text = CLOSED[closed]
    else:
        text = RESOLVED[_ALIKE.get(kind, kind)]
    told["now"] = figures.moment(place.now_ms, place)
    usual = _USUAL[not signal.form.endswith("_other_days")]
    english = {key: value.en for key, value in told.items()} | {"name": name, "usual_en": usual.en}
    chinese = {key: value.zh for key, value in told.items()} | {"name": name, "usual_zh": usual.zh}
    return Text(text.en.format_map(english), text.zh.format_map(chinese))


def figures_of(kind: AlertKind, signal: Signal, place: Place) -> dict[str, Text]:
    """A signal's figures as they are read."""
    told: dict[str, Text] = {}
    for key, value in signal.figures:
        if value is None:
            continue
        if key == "inputs":
            told |= _inputs(str(value))
        elif isinstance(value, str):
            told[key] = figures.same(value)
        elif key in ("seen", "expected"):
            told[key] = _measured(kind, value, place)
        else:
            told[key] = _FORMATS[key](value, place)
    if kind is AlertKind.CPA_ANOMALY and "seen" not in told:
        told["seen"] = Text("more than was spent", "超过总消耗")
    return told


def _measured(kind: AlertKind, value: float, place: Place) -> Text:
    if kind is AlertKind.CPA_ANOMALY:
        return figures.money(value, place)
    return figures.count(value) if kind is AlertKind.CONVERSIONS_COLLAPSED else figures.percent(value)


def _inputs(names: str) -> dict[str, Text]:
    found = [INPUT_NAMES[name] for name in names.split(",")]
    listed = Text(" and ".join(text.en for text in found), "、".join(text.zh for text in found))
    return {"inputs_en": listed, "inputs_zh": listed}
