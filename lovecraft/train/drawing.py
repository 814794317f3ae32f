"""The curves of one run or several as an SVG that any browser opens, in its light or dark."""

import html
from collections.abc import Sequence

import attrs

from lovecraft.train.curves import OTHERS, Curve, Points, Runs, curve, loss_range, number, series, ticks

WIDTH, LEFT, GAP = 960, 64, 72
HEAD, LEGEND, LOSS, SMALL = 44, 22, 320, 120  # heights
MOST_POINTS = 1500  # of a line: more than the picture has columns
COLOURS = ("#4269d0", "#e8743b", "#3ca951", "#a463f2", "#d6336c", "#12a5b8", "#b8860b", "#8a8f98")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #57606a } .title { font-size: 17px; fill: #1f2328 }
.ink { fill: #1f2328 } .ground { fill: #ffffff } .grid { stroke: #e6e8eb } .axis { stroke: #8c959f }
path, polyline { fill: none; stroke-linejoin: round; stroke-linecap: round }
.mean { stroke-width: 2 } .thin { stroke-width: 1.2 } .raw { stroke-width: 1; opacity: .35 }
.held { stroke-width: 1.5; stroke-dasharray: 5 3 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 } .title, .ink { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #262c36 }
.axis { stroke: #656c76 } }
"""


@attrs.frozen
class Frame:
    """Where a panel lies, and what it shows of the plane."""

    x: float
    y: float
    width: float
    height: float
    last: float
    marks: list[float]

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return where a point of the plane lies in the picture, at the edge if it is outside."""
        low, high = self.marks[0], self.marks[-1]
        share = min(1.0, max(0.0, (point[1] - low) / (high - low)))
        return round(self.x + self.width * point[0] / self.last, 1), round(self.y + self.height * (1 - share), 1)

    def line(self, points: Points, kind: str, colour: str) -> str:
        """Return a line through points, thinned where there are very many."""
        thin = points[:: -(-len(points) // MOST_POINTS) or 1]
        thin = thin * 2 if len(thin) == 1 else thin  # a line of one point alone is not seen
        places = " ".join("{},{}".format(*self.place(point)) for point in thin)
        return f'<polyline class="{kind}" stroke="{colour}" points="{places}"/>'

    def axes(self, title: str, most: int) -> list[str]:
        """Return the grid, its numbers and the axes."""
        parts = [f'<text class="ink" x="{self.x}" y="{self.y - 10}">{title}</text>']
        for mark in self.marks:
            y = self.place((0, mark))[1]
            parts.append(f'<path class="grid" d="M{self.x} {y}H{self.x + self.width}"/>')
            parts.append(f'<text x="{self.x - 8}" y="{y + 4}" text-anchor="end">{number(mark)}</text>')
        bottom = self.y + self.height
        for mark in (mark for mark in ticks(0, self.last, most) if mark <= self.last and mark == int(mark)):
            x = self.place((mark, 0))[0]
            parts.append(f'<path class="axis" d="M{x} {bottom}v5"/>')
            parts.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle">{mark:,.0f}</text>')
        parts.append(f'<path class="axis" d="M{self.x} {bottom}H{self.x + self.width}"/>')
        parts.append(f'<text x="{self.x + self.width}" y="{bottom + 36}" text-anchor="end">step</text>')
        return parts


def svg(runs: Runs, title: str) -> str:
    """Draw the losses, and below them learning rate, gradient norm and speed; pointing at a dot shows its loss."""
    curves = [curve(name, rows) for name, rows in runs]
    last = max(step for one in curves for step, _ in (*one.mean, *one.held_out)) or 1
    top = HEAD + LEGEND * (len(curves) if len(curves) > 1 else 1) + 34
    frame = Frame(LEFT, top, WIDTH - LEFT - 24, LOSS, last, ticks(*loss_range(curves), 6))
    parts = [*frame.axes("loss, nats a token", 10), *_legend(curves)]
    for i, one in enumerate(curves):
        colour, other = _colours(i, len(curves))
        parts += [frame.line(one.raw, "raw", colour)] if len(curves) == 1 else []
        parts += [frame.line(one.mean, "mean", colour), frame.line(one.held_out, "held", other)]
        parts += _dots(frame, one, other)

    shown = [(name, label) for name, label in OTHERS if any(series(rows, name) for _, rows in runs)]
    width = (WIDTH - LEFT - 24 - GAP * (len(OTHERS) - 1)) / len(OTHERS)
    for column, (name, label) in enumerate(shown):
        lines = [series(rows, name) for _, rows in runs]
        marks = ticks(0, max(value for line in lines for _, value in line), 3)
        small = Frame(LEFT + column * (width + GAP), top + LOSS + 84, width, SMALL, last, marks)
        parts += small.axes(label, 4)
        parts += [small.line(line, "thin", COLOURS[i % len(COLOURS)]) for i, line in enumerate(lines)]
    height = top + LOSS + 48 + (36 + SMALL + 56 if shown else 0)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    name = f'<text class="title" x="{LEFT}" y="30">{html.escape(title)}</text>'
    ground = f'<rect class="ground" width="{WIDTH}" height="{height}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, name, *parts, "</svg>\n"])


def _colours(i: int, runs: int) -> tuple[str, str]:
    """Return the colours of a run's training and held-out losses: those of one run alone differ."""
    return COLOURS[i % len(COLOURS)], COLOURS[(i + (runs == 1)) % len(COLOURS)]


def _dots(frame: Frame, one: Curve, colour: str) -> list[str]:
    return [
        '<circle cx="{}" cy="{}" r="3.5" fill="{}"><title>{}</title></circle>'.format(
            *frame.place(point), colour, html.escape(f"{one.name}, step {point[0]:g}: {point[1]:.4f}")
        )
        for point in one.held_out
    ]


def _legend(curves: Sequence[Curve]) -> list[str]:
    """Return a line a run with its newest losses; of one run alone, the two kinds of lines side by side."""
    lines = [(0, i, f"{one.name}: {one.legend}") for i, one in enumerate(curves)]
    if len(curves) == 1:
        lines = [(220 * i, 0, said) for i, said in enumerate(curves[0].legend.split(", "))]
    parts = []
    for n, (x, row, said) in enumerate(lines):
        kind, y = ("held" if x else "mean"), HEAD + LEGEND * row + 8
        parts.append(f'<path class="{kind}" stroke="{COLOURS[n % len(COLOURS)]}" d="M{LEFT + x} {y}h26"/>')
        parts.append(f'<text class="ink" x="{LEFT + x + 34}" y="{y + 4}">{html.escape(said)}</text>')
    return parts
