"""The loss curves of a run, as an SVG and as lines of text. Imports no torch.

Training losses are the thin line, their exponential mean the thick one, held-out losses the dots.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

Points = list[tuple[float, float]]
SMOOTHING = 0.9
LEFT, RIGHT, TOP, BOTTOM = 70, 860, 50, 410


def training_losses(rows: Sequence[dict[str, Any]]) -> Points:
    """Return (step, loss) of the training rows of metrics.jsonl."""
    return [(row["step"], row["loss"]) for row in rows if "lr" in row]


def held_out_losses(rows: Sequence[dict[str, Any]]) -> Points:
    """Return (step, loss) of the evaluation rows."""
    return [(row["step"], row["loss"]) for row in rows if "split" in row]


def smoothed(points: Points) -> Points:
    """Return the exponential mean, corrected for its start."""
    mean, found = 0.0, []
    for i, (step, loss) in enumerate(points, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append((step, mean / (1 - SMOOTHING**i)))
    return found


def svg(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Draw both curves as an SVG of 900 by 460 that any browser opens; pointing at a dot shows its loss."""
    train, held_out = training_losses(rows), held_out_losses(rows)
    xs, ys = zip(*train, *held_out, strict=True)
    low, high = math.floor(min(ys) * 10) / 10, math.ceil(max(ys) * 10) / 10
    high = max(high, low + 0.1)

    def place(point: tuple[float, float]) -> str:
        x = LEFT + (RIGHT - LEFT) * point[0] / max(xs)
        return f"{x:.1f},{BOTTOM - (BOTTOM - TOP) * (point[1] - low) / (high - low):.1f}"

    def line(points: Points, style: str) -> str:
        return f'<polyline points="{" ".join(map(place, points))}" fill="none" {style}/>'

    ticks = [low + (high - low) * i / 4 for i in range(5)]
    marks = [f'<text x="{LEFT - 8}" y="{place((0, t)).split(",")[1]}" text-anchor="end">{t:.2f}</text>' for t in ticks]
    dots = [
        '<circle cx="{}" cy="{}" r="4" fill="#e4572e"><title>'.format(*place(p).split(","))
        + f"step {p[0]}: {p[1]:.4f}</title></circle>"
        for p in held_out
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 460" font-family="sans-serif" font-size="13">',
            '<rect width="900" height="460" fill="white"/>',
            f'<text x="{LEFT}" y="28" font-size="16">{html.escape(title)}</text>',
            line(train, 'stroke="#b8c4e0"'),
            line(smoothed(train), 'stroke="#4269d0" stroke-width="2"'),
            line(held_out, 'stroke="#e4572e" stroke-dasharray="4 3"'),
            *dots,
            *marks,
            f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="black"/>',
            f'<text x="{RIGHT}" y="{BOTTOM + 20}" text-anchor="end">step {max(xs):,}</text>',
            f'<text x="{RIGHT}" y="28" text-anchor="end" fill="#4269d0">training</text>',
            f'<text x="{RIGHT}" y="46" text-anchor="end" fill="#e4572e">held out</text>',
            "</svg>\n",
        ]
    )


def text(rows: Sequence[dict[str, Any]], width: int = 72, height: int = 12) -> str:
    """Draw the smoothed training loss with `*` and held-out losses with `o` in a box of characters."""
    train, held_out = smoothed(training_losses(rows)), held_out_losses(rows)
    xs, ys = zip(*train, *held_out, strict=True)
    low, high = min(ys), max(max(ys), min(ys) + 1e-6)
    grid = [[" "] * width for _ in range(height)]
    for points, sign in ((train, "*"), (held_out, "o")):
        for step, loss in points:
            row = round((high - loss) / (high - low) * (height - 1))
            grid[row][round(step / max(xs) * (width - 1))] = sign
    labels = [f"{high:.3f}", *[""] * (height - 2), f"{low:.3f}"]
    lines = [f"{label:>7} │{''.join(cells)}".rstrip() for label, cells in zip(labels, grid, strict=True)]
    axis = f"{'':>7} └{'─' * width}\n{'':>9}0{f'step {max(xs):,}':>{width - 1}}"
    return "\n".join(lines) + f"\n{axis}\n{'':>9}* training, smoothed   o held out"
