"""What every benchmark shares: contenders that take turns, the machine they ran on, a table and a JSON file."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import attrs

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "smollm2_135m"  # `make model` fetches it
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "tiktoken", "attrs", "cattrs", "rich")
BUSY = 0.7


@attrs.frozen
class Result:
    """What one contender did with one piece of work."""

    work: str
    who: str
    samples: list[float]
    peak: float | None = None
    """The most memory its process held, in GB."""

    @property
    def median(self) -> float:
        return median(self.samples)


@attrs.frozen
class Report:
    """The results of one benchmark. `peers` are the contenders that the others are compared with."""

    name: str
    unit: str
    results: list[Result]
    peers: tuple[str, ...]
    notes: tuple[str, ...] = ()


T = TypeVar("T")


def alternate(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let the contenders take turns, A B A B, so that a slow minute of the machine hits all; return their samples."""
    samples: dict[str, list[T]] = {who: [] for who in contenders}
    for _ in range(rounds):
        for who, work in contenders.items():
            samples[who].append(work())
    return samples


def machine() -> dict[str, Any]:
    """Return what the numbers depend on besides the code: the machine, its load now, the versions."""
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0] if sys.platform == "linux" else ""
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in words.splitlines())}
    wanted = {"avx2", "avx512f", "amx_bf16"} & set(fields.get("flags", "").split())
    return {
        "cpu": f"{fields.get('model name', platform.machine())} ({' '.join(sorted(wanted))})",
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def publish(report: Report, before: Mapping[str, Any], command: Sequence[str]) -> Path:
    """Print a report as a Markdown table and return the JSON file it was written to; `before` is the machine."""
    versions = ", ".join(f"{name} {version}" for name, version in before["versions"].items())
    print(f"\n## {report.name}: {report.unit}\n")
    print(f"{before['cpu']}, {before['cores']} cores, {before['memory_gb']} GB; Python {before['python']}, {versions}")
    print(f"load before {before['load']:.2f}{'' if before['load'] < BUSY else ': BUSY, these numbers do not count'}\n")
    for line in _table(report):
        print(line)
    for note in report.notes:
        print(f"\n{note}")
    path = ROOT / "bench" / "results" / f"{report.name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": " ".join(command), "machine": dict(before), **attrs.asdict(report)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _table(report: Report) -> list[str]:
    """Return the lines of a Markdown table: medians, ranges, ratios to each peer on the same work."""
    medians = {(r.work, r.who): r.median for r in report.results}
    with_peak = any(r.peak is not None for r in report.results)
    head = ["work", "who", "median", "range", *(["peak GB"] if with_peak else []), *(f"× {p}" for p in report.peers)]
    rows = [head, ["---"] * len(head)]
    for r in report.results:
        ratios = [_ratio(r.median, medians.get((r.work, peer))) for peer in report.peers]
        peak = [] if not with_peak else [f"{r.peak:.1f}" if r.peak is not None else ""]
        spread = f"{_short(min(r.samples))} to {_short(max(r.samples))} ({len(r.samples)})"
        rows.append([r.work, r.who, _short(r.median), spread, *peak, *ratios])
    return ["| " + " | ".join(row) + " |" for row in rows]


def _ratio(value: float, peer: float | None) -> str:
    return "" if peer is None else f"{value / peer:.2f}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
