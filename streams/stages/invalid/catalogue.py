"""What each rule looks at, whom it spares, and what is said about it: for people, and for the page schemas/flags.md.

Two audiences. Advertisers see a reason's sentence (`REASONS`) and what was given back; what a rule looks at, its
thresholds and its evidence are for those who run the system, for who knows a threshold stays below it.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from streams.invalid import Rule
from streams.signals import Text


class Description(NamedTuple):
    """A rule, for those who run the system. `default` and thresholds are read from the code."""

    name: str
    looks_at: str
    thresholds: tuple[str, ...]
    """Fields of `streams.invalid.InvalidRules`."""
    source: str
    spared: str
    """Honest traffic that looks alike, and why it is not flagged."""


_MRC: Final = "MRC, Invalid Traffic Detection and Filtration Standards Addendum (2020), general invalid traffic"
_CTIT: Final = "click-to-conversion times as AppsFlyer and Adjust publish them"

DESCRIPTIONS: Final[dict[Rule, Description]] = {
    Rule.DECLARED_BOT: Description(
        "Declared bot",
        "The user agent matches a pattern of the package crawler-user-agents: the program says itself that it is one. "
        "Every input but adjustments; case matters.",
        ("lists.crawlers_version",),
        f"{_MRC}: known crawlers; the package's list, of the version that the rules carry.",
        "Patterns that people's browsers and apps match too are left out or made narrower, each with its reason "
        "(`streams.adapters.lists`): a build of Android, the browser in Facebook's app, Sogou's browsers, and the HTTP "
        "libraries of apps for Android. An event without an agent is undecidable, not a bot.",
    ),
    Rule.NON_BROWSER_AGENT: Description(
        "Agent that is no browser",
        "The user agent's first product is a library or a tool (curl, python-requests, Go-http-client, Java), or only "
        "libraries that apps also use with no app named beside them (okhttp, CFNetwork), or it names a browser that a "
        "program drives (HeadlessChrome, PhantomJS, Selenium), or it is empty, or a bare `Mozilla/5.0` without a "
        "platform. Only what names itself is found; an unknown name is left alone.",
        (),
        f"{_MRC}: non-browser user agents; the default agents of the libraries by their own documentation.",
        "Apps whose own code reports events (`Shop/5.2 okhttp/4.9.0`, Dalvik, Cronet, CFNetwork beside the app's "
        "name) and every web view inside an app. An app that reports through okhttp without naming itself does look "
        "alike: hence this rule ships in observe. Events that servers send on behalf of people must carry the "
        "person's agent, or none.",
    ),
    Rule.DATA_CENTRE: Description(
        "Data centre",
        "The event's network lies wholly in a network of the list. Events carry a prefix (/24, or /48 of IPv6), "
        "derived before the address is hashed. Without a list (`invalid.data_centres`) the rule finds nothing.",
        ("lists.networks_as_of",),
        f"{_MRC}: known data-centre traffic; the list's owner and date are the operator's choice.",
        "Where the listed network is smaller than the event's, the rest may be people's, and nobody can tell: no "
        "match. Neighbouring entries are joined first. People behind a VPN or a cloud desktop are in a data centre "
        "and are flagged: lists that name such exits should leave them out.",
    ),
    Rule.PREFETCH: Description(
        "Rendered ahead",
        "An impression that the client marked `prefetch`: it was rendered before anyone could see it. Only "
        "impressions.",
        (),
        f"{_MRC}: pre-fetch and pre-render traffic that was not subsequently viewed.",
        "Feeds load the next video ahead as a matter of course: an impression that was then measured as viewable was "
        "shown after all, and is not flagged.",
    ),
    Rule.HIDDEN_PLACEMENT: Description(
        "Hidden placement",
        "A side of the placement is below the threshold: 0×0 and 1×1. One side is enough; sizes that are not told are "
        "not judged.",
        ("hidden_below_px",),
        f"{_MRC}: hidden or stacked placements that cannot be seen.",
        "Banners are flat, but never one pixel high. Tracking pixels that are reported as impressions are flagged: "
        "they are none.",
    ),
    Rule.DOUBLE_CLICK: Description(
        "Second half of a double click",
        "A click by the same person (user, or device where the user is unknown) on the same creative, product and kind "
        "of element as their click before it in the log, so close in event time, in either direction. Judged in "
        "offset order; the first stays valid.",
        ("double_click_ms", "double_click_by_type_ms"),
        "MRC, Click Measurement Guidelines: the second click of a double click is invalid.",
        "Another product or another kind of click is another wish: who taps twenty cards in a flash sale is not "
        "flagged. Clicks of nobody in particular are not judged.",
    ),
    Rule.ACTIVITY_CAP: Description(
        "Activity cap",
        "Clicks by one person (user, or device where the user is unknown) on one campaign in one clock hour of event "
        "time; those beyond the cap are flagged, the others stay valid. Types with a cap of their own are counted by "
        "themselves. A partition remembers a bounded number of people: one is forgotten only when 65,536 others "
        "begin between two of their clicks.",
        ("activity_clicks", "activity_clicks_by_type"),
        f"{_MRC}: activity-based filters. ClickCease's default (3 in 10 minutes) fits search ads; 90% click once.",
        "A flash sale's busiest users tap some dozens of cards an hour. Ships in observe: a device that many share (a "
        "till, a show-room) may come near the cap.",
    ),
    Rule.CLICK_WITHOUT_IMPRESSION: Description(
        "Click without an impression",
        "A click that names an impression which has not come, although impressions of the partition have been read "
        "far beyond it. Impressions of the horizon before the click are known, however much a tick reads and whichever "
        "input is read first. A click that names none is undecidable.",
        ("impression_wait_ms",),
        f"{_MRC}, sophisticated: clicks without the impression that they must follow.",
        "Impressions that come late: the flag is withdrawn when the impression arrives. While the input of impressions "
        "is silent nothing is decided. A click that comes so late that the impressions of its time had been forgotten "
        "is unverifiable, not flagged; so is one that is read more than a million impressions behind them.",
    ),
    Rule.CLICK_BEFORE_IMPRESSION: Description(
        "Click before its impression",
        "The click's event time is before that of the impression which it names.",
        (),
        f"{_MRC}, sophisticated: events in an impossible order.",
        "Both times are the collector's, never the clients' clocks, so clocks that are wrong do not matter.",
    ),
    Rule.CLICK_TOO_SOON: Description(
        "Click too soon",
        "The click follows its impression sooner than a person can see, decide and tap.",
        ("click_after_ms", "click_after_by_type_ms"),
        "Human reaction to something seen takes 200 to 250 ms at best.",
        "Impressions are reported when the ad begins to render; a tap that was on its way to something else may land "
        "on it. Such taps are rare, and accidental clicks are invalid too.",
    ),
    Rule.REPEATED_CLICK: Description(
        "Replayed click",
        "More distinct clicks on one impression than people make; those beyond the bound (10 at most) are flagged. "
        "Click types with a bound of their own are counted by themselves.",
        ("max_clicks_per_impression", "max_clicks_per_impression_by_type"),
        f"{_MRC}, sophisticated: replayed or duplicated interactions. 24metrics' duplicate window is 24 h.",
        "People come back to a card, tap the picture and then the button: the bound leaves room for that. What is "
        "delivered again is a duplicate, not a click.",
    ),
    Rule.CONVERSION_WITHOUT_CLICK: Description(
        "Conversion without its click",
        "A conversion credited to a click which has not come, although clicks of the partition have been read far "
        "beyond it.",
        ("click_wait_ms",),
        f"{_MRC}, sophisticated; Adjust: engagement injection.",
        "Conversions credited to a view, or to nothing, need no click. A click older than what was remembered "
        "when the conversion came is unverifiable, not missing. The flag is withdrawn when the click arrives.",
    ),
    Rule.CONVERSION_TOO_SOON: Description(
        "Conversion too soon",
        "The conversion follows its click sooner than its type allows: the click was injected when the conversion was "
        "already on its way.",
        ("conversion_after_ms",),
        f"Click injection under 2 s; {_CTIT}.",
        "One-tap orders take seconds, and a paid order may follow its placement at once: types without a threshold are "
        "not judged. Installs cannot be downloaded faster.",
    ),
    Rule.ORDER_REPEATED: Description(
        "Order reported twice",
        "An order id that came before with the same conversion type, within 30 days of event time. The first in the "
        "log counts. Conversions without an order id are not judged.",
        (),
        "The platform's own accounting: one order in one state is one conversion.",
        "Placed, then paid, then refunded is life: those are different states. Credit that is shared between touches "
        "(a weight below one) reports an order once for each touch, and is not a repetition.",
    ),
    Rule.USER_VELOCITY: Description(
        "Clicks of one user",
        "So many distinct clicks of one user, over all campaigns, in a sliding window of event time; every click of "
        "the window is flagged. Click types with a number of their own (`clicks_by_type`) are counted by themselves.",
        ("user_velocity", "velocity_types"),
        "After ClickCease's defaults (3 in 10 minutes for search ads), raised for a short-video platform.",
        "A flash sale's users tap twenty cards in minutes; the threshold stands well above. Where cards are tapped "
        "more often, they can have a number of their own: taps on cards then count towards no other.",
    ),
    Rule.DEVICE_VELOCITY: Description(
        "Clicks of one device",
        "As for users, by device: a click farm changes accounts sooner than phones.",
        ("device_velocity", "velocity_types"),
        "As for users.",
        "A family's tablet has few users, and they watch in turn.",
    ),
    Rule.ADDRESS_VELOCITY: Description(
        "Clicks from one address",
        "So many distinct clicks from one address in a sliding window; flagged are only the clicks of those users (or "
        "devices) who alone have, in the same window, at least half of the clicks that convict a user (and, where the "
        "window is longer than users', as many more). Clicks of nobody in particular are never flagged. Click types "
        "with a number of their own (`clicks_by_type`) are counted by themselves, of the address and of its users.",
        ("address_velocity", "user_velocity", "velocity_types"),
        "TalkingData's data set: addresses with many clicks and never an install.",
        "An address alone never convicts: carriers' networks and offices put thousands of people behind one.",
    ),
    Rule.DEVICE_FAN_OUT: Description(
        "One device, many campaigns and users",
        "A device that clicks on so many distinct campaigns as so many distinct users in a sliding window, or as very "
        "many users whatever it clicks on (`users_alone`), or on very many campaigns as whomever (`campaigns_alone`); "
        "0 of these is never.",
        ("device_fan_out",),
        "What a click farm must do: few phones, many accounts and campaigns. The numbers are ours.",
        "A keen user clicks on many campaigns, but as one user, whom the velocity of users judges; a shared tablet has "
        "few users. A till or a show-room's phone on which dozens of customers sign in within an hour is flagged.",
    ),
    Rule.ADDRESS_FAN_OUT: Description(
        "One address, many campaigns and users",
        "An address from which so many distinct campaigns are clicked on by so many distinct users in a sliding "
        "window; flagged are only the clicks of users who alone click unlike people, as for the velocity of addresses: "
        "by click type where users have a number for it.",
        ("address_fan_out", "user_velocity"),
        "As for devices; of neither alone is any number enough by default.",
        "As for the velocity of addresses: an address alone never convicts.",
    ),
    Rule.PUBLISHER_FLOODING: Description(
        "Flooding",
        "A publisher whose clicks convert far less often than its peers' on the same campaigns: by at least a factor, "
        "and by chance only with a tiny probability (beta-binomial over the peers). Peers are the publishers of its "
        "channel; where those are fewer than ten, all whose channels the same partition owns. Weighed at steps of "
        "event time, a 36th of the window, once clicks and conversions have been read up to there; all its clicks of "
        "the window are flagged, and until the next step those that come.",
        ("flooding_min_clicks", "flooding_window_ms", "flooding_ratio", "flooding_p"),
        "AppsFlyer: click flooding, very many clicks with very few conversions; labels of FDMA 2012. Both are one "
        "statement here: far more clicks than its conversions account for.",
        "Publishers differ: the bound is on a factor and a probability against the spread among peers, never a fixed "
        "rate. Only clicks that are a 24th of the window old are weighed, and only what they brought by that age. A "
        "channel that seldom sells is measured by itself. Far more clicks per impression than the peers have, with as "
        "many conversions for each click, convict nobody (an app that people like is like that): they are a part of "
        "the publisher's risk.",
    ),
    Rule.PUBLISHER_TIMING: Description(
        "Click-to-conversion times",
        "A publisher whose click-to-conversion times are distributed unlike its peers': a glut within seconds "
        "(hijacking: the conversions in the glut are flagged), or flat over hours (flooding: all are). Chi-square over "
        "bins of time and beta-binomial over the bins in question, both against the spread among the peers, and an "
        "effect that is no trifle. Peers as for flooding, on the same campaigns: those with few conversions are one "
        "campaign together, and what is brought to one that fewer than three others serve is left out.",
        ("timing_min_conversions", "timing_p", "flooding_window_ms"),
        f"{_CTIT}: about 75% within an hour and 94% within a day; a glut at 3 to 10 s; flat between 2 and 24 h.",
        "A flash sale moves all publishers' times alike: the comparison is with the peers of the same hours. One-tap "
        "orders take seconds whoever serves them: it is with those on the same campaign.",
    ),
    Rule.REVIEW: Description(
        "Review",
        "A person looked at the event and decided: invalid (confirm) or valid (overturn). It outranks every rule.",
        (),
        "The audit that the MRC asks for: who decided, when, and why is kept.",
        "None: it is a person's word.",
    ),
}
"""Every rule, in the order of `Rule`."""


class Reason(StrEnum):
    """Classes of reasons: what an advertiser is told."""

    AUTOMATED = "automated"
    UNSEEN = "unseen"
    REPEATED = "repeated"
    EXCESSIVE = "excessive"
    UNSUPPORTED = "unsupported"
    SOURCE = "source"
    REVIEWED = "reviewed"
    OTHER = "other"


REASON_TEXTS: Final[dict[Reason, Text]] = {
    Reason.AUTOMATED: Text("The traffic came from an automated program.", "该流量来自自动程序。"),
    Reason.UNSEEN: Text("The ad could not be seen when it was counted.", "广告在计数时无法被看到。"),
    Reason.REPEATED: Text("The same action was reported more than once.", "同一行为被重复上报。"),
    Reason.EXCESSIVE: Text("One source acted more often than people do.", "同一来源的操作频率超出正常用户。"),
    Reason.UNSUPPORTED: Text(
        "The action does not follow from an ad that was shown or clicked.", "该行为与广告的展示或点击不相符。"
    ),
    Reason.SOURCE: Text("The source's traffic differs from comparable sources.", "该来源的流量与同类来源明显不同。"),
    Reason.REVIEWED: Text("A reviewer found the traffic invalid.", "经人工审核，该流量无效。"),
    Reason.OTHER: Text("Counted as invalid without a record of its own.", "计为无效流量，未逐条记录。"),
}
"""As the view invalid_reasons has them; a test keeps both equal."""
REASON_OF: Final[dict[Rule, Reason]] = {
    **dict.fromkeys((Rule.DECLARED_BOT, Rule.NON_BROWSER_AGENT, Rule.DATA_CENTRE), Reason.AUTOMATED),
    **dict.fromkeys((Rule.PREFETCH, Rule.HIDDEN_PLACEMENT), Reason.UNSEEN),
    **dict.fromkeys((Rule.DOUBLE_CLICK, Rule.REPEATED_CLICK, Rule.ORDER_REPEATED), Reason.REPEATED),
    **dict.fromkeys((Rule.ACTIVITY_CAP, Rule.USER_VELOCITY, Rule.DEVICE_VELOCITY), Reason.EXCESSIVE),
    **dict.fromkeys((Rule.ADDRESS_VELOCITY, Rule.DEVICE_FAN_OUT, Rule.ADDRESS_FAN_OUT), Reason.EXCESSIVE),
    **dict.fromkeys((Rule.CLICK_WITHOUT_IMPRESSION, Rule.CLICK_BEFORE_IMPRESSION), Reason.UNSUPPORTED),
    **dict.fromkeys((Rule.CLICK_TOO_SOON, Rule.CONVERSION_WITHOUT_CLICK), Reason.UNSUPPORTED),
    Rule.CONVERSION_TOO_SOON: Reason.UNSUPPORTED,
    **dict.fromkeys((Rule.PUBLISHER_FLOODING, Rule.PUBLISHER_TIMING), Reason.SOURCE),
    Rule.REVIEW: Reason.REVIEWED,
}
REASONS: Final[dict[Rule, Text]] = {rule: REASON_TEXTS[reason] for rule, reason in REASON_OF.items()}
"""What an advertiser is told: a class of reasons, never a rule's name, threshold or evidence."""
