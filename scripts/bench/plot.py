"""A plot with logarithmic axes, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 400, 70, 180, 40, 50
COLORS = ("#0b6e99", "#c4551c", "#4a7c2c", "#7a3e8e", "#777777")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Axis:
    low: int
    high: int
    start: float
    length: float

    def at(self, value: float) -> float:
        return self.start + self.length * (math.log10(value) - self.low) / (self.high - self.low)

    @property
    def decades(self) -> list[float]:
        return [10.0**k for k in range(self.low, self.high + 1)]


def plot(title: str, x: str, y: str, series: Mapping[str, Points]) -> str:
    """Draw lines with points; on these axes what grows in proportion rises one decade a decade."""
    across = _axis([p[0] for points in series.values() for p in points], LEFT, WIDTH - LEFT - RIGHT)
    up = _axis([p[1] for points in series.values() for p in points], HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT)
    lines = [_series(i, name, points, across, up) for i, (name, points) in enumerate(series.items())]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#222">\n<rect width="100%" height="100%" fill="white"/>'
    )
    labels = [
        _text((LEFT + WIDTH - RIGHT) / 2, 20, title, anchor="middle", more=' font-size="14" font-weight="bold"'),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x, anchor="middle"),
        _text(0, 0, y, anchor="middle", more=f' transform="translate(16 {HEIGHT / 2}) rotate(-90)"'),
    ]
    return "\n".join([head, *labels, *_grid(across, up), *lines, "</svg>\n"])


def _axis(values: Sequence[float], start: float, length: float) -> _Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) - 1e-9)
    return _Axis(low, max(high, low + 1), start, length)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    found = []
    for value in across.decades:
        place = across.at(value)
        found += [_line(place, TOP, place, HEIGHT - BOTTOM), _text(place, HEIGHT - BOTTOM + 18, _number(value))]
    for value in up.decades:
        place = up.at(value)
        found += [_line(LEFT, place, WIDTH - RIGHT, place), _text(LEFT - 8, place + 4, _number(value), anchor="end")]
    return found


def _series(i: int, name: str, points: Points, across: _Axis, up: _Axis) -> str:
    places = [(across.at(a), up.at(b)) for a, b in points]
    color = COLORS[i % len(COLORS)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{color}"/>' for a, b in places)
    y = TOP + 16 + 16 * i
    key = f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 9}" width="10" height="10" fill="{color}"/>' + _text(
        WIDTH - RIGHT + 30, y, name, "start"
    )
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>{dots}{key}'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
