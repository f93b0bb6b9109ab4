"""Charts as SVG by hand: bars beside Kafka's, readable on light and dark pages."""

import html

from .bench import ratio

TITLES = {
    "cpu": "Server CPU per record, as a share of Kafka's (less is better)",
    "rate": "Rate with Kafka's own tools, as a multiple of Kafka's (more is better)",
    "latency": "Latency, as a share of Kafka's (less is better)",
}
SERIES = ("weir batch", "weir record")
WIDTH, LABELS, BAR, GAP, TOP = 860, 330, 13, 16, 64
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 14px; font-weight: 600 }
  .axis { stroke: #8c959f; stroke-width: 1 }
  .kafka { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 }
  .kafka-text { fill: #cf222e }
  .bar-0 { fill: #0969da } .bar-1 { fill: #8250df }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .axis { stroke: #6e7681 }
    .kafka { stroke: #ff7b72 } .kafka-text { fill: #ff7b72 }
    .bar-0 { fill: #58a6ff } .bar-1 { fill: #bc8cff }
  }
"""


def all_charts(run):
    drawn = {}
    for name, rows in (("cpu", cpu_rows(run)), ("rate", rate_rows(run)), ("latency", latency_rows(run))):
        if rows:
            drawn[name] = bars(TITLES[name], rows)
    return drawn


def shares(row, key):
    found = [ratio(row, key, one, "kafka") if {one, "kafka"} <= row["runs"].keys() else None for one in SERIES]
    return found if any(value is not None for value in found) else None


def cpu_rows(run):
    rows = [(row["name"], shares(row, "cpu_us")) for row in run["results"].values() if row["load"] == "generator"]
    return [(name, values) for name, values in rows if values and not name.startswith("group join")]


def rate_rows(run):
    rows = [
        (row["name"], shares(row, "rate"))
        for row in run["results"].values()
        if row["load"] == "tools" and "10,000" not in row["name"]
    ]
    return [(name, values) for name, values in rows if values]


def latency_rows(run):
    rows = []
    for row in run["results"].values():
        if row["load"] == "generator" and ("10,000" in row["name"] or row["name"].startswith(("end to end", "consume at the tail"))):
            for key in ("p50_us", "p99_us"):
                values = shares(row, key)
                if values:
                    rows.append((f"{row['name']}, {key.removesuffix('_us')}", values))
    return rows


def bars(title, rows):
    most = max([1.0, *(value for _, values in rows for value in values if value is not None)])
    # One long bar shall not make all others unreadable: it is cut, and its number tells.
    most = min(most, 3.0) * 1.02
    space = WIDTH - LABELS - 60
    each = len(SERIES) * BAR + GAP
    height = TOP + each * len(rows) + 10
    at = lambda value: LABELS + space * min(value, most) / most  # noqa: E731
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="10" y="20">{html.escape(title)}</text>',
    ]
    for number, name in enumerate(SERIES):
        x = 10 + number * 130
        out.append(f'<rect class="bar-{number}" x="{x}" y="32" width="12" height="12"/><text x="{x + 18}" y="43">{name}</text>')
    out.append(f'<text class="kafka-text" x="{at(1) - 22:.0f}" y="{TOP - 12}">Kafka</text>')
    y = TOP
    for name, values in rows:
        out.append(f'<text x="{LABELS - 8}" y="{y + BAR + 3}" text-anchor="end">{html.escape(name)}</text>')
        for number, value in enumerate(values):
            if value is not None:
                out.append(f'<rect class="bar-{number}" x="{LABELS}" y="{y}" width="{max(at(value) - LABELS, 1):.1f}" height="{BAR - 2}"/>')
                out.append(f'<text x="{at(value) + 5:.1f}" y="{y + BAR - 3}">{value:.2f}</text>')
            y += BAR
        y += GAP
    out.append(f'<line class="axis" x1="{LABELS}" y1="{TOP - 6}" x2="{LABELS}" y2="{height - 8}"/>')
    out.append(f'<line class="kafka" x1="{at(1):.1f}" y1="{TOP - 6}" x2="{at(1):.1f}" y2="{height - 8}"/>')
    return "\n".join([*out, "</svg>", ""])
