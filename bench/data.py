"""Megabytes a second from texts to token blocks on disk, and the memory it takes: ours next to `datasets.map`.

Both read the same generated corpus, tokenize it, cut it into overlapping blocks with labels and write them, with two
tokenizers: a byte-level BPE and one in the style of SentencePiece. Each run is a process of its own with an empty
cache. They must make the same blocks.
"""

import argparse
import itertools
import json
import random
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import attrs
import psutil
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bench.blocks import CONTENDERS
from bench.report import MODEL, ROOT, Report, Result, alternate

OURS, PEER = CONTENDERS
TALES = ROOT / "projects" / "tales_dataset" / "texts"
SMALLEST, LARGEST = 1_000, 40_000  # characters of a document
INVENTED = 200_000  # words beside those of the tales, few of them frequent: texts are full of rare words
FOREIGN = ["naïve", "Þórr", "Ægir’s", "λόγος", "море", "漢字かな", "año", "—", "½", "“été”", "fjörð", "łódź", "1873"]
BARS = "bars at 200 MB: 3 × with the byte-level BPE, 1 × with the other, once more in 1 s; 1 GiB at 2,000 MB"


@attrs.frozen
class Measured:
    """One process."""

    seconds: float
    again: float
    """Seconds of the same work once more."""
    sha256: str
    """Of all blocks."""
    block_tokens: int
    peak: int
    """The most memory that it and its children held, in bytes; what several share counts once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--who", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="contenders")
    parser.add_argument("--kinds", nargs="+", choices=list(TOKENIZERS), default=list(TOKENIZERS), help="of tokenizers")
    parser.add_argument("--form", choices=("jsonl", "txt"), default="jsonl", help="one file of rows, or a file a text")


def run(args: argparse.Namespace) -> Report:
    """Let the contenders take turns with each tokenizer."""
    results, again = [], []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        size = write_corpus(corpus, args.form, args.megabytes)
        for kind in args.kinds:
            tokenizer = TOKENIZERS[kind](Path(folder, kind))
            contenders = {who: partial(_measure, who, corpus, tokenizer) for who in args.who}
            samples = alternate(contenders, args.rounds)
            assert len({(one.sha256, one.block_tokens) for some in samples.values() for one in some}) == 1
            for who, some in samples.items():
                rates = [size / 1e6 / one.seconds for one in some]
                results.append(Result(kind, who, rates, max(one.peak for one in some) / 1e9))
                again.append(f"{kind}, {who} {max(one.again for one in some):.3f} s")
    notes = (f"all made the same blocks; once more: {'; '.join(again)}", BARS)
    peers = (PEER,) if PEER in args.who else ()
    return Report("data", f"MB a second of {size / 1e6:,.0f} MB of text as {args.form}", results, peers, notes)


# --- the corpus -----------------------------------------------------------------------------------


def write_corpus(path: Path, form: str, megabytes: int) -> int:
    """Write documents of so many megabytes into a new directory, the same each time; return their size in bytes."""
    path.mkdir()
    size, texts = 0, documents()
    with (path / "texts.jsonl").open("w", encoding="utf-8") if form == "jsonl" else nullcontext() as rows:
        while size < megabytes * 1_000_000:
            text = next(texts)
            if rows is None:
                (path / f"{size:012}.txt").write_text(text, encoding="utf-8")
            else:
                rows.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            size += len(text.encode())
    return size


def documents(seed: int = 0) -> Iterator[str]:
    """Yield texts without end: shuffled clauses of the tales with invented and foreign words between them."""
    draw = random.Random(seed)
    tales = "\n\n".join(file.read_text(encoding="utf-8") for file in sorted(TALES.glob("*.txt")))
    clauses = re.split(r"(?<=[.,;:!?])\s", tales)
    syllables = sorted(set(re.findall("[bcdfghklmnprstvw][aeiou]{1,2}[lmnrst]?", tales)))
    words = [*FOREIGN, *("".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(INVENTED))]
    while True:
        length, parts = SMALLEST * (LARGEST / SMALLEST) ** draw.random(), list[str]()
        while length > 0:
            parts += draw.choices(clauses, k=3)
            word = words[int(len(words) * draw.random() ** 4)]
            parts.append((word.title() if draw.random() < 0.3 else word) + ("\n\n" if draw.random() < 0.05 else ""))
            length -= sum(map(len, parts[-4:])) + 4
        yield " ".join(parts).strip()


# --- the tokenizers -------------------------------------------------------------------------------


def smollm2(_: Path) -> Path:
    """Return the directory of the starter model."""
    return MODEL


def llama2(path: Path) -> Path:
    """Train a tokenizer that works as Llama 2's does: no splitting into words, bytes for what has no token, BOS."""
    path.mkdir()
    texts = itertools.islice(documents(seed=1), 1000)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    library = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.pre_tokenizer = pre_tokenizers.Metaspace()  # while it learns, so that tokens stay within words
    library.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=32_000, special_tokens=specials, limit_alphabet=500, show_progress=False)
    )
    content = json.loads(library.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in specials[:3]]
    library = Tokenizer.from_str(json.dumps(content | {"pre_tokenizer": None}))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    library.save(str(path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


TOKENIZERS = {"byte-level": smollm2, "sentencepiece": llama2}
"""Kind → what makes one of the kind in a directory, and returns where it is."""


# --- a process ------------------------------------------------------------------------------------


def _measure(who: str, corpus: Path, tokenizer: Path) -> Measured:
    """Let a contender make the blocks in an empty folder, and look at its memory twenty times a second."""
    with tempfile.TemporaryDirectory(dir=corpus.parent) as scratch:
        command = [sys.executable, "-m", "bench.blocks", who, str(corpus), str(tokenizer), scratch]
        process = psutil.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        peak = 0
        while not select.select([process.stdout], [], [], 0.05)[0]:
            peak = max(peak, _memory(process))
        printed, _ = process.communicate()  # reading all blocks again is not part of the work
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        timed, made = map(json.loads, printed.splitlines())
        return Measured(**timed, **made, peak=peak)


def _memory(process: psutil.Process) -> int:
    try:
        return sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True)))
    except psutil.Error:  # one of them has just ended
        return 0
