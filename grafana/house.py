"""How panels look and what each must have: an id that stays, a unit, thresholds, and words that say what to do."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    MatcherConfig,
    Threshold,
    ThresholdsMode,
)

from grafana.sources import PROMETHEUS, SqlQuery

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"
SHARE: Final = "percentunit"
COUNT: Final = "short"
SECONDS: Final = "s"
MONEY: Final = "none"
"""The currency stands in the name of the series: currencies are never summed."""


class Level(NamedTuple):
    """From this value on, this colour."""

    value: float
    colour: str


PLAIN: Final = (BLUE,)
"""No value is good or bad in itself."""


def falling_short(yellow: float, green: float) -> tuple[str | Level, ...]:
    """The higher, the better."""
    return _ascending(RED, Level(yellow, YELLOW), Level(green, GREEN))


def too_much(yellow: float, red: float) -> tuple[str | Level, ...]:
    """The lower, the better."""
    return _ascending(GREEN, Level(yellow, YELLOW), Level(red, RED))


def _ascending(base: str, middle: Level, last: Level) -> tuple[str | Level, ...]:
    """Without a middle where it would begin with the last."""
    return (base, last) if middle.value == last.value else (base, middle, last)


class About(NamedTuple):
    """What everybody wants to know of a panel."""

    id: int
    title: str
    means: str
    do: str
    unit: str
    steps: Sequence[str | Level] = PLAIN

    def description(self) -> str:
        """Shown behind the panel's (i)."""
        return f"{self.means}\n\n**What to do:** {self.do}"

    def thresholds(self) -> dashboard.ThresholdsConfig:
        """The first step is the base."""
        base, *rest = self.steps
        found = [Threshold(value=None, color=str(base))]
        found += [Threshold(value=step.value, color=step.colour) for step in rest if isinstance(step, Level)]
        return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)

    @property
    def has_levels(self) -> bool:
        """Whether a value can be good or bad."""
        return len(self.steps) > 1


Query = cog.Builder[variants.Dataquery]
Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, table.Panel, bargauge.Panel)


def source_of(query: Query) -> DataSourceRef:
    """The data source that a panel with this query has."""
    built = query.build()
    return SqlQuery.to_json(built)["datasource"] if isinstance(built, SqlQuery) else PROMETHEUS  # type: ignore[return-value]


def _base(panel: Panel, about: About, queries: Sequence[Query], width: int, height: int) -> Panel:
    panel.id(about.id).title(about.title).description(about.description()).unit(about.unit)
    panel.thresholds(about.thresholds()).span(width).height(height).datasource(source_of(queries[0]))
    return panel.targets(list(queries))


def graph(
    about: About,
    *queries: Query,
    width: int = 12,
    height: int = 8,
    interval: str = "",
    name: str = "",
    stacks: bool = False,
) -> timeseries.Panel:
    """Lines over time. `name` is a template for the names of series from SQL."""
    panel = _base(timeseries.Panel(), about, queries, width, height)
    panel.line_width(1).fill_opacity(30 if stacks else 0).span_nulls(False)
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    style = GraphThresholdsStyleMode.DASHED if about.has_levels else GraphThresholdsStyleMode.OFF
    panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    panel.legend(legend.placement(LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if stacks:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if interval:
        panel.interval(interval)
    if name:
        panel.display_name(name)
    return panel


def number(
    about: About, *queries: Query, width: int = 4, height: int = 4, by_row: bool = False, name: str = ""
) -> stat.Panel:
    """One number, or one for each column (or row) of the answer."""
    panel = _base(stat.Panel(), about, queries, width, height)
    panel.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(by_row))
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return panel.display_name(name) if name else panel


def bars(about: About, *queries: Query, width: int = 12, height: int = 8, by_row: bool = False) -> bargauge.Panel:
    """Horizontal bars, one for each column (or row) of the answer."""
    panel = _base(bargauge.Panel(), about, queries, width, height)
    panel.orientation(VizOrientation.HORIZONTAL).display_mode(BarGaugeDisplayMode.GRADIENT)
    panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(by_row)).min(0)


def rows(about: About, *queries: Query, width: int = 24, height: int = 9) -> table.Panel:
    """A table; columns differ in unit, so `column` gives those that are not the panel's."""
    return _base(table.Panel(), about, queries, width, height).filterable(True)


def column(
    panel: table.Panel,
    name: str,
    unit: str = "",
    decimals: int | None = None,
    steps: Sequence[str | Level] = (),
    link: tuple[str, str] | None = None,
    is_hidden: bool = False,
) -> table.Panel:
    """One column's unit, thresholds (they colour its text), or link as (title, url)."""
    found: list[tuple[str, Any]] = [("unit", unit)] if unit else []
    if decimals is not None:
        found.append(("decimals", decimals))
    if steps:
        found.append(("thresholds", About(0, "", "", "", "", steps).thresholds().build()))
        found.append(("custom.cellOptions", {"type": "color-text"}))
    if link is not None:
        found.append(("links", [{"title": link[0], "url": link[1]}]))
    if is_hidden:
        found.append(("custom.hidden", True))
    return panel.override_by_name(name, [DynamicConfigValue(id_val=key, value=value) for key, value in found])


def band(panel: timeseries.Panel, low: str, high: str) -> timeseries.Panel:
    """Shades the interval between two series and keeps both out of the legend."""
    thin: list[tuple[str, Any]] = [
        ("custom.lineWidth", 0),
        ("custom.hideFrom", {"legend": True, "tooltip": False, "viz": False}),
    ]
    filled = [*thin, ("custom.fillBelowTo", low), ("custom.fillOpacity", 15)]
    for name, properties in ((low, thin), (high, filled)):
        values = [DynamicConfigValue(id_val=key, value=value) for key, value in properties]
        panel.with_override(MatcherConfig(id_val="byName", options=name), values)
    return panel
