"""Token blocks of a corpus, made once by us or by `datasets.map`: the contenders of `bench.data`, each a process.

    python -m bench.blocks lovecraft CORPUS TOKENIZER SCRATCH

Prints the seconds of the work without the imports and of the same work once more, and then a hash of all blocks and
their number of tokens, as two lines of JSON.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BLOCK, SHARED = 4096, 512
Pairs = Iterable[tuple[Any, Any]]  # of input_ids and labels, arrays of a block's length


def ours(corpus: Path, tokenizer: Path, scratch: Path) -> Callable[[], Pairs]:
    """Return what builds and opens the blocks below `scratch`."""
    from lovecraft import DatasetConfig
    from lovecraft.data.build import build
    from lovecraft.tokenizer import load_tokenizer

    dataset, loaded = DatasetConfig(source=corpus, block_size=BLOCK, stride=SHARED), load_tokenizer(tokenizer)

    def work() -> Pairs:
        built = build(dataset, loaded, scratch)
        return ((block.input_ids, block.labels) for block in built.splits["train"])

    return work


def peer(corpus: Path, tokenizer: Path, scratch: Path) -> Callable[[], Pairs]:
    """Return what maps the texts to blocks and writes them below `scratch`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # two processes have the two cores; as fast or faster here
    import datasets
    import transformers

    from lovecraft.tokenizer import load_tokenizer

    datasets.disable_progress_bars()
    fast = transformers.AutoTokenizer.from_pretrained(tokenizer, model_max_length=1 << 60)
    habit = load_tokenizer(tokenizer)
    before, after = ([habit.bos_id] if habit.adds_bos else []), [habit.eos_id]

    def cut(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        blocks: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        rows = fast(batch["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for ids in (before + row + after for row in rows):
            for start in range(0, max(1, len(ids) - SHARED), BLOCK - SHARED):
                piece, context = ids[start : start + BLOCK], SHARED if start else 1
                blocks["input_ids"].append(piece)
                blocks["labels"].append([-100] * context + piece[context:])
        return blocks

    files = sorted(map(str, corpus.iterdir()))
    reading = ("json", {}) if files[0].endswith("jsonl") else ("text", {"sample_by": "document"})

    def work() -> Pairs:
        kind, options = reading
        texts = datasets.load_dataset(kind, data_files=files, split="train", cache_dir=str(scratch), **options)
        made = texts.map(cut, batched=True, num_proc=2, remove_columns=["text"]).with_format("numpy")
        return ((row["input_ids"], row["labels"]) for row in made)

    return work


CONTENDERS = {"lovecraft": ours, "datasets.map": peer}


def main() -> None:
    """Measure one contender."""
    who, corpus, tokenizer, scratch = sys.argv[1], *map(Path, sys.argv[2:])
    work = CONTENDERS[who](corpus, tokenizer, scratch)
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        blocks = work()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps(dict(zip(("seconds", "again"), seconds, strict=True))), flush=True)
    print(json.dumps(_summary(blocks)))


def _summary(blocks: Pairs) -> dict[str, Any]:
    digest, tokens = hashlib.sha256(), 0
    for ids, labels in blocks:
        tokens += len(ids)
        digest.update(ids.astype("<i8").tobytes() + labels.astype("<i8").tobytes())
    return {"sha256": digest.hexdigest(), "block_tokens": tokens}


if __name__ == "__main__":
    main()
