"""The benchmarks: `python -m bench [startup|data|train|load|forward|decode|quality] [flags]`.

Without a name all but quality run. Contenders run in the same invocation on the same work and take turns. Tables go to
stdout, all samples to bench/results/. Numbers count only from a machine that does nothing else.
"""

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from bench.report import MODEL, machine, publish

# decode comes last: a child's peak memory is never below what its parent held when it started it.
BENCHES = ("startup", "data", "train", "load", "forward", "decode")


def main(words: Sequence[str]) -> int:
    """Run the named benchmark, or all that can run here."""
    if not words:
        return max(_run(name, ()) for name in BENCHES)
    name, *flags = words
    if name == "quality":
        from bench import quality

        quality.main(flags)
        return 0
    if name in BENCHES:
        return _run(name, flags)
    print(__doc__)
    return 0 if name in ("-h", "--help") else 2


def _run(name: str, flags: Sequence[str]) -> int:
    """Run one benchmark and publish its report; return 1 if something that it needs is not here."""
    if name != "startup" and (missing := _missing()):
        print(f"{name} cannot run: {missing}", file=sys.stderr)
        return 1
    before = machine()
    module = importlib.import_module(f"bench.{name}")
    parser = argparse.ArgumentParser(f"python -m bench {name}", description=module.__doc__)
    module.add_arguments(parser)
    report = module.run(parser.parse_args(flags))
    path = publish(report, before, ["python -m bench", name, *map(shlex.quote, flags)])
    print(f"all samples: {path}", file=sys.stderr)
    return 0


def _missing() -> str:
    """Say what has to be installed first, or nothing."""
    if not (MODEL / "config.json").is_file():
        return "the starter model is not here: make model"
    return "" if find_spec("accelerate") else "the peers are not installed: pip install -e '.[bench]'"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
