#!/usr/bin/env python3
"""Draws the CSV files of bench_cpu and sweep as SVG: a panel for each shape, a line for each contender.

    bench/plot.py sweep.csv -o sweep.svg --title "INT4, one H200"
    bench/plot.py cpu.csv -o cpu.svg --where record=linear,threads=2,format=q4_k

Both axes are logarithmic. Where --over names a contender, its time divided by everybody's is drawn: how many times
as fast as it each one is.
"""

import argparse
import csv
import math
from collections import defaultdict
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 330, 240  # of a panel, with its margins
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 26, 34
HEAD = 58  # of the picture: title and legend
OUR_COLORS = ["#b3261e", "#d9822b", "#e08a7b"]
COLORS = ["#3f6fb0", "#2a8f83", "#7d5ba6", "#5b6770", "#9c7a2f", "#b05c8d"]


def read(path, conditions):
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file)
                if all(row.get(key) == value for key, value in conditions)]


def collect(rows, args):
    """{panel: {series: {x: y}}}, all in the file's order."""
    panels = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        name = row[args.series]
        if (args.only and name not in args.only) or not row[args.y]:
            continue
        panel = " x ".join(row[key] for key in args.panel)
        panels[panel][name][int(row[args.x])] = float(row[args.y])
    if args.over:
        for panel, lines in panels.items():
            base = lines.get(args.over, {})
            panels[panel] = {name: {x: base[x] / y for x, y in line.items() if x in base}
                             for name, line in lines.items()}
    return panels


def ticks(low, high, base):
    """Powers of the base, and of 10 their halves and fifths too where there are few."""
    first, last = math.floor(math.log(low, base) - 1e-9), math.ceil(math.log(high, base) + 1e-9)
    found = [base**e for e in range(first, last + 1)]
    if base == 10 and len([t for t in found if low <= t <= high]) < 4:
        found = sorted(t * f for t in found for f in (1, 2, 5))
    return [t for t in found if low * 0.999 <= t <= high * 1.001]


def number(value):
    return f"{value:g}"


class Panel:
    def __init__(self, x, y, xs, ys):
        self.x, self.y = x, y
        self.low_x, self.high_x = min(xs), max(xs) if max(xs) > min(xs) else 2 * min(xs)
        self.low_y, self.high_y = min(ys) / 1.1, max(ys) * 1.1

    def place(self, x, y):
        across = math.log(x / self.low_x) / math.log(self.high_x / self.low_x)
        up = math.log(y / self.low_y) / math.log(self.high_y / self.low_y)
        return (self.x + LEFT + across * (WIDTH - LEFT - RIGHT),
                self.y + HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM))

    def frame(self, title, x_name):
        left, right, top, bottom = self.x + LEFT, self.x + WIDTH - RIGHT, self.y + TOP, self.y + HEIGHT - BOTTOM
        middle = (left + right) / 2
        out = [f'<text x="{middle:.0f}" y="{top - 8}" text-anchor="middle" class="b">{escape(title)}</text>']
        xs = ticks(self.low_x, self.high_x, 2)
        for i, tick in enumerate(xs):
            at, _ = self.place(tick, self.low_y)
            out.append(f'<path d="M{at:.1f} {top}V{bottom}" class="g"/>')
            if len(xs) <= 8 or i % 2 == 0:
                out.append(f'<text x="{at:.1f}" y="{bottom + 13}" text-anchor="middle">{number(tick)}</text>')
        for tick in ticks(self.low_y, self.high_y, 10):
            _, at = self.place(self.low_x, tick)
            out.append(f'<path d="M{left} {at:.1f}H{right}" class="g"/>')
            out.append(f'<text x="{left - 5}" y="{at + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
        out.append(f'<text x="{middle:.0f}" y="{bottom + 27}" text-anchor="middle">{escape(x_name)}</text>')
        return out

    def line(self, points, color, strong):
        places = [self.place(x, y) for x, y in sorted(points.items())]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        width = 2.2 if strong else 1.3
        out = [f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>']
        if len(places) <= 32:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width:.1f}" fill="{color}"/>' for x, y in places]
        return out


def colors(names, strong):
    ours = [name for name in names if name.startswith(strong)]
    peers = [name for name in names if name not in ours]
    return ({name: OUR_COLORS[i % len(OUR_COLORS)] for i, name in enumerate(ours)}
            | {name: COLORS[i % len(COLORS)] for i, name in enumerate(peers)})


def draw(panels, args):
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    color = colors(names, args.strong)
    columns = min(args.columns, len(panels))
    width = max(columns * WIDTH, 640)
    height = HEAD + math.ceil(len(panels) / columns) * HEIGHT
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
           f'height="{height}">',
           "<style>text{font:11px sans-serif;fill:#333}.b{font-weight:bold}.g{stroke:#ddd;stroke-width:.7}</style>",
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           f'<text x="{LEFT}" y="20" class="b" style="font-size:14px">{escape(args.title)}</text>']
    at = LEFT
    for name in names:
        out.append(f'<path d="M{at} 40h18" stroke="{color[name]}" stroke-width="3"/>')
        out.append(f'<text x="{at + 23}" y="44">{escape(name)}</text>')
        at += 38 + 7 * len(name)
    for i, (title, lines) in enumerate(panels.items()):
        xs = [x for line in lines.values() for x in line]
        ys = [y for line in lines.values() for y in line.values()]
        if not ys:
            continue
        panel = Panel(i % columns * WIDTH, HEAD + i // columns * HEIGHT, xs, ys)
        out += panel.frame(title, args.x.upper())
        for name in reversed(names):  # the first lies on top
            if lines.get(name):
                out += panel.line(lines[name], color[name], name.startswith(args.strong))
    return "\n".join(out) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+")
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--title", default="us of a call")
    parser.add_argument("--x", default="m", help="column across (default m)")
    parser.add_argument("--y", default="us", help="column upwards (default us)")
    parser.add_argument("--series", default="name", help="column that tells the lines apart (default name)")
    parser.add_argument("--panel", default="n,k", type=lambda text: text.split(","),
                        help="columns of a panel (default n,k)")
    parser.add_argument("--where", default="", help="COLUMN=VALUE,...: only these rows")
    parser.add_argument("--only", default="", type=lambda text: [t for t in text.split(",") if t],
                        help="names of lines to draw")
    parser.add_argument("--over", default="", help="draw how many times as fast as this contender each one is")
    parser.add_argument("--strong", default="ferrumk", help="lines whose names begin so are drawn thick")
    parser.add_argument("--columns", default=4, type=int, help="panels in a row")
    args = parser.parse_args()
    conditions = [condition.split("=", 1) for condition in args.where.split(",") if condition]
    panels = collect([row for path in args.csv for row in read(path, conditions)], args)
    if not panels:
        parser.error("no row of the files is left")
    with open(args.out, "w") as file:
        file.write(draw(panels, args))


if __name__ == "__main__":
    main()
