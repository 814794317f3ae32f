"""The curves of one run or several, as numbers and ticks, and as lines of text; `drawing` makes an SVG of them.

Imports no torch.
"""

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from lovecraft.train.metrics import running_mean

Points = list[tuple[float, float]]
Rows = Sequence[dict[str, Any]]
Runs = Sequence[tuple[str, Rows]]  # the name and the rows of metrics.jsonl of each
OTHERS = (("lr", "learning rate"), ("grad_norm", "gradient norm"), ("tokens_per_second", "tokens a second"))
BLOCKS = "▁▂▃▄▅▆▇█"
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a braille cell, by row and column
BRAILLE = 0x2800
LABEL = 7  # columns for the numbers of the upright axis
LETTERS = "abcdefgh"  # of the runs in one drawing


@attrs.frozen
class Curve:
    """What is drawn of one run."""

    name: str
    raw: Points
    mean: Points
    held_out: Points

    @property
    def legend(self) -> str:
        """The newest losses."""
        held_out = f", held out {self.held_out[-1][1]:.4f}" if self.held_out else ""
        return (f"training {self.mean[-1][1]:.4f}" if self.mean else "no step yet") + held_out


def curve(name: str, rows: Rows) -> Curve:
    """Return the curves of a run. Held-out losses are those of the split that was measured last."""
    raw, mean, means = series(rows, "loss"), None, []
    for step, loss in raw:
        mean = running_mean(mean, loss, len(means) + 1)
        means.append((step, mean))
    measured = [row for row in rows if "split" in row]
    held_out = [(row["step"], row["loss"]) for row in measured if row["split"] == measured[-1]["split"]]
    return Curve(name, raw, means, held_out)


def series(rows: Rows, name: str) -> Points:
    """Return (step, number) of the training rows."""
    return [(row["step"], row[name]) for row in rows if "split" not in row and name in row]


def loss_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return what all lines lie between; of the raw losses the outermost hundredths do not count."""
    firm = [loss for one in curves for _, loss in (*one.mean, *one.held_out)]
    noisy = [loss for one in curves for _, loss in one.raw]
    inner = np.quantile(noisy, (0.01, 0.99)).tolist() if noisy else []
    return min(firm + inner), max(firm + inner)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return up to `most` + 2 round numbers, the first not above `low`, the last not below `high`."""
    if high - low < 1e-9 * max(abs(low), abs(high)) or high == low:
        low, high = low - (abs(low) / 10 or 1.0), high + (abs(high) / 10 or 1.0)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.9g}") for i in range(first, last + 1)]


def number(value: float) -> str:
    """Write a tick: 20k, 1.5, 2e-5."""
    if abs(value) >= 1000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:g}".replace("e-0", "e-")


def text(runs: Runs, width: int = 72, height: int = 14) -> str:
    """Draw the smoothed training losses in a box of characters.

    One run is a fine line, its held-out losses are `o`, and each other number is a line of bars; of several runs each
    has a letter of its own.
    """
    curves = [curve(name, rows) for name, rows in runs]
    last = max(step for one in curves for step, _ in (*one.mean, *one.held_out)) or 1
    marks = ticks(*loss_range(curves), 4)
    low, high = marks[0], marks[-1]
    grid = [[" "] * width for _ in range(height)]
    if len(curves) == 1:
        _fine_line(grid, curves[0].mean, last, low, high)
        for step, loss in curves[0].held_out:
            grid[round((high - loss) / (high - low) * (height - 1))][round(step / last * (width - 1))] = "o"
    else:
        for i, one in enumerate(curves):
            _letters(grid, one.mean, last, low, high, LETTERS[i])
    labels = {round((high - mark) / (high - low) * (height - 1)): number(mark) for mark in marks}
    sides = [f"{labels.get(i, ''):>{LABEL}} {'┤' if i in labels else '│'}" for i in range(height)]
    lines = [(side + "".join(row)).rstrip() for side, row in zip(sides, grid, strict=True)]
    lines += [f"{'':>{LABEL}} └{'─' * width}", f"{'':>{LABEL}}  0{f'step {last:,.0f}':>{width - 1}}"]
    if len(curves) == 1:
        lines += [f"{'':>{LABEL}}  loss: {curves[0].legend} (o)", *_bars(runs[0][1], last, width)]
    else:
        lines += [f"{LETTERS[i]:>{LABEL}}  {one.name}: {one.legend}" for i, one in enumerate(curves)]
    return "\n".join(lines)


def _at(points: Points, last: float, columns: int) -> list[float]:
    """Return the height of a line at each of `columns` columns from 0 to `last`, NaN where it does not reach."""
    if not points:
        return [math.nan] * columns
    steps, heights = zip(*points, strict=True)
    return np.interp(np.linspace(0, last, columns), steps, heights, left=np.nan, right=np.nan).tolist()


def _fine_line(grid: list[list[str]], points: Points, last: float, low: float, high: float) -> None:
    """Draw a line in dots, two columns and four rows a character."""
    rows = 4 * len(grid)
    before = None
    for x, loss in enumerate(_at(points, last, 2 * len(grid[0]))):
        y = None if math.isnan(loss) else round((high - loss) / (high - low) * (rows - 1))
        if y is not None:
            start = y if before is None else before + (before < y) - (before > y)
            for dot in range(min(start, y), max(start, y) + 1):
                cell = grid[dot // 4][x // 2]
                bits = ord(cell) if cell != " " else BRAILLE
                grid[dot // 4][x // 2] = chr(bits | DOTS[dot % 4][x % 2])
        before = y


def _letters(grid: list[list[str]], points: Points, last: float, low: float, high: float, letter: str) -> None:
    for x, y in enumerate(_at(points, last, len(grid[0]))):
        if not math.isnan(y):
            grid[round((high - y) / (high - low) * (len(grid) - 1))][x] = letter


def _bars(rows: Rows, last: float, width: int) -> list[str]:
    """Draw each other number of a run as a line of bars from zero, between its name and its largest value."""
    lines = []
    for name, title in OTHERS:
        points = series(rows, name)
        if points and (most := max(value for _, value in points)) > 0:
            heights = _at(points, last, max(10, width - 26))
            bars = "".join(" " if math.isnan(y) else BLOCKS[min(7, int(8 * y / most))] for y in heights)
            lines.append(f"{title:>{LABEL + 9}}  {bars} {number(float(f'{most:.3g}'))}")
    return lines
