"""Small SVG charts for the page of a proof: no script, colours by the page's variables, a title and a description each."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from deployments.prove.live import AUTO

Json = Mapping[str, Any]
WIDE = 640
HIGH = 330
LEFT = 62
RIGHT = 20
TOP = 16
BOTTOM = 46
SECONDS = 3
"""decimals of a time"""


def colour(way: str, tiers: Sequence[str]) -> str:
    """The page's variable of a tier, or of `auto`."""
    return f"var(--t{min(5, tiers.index(way))})" if way in tiers else "var(--auto)"


def svg(name: str, title: str, about: str, body: str, high: int = HIGH) -> Markup:
    """A chart with what a screen reader says of it. title and about are escaped here, body must be."""
    head = f'<svg viewBox="0 0 {WIDE} {high}" role="img" aria-labelledby="{name}-title {name}-about">'
    said = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(about)}</desc>'
    return Markup(f"{head}{said}{body}</svg>")


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, style: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}" style="{style}"/>'


class Axes:
    """Places of values in a chart. low and high: of both axes."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_range, self.y_range = x, y

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / max(high - low, 1e-12) * (WIDE - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HIGH - BOTTOM - (value - low) / max(high - low, 1e-12) * (HIGH - BOTTOM - TOP)

    def drawn(self, x_name: str, y_name: str, x_form: str, y_form: str) -> str:
        """Grid, numbers and names. forms: of numbers, as in `format`."""
        found = []
        for value in ticks(*self.x_range):
            found += [line(self.x(value), TOP, self.x(value), HIGH - BOTTOM, "grid")]
            found += [text(self.x(value), HIGH - BOTTOM + 17, format(value, x_form), "tick", "middle")]
        for value in ticks(*self.y_range):
            found += [line(LEFT, self.y(value), WIDE - RIGHT, self.y(value), "grid")]
            found += [text(LEFT - 8, self.y(value) + 4, format(value, y_form), "tick", "end")]
        found += [text((LEFT + WIDE - RIGHT) / 2, HIGH - 8, x_name, "axis", "middle")]
        found += [f'<g transform="rotate(-90)">{text(-(HIGH - BOTTOM) / 2, 14, y_name, "axis", "middle")}</g>']
        return "".join(found)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two: multiples of 1, 2 or 5 of a power of ten, at most `most` and one."""
    least = max(high - low, 1e-9) / most
    power = 10.0 ** math.floor(math.log10(least))
    size = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [round(k * size, 12) for k in range(first, last + 1)]


def cost_quality(points: Sequence[Json], tiers: Sequence[str]) -> Markup:
    """Each tier alone and `auto`: cost, as a share of always the top tier, and quality, with both intervals."""
    if not points:
        return Markup("")
    lows = [point["quality"][1] for point in points]
    highs = [point["quality"][2] for point in points]
    most = max([1.0, *(point["cost"][2] or point["cost"][0] or 0.0 for point in points)])
    axes = Axes((0.0, most * 1.06), (max(0.0, min(lows) - 0.05), min(1.0, max(highs) + 0.03)))
    body = [axes.drawn("cost, as a share of always the top tier", "mean score", ".0%", ".2f")]
    for point in points:
        (x, x1, x2), (y, y1, y2) = point["cost"], point["quality"]
        style = f"stroke:{colour(point['way'], tiers)}"
        px, py = axes.x(x), axes.y(y)
        body += [line(axes.x(x1), py, axes.x(x2), py, "bar", style), line(px, axes.y(y1), px, axes.y(y2), "bar", style)]
        radius = 7 if point["way"] == AUTO else 5
        body += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius}" style="fill:{colour(point["way"], tiers)}"/>']
        right = px > WIDE - 120
        body += [text(px + (-10 if right else 10), py - 9, point["way"], "name", "end" if right else "start")]
    said = "; ".join(f"{p['way']}: cost {p['cost'][0]:.3f}, score {p['quality'][0]:.3f}" for p in points)
    return svg("points", "Cost and quality", said, "".join(body))


def shares(rows: Sequence[Json], tiers: Sequence[str]) -> Markup:
    """What each tier took of `auto`: answers and cost, as two bars."""
    bars = (("answers", "share"), ("cost", "of_cost"))
    body, high = [], 34 * len(bars) + 34
    for k, (name, field) in enumerate(bars):
        x, y = float(LEFT), 8.0 + 34 * k
        body += [text(LEFT - 8, y + 16, name, "tick", "end")]
        for row in rows:
            width = row[field] * (WIDE - LEFT - RIGHT)
            style = f"fill:{colour(row['tier'], tiers)}"
            body += [f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width - 1):.1f}" height="24" style="{style}"/>']
            if width > 70:
                body += [text(x + width / 2, y + 16, f"{row['tier']} {row[field]:.0%}", "inside", "middle")]
            x += width
    x = float(LEFT)
    for row in rows:
        body += [f'<rect x="{x:.1f}" y="{high - 20}" width="11" height="11" rx="2" style="fill:{colour(row["tier"], tiers)}"/>']
        body += [text(x + 16, high - 10, row["tier"], "tick")]
        x += 30 + 7.5 * len(row["tier"])
    said = "; ".join(f"{r['tier']}: {r['share']:.1%} of answers, {r['of_cost']:.1%} of cost" for r in rows)
    return svg("shares", "What each tier took of auto", said, "".join(body), high)


def distribution(found: Mapping[str, Json], field: str, title: str, tiers: Sequence[str]) -> Markup:
    """The share of requests that were done within a time, of each way."""
    curves = {way: times[field]["curve"] for way, times in found.items() if field in times}
    if not curves:
        return Markup("")
    axes = Axes((0.0, max(curve[-2] for curve in curves.values()) * 1.05 or 1.0), (0.0, 1.0))
    body = [axes.drawn("seconds", "share of requests", "g", ".0%")]
    for k, (way, curve) in enumerate(curves.items()):
        steps = " ".join(f"{axes.x(min(v, axes.x_range[1])):.1f},{axes.y(i / (len(curve) - 1)):.1f}" for i, v in enumerate(curve))
        dashed = "" if way == AUTO else ";stroke-dasharray:6 4"
        body += [f'<polyline points="{steps}" class="curve" style="stroke:{colour(way, tiers)}{dashed}"/>']
        y = HIGH - BOTTOM - 14 - 20 * k
        body += [line(WIDE - 150, y - 4, WIDE - 122, y - 4, "curve", f"stroke:{colour(way, tiers)}{dashed}")]
        body += [text(WIDE - 114, y, way, "name")]
    said = "; ".join(
        f"{way}: p50 {t[field]['p50'][0]:.3f} s, p95 {t[field]['p95'][0]:.3f} s" for way, t in found.items() if field in t
    )
    return svg(field.replace("_", "-"), title, said, "".join(body))
