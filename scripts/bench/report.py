"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from measure import Contender, Row


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        lines: Markdown.
        images: plots by file name.
        figures: what goals are compared with, by name.
    """

    title: str
    lines: Sequence[str]
    images: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """What a figure of a section should be at most."""

    label: str
    section: str
    figure: str
    most: float
    unit: str
    peers: bool = True


GOALS = (
    Goal("5-step chain, FILE.yaml", "chain", "tidegate FILE.yaml", 0.40, "s"),
    Goal("5-step chain, FILE.py seen before", "chain", "tidegate FILE.py", 0.40, "s"),
    Goal("a further step, in a process of its own", "steps", "tidegate FILE.yaml", 20, "ms"),
    Goal("10 branches that sleep 0.5 s", "fan", "tidegate --jobs 10", 1.0, "s"),
    Goal("the same chain, all cached, FILE.yaml", "cached", "tidegate FILE.yaml", 0.30, "s"),
    Goal("the same chain, all cached, FILE.py", "cached", "tidegate FILE.py", 0.30, "s"),
    Goal("--help", "help", "tidegate --help", 0.15, "s"),
    Goal("1,000 tasks: check and plan from the parsed IR", "dag", "plan", 0.5, "s"),
    Goal("1,000 tasks: the scheduler's CPU a task", "dag", "scheduler", 5, "ms", peers=False),
    Goal("1,000 tasks: the scheduler's peak memory", "dag", "memory", 150, "MB", peers=False),
)


def goals(sections: Mapping[str, Section]) -> list[str]:
    """Goals beside what was measured, and the best peer."""
    rows = [_goal(g, sections[g.section].figures) for g in GOALS if g.section in sections]
    if not rows:
        return []
    return ["", "### Goals", "", *table(["work", "tidegate", "goal", "", "best peer"], rows, words=5)]


def _goal(goal: Goal, figures: Mapping[str, float]) -> list[str]:
    peers = {n: v for n, v in figures.items() if not n.startswith(("tidegate", "(")) and n not in _OWN}
    best = min(peers, key=lambda n: peers[n]) if peers and goal.peers else ""
    peer = f"{best} {_figure(peers[best], goal.unit)}" if best else "-"
    if goal.figure not in figures:
        return [goal.label, "-", f"≤ {_figure(goal.most, goal.unit)}", "not measured", peer]
    found = figures[goal.figure]
    state = "reached" if found <= goal.most else "missed"
    return [goal.label, f"**{_figure(found, goal.unit)}**", f"≤ {_figure(goal.most, goal.unit)}", state, peer]


_OWN = ("plan", "scheduler", "memory")


def _figure(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.2f} s"
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}" if value >= 1 else f"< 1 {unit}"


def body(sections: Mapping[str, Section]) -> list[str]:
    """Every section with its heading and plots."""
    found = []
    for s in sections.values():
        found += ["", f"### {s.title}", "", *s.lines]
        found += [line for name in s.images for line in ("", f"![{s.title}](img/{name})")]
    return found


def race(rows: Sequence[Row]) -> list[str]:
    """The engines by median; ratios to tidegate's first row."""
    base = next((r.median for r in rows if r.samples and r.contender.name.startswith("tidegate")), 0.0)
    done = sorted((r for r in rows if r.samples), key=lambda r: r.median)
    lines = [_row(r, base) for r in done] + [_missing(r.contender, r.trouble, 6) for r in rows if not r.samples]
    return table(["engine", "steps run in", "s", "min–max", "CPU s", "× tidegate"], lines, words=2)


def _row(row: Row, base: float) -> list[str]:
    ratio = f"{row.median / base:.2f}" if base else "-"
    how = row.contender.how or "-"
    return [_name(row.contender), how, f"{row.median:.2f}", row.spread, f"{row.cpu:.2f}", ratio]


def _name(c: Contender) -> str:
    return f"**{c.name}**" if c.name.startswith("tidegate") else c.name


def _missing(c: Contender, trouble: str, width: int) -> list[str]:
    said = " ".join(trouble.replace("|", "/").split())
    return [c.name, c.how, "-", said, *["-"] * (width - 4)]


@dataclass(frozen=True)
class Step:
    """One engine's two chains, and by how many steps they differ."""

    contender: Contender
    short: Row
    long: Row
    more: int

    @property
    def name(self) -> str:
        return self.contender.name

    @property
    def measured(self) -> bool:
        return bool(self.short.samples and self.long.samples)

    @property
    def milliseconds(self) -> float:
        return (self.long.median - self.short.median) / self.more * 1000


def steps(found: Sequence[Step]) -> list[str]:
    """What each further step costs."""
    done = sorted((s for s in found if s.measured), key=lambda s: s.milliseconds)
    lines = [
        [_name(s.contender), s.contender.how, f"{s.milliseconds:.0f}", f"{s.short.median:.2f}", f"{s.long.median:.2f}"]
        for s in done
    ]
    lines += [_missing(s.contender, s.short.trouble or s.long.trouble, 5) for s in found if not s.measured]
    return table(["engine", "steps run in", "ms a step", "short chain, s", "long chain, s"], lines, words=2)


# label, key, and 1000 for what is shown in milliseconds a task
_SIZES = (
    ("read the YAML, s", "read", 0),
    ("check it, s", "check", 0),
    ("plan from the parsed IR, s", "build", 0),
    ("graph alone, ms a task", "graph", 1000),
    ("a process a task: wall, s", "run wall", 0),
    ("– wall, ms a task", "run wall", 1000),
    ("– CPU of the scheduler, ms a task", "run cpu", 1000),
    ("– CPU of the steps, ms a task", "run cpu_steps", 1000),
    ("– peak memory of the scheduler, MB", "run peak_mb", 0),
    ("all cached: wall, s", "cached wall", 0),
    ("– wall, ms a task", "cached wall", 1000),
    ("– peak memory, MB", "cached peak_mb", 0),
)


def sizes(found: Mapping[int, Mapping[str, float]]) -> list[str]:
    """A column a size."""
    rows = [[shown, *(_cell(found[n], n, key, each) for n in found)] for shown, key, each in _SIZES]
    return table(["", *(f"{n:,} tasks" for n in found)], rows)


def _cell(found: Mapping[str, float], n: int, key: str, each: float) -> str:
    if key not in found:
        return "-"
    value = found[key] * each / n if each else found[key]
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A Markdown table whose first ``words`` columns are text, the others figures."""
    ruler = ["---"] * words + ["--:"] * (len(head) - words)
    return ["| " + " | ".join(cells) + " |" for cells in (head, ruler, *rows)]
