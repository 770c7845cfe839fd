"""Tables and a plot of the rows that ``learning_curve.py`` has written."""

from __future__ import annotations

import csv
from html import escape
from statistics import median
from typing import TYPE_CHECKING

from common import markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Row = dict[str, str]

WORSE = 0.01  # an accepted model may lose so much on the unseen images
BETTER = 0.0  # a model that is better than before gains more than this
ORDER = ("none", "ours", "random", "plain-1e-3", "plain-1e-5")

# The plot, in pixels of the SVG.
PANEL_W, PANEL_H, MARGIN, COLUMNS = 250, 190, 46, 3
COLOURS = ("#00877a", "#7a7a7a", "#d1495b", "#e19a00", "#3d5a99", "#8e44ad", "#444444")


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file, or none; a line that was cut off is passed by."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row.get("ended") and None not in row]


# ---------------------------------------------------------------------------------------- tables


def lay_out_tables(rows: Sequence[Row]) -> str:
    """Lay out one table for each budget and number of regions, and one for the guard."""
    curve = [row for row in rows if row["mode"] == "curve"]
    guard = [row for row in rows if row["mode"] == "guard"]
    budgets = {(r["model"], _budget(r), int(r["regions"])) for r in curve if r["regions"] != "0"}
    parts = [
        f"{model}, {budget}, {count} region{'s' * (count > 1)}\n\n"
        + _table([r for r in curve if _is_of(r, model, budget, count)])
        for model, budget, count in sorted(budgets)
    ]
    if guard:
        parts.append("guard\n\n" + _guard_table(guard))
    return "\n\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    """Medians over the seeds by domain and method, and over the domains."""
    counted = [row for row in rows if row["method"] != "ceiling"]
    names = sorted({series(row) for row in counted if row["method"] != "none"}, key=_rank)
    domains = list(dict.fromkeys(row["domain"] for row in counted))
    lines = []
    for domain in domains:
        own = [row for row in counted if row["domain"] == domain]
        values = [_middle(row["ap_before"] for row in own)]
        values += [_middle(r["ap_after"] for r in own if series(r) == name) for name in names]
        values.append(ceiling(rows, domain))
        ours, top = (values[1 + names.index("ours")] if "ours" in names else None), values[-1]
        lines.append([*values, ours / top if ours is not None and top else None])
    header = ["domain", "before", *names, "ceiling", "ours / ceiling"]
    if len(domains) > 1:
        columns = zip(*lines, strict=True)
        lines.append([_middle(v for v in column if v is not None) for column in columns])
        domains.append("median")
    cells = [
        [d, *("" if v is None else f"{v:.3f}" for v in line)]
        for d, line in zip(domains, lines, strict=True)
    ]
    return markdown(header, cells) + "\n\n" + _verdicts(counted)


def _verdicts(rows: Sequence[Row]) -> str:
    """Say how often ours helped, and what it said about that."""
    lines = []
    for name in sorted({series(row) for row in rows if row["method"] == "ours"}, key=_rank):
        own = [row for row in rows if series(row) == name]
        better = sum(gain(row) > BETTER for row in own)
        outcomes = [row["outcome"] for row in own]
        said = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(sorted(outcomes)))
        lines.append(
            f"{name}: better than before in {better} of {len(own)} runs; the verdict: {said}; "
            f"{_failures(own)} accepted and worse by more than {WORSE:g}."
        )
    return "\n".join(lines)


def _guard_table(rows: Sequence[Row]) -> str:
    """Count the guard's runs by what was careless about the corrections."""
    lines = []
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(kinds_in_short(row), [])
    for name in groups:
        own = rows if name == "all" else [row for row in rows if kinds_in_short(row) == name]
        accepted = [gain(row) for row in own if row["outcome"] == "better"]
        lines.append(
            (
                name,
                str(len(own)),
                str(len(accepted)),
                str(_failures(own)),
                f"{min(accepted):+.3f}" if accepted else "",
                f"{median(accepted):+.3f}" if accepted else "",
            )
        )
    header = ("corrections", "runs", "accepted", f"worse by {WORSE:g}", "worst", "median gain")
    return markdown(header, lines)


def gain(row: Row) -> float:
    """Return how much AP on the unseen images has grown."""
    return float(row["ap_after"]) - float(row["ap_before"])


def kinds_in_short(row: Row) -> str:
    """Name the careless kinds of a guard run."""
    kinds = row["kinds"].strip("[]").replace('"', "").split(", ")
    bad = sorted({kind for kind in kinds if kind != "good"})
    mixed = " beside good ones" if bad and "good" in kinds else ""
    return (" + ".join(bad) if len(bad) < 3 else "several kinds") + mixed if bad else "good"


def series(row: Row) -> str:
    """Name the line that a row belongs to: the method and what is unusual about it."""
    name = row["method"]
    if row["choose"] == "uncertain":
        name += ", where uncertain"
    if row["changed"] != "{}":
        name += ", " + row["changed"].strip("{}").replace('"', "").replace(": ", "=")
    return name


def ceiling(rows: Iterable[Row], domain: str) -> float | None:
    """Return the AP that all images of the pool give, if that was run with the defaults."""
    found = [row for row in rows if row["method"] == "ceiling" and row["domain"] == domain]
    return _middle(row["ap_after"] for row in found if row["changed"] == "{}")


def _failures(rows: Sequence[Row]) -> int:
    """Count the accepted models that are worse than before."""
    return sum(row["outcome"] == "better" and gain(row) < -WORSE for row in rows)


def _is_of(row: Row, model: str, budget: str, count: int) -> bool:
    """Whether a row belongs into a table; a ceiling belongs into all of its model."""
    if row["model"] != model:
        return False
    return row["method"] == "ceiling" or (_budget(row), int(row["regions"])) == (budget, count)


def _budget(row: Row) -> str:
    """Say the budget."""
    if row["steps"] != "0":
        return f"{row['steps']} steps"
    seconds = f"{float(row['seconds']):g} s"
    work = float(row["work"])
    return f"{seconds} of {work:g} processors' work" if work else seconds


def _rank(name: str) -> tuple[int, str]:
    """Ours first, then the baselines, what is unusual behind its method."""
    method = name.partition(",")[0]
    return ORDER.index(method) if method in ORDER else len(ORDER), name


def _middle(values: Iterable[str | float]) -> float | None:
    """Median, or None of nothing."""
    numbers = [float(value) for value in values]
    return median(numbers) if numbers else None


# ------------------------------------------------------------------------------------------- plot


def draw_plot(rows: Sequence[Row]) -> str:
    """Draw AP over the number of regions as SVG: a panel for each domain.

    There is a line for each method, and for each model it starts from if there are several. Lines
    join the medians over the seeds, dots are the single runs; 0 regions is the model before. The
    dashed line is the ceiling.
    """
    curve = [row for row in rows if row["mode"] == "curve"]
    counted = [row for row in curve if row["method"] not in ("none", "ceiling")]
    if len({row["model"] for row in counted}) > 1:
        counted = [_with_start(row) for row in counted]
    domains = list(dict.fromkeys(row["domain"] for row in counted))
    names = sorted({series(row) for row in counted}, key=_rank)
    colours = dict(zip(names, COLOURS * len(names), strict=False))
    width = MARGIN + min(COLUMNS, len(domains)) * PANEL_W
    lines_of_panels = -(-len(domains) // COLUMNS)
    height = lines_of_panels * PANEL_H + 30 + 18 * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, domain in enumerate(domains):
        left = MARGIN + number % COLUMNS * PANEL_W
        top = 28 + number // COLUMNS * PANEL_H
        parts.append(f'<g transform="translate({left} {top})">')
        own = [row for row in counted if row["domain"] == domain]
        parts += _panel(domain, own, ceiling(curve, domain), colours)
        parts.append("</g>")
    for number, name in enumerate(names):
        y = lines_of_panels * PANEL_H + 36 + 18 * number
        parts.append(
            f'<path d="M{MARGIN} {y - 4}h24" stroke="{colours[name]}" stroke-width="2.5"/>'
            f'<text x="{MARGIN + 32}" y="{y}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _with_start(row: Row) -> Row:
    """Let the name of a line say which model it starts from, if any."""
    if row["method"] == "random":
        return row
    return {**row, "method": f"{row['method']}, from {row['model'].split()[0]}"}


def _panel(
    domain: str, rows: Sequence[Row], top: float | None, colours: dict[str, str]
) -> list[str]:
    """Draw one domain."""
    wide, high = PANEL_W - MARGIN, PANEL_H - 50
    counts = sorted({int(row["regions"]) for row in rows})
    at = {0: 0.0, **{count: (n + 1) / len(counts) * wide for n, count in enumerate(counts)}}

    def y(value: float | str) -> str:
        return f"{high * (1 - float(value)):.1f}"

    parts = [f'<text x="0" y="-8" font-weight="bold">{escape(domain.replace("_", " "))}</text>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<path d="M0 {y(tick)}h{wide}" stroke="#ddd"/>'
            f'<text x="-6" y="{float(y(tick)) + 4}" text-anchor="end" fill="#555">{tick:g}</text>'
        )
    for count, x in at.items():
        parts.append(
            f'<text x="{x:.1f}" y="{high + 16}" text-anchor="middle" fill="#555">{count}</text>'
        )
    if top is not None:
        parts.append(f'<path d="M0 {y(top)}h{wide}" stroke="black" stroke-dasharray="5 4"/>')
    for name, colour in colours.items():
        own = [row for row in rows if series(row) == name]
        before = _middle(row["ap_before"] for row in own)
        points = [(0.0, before)] if name.partition(",")[0] != "random" else []
        for count in counts:
            values = [row["ap_after"] for row in own if int(row["regions"]) == count]
            points += [(at[count], _middle(values))] if values else []
            parts += [
                f'<circle cx="{at[count]:.1f}" cy="{y(v)}" r="2.4" fill="{colour}" opacity=".5"/>'
                for v in values
            ]
        if own:
            path = " ".join(f"{x:.1f},{y(v)}" for x, v in points if v is not None)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            )
    return parts
