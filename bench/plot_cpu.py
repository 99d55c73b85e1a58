#!/usr/bin/env python3
"""Plots of bench_cpu's CSV: GB/s of weights and GFLOP/s against M, ours, the peers' and the machine's ceilings.

    bench/plot_cpu.py cpu.csv --format q4_k --out docs/images/cpu-q4_k.svg

Geometric means over the shapes that all contenders of a plot have. Needs matplotlib (Debian: python3-matplotlib).
"""
import argparse
import csv
import math
from collections import defaultdict

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and found by a search
matplotlib.rcParams["svg.hashsalt"] = "ferrumk"  # the same plot is the same file
matplotlib.rcParams["font.sans-serif"] = ["DejaVu Sans"]
matplotlib.rcParams["font.size"] = 9
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: E402

OURS = "ferrumk"
# Colour and marker; a contender has the same in all plots.
STYLES = {
    OURS: ("#b3261e", "o"), "ferrumk.exact": ("#e08a7b", "o"), "ferrumk.fast": ("#7a1712", "o"),
    "ferrumk.borrowed": ("#d9822b", "o"),
    "ggml.plain": ("#3f6fb0", "s"), "ggml.repack": ("#2a8f83", "D"), "ggml.amx": ("#b05c8d", "X"),
    "ik.plain": ("#7d5ba6", "^"), "ik.r4": ("#5b6770", "v"),
}
OTHERS = [("#9c7a2f", "P"), ("#5f8f3e", "*"), ("#1f77a4", "<")]


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in ("threads", "n", "k", "m"):
            row[name] = int(row[name])
        for name in ("us", "us_least", "file_bytes", "rate"):
            row[name] = float(row[name])
    return rows


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def series(rows, threads, statistic, unit):
    """{contender: [(m, mean)]}, over the shapes that ours has at that m; peers that lack one of them have no point."""
    lines = defaultdict(dict)
    for row in rows:
        if row["threads"] != threads:
            continue
        amount = row["file_bytes"] if unit == "bytes" else 2.0 * row["n"] * row["k"] * row["m"]
        lines[row["name"], row["m"]][row["n"], row["k"]] = 1e-3 * amount / row[statistic]
    found = defaultdict(list)
    for (name, m), shapes in sorted(lines.items(), key=lambda item: item[0][1]):
        wanted = set(lines.get((OURS, m), shapes))
        if wanted <= set(shapes):
            found[name].append((m, geometric_mean([shapes[shape] for shape in wanted])))
    return found


def spread(labels, least):
    """Moves labels [(y, ...)] on a logarithmic axis apart, to `least` between neighbours, as little as it takes."""
    labels = sorted(labels, key=lambda label: label[0])
    places = [math.log(label[0]) for label in labels]
    for _ in range(200):
        moved = False
        for i in range(len(places) - 1):
            gap = places[i + 1] - places[i]
            if gap < least - 1e-9:
                shift = (least - gap) / 2
                places[i] -= shift
                places[i + 1] += shift
                moved = True
        if not moved:
            break
    return [(math.exp(place),) + label for place, label in zip(places, labels)]


def units_of(rates):
    """The arithmetic units that a product could use at their best: the widest of a kind, and tiles as they come from a cache."""
    names = [name for name, _ in rates]
    left_out = {"f32 FMA, AVX2"} if "f32 FMA, AVX-512" in names else set()
    left_out |= {"bf16, AVX-512"} if "bf16 AMX, panel in L2" in names else set()
    left_out |= {name for name in names if name.startswith(("read", "memcpy")) or name.endswith("in registers")}
    return [(name, rate) for name, rate in rates if name not in left_out]


def style_of(name, peers):
    strangers = [peer for peer in peers if peer not in STYLES]
    colour, marker = STYLES[name] if name in STYLES else OTHERS[strangers.index(name) % len(OTHERS)]
    ours = name == OURS
    return {"color": colour, "marker": marker, "linewidth": 2.4 if ours else 1.3, "zorder": 5 if ours else 3}


def panel(axes, lines, ceilings, peers, ms, title, unit):
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ends = []
    for name, points in lines.items():
        points = [point for point in points if point[0] in ms]
        if not points:
            continue
        style = style_of(name, peers)
        axes.plot([m for m, _ in points], [y for _, y in points], markersize=4, **style)
        ends.append((points[-1][1], name, style["color"], name == OURS))
    right = ms[-1]
    for name, rate in ceilings:
        axes.axhline(rate, color="#222222", linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        ends.append((rate, name, "#222222", False))
    values = [y for points in lines.values() for m, y in points if m in ms] + [rate for _, rate in ceilings]
    low, high = min(values) / 1.25, max(values) * 1.35
    axes.set_ylim(low, high)
    axes.set_xlim(ms[0] / 1.15, right * 1.15)
    edge, across = right * 1.15, (right / ms[0]) ** 0.01
    for place, value, name, colour, bold in spread(ends, 0.052 * math.log(high / low)):
        axes.plot([edge * across, edge * across**4, edge * across**5.5], [value, place, place], color=colour, linewidth=0.6,
                  clip_on=False)
        axes.text(edge * across**6.5, place, name, color=colour, va="center", fontsize=8.5,
                  fontweight="bold" if bold else "normal")
    axes.xaxis.set_major_locator(FixedLocator(ms))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda m, _: f"{m:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    steps = [f * 10**e for e in range(-2, 6) for f in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator([y for y in steps if low <= y <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("M, rows of activations")
    axes.set_ylabel(unit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+")
    parser.add_argument("--format", default="q4_k")
    parser.add_argument("--threads", help="as in 1,2; default: all in the file")
    parser.add_argument("--decode", type=int, default=16, help="GB/s are plotted up to this M (default 16)")
    parser.add_argument("--least", action="store_true", help="shortest times, not medians")
    parser.add_argument("--title", default="")
    parser.add_argument("--out", required=True, help=".svg, or .png to look at")
    arguments = parser.parse_args()
    statistic = "us_least" if arguments.least else "us"

    rows = [row for path in arguments.csv for row in read(path)]
    linear = [row for row in rows if row["record"] == "linear" and row["format"] == arguments.format]
    if not linear:
        parser.error(f"no lines of format {arguments.format} in {', '.join(arguments.csv)}")
    threads = sorted({row["threads"] for row in linear})
    if arguments.threads:
        threads = [int(word) for word in arguments.threads.split(",")]
    peers = sorted({row["name"] for row in linear if not row["name"].startswith(OURS)})
    ms = sorted({row["m"] for row in linear})
    decode = [m for m in ms if m <= arguments.decode]

    rows_of_panels, columns = (1, 2) if len(threads) == 1 else (2, len(threads))
    figure, all_axes = plt.subplots(rows_of_panels, columns, figsize=(6.2 * columns, 4.1 * rows_of_panels), squeeze=False)
    all_axes = all_axes.reshape(2, len(threads))
    for column, count in enumerate(threads):
        rates = [(row["name"], 1e-9 * row["rate"]) for row in rows
                 if row["record"] == "ceiling" and row["threads"] == count]
        reads = [rate for name, rate in rates if name.startswith("read")]
        count_text = f"{count} thread{'s' if count > 1 else ''}"
        panel(all_axes[0][column], series(linear, count, statistic, "bytes"),
              [("read rate", max(reads))] if reads else [], peers, decode, f"weights read, {count_text}", "GB/s of the file's bytes")
        panel(all_axes[1][column], series(linear, count, statistic, "operations"), units_of(rates), peers, ms,
              f"arithmetic, {count_text}", "GFLOP/s (int8: GOP/s)")
    if arguments.title:
        figure.suptitle(arguments.title, x=0.01, ha="left", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98 if arguments.title else 1), w_pad=2)
    metadata = {"Date": None} if arguments.out.endswith(".svg") else None
    figure.savefig(arguments.out, metadata=metadata, bbox_inches="tight", dpi=90)


if __name__ == "__main__":
    main()
