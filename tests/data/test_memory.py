"""A corpus that is larger than the memory it may take streams through."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import TEXT, write_tokenizer

MEGABYTES, MOST = 120, 100
BUILD = """
import resource, sys
from pathlib import Path
from lovecraft import DatasetConfig
from lovecraft.data import build, bulk, encoding
from lovecraft.tokenizer import load_tokenizer

source, tokenizer, cache = map(Path, sys.argv[1:4])
tokenizer = load_tokenizer(tokenizer)
encoding.BATCH_CHARACTERS = bulk.COMPARED = 100_000  # smaller than they are, as the corpus is
held = 1024 * int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0])
most = held + int(sys.argv[4]) * 1_000_000  # more than half of it goes to the stacks of threads
resource.setrlimit(resource.RLIMIT_DATA, (most, most))  # what is mapped of files does not count
dataset = DatasetConfig(source=source, packing="greedy", block_size=4096, stride=512, validation_fraction=0.1)
print(sum(counts.characters for counts in build.build(dataset, tokenizer, cache).report.splits.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process holds")
def test_a_corpus_larger_than_the_memory_streams_through(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    characters = 0
    with (tmp_path / "texts.jsonl").open("w", encoding="utf-8") as rows:
        while characters < MEGABYTES * 1_000_000:
            text = f"{characters}. {TEXT * 8}"
            rows.write(json.dumps({"text": text}) + "\n")
            characters += len(text)
    names = ("texts.jsonl", "tokenizer", "cache")
    command = [sys.executable, "-c", BUILD, *(str(tmp_path / name) for name in names), str(MOST)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{characters}\n", done.stderr
