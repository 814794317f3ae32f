"""What happened so far, in the text format of Prometheus. The names are vLLM's, so that dashboards can be kept."""

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lovecraft.serve.replies import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TOKENS = (1, 8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384, 65536)

COUNTERS = {
    "prompt_tokens_total": "Tokens of prompts.",
    "generation_tokens_total": "Tokens that were made.",
    "prefix_cache_queries_total": "Tokens of prompts, each of which might have been read already.",
    "prefix_cache_hits_total": "Tokens of prompts that had been read already.",
    "context_resets_total": "Times that a full context was rolled.",
    "request_success_total": "Continuations that ended, by how.",
    "corrupted_requests_total": "Requests whose logits were not finite.",
    "requests_rejected_total": "Requests that were refused, by the code or status of the refusal.",
    "http_requests_total": "Requests over HTTP.",
}

HISTOGRAMS: Mapping[str, tuple[str, Sequence[float]]] = {
    "time_to_first_token_seconds": ("From the request to its first text.", SECONDS),
    "inter_token_latency_seconds": ("From one piece of text to the next.", SECONDS),
    "e2e_request_latency_seconds": ("From the request to its end.", SECONDS),
    "request_prompt_tokens": ("Tokens of a request's prompts.", TOKENS),
    "request_generation_tokens": ("Tokens that were made for a request.", TOKENS),
}

GAUGES = {
    "num_requests_running": "Continuations that are made now.",
    "num_requests_waiting": "Continuations that wait for a place.",
    "kv_cache_usage_perc": "Part of the key-value cache that is in use, of 1.",
}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters and histograms of one server. Used on its loop alone."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._sums: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._buckets: defaultdict[tuple[str, Labels], list[int]] = defaultdict(list)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._counts[name, tuple(labels.items())] += amount

    def observe(self, name: str, value: float, model: str) -> None:
        """Add a value to a histogram."""
        _, bounds = HISTOGRAMS[name]
        key = (name, (("model_name", model),))
        self._sums[key] += value
        rows = self._buckets[key] = self._buckets[key] or [0] * (len(bounds) + 1)
        rows[bisect.bisect_left(bounds, value)] += 1

    def finished(self, model: str, usage: Usage, seconds: float, reasons: Iterable[str], rolls: int) -> None:
        """Count a reply that ended, in whichever way."""
        cached = usage.prompt_tokens_details.cached_tokens
        for name, amount in {
            "prompt_tokens_total": usage.prompt_tokens,
            "generation_tokens_total": usage.completion_tokens,
            "prefix_cache_queries_total": usage.prompt_tokens,
            "prefix_cache_hits_total": cached,
            "context_resets_total": rolls,
        }.items():
            self.count(name, amount, model_name=model)
        for reason in reasons:
            self.count("request_success_total", model_name=model, finished_reason=reason)
        self.observe("e2e_request_latency_seconds", seconds, model)
        self.observe("request_prompt_tokens", usage.prompt_tokens, model)
        self.observe("request_generation_tokens", usage.completion_tokens, model)

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> str:
        """Return everything, with the `gauges` of each model."""
        lines: list[str] = []
        for name, help in GAUGES.items():
            rows = [_line(name, (("model_name", model),), values[name]) for model, values in gauges.items()]
            lines += _family(name, "gauge", help, rows)
        for name, help in COUNTERS.items():
            rows = [_line(name, labels, value) for (one, labels), value in self._counts.items() if one == name]
            lines += _family(name, "counter", help, rows)
        for name, (help, bounds) in HISTOGRAMS.items():
            rows = [
                row for (one, labels) in self._buckets if one == name for row in self._histogram(one, labels, bounds)
            ]
            lines += _family(name, "histogram", help, rows)
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str, labels: Labels, bounds: Sequence[float]) -> Iterator[str]:
        totals = list(itertools.accumulate(self._buckets[name, labels]))
        for bound, total in zip((*map(str, bounds), "+Inf"), totals, strict=True):
            yield _line(f"{name}_bucket", (*labels, ("le", bound)), total)
        yield _line(f"{name}_sum", labels, self._sums[name, labels])
        yield _line(f"{name}_count", labels, totals[-1])


def _family(name: str, kind: str, help: str, rows: Sequence[str]) -> list[str]:
    return [f"# HELP lovecraft:{name} {help}", f"# TYPE lovecraft:{name} {kind}", *rows]


def _line(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"lovecraft:{name}{{{inner}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
