"""User agents of generated people: browsers and in-app web views, as they are sent; by device class.

Shapes after the vendors' documentation (Chrome's reduced user agent, WebKit's frozen one, the web views of WeChat,
Douyin, TikTok, Weibo and Facebook); versions are of autumn 2026 or invented. None declares a bot.
"""

from typing import Final

_ANDROID: Final = "Mozilla/5.0 (Linux; Android {0}; {1}) AppleWebKit/537.36 (KHTML, like Gecko) "
_VIEW: Final = "Version/4.0 Chrome/{0}.0.0.0 Mobile Safari/537.36"
_IPHONE: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS {0} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
_IPAD: Final = "Mozilla/5.0 (iPad; CPU OS {0} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
_WINDOWS: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) "
_MAC: Final = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) "
_CHROME: Final = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.0.0 Safari/537.36"

PHONES: Final = (
    *(_ANDROID.format(10, "K") + f"Chrome/{version}.0.0.0 Mobile Safari/537.36" for version in (138, 139, 140, 141)),
    *(
        _ANDROID.format(system, f"{model}; wv") + _VIEW.format(version) + app
        for system, model, version, app in (
            (14, "23127PN0CC Build/UKQ1.230804.001", 126, " aweme_320501 JsSdk/1.0 NetType/WIFI Channel/xiaomi_1128"),
            (15, "V2408A Build/AP3A.240905.015", 126, " aweme_340100 JsSdk/1.0 NetType/5G Channel/vivo_1128"),
            (13, "SM-S9110 Build/TP1A.220624.014", 123, " XWEB/1230117 MMWEBSDK/20240501 MicroMessenger/8.0.50"),
            (14, "PJZ110 Build/UKQ1.231108.001", 130, " XWEB/1300289 MMWEBSDK/20250202 MicroMessenger/8.0.58"),
            (14, "SM-S928B Build/UP1A.231005.007", 140, " musical_ly_2024100030 JsSdk/1.0 AppVersion/41.0.3"),
            (12, "M2102J2SC Build/SKQ1.211006.001", 114, " Weibo (Xiaomi-M2102J2SC__weibo__14.9.2__android)"),
            (14, "Pixel 8 Build/AP2A.240805.005", 139, " [FB_IAB/FB4A;FBAV/510.0.0.40.89;]"),
        )
    ),
    _ANDROID.format(12, "HarmonyOS; ALN-AL00; HMSCore 6.14.0.302") + "Chrome/114.0.5735.196 Mobile Safari/537.36",
    *(
        _IPHONE.format(system) + f"Version/{version} Mobile/15E148 Safari/604.1"
        for system, version in (("17_6", "17.6"), ("18_5", "18.5"), ("18_6", "18.6"), ("18_7", "26.0"))
    ),
    *(
        _IPHONE.format(system) + f"Mobile/15E148 {app}"
        for system, app in (
            ("18_5", "aweme_34.1.0 JsSdk/2.0 NetType/WIFI Channel/App Store"),
            ("17_7", "MicroMessenger/8.0.60(0x18003c2f) NetType/4G Language/zh_CN"),
            ("18_6", "musical_ly_41.0.0 JsSdk/2.0 NetType/WIFI Channel/App Store"),
            ("17_5", "[FBAN/FBIOS;FBAV/512.0.0.54.109;FBDV/iPhone15,3;FBMD/iPhone;FBSN/iOS]"),
        )
    ),
)
TABLETS: Final = (
    _IPAD.format("17_6") + "Version/17.6 Mobile/15E148 Safari/604.1",
    _IPAD.format("18_5") + "Mobile/15E148 aweme_34.1.0 JsSdk/2.0 NetType/WIFI Channel/App Store",
    _ANDROID.format(14, "SM-X710 Build/UP1A.231005.007; wv") + "Version/4.0 Chrome/137.0.0.0 Safari/537.36",
)
DESKTOPS: Final = (
    *(_WINDOWS + _CHROME.format(version) for version in (139, 140, 141)),
    _WINDOWS + _CHROME.format(140) + " Edg/140.0.0.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:143.0) Gecko/20100101 Firefox/143.0",
    _MAC + _CHROME.format(140),
    _MAC + "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15",
)
TELEVISIONS: Final = (
    "Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) 94.0.4606.31/7.0 TV Safari/537.36",
    "Mozilla/5.0 (Linux; Android 12; BRAVIA 4K VH2 Build/STT2.221109.001) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.6723.102 Safari/537.36",
)
_CLASSES: Final = (
    *[("phone", PHONES)] * 80,
    *[("tablet", TABLETS)] * 6,
    *[("desktop", DESKTOPS)] * 12,
    *[("tv", TELEVISIONS)] * 2,
)

CRAWLERS: Final = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Mobile Safari/537.36 "
    "(compatible; Bytespider; spider-feedback@bytedance.com)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "Mozilla/5.0 (compatible; PetalBot; +https://webmaster.petalsearch.com/site/petalbot)",
    "Mozilla/5.0 (compatible; MJ12bot/v1.4.8; http://mj12bot.com/)",
    "Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
)
"""Agents that declare what they are, as their operators document them."""


def agent_of(number: int) -> tuple[str, str]:
    """Device class and user agent that a number (63 bits, evenly spread) stands for."""
    name, agents = _CLASSES[number % len(_CLASSES)]
    return name, agents[(number >> 8) % len(agents)]
