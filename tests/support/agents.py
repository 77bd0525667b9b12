"""User agents as people's browsers and apps send them, written down by hand: none of them may be flagged."""

from typing import Final

_KHTML: Final = "AppleWebKit/537.36 (KHTML, like Gecko)"
_WIN: Final = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_KHTML}"
_MAC: Final = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_IPHONE: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
_IPAD: Final = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
_K: Final = f"Mozilla/5.0 (Linux; Android 10; K) {_KHTML}"


def _android(version: str, device: str, rest: str) -> str:
    return f"Mozilla/5.0 (Linux; Android {version}; {device}) {_KHTML} {rest}"


def _view(version: str, device: str, chrome: str, rest: str) -> str:
    """Inside an app: Android's web view."""
    return _android(version, f"{device}; wv", f"Version/4.0 Chrome/{chrome} Mobile Safari/537.36 {rest}")


DESKTOP: Final = (
    f"{_WIN} Chrome/126.0.0.0 Safari/537.36",
    f"{_WIN} Chrome/109.0.5414.120 Safari/537.36",
    f"{_MAC} {_KHTML} Chrome/125.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (X11; Linux x86_64) {_KHTML} Chrome/124.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_KHTML} Chrome/126.0.0.0 Safari/537.36",
    f"{_WIN} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.87",
    f"{_WIN} Chrome/124.0.0.0 Safari/537.36 OPR/110.0.0.0",
    f"{_WIN} Chrome/126.0.0.0 YaBrowser/24.6.0.0 Safari/537.36",
    f"{_WIN} Chrome/122.0.0.0 Safari/537.36 Vivaldi/6.6.3271.61",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:126.0) Gecko/20100101 Firefox/126.0",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
    f"{_MAC} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    f"{_MAC} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.1.2 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
    "Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; Trident/6.0)",
    "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1; Trident/4.0; .NET CLR 2.0.50727)",
    "Opera/9.80 (Windows NT 6.1; WOW64) Presto/2.12.388 Version/12.18",
    f"Mozilla/5.0 (Windows NT 10.0; WOW64) {_KHTML} Chrome/86.0.4240.198 Safari/537.36 QIHU 360SE",
    f"Mozilla/5.0 (Windows NT 10.0; WOW64) {_KHTML} Chrome/94.0.4606.71 Safari/537.36 Core/1.94.202.400 "
    "QQBrowser/11.9.5355.400",
    f"Mozilla/5.0 (Windows NT 10.0; WOW64) {_KHTML} Chrome/80.0.3987.87 Safari/537.36 SE 2.X MetaSr 1.0",
    f"Mozilla/5.0 (Windows NT 6.1; WOW64) {_KHTML} Chrome/69.0.3947.100 Safari/537.36 LBBROWSER",
    f"{_WIN} Chrome/107.0.0.0 Safari/537.36 NetType/WIFI MicroMessenger/7.0.20.1781(0x6700143B) "
    "WindowsWechat(0x63090a13) XWEB/9129 Flue",
    f"{_MAC} {_KHTML} Chrome/98.0.4758.102 Safari/537.36 NetType/WIFI MicroMessenger/6.8.0(0x16080000) "
    "MacWechat/3.8.7(0x13080710) XWEB/1191 Flue",
)
PHONES: Final = (
    f"{_K} Chrome/126.0.0.0 Mobile Safari/537.36",
    _android("9", "SM-G960F", "Chrome/96.0.4664.104 Mobile Safari/537.36"),
    _android("14", "Pixel 8 Pro", "Chrome/125.0.6422.165 Mobile Safari/537.36"),
    "Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0",
    f"{_K} Chrome/124.0.0.0 Mobile Safari/537.36 EdgA/124.0.2478.104",
    f"{_K} SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
    _android("11", "SAMSUNG SM-A125F", "SamsungBrowser/15.0 Chrome/90.0.4430.210 Mobile Safari/537.36"),
    f"{_K} Chrome/122.0.0.0 Mobile Safari/537.36 OPR/82.0.0.0",
    "Opera/9.80 (Android; Opera Mini/36.2.2254/191.303; U; en) Presto/2.12.423 Version/12.16",
    "Mozilla/5.0 (Linux; U; Android 13; zh-cn; 2211133C Build/TKQ1.220905.001) "
    f"{_KHTML} Version/4.0 Chrome/100.0.4896.127 Mobile Safari/537.36 XiaoMi/MiuiBrowser/17.8.220115",
    "Mozilla/5.0 (Linux; U; Android 12; en-gb; Redmi Note 9 Pro Build/SKQ1.211019.001) "
    f"{_KHTML} Version/4.0 Chrome/112.0.5615.136 Mobile Safari/537.36 XiaoMi/MiuiBrowser/14.7.0-gn",
    "Mozilla/5.0 (Linux; U; Android 10; zh-CN; V1962A Build/QP1A.190711.020) "
    f"{_KHTML} Version/4.0 Chrome/78.0.3904.108 UCBrowser/13.4.0.1306 Mobile Safari/537.36",
    "UCWEB/2.0 (MIDP-2.0; U; Adr 9.0.0; zh-CN; MI_8) U2/1.0.0 UCBrowser/12.9.6.1146 U2/1.0.0 Mobile",
    _android(
        "12",
        "HarmonyOS; ELS-AN00; HMSCore 6.11.0.302",
        "Chrome/99.0.4844.88 HuaweiBrowser/13.0.6.303 Mobile Safari/537.36",
    ),
    "Mozilla/5.0 (Phone; OpenHarmony 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.0.0 Safari/537.36 "
    "ArkWeb/4.1.6.1 Mobile",
    _android(
        "13",
        "V2227A Build/TP1A.220624.014; wv",
        "Version/4.0 Chrome/87.0.4280.141 Mobile Safari/537.36 VivoBrowser/16.4.0.0",
    ),
    "Mozilla/5.0 (Linux; U; Android 12; zh-cn; PGEM10 Build/SP1A.210812.016) "
    f"{_KHTML} Version/4.0 Chrome/90.0.4430.61 Mobile Safari/537.36 HeyTapBrowser/40.8.9.1",
    "Mozilla/5.0 (Linux; U; Android 11; zh-cn; M2012K11AC Build/RKQ1.200826.002) "
    f"{_KHTML} Version/4.0 Chrome/89.0.4389.72 MQQBrowser/12.8 Mobile Safari/537.36 COVC/045730",
    _android("10", "MI 9 Build/QKQ1.190825.002", "Chrome/70.0.3538.80 Mobile Safari/537.36 Quark/4.2.1.137"),
    _android(
        "11",
        "M2007J3SC Build/RKQ1.200826.002; wv",
        "Version/4.0 Chrome/87.0.4280.101 Mobile Safari/537.36 SogouMSE,SogouMobileBrowser/6.0.5",
    ),
    f"{_IPHONE} Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 12_5_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/12.1.2 Mobile/15E148 Safari/604.1",
    f"{_IPHONE} CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1",
    f"{_IPHONE} FxiOS/127.0 Mobile/15E148 Safari/605.1.15",
    f"{_IPHONE} Version/17.0 EdgiOS/125.0.2535.60 Mobile/15E148 Safari/605.1.15",
    f"{_IPHONE} Version/16.0 MQQBrowser/14.4.6 Mobile/15E148 Safari/604.1 QBWebViewUA/2 QBWebViewType/1 WKType/1",
    f"{_IPHONE} GSA/321.0.642804631 Mobile/15E148 Safari/604.1",
    f"{_IPHONE} Version/15.0 DuckDuckGo/7 Safari/605.1.15",
    "Mozilla/5.0 (Mobile; Nokia_8110_4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5.1",
)
TABLETS_AND_TVS: Final = (
    f"{_IPAD} Version/16.6 Mobile/15E148 Safari/604.1",
    f"{_IPAD} CriOS/125.0.6422.80 Mobile/15E148 Safari/604.1",
    _android("13", "SM-X906C Build/TP1A.220624.014", "Chrome/119.0.6045.66 Safari/537.36"),
    _android("9", "KFMAWI", "Silk/124.5.3 like Chrome/124.0.6367.243 Safari/537.36"),
    "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/4.0 "
    "Chrome/76.0.3809.146 TV Safari/537.36",
    "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/87.0.4280.88 Safari/537.36 "
    "WebAppManager",
    "Mozilla/5.0 (Linux; Android 9; AFTSSS Build/PS7646; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 "
    "Chrome/108.0.5359.160 Mobile Safari/537.36",
    _android("11", "BRAVIA 4K VH2 Build/RKQ1.210423.001.S2", "Chrome/91.0.4472.88 Safari/537.36"),
    "Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 "
    "Safari/605.1.15",
    f"{_WIN[: -1 - len(_KHTML)]} {_KHTML} Chrome/121.0.0.0 Safari/537.36 Edg/121.0.0.0 Xbox",
)
IN_APPS: Final = (
    _view(
        "13",
        "2211133C Build/TKQ1.220905.001",
        "107.0.5304.141",
        "XWEB/5075 MMWEBSDK/20230504 MMWEBID/4208 "
        "MicroMessenger/8.0.37.2380(0x2800255B) WeChat/arm64 Weixin NetType/WIFI Language/zh_CN ABI/arm64",
    ),
    f"{_IPHONE} Mobile/15E148 MicroMessenger/8.0.49(0x18003137) NetType/4G Language/zh_CN",
    f"{_IPHONE} Mobile/15E148 MicroMessenger/8.0.47(0x18002f2c) NetType/WIFI Language/zh_CN miniProgram/wx12ab34cd",
    _view(
        "10",
        "VOG-AL00 Build/HUAWEIVOG-AL00",
        "86.0.4240.99",
        "aweme/180300 NewsArticle/18.3.0 "
        "JsSdk/2.0 NetType/WIFI Channel/huawei AppName/aweme app_version/18.3.0 ByteLocale/zh-CN Region/CN "
        "AppSkin/white AppTheme/dark BytedanceWebview/d8a21c6 WebView/075113004008",
    ),
    f"{_IPHONE} Mobile/15E148 aweme_29.5.0 JsSdk/2.0 NetType/WIFI Channel/App Store ByteLocale/zh Region/CN "
    "RevealType/Dialog isDarkMode/0 WKWebView/1 BytedanceWebview/d8a21c6 FalconTag/",
    _view(
        "12",
        "SM-A715F Build/SP1A.210812.016",
        "113.0.5672.76",
        "musical_ly_2022903040 JsSdk/1.0 NetType/WIFI "
        "Channel/googleplay AppName/musical_ly app_version/29.3.4 ByteLocale/en Region/GB BytedanceWebview/d8a21c6",
    ),
    f"{_IPHONE} Mobile/15E148 musical_ly_34.8.0 JsSdk/2.0 NetType/WIFI Channel/App Store ByteLocale/en Region/US "
    "isDarkMode/1 WKWebView/1 BytedanceWebview/d8a21c6",
    _view(
        "11",
        "PEGM00 Build/RKQ1.200903.002",
        "90.0.4430.226",
        "KsWebView/1.8.90.605 (rel;r) Kwai/11.6.40.33268 "
        "NEBULA/11.6.40 Yoda/3.1.2 StatusHT/34 TitleHT/43 NetType/WIFI ISDM/0 locale/zh-cn",
    ),
    f"{_IPHONE} Mobile/15E148 Kwai/11.5.20.6453 ISDM/0 ICFO/0 NetType/WIFI locale/zh-Hans Yoda/3.1.0",
    _view(
        "11",
        "M2012K11AC Build/RKQ1.200826.002",
        "89.0.4389.72",
        "V1_AND_SQ_8.9.50_4050_YYB_D A_8095000 "
        "QQ/8.9.50.10650 NetType/WIFI WebP/0.4.1 AppId/537155557 Pixel/1080 InMagicWin/0 StudyMode/0",
    ),
    f"{_IPHONE} Mobile/15E148 QQ/9.0.60.612 V1_IPH_SQ_9.0.60_1_APP_A Pixel/1170 Core/WKWebView Device/Apple(iPhone 14) "
    "NetType/WIFI QBWebViewType/1 WKType/1",
    _view("12", "SM-G991B Build/SP1A.210812.016", "125.0.6422.165", "[FB_IAB/FB4A;FBAV/468.0.0.52.69;IABMV/1;]"),
    f"{_IPHONE} Mobile/21F90 [FBAN/FBIOS;FBAV/468.0.0.34.108;FBBV/612345678;FBDV/iPhone15,3;FBMD/iPhone;FBSN/iOS;"
    "FBSV/17.5.1;FBSS/3;FBID/phone;FBLC/en_US;FBOP/80]",
    _view(
        "13",
        "SM-S908E Build/TP1A.220624.014",
        "125.0.6422.147",
        "Instagram 335.0.0.39.93 Android (33/13; 480dpi; 1080x2202; samsung; SM-S908E; b0q; qcom; en_GB; 607990137)",
    ),
    f"{_IPHONE} Mobile/21F90 Instagram 336.0.4.26.87 (iPhone15,2; iOS 17_5_1; en_US; en; scale=3.00; 1179x2556; "
    "612345678)",
    _view(
        "11",
        "M2007J3SC Build/RKQ1.200826.002",
        "97.0.4692.98",
        "T7/13.27 SP-engine/2.65.0 baiduboxapp/13.27.0.11 (Baidu; P1 11) NABar/1.0",
    ),
    _view(
        "10",
        "ELE-AL00 Build/HUAWEIELE-AL00",
        "92.0.4515.105",
        "UCBS/3.22.2.59 AliApp(TB/10.28.10) WindVane/8.5.0 1080X2265 TTID/600000@taobao_android_10.28.10",
    ),
    f"{_IPHONE} Mobile/15E148 UWS/3.2 AlipayDefined(nt:WIFI,ws:390|780|3.0) AliApp(AP/10.5.90.6000) "
    "AlipayClient/10.5.90.6000 Language/zh-Hans Region/CN NebulaX/1.0.0",
    _view(
        "12",
        "V2054A Build/SP1A.210812.003",
        "83.0.4103.106",
        "hap/1.10/vivo com.vivo.hybrid/1.10.9.302 com.example.shop/2.1.0 ({})",
    ),
    f"{_IPHONE} Mobile/15E148 Weibo (iPhone15,2__weibo__14.6.0__iphone__os17.5.1)",
    _view(
        "13",
        "22081212C Build/TKQ1.220829.002",
        "101.0.4951.74",
        "xhsminiweb discover/8.39.0 WebView (v-8.39.0; NetType/WiFi)",
    ),
    f"{_IPHONE} Mobile/15E148 BiliApp/77900100 os/ios model/iPhone 14 mobi_app/iphone build/77900100 osVer/17.5.1",
    _view("11", "CPH2083 Build/RP1A.200720.011", "124.0.6367.179", "Line/14.8.0/IAB"),
    _view("13", "SM-A536B Build/TP1A.220624.014", "124.0.6367.159", "Pinterest for Android/12.20.0 (a53x; 13)"),
    f"{_IPHONE} Mobile/15E148 Snapchat/12.92.0.35 (like Safari/8618.2.12.10.9, panda)",
)
APPS: Final = (
    "com.ss.android.ugc.aweme/180300 (Linux; U; Android 10; zh_CN; VOG-AL00; Build/HUAWEIVOG-AL00; Cronet/TTNetVersion:"
    "3b7d5ba8 2021-09-23 QuicVersion:0144d358 2021-09-02)",
    "com.zhiliaoapp.musically/2022903040 (Linux; U; Android 12; en_GB; SM-A715F; Build/SP1A.210812.016; "
    "Cronet/TTNetVersion:bb1ec21d 2023-05-25)",
    "Aweme 29.5.0 rv:295018 (iPhone; iOS 17.5.1; zh_CN) Cronet",
    "kwai-android aegon/3.4.0",
    "Shop/5.2.1 okhttp/4.9.0",
    "Shop/1204 CFNetwork/1496.0.7 Darwin/23.5.0",
    "Dalvik/2.1.0 (Linux; U; Android 9; SM-G960F Build/PPR1.180610.011)",
    "AppleCoreMedia/1.0.0.21F90 (iPhone; U; CPU OS 17_5_1 like Mac OS X; zh_cn)",
    "Roku/DVP-12.5 (12.5.5.4174-46)",
)
"""Sent by an app's own code, not by its web view; each names the app or the device."""

PEOPLE: Final = (*DESKTOP, *PHONES, *TABLETS_AND_TVS, *IN_APPS, *APPS)
