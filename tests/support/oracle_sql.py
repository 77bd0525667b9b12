"""The oracle's queries (SQLite). See tests/support/oracle.py."""

from collections.abc import Mapping, Sequence
from typing import Final

from streams.records import DIMENSIONS, MEASURES

EVENT_COLUMNS: Final = (
    "event_id",
    "event_time_ms",
    "traffic",
    "campaign_id",
    "ad_unit_id",
    "creative_id",
    "variant",
    "currency",
    "user_id",
    *DIMENSIONS,
    "clearing_price_millimicros",
    "viewable",
    "milestone",
    "loop",
    "watched_ms",
    "click_type",
    "conversion_type",
    "quantity",
    "value_micros",
    "cost_of_goods_micros",
    "discount_micros",
    "has_touch",
    "touch_type",
    "touch_time_ms",
    "weight_ppm",
    "adjustment_type",
    "adjusted_event_id",
    "adjusted_event_time_ms",
    "amount_micros",
    "engagement_type",
    "impression_id",
    "touch_id",
    "order_id",
    "device_id",
    "user_agent",
    "network",
    "prefetch",
    "placement_width_px",
    "placement_height_px",
)
RAW_COLUMNS: Final = ("topic", "part", "off", "ts", "expected", *EVENT_COLUMNS)
RULE_COLUMNS: Final = (
    "part",
    "topic",
    "from_off",
    "rules_seq",
    "pane_ms",
    "report_pane_ms",
    "skew_ms",
    "lateness_ms",
    "dedupe_ms",
    "bucket_ms",
    "click_types",
    "conversion_types",
    "dims",
    "max_pane_keys",
    "max_report_keys",
    "rules_on",
    "rules_active",
    "invalid",
)
_RULED: Final = ", ".join(f"rules.{name}" for name in RULE_COLUMNS[3:])

JUDGE: Final = f"""
CREATE TABLE ruled AS
SELECT raw.*, {_RULED},
    EXISTS (SELECT 1 FROM lost WHERE lost.topic = raw.topic AND lost.part = raw.part
            AND raw.off >= from_off AND raw.off < to_off) AS is_lost,
    COALESCE((SELECT c.currency FROM currencies c WHERE c.part = raw.part AND c.topic = raw.topic
              AND c.campaign = raw.campaign_id AND c.from_off <= raw.off LIMIT 1), raw.currency) AS fixed,
    CASE WHEN raw.topic IN ('ads.impressions', 'ads.plays', 'ads.clicks')
              THEN COALESCE(clearing_price_millimicros, 0) > 0
         WHEN raw.topic = 'ads.conversions' THEN COALESCE(value_micros, 0) + COALESCE(cost_of_goods_micros, 0)
              + COALESCE(discount_micros, 0) > 0
         WHEN raw.topic = 'ads.adjustments' THEN amount_micros <> 0
         ELSE 0 END AS has_money
FROM raw JOIN rules ON rules.part = raw.part AND rules.topic = raw.topic AND rules.rules_seq =
    (SELECT MAX(rules_seq) FROM rules r WHERE r.part = raw.part AND r.topic = raw.topic AND r.from_off <= raw.off);

CREATE TABLE judged AS
WITH reasoned AS (
    SELECT *, CASE
        WHEN (topic, part, off) IN (SELECT topic, part, off FROM poison) THEN 'internal_error'
        WHEN expected IS NOT NULL THEN expected
        WHEN event_time_ms > ts + skew_ms THEN 'future'
        WHEN traffic = 'paid' AND campaign_id IS NULL THEN 'paid_without_campaign'
        WHEN has_money AND currency IS NULL THEN 'money_without_currency'
    END AS reason
    FROM ruled WHERE NOT is_lost),
paced AS (
    SELECT *, MAX(CASE WHEN reason IS NULL THEN event_time_ms END)
        OVER (PARTITION BY topic, part ORDER BY off ROWS UNBOUNDED PRECEDING) AS newest
    FROM reasoned)
SELECT *, reason IS NULL AND event_time_ms < newest - lateness_ms AS late FROM paced;
CREATE INDEX judged_place ON judged (part, topic, off);

CREATE TABLE candidates AS
SELECT topic, part, event_id, off, event_time_ms / bucket_ms AS bucket, bucket_ms, dedupe_ms, newest,
    ROW_NUMBER() OVER (PARTITION BY topic, part, event_id ORDER BY off) AS n
FROM judged WHERE reason IS NULL AND NOT late;
CREATE UNIQUE INDEX candidates_place ON candidates (topic, part, event_id, n);

CREATE TABLE settled AS
WITH RECURSIVE walk (topic, part, event_id, n, off, known, is_first) AS (
    SELECT topic, part, event_id, n, off, bucket, 1 FROM candidates WHERE n = 1
    UNION ALL
    SELECT c.topic, c.part, c.event_id, c.n, c.off,
        CASE WHEN (w.known + 1) * c.bucket_ms + c.dedupe_ms > c.newest THEN w.known ELSE c.bucket END,
        NOT ((w.known + 1) * c.bucket_ms + c.dedupe_ms > c.newest)
    FROM walk w JOIN candidates c
        ON c.topic = w.topic AND c.part = w.part AND c.event_id = w.event_id AND c.n = w.n + 1)
SELECT j.*, COALESCE(walk.is_first, 0) AS counted, walk.is_first IS NOT NULL AND NOT walk.is_first AS duplicate,
    COALESCE(walk.is_first AND has_money AND j.currency = fixed, 0) AS paid,
    COALESCE(walk.is_first AND has_money AND j.currency <> fixed, 0) AS refused
FROM judged j LEFT JOIN walk ON walk.topic = j.topic AND walk.part = j.part AND walk.off = j.off;
"""

TARIFF_COLUMNS: Final = ("part", "campaign", "topic", "from_off", "from_ms", "billed_topic", "price", "kind")
BILL: Final = """
CREATE INDEX tariffs_place ON tariffs (part, campaign, topic);
CREATE TABLE billed AS
SELECT s.*, t.billed_topic, t.price, t.kind FROM settled s LEFT JOIN tariffs t ON t.rowid =
    (SELECT x.rowid FROM tariffs x WHERE x.part = s.part AND x.campaign = s.campaign_id AND x.topic = s.topic
     AND x.from_off <= s.off AND x.from_ms <= s.event_time_ms ORDER BY x.from_ms DESC, x.rowid DESC LIMIT 1);
"""
AGENT: Final = "Googlebot"
_PERSON: Final = "COALESCE(user_id, device_id)"
_KNOWN_NETWORK: Final = "network LIKE '%.%.%.%/%'"


def _by_type(setting: str, by_type: str) -> str:
    """A threshold, and what is counted apart by it."""
    return f"COALESCE({_own(by_type)}, json_extract(invalid, '$.{setting}'))"


def _own(by_type: str) -> str:
    return f"json_extract(invalid, '$.{by_type}.' || click_type)"


def _apart(by_type: str) -> str:
    return f"CASE WHEN {_own(by_type)} IS NULL THEN '' ELSE click_type END"


_NTH: Final = {
    "clicked": f"part, impression_id, {_apart('max_clicks_per_impression_by_type')}, "
    "topic = 'ads.clicks' AND counted AND impression_id IS NOT NULL",
    "ordered": "part, conversion_type, order_id, CASE WHEN has_touch AND weight_ppm <> 1000000 "
    "THEN COALESCE(touch_id, 'None') ELSE '' END, topic = 'ads.conversions' AND counted AND order_id IS NOT NULL",
    "active": f"part, campaign_id, {_PERSON}, event_time_ms / 3600000, {_apart('activity_clicks_by_type')}, "
    "topic = 'ads.clicks' AND counted AND campaign_id IS NOT NULL",
}
_SAME_CLICK: Final = f"part, topic, counted, {_PERSON}, campaign_id, ad_unit_id, creative_id, click_type, product_id"
_LEAST_DELAY: Final = "json_extract(invalid, '$.conversion_after_ms.' || conversion_type)"
_NOT_ADJUSTED: Final = "topic <> 'ads.adjustments'"
FLAGGED_BY: Final = {
    "declared_bot": f"instr(user_agent, '{AGENT}') > 0 AND {_NOT_ADJUSTED}",
    "data_centre": "network = '198.51.100.0/24' AND json_extract(invalid, '$.lists.networks') <> '' "
    f"AND {_NOT_ADJUSTED}",
    "prefetch": "topic = 'ads.impressions' AND prefetch = 1 AND viewable IS NOT 1",
    "hidden_placement": f"(placement_width_px < 2 OR placement_height_px < 2) AND {_NOT_ADJUSTED}",
    "double_click": f"topic = 'ads.clicks' AND {_PERSON} IS NOT NULL "
    "AND (creative_id IS NOT NULL OR campaign_id IS NOT NULL) "
    f"AND ABS(event_time_ms - before_ms) <= {_by_type('double_click_ms', 'double_click_by_type_ms')}",
    "activity_cap": f"topic = 'ads.clicks' AND {_PERSON} IS NOT NULL AND campaign_id IS NOT NULL "
    f"AND active > {_by_type('activity_clicks', 'activity_clicks_by_type')}",
    "repeated_click": "topic = 'ads.clicks' AND impression_id IS NOT NULL "
    f"AND clicked > {_by_type('max_clicks_per_impression', 'max_clicks_per_impression_by_type')}",
    "order_repeated": "topic = 'ads.conversions' AND order_id IS NOT NULL AND ordered > 1",
    "conversion_too_soon": "topic = 'ads.conversions' AND touch_time_ms IS NOT NULL "
    f"AND event_time_ms - touch_time_ms < COALESCE({_LEAST_DELAY}, -1)",
}
"""By rule: the events that it flags as they are counted, in their own log's order."""
GENERAL: Final = (
    *("declared_bot", "non_browser_agent", "data_centre", "prefetch", "hidden_placement"),
    *("double_click", "activity_cap"),
)
DEFAULT_MODES: Final = dict.fromkeys(FLAGGED_BY, "observe") | {
    **dict.fromkeys(("declared_bot", "data_centre", "prefetch", "hidden_placement", "double_click"), "on"),
    **dict.fromkeys(("click_without_impression", "click_before_impression", "click_too_soon"), "observe"),
    **dict.fromkeys(("conversion_without_click", "user_velocity", "device_velocity", "address_velocity"), "observe"),
    **dict.fromkeys(("device_fan_out", "address_fan_out", "publisher_flooding", "publisher_timing"), "observe"),
    "conversion_too_soon": "observe",
    "review": "on",
}
"""What a rule does unless told otherwise."""
_NUMBERED: Final = ", ".join(
    f"ROW_NUMBER() OVER (PARTITION BY {scope} ORDER BY off) AS {name}" for name, scope in _NTH.items()
)
_REASONS: Final = " || ".join(
    f"CASE WHEN counted AND ({flagged}) THEN ',{rule}' ELSE '' END" for rule, flagged in FLAGGED_BY.items()
)
FLAG: Final = f"""
ALTER TABLE billed RENAME TO unjudged;
CREATE TABLE billed AS
WITH numbered AS (
    SELECT *, {_NUMBERED},
        LAG(event_time_ms) OVER (PARTITION BY {_SAME_CLICK} ORDER BY off) AS before_ms,
        counted AND NOT (user_agent IS NOT NULL AND network IS NOT NULL AND {_KNOWN_NETWORK} AND
            (topic NOT IN ('ads.clicks', 'ads.conversions') OR {_PERSON} IS NOT NULL)) AS is_undecided
    FROM unjudged)
SELECT *, {_REASONS} AS reasons, 'valid' AS validity FROM numbered;
CREATE INDEX flagged_place ON billed (part, topic, off);
CREATE INDEX flagged_id ON billed (part, topic, event_id);
"""
NEWEST: Final = "SELECT newest FROM judged WHERE part = ? AND topic = ? AND off < ? ORDER BY off DESC LIMIT 1"

_BILLABLE: Final = """topic = billed_topic AND (kind = ''
    OR topic = 'ads.plays' AND milestone = kind AND loop = 1
    OR topic = 'ads.conversions' AND conversion_type = kind AND has_touch AND touch_type <> 'none')"""
REJECTED: Final = f"""
CREATE INDEX billed_place ON billed (part, topic, off);
CREATE TABLE billed_leads AS SELECT part, off, event_id FROM billed
WHERE topic = 'ads.conversions' AND counted AND conversion_type = 'lead' AND price > 0 AND ({_BILLABLE});
CREATE INDEX billed_leads_id ON billed_leads (part, event_id);
CREATE TABLE rejected AS SELECT c.part, c.off, MIN(a.off) AS rejection
FROM billed a JOIN billed_leads c ON c.part = a.part AND c.event_id = a.adjusted_event_id
WHERE a.topic = 'ads.adjustments' AND a.counted AND a.adjustment_type = 'rejected_lead'
GROUP BY 1, 2 ORDER BY 1, 3;
"""
OWN_VALIDITY: Final = "SELECT validity FROM billed WHERE topic = 'ads.conversions' AND part = ? AND off = ?"
HORIZON: Final = """
SELECT c.event_time_ms, a.dedupe_ms, c.price FROM billed c, billed a
WHERE c.part = ?1 AND c.topic = 'ads.conversions' AND c.off = ?2
    AND a.part = ?1 AND a.topic = 'ads.adjustments' AND a.off = ?3
"""
EFFECT_COLUMNS: Final = (
    *("k_part", "k_topic", "k_off", "place", "k_newest", "k_validity", "sign", "given", "is_credit", "k_rules_seq"),
    *("k_pane_ms", "k_report_pane_ms", "k_max_pane_keys", "k_max_report_keys"),
)
"""What a tick decides about one event: a credit, or a move's half."""
RULES_BEFORE: Final = """
SELECT rules_seq, pane_ms, report_pane_ms, max_pane_keys, max_report_keys FROM rules
WHERE part = ? AND (rules_seq < ? OR rules_seq = 1) ORDER BY rules_seq DESC LIMIT 1
"""

LEDGER: Final = """
SELECT topic, part, CASE WHEN reason IS NOT NULL THEN 'rejected' WHEN late THEN 'late' WHEN duplicate THEN 'duplicate'
    ELSE 'counted' END AS entry, COALESCE(reason, ''), COUNT(*)
FROM settled GROUP BY 1, 2, 3, 4
"""
LETTERS: Final = "SELECT topic, part, off, COALESCE(reason, 'late') FROM settled WHERE reason IS NOT NULL OR late"


def _when(condition: str, amount: str = "1") -> str:
    return f"CASE WHEN counted AND ({condition}) THEN {amount} ELSE 0 END"


def _credited(touch: str, amount: str = "1") -> str:
    counts = "instr(conversion_types, ',' || conversion_type || ',') > 0"
    return _when(f"topic = 'ads.conversions' AND {counts} AND touch_type = '{touch}'", amount)


def _money(condition: str, amount: str) -> str:
    return f"CASE WHEN paid AND ({condition}) THEN COALESCE({amount}, 0) ELSE 0 END"


_PRICED: Final = "topic IN ('ads.impressions', 'ads.plays', 'ads.clicks')"
_MEASURED: Final = {
    "duplicates": "duplicate",
    "late": "late",
    "money_rejected": "refused",
    "spend_millimicros": f"CASE WHEN price IS NULL THEN {_money(_PRICED, 'clearing_price_millimicros')} "
    f"ELSE {_when(_BILLABLE, 'price')} END",
    "credited_millimicros": "0",
    "judged": "counted",
    "undecided": "is_undecided",
    "impressions": _when("topic = 'ads.impressions'"),
    "viewable_impressions": _when("topic = 'ads.impressions' AND viewable = 1"),
    "measured_impressions": _when("topic = 'ads.impressions' AND viewable IS NOT NULL"),
    "plays_started": _when("milestone = 'start' AND loop = 1"),
    "plays_3s": _when("milestone = '3s' AND loop = 1"),
    "plays_5s": _when("milestone = '5s' AND loop = 1"),
    "plays_completed": _when("milestone = 'complete' AND loop = 1"),
    "viewable_plays": _when("topic = 'ads.plays' AND viewable = 1 AND loop = 1"),
    "loop_plays": _when("milestone = 'start' AND loop > 1"),
    "watched_ms": _when("topic = 'ads.plays' AND (loop = 1 OR milestone = 'start')", "watched_ms"),
    "clicks": _when("topic = 'ads.clicks' AND instr(click_types, ',' || click_type || ',') > 0"),
    **{
        f"clicks_{kind}": _when(f"topic = 'ads.clicks' AND click_type = '{kind}'")
        for kind in ("card", "button", "cover", "live_room_entry", "profile", "other")
    },
    "conversions": _credited("click"),
    "view_through_conversions": _credited("view"),
    "play_through_conversions": _credited("play"),
    "unattributed_conversions": _credited("none"),
    "leads": _when("conversion_type = 'lead'"),
    "add_to_carts": _when("conversion_type = 'add_to_cart'"),
    "orders": _when("conversion_type = 'order'"),
    "paid_orders": _when("conversion_type = 'paid'"),
    "installs": _when("conversion_type = 'install'"),
    "other_conversions": _when("conversion_type = 'other'"),
    "quantity": _when("topic = 'ads.conversions'", "quantity"),
    "ordered_value_micros": _money("conversion_type = 'order'", "value_micros"),
    "paid_value_micros": _money("conversion_type = 'paid'", "value_micros"),
    "cost_of_goods_micros": _money("topic = 'ads.conversions'", "cost_of_goods_micros"),
    "discount_micros": _money("topic = 'ads.conversions'", "discount_micros"),
    "attributed_weight_ppm": _credited("click", "weight_ppm"),
    "cancels": _when("adjustment_type = 'cancel'"),
    "refunds": _when("adjustment_type = 'refund'"),
    "chargebacks": _when("adjustment_type = 'chargeback'"),
    "rejected_leads": _when("adjustment_type = 'rejected_lead'"),
    "adjusted_micros": _money("topic = 'ads.adjustments'", "amount_micros"),
    "adjusted_by_order_micros": "0",
    **{
        f"{kind}s": _when(f"engagement_type = '{kind}'")
        for kind in ("like", "comment", "share", "follow", "unfollow", "negative_feedback")
    },
}
_BY_ORDER: Final = {name: "amount_micros" if name == "adjusted_by_order_micros" else "0" for name in MEASURES}

_WHO: Final = """
    COALESCE(campaign_id, '') AS campaign, COALESCE(ad_unit_id, '') AS ad_unit, COALESCE(creative_id, '') AS creative,
    COALESCE(variant, '') AS variant, COALESCE(fixed, '') AS currency, validity"""
_DIMS: Final = ", ".join(
    f"CASE WHEN instr(dims, ',{name},') > 0 THEN COALESCE({name}, '') ELSE '' END AS {name}" for name in DIMENSIONS
)
WHO: Final = ("campaign", "ad_unit", "creative", "variant", "currency", "validity")


def _touches(pane: str, more: str) -> str:
    """Every event that was not rejected touches its own key; an adjustment with money also that of its order."""
    head = f"""SELECT topic, part, rules_seq, {pane} AS pane_ms, max_{more}_keys AS max_keys, {_WHO}, {_DIMS}, dims,
        newest / {pane} * {pane} / 1000 AS effect_pane,
        CASE WHEN counted AND topic = 'ads.impressions' THEN user_id END AS user"""
    own = ", ".join(f"{_MEASURED[name]} AS {name}" for name in MEASURES)
    order = ", ".join(f"{_BY_ORDER[name]} AS {name}" for name in MEASURES)
    return f"""
    {head}, off * 2 AS place, event_time_ms / {pane} * {pane} / 1000 AS origin_pane, {own}
    FROM billed WHERE reason IS NULL
    UNION ALL
    {head}, off * 2 + 1, adjusted_event_time_ms / {pane} * {pane} / 1000, {order}
    FROM billed WHERE paid AND topic = 'ads.adjustments'"""


def _effect_measure(name: str, own: str) -> str:
    if name == "credited_millimicros":
        return f"CASE WHEN k.is_credit THEN c.price ELSE k.sign * k.given END AS {name}"
    return f"CASE WHEN k.is_credit THEN 0 ELSE k.sign * ({own}) END AS {name}"


def _effect_touches(pane: str, more: str) -> str:
    """What was billed for rejected leads, and what later words moved, at their ticks: rows of the journal."""
    own = ", ".join(_effect_measure(name, _MEASURED[name]) for name in MEASURES)
    who = _WHO.replace("validity", "k.k_validity AS validity")
    return f"""
    SELECT 'ads.journal' AS topic, c.part, k.k_rules_seq AS rules_seq, k.k_{pane} AS pane_ms,
        k.k_max_{more}_keys AS max_keys, {who},
        {_DIMS}, c.dims, k.k_newest / k.k_{pane} * k.k_{pane} / 1000 AS effect_pane, NULL AS user, k.place,
        c.event_time_ms / k.k_{pane} * k.k_{pane} / 1000 AS origin_pane, {own}
    FROM effects k JOIN billed c ON c.part = k.k_part AND c.topic = k.k_topic AND c.off = k.k_off"""


EFFECT_PANES: Final = _effect_touches("pane_ms", "pane")
EFFECT_REPORTS: Final = _effect_touches("report_pane_ms", "report")

_IDENTITY: Final = ("input", "part", "pane_ms", "rules_seq")
PANE_KEYS: Final = (*_IDENTITY, "origin_pane", "effect_pane", *WHO)
REPORT_KEYS: Final = (*PANE_KEYS, *DIMENSIONS)
COHORT_KEYS: Final = (*_IDENTITY, "effect_pane", *WHO, "click_hour", "age_bucket_ms")

PANE_TOUCHES: Final = _touches("pane_ms", "pane")
REPORT_TOUCHES: Final = _touches("report_pane_ms", "report")
_AGES: Final = (0, 300, 3600, 10800, 21600, 43200, 86400, 172800, 259200, 604800, 1209600, 2592000)
_AGE: Final = (
    "CASE "
    + " ".join(f"WHEN event_time_ms - touch_time_ms >= {s}000 THEN {s}000" for s in reversed(_AGES))
    + " ELSE 0 END"
)
COHORT_TOUCHES: Final = f"""
    SELECT topic, part, rules_seq, report_pane_ms AS pane_ms, max_report_keys AS max_keys, {_WHO}, dims,
        off AS place,
        newest / report_pane_ms * report_pane_ms / 1000 AS effect_pane, touch_time_ms / 3600000 * 3600 AS click_hour,
        {_AGE} AS age_bucket_ms, 1 AS conversions,
        CASE WHEN currency IS fixed THEN COALESCE(value_micros, 0) ELSE 0 END AS conversion_value_micros
    FROM billed WHERE counted AND topic = 'ads.conversions' AND touch_type = 'click' AND touch_time_ms IS NOT NULL
        AND instr(conversion_types, ',' || conversion_type || ',') > 0"""

EFFECT_COHORTS: Final = f"""
    SELECT 'ads.journal' AS topic, c.part, k.k_rules_seq AS rules_seq, k.k_report_pane_ms AS pane_ms,
        k.k_max_report_keys AS max_keys,
        {_WHO.replace("validity", "k.k_validity AS validity")}, c.dims, k.place,
        k.k_newest / k.k_report_pane_ms * k.k_report_pane_ms / 1000 AS effect_pane,
        touch_time_ms / 3600000 * 3600 AS click_hour, {_AGE} AS age_bucket_ms, k.sign AS conversions,
        k.sign * CASE WHEN currency IS fixed THEN COALESCE(value_micros, 0) ELSE 0 END AS conversion_value_micros
    FROM effects k JOIN billed c ON c.part = k.k_part AND c.topic = k.k_topic AND c.off = k.k_off
    WHERE NOT k.is_credit AND c.topic = 'ads.conversions' AND touch_type = 'click' AND touch_time_ms IS NOT NULL
        AND instr(conversion_types, ',' || conversion_type || ',') > 0"""

_OTHERS: Final = dict.fromkeys(("ad_unit", "creative", "variant"), "'other'")
PANE_FOLDED: Final = _OTHERS
REPORT_FOLDED: Final = _OTHERS | {
    name: f"CASE WHEN instr(dims, ',{name},') > 0 THEN 'other' ELSE '' END" for name in DIMENSIONS
}
COHORT_FOLDED: Final = _OTHERS
EFFECT_FOLDED: Final = _OTHERS | dict.fromkeys(DIMENSIONS, "'other'")


_SCOPE: Final = ("topic", "part", "rules_seq", "pane_ms", "effect_pane")


def fold(touches: str, keys: Sequence[str], folded: Mapping[str, str], amounts: Sequence[str]) -> str:
    """Table `keyed`: the touches with the keys that they count under.

    Per effect pane the first `max_keys` keys in offset order stand for themselves. The rest fold by campaign; of those
    keys the first `max_keys` stand for themselves, the rest fold altogether.
    """
    names = [key for key in keys if key != "input" and key not in _SCOPE]
    scope, own = ", ".join(_SCOPE), ", ".join(names)
    folded_key = ", ".join((*_SCOPE, *(name for name in names if name not in folded)))
    same = " AND ".join(f"t.{name} = x.{name}" for name in (*_SCOPE, *names))
    by_number = ", ".join(str(at + 1) for at in range(len(_SCOPE) + len(names)))
    return f"""
    DROP TABLE IF EXISTS touches; DROP TABLE IF EXISTS admitted; DROP TABLE IF EXISTS ranked;
    DROP TABLE IF EXISTS campaigns; DROP TABLE IF EXISTS keyed;
    CREATE TABLE touches AS {touches};
    CREATE TABLE admitted AS
    SELECT {scope}, {own}, ROW_NUMBER() OVER (PARTITION BY {scope} ORDER BY MIN(place)) AS rank
    FROM touches GROUP BY {by_number};
    CREATE INDEX admitted_key ON admitted ({scope}, {own});
    CREATE TABLE ranked AS SELECT t.*, x.rank FROM touches t JOIN admitted x ON {same};
    CREATE TABLE campaigns AS
    SELECT {folded_key}, ROW_NUMBER() OVER (PARTITION BY {scope} ORDER BY MIN(place)) AS nth
    FROM ranked WHERE rank > max_keys GROUP BY {folded_key};
    CREATE TABLE keyed AS
    SELECT {", ".join(_chosen(key, folded) for key in keys)}, {", ".join(amounts)}
    FROM ranked LEFT JOIN campaigns USING ({folded_key});
    """


def _chosen(key: str, folded: Mapping[str, str]) -> str:
    if key == "input":
        return "substr(topic, 5) AS input"
    if key == "campaign":
        return "CASE WHEN rank > max_keys AND nth > max_keys THEN 'other' ELSE campaign END AS campaign"
    if key in folded:
        return f"CASE WHEN rank > max_keys THEN {folded[key]} ELSE {key} END AS {key}"
    return key
