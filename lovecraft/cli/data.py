"""Look at a dataset: what is in its splits, its documents, its token blocks and their lengths.

Counting documents and characters needs no tokenizer. Tokens need one: the dataset's own (its option `tokenizer`), the
model's, or the workspace's Model's. Blocks are numbered within their document, from 0. Behind the name of the split
stands the block's number in it, by which --step names what an optimizer step takes.
"""

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from lovecraft.cli import console, target
from lovecraft.cli.words import within
from lovecraft.config import record as records
from lovecraft.config import values
from lovecraft.config.load import Loaded
from lovecraft.config.resolve import resolve
from lovecraft.config.schema import DatasetConfig, TrainConfig
from lovecraft.data.options import SPLITS
from lovecraft.errors import DataError

if TYPE_CHECKING:
    from lovecraft.data.blocks import Blocks
    from lovecraft.data.build import Built
    from lovecraft.tokenizer import Tokenizer

USAGE = "CONFIG [-n N] [--split S] [--step N] [--blocks | --stats | --histogram [SVG] | --find TEXT | --check] [--json]"
EXAMPLE = "lc data lovecraft_dataset/k4 --blocks -n 3"

COLUMNS = ("documents", "characters", "tokens", "blocks", "supervised_tokens", "dropped_tokens")
FEW = 3  # blocks printed where -n does not say how many
FIRST_LINES, WIDTH = 5, 100  # what is shown of a document where there is no terminal to say how wide it is
BAR = 50  # characters of the longest bar
MARKS = {"overlap": ("⟦", "⟧"), "masked": ("⟪", "⟫"), "text": ("", "")}
STYLES = {"overlap": "2", "masked": "2;3", "text": "", "special": "1;35", "heading": "1"}  # the codes of a terminal
# What a terminal would obey is shown instead, but for tabs and line ends.
VISIBLE = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | dict.fromkeys(range(127, 160), 0xFFFD)

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc data`."""
    parser.add_argument("-n", type=within(int, 1), metavar="N", help="print N documents, or with --blocks N blocks")
    parser.add_argument("--split", choices=SPLITS, help="which split to look at; the first one otherwise")
    view = parser.add_mutually_exclusive_group()
    view.add_argument("--blocks", action="store_true", help="print blocks as text; ⟦…⟧ repeats, ⟪…⟫ is not learnt")
    view.add_argument("--stats", action="store_true", help="lengths of documents and blocks, in tokens")
    view.add_argument("--histogram", nargs="?", const="", metavar="FILE.svg", help="draw the lengths of the blocks")
    view.add_argument("--find", metavar="TEXT", help="say in which documents and blocks a text is; exit 1 if in none")
    view.add_argument("--check", action="store_true", help="print what reading and cutting found; exit 1 on trouble")
    parser.add_argument("--step", type=within(int, 1), metavar="N", help="of a Train config: what its step N takes")
    parser.add_argument("--json", action="store_true", help="print JSON; documents, blocks and finds one a line")


def run(args: argparse.Namespace) -> int:
    """Print the view that is asked for."""
    dataset, loaded = target.dataset_config(args)
    path = target.tokenizer_path(loaded)
    other_view = args.stats or args.check or args.histogram is not None or args.find is not None
    if args.n and other_view:
        raise DataError("-n is how many documents or blocks to print; this view prints neither")
    if args.step and (args.n or args.split or other_view):
        raise DataError("--step prints what a step of training takes", hint="only --blocks and --json go with it")
    if args.blocks or args.step or (other_view and not args.check):
        return _tokens(dataset, loaded, args)
    if args.n is not None:
        return _documents(dataset, args)
    report = _read(dataset) if path is None else attrs.asdict(_build(dataset, loaded, args.target)[0].report)
    if args.split:
        report["splits"] = dict([_pick(report["splits"], args.split)])
    if path is None:
        console.say(f"tokens and blocks need a tokenizer: {target.HOW_TO_GET_A_TOKENIZER}")
    if args.check:
        return _check(report, as_json=args.json)
    if args.json:
        shown = {split: {name: row.get(name) for name in COLUMNS} for split, row in report["splits"].items()}
        console.out_json({"tokenizer": values.export(path, loaded.root), "splits": shown})
        return 0
    _table("split", report["splits"] if path is None else _columns(report["splits"], dataset.block_size))
    if path is not None and dataset.packing != "none":
        console.say(f"packing {dataset.packing}, of train alone")
    found = [_counted(len(report[kind]), kind) for kind in ("notes", "troubles") if report[kind]]
    if found:
        console.say(f"{', '.join(found)}; --check prints them")
    return 0


def _columns(splits: Mapping[str, Mapping[str, int]], block_size: int) -> dict[str, dict[str, int | str]]:
    """Return what the table shows of each split."""
    masked = ["masked_tokens"] if any(row["masked_tokens"] for row in splits.values()) else []
    return {
        split: {name: row[name] for name in (*COLUMNS, "shared_tokens", *masked)}
        | {"full": f"{row['block_tokens'] / (row['blocks'] * block_size):.1%}"}
        for split, row in splits.items()
    }


def _counted(number: int, things: str) -> str:
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def _pick(splits: Mapping[str, T], wanted: str | None) -> tuple[str, T]:
    """Return the wanted split, or the first."""
    name = wanted or next(iter(splits))
    if name not in splits:
        raise DataError(f"the dataset has no {name} split", hint=f"it has {', '.join(splits)}")
    return name, splits[name]


def _table(what: str, rows: Mapping[str, Mapping[str, float | str]]) -> None:
    """Print name → column → number, or text."""
    cells = [[name, *(c if isinstance(c, str) else f"{c:,}" for c in row.values())] for name, row in rows.items()]
    heads = [head.removesuffix("_tokens") for head in next(iter(rows.values()))]
    console.table(cells, [what, *heads], styles=("bold",), right=heads)


# --- without tokens -------------------------------------------------------------------------------


def _read(dataset: DatasetConfig) -> dict[str, Any]:
    """Return what reading the texts alone tells, in the shape of a build's report."""
    from lovecraft.data.splits import survey

    found = survey(dataset)
    splits = {
        split: {"documents": len(numbers), "characters": int(found.characters[numbers].sum())}
        for split, numbers in found.division.splits.items()
    }
    return {"splits": splits, "notes": found.notes, "troubles": found.division.troubles, "encoding": ""}


def _check(report: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        console.out_json(report)
        return 1 if report["troubles"] else 0
    if report["encoding"]:
        console.out(report["encoding"])
    for kind in ("notes", "troubles"):
        for line in report[kind]:
            console.out(f"{kind.removesuffix('s')}: {line}")
    for split, row in report["splits"].items():
        if "tokens" in row:
            once = row["supervised_tokens"] - row["repeated_tokens"]
            again = f" (and {row['repeated_tokens']:,} again)" if row["repeated_tokens"] else ""
            masked = f" + {row['masked_tokens']:,} masked" if row["masked_tokens"] else ""
            console.out(
                f"{split}: {row['tokens']:,} document tokens = {once:,} supervised{again}"
                f" + {row['first_tokens']:,} first{masked} + {row['dropped_tokens']:,} dropped"
            )
            console.out(
                f"{split}: {row['block_tokens']:,} block tokens = {row['tokens']:,} document tokens "
                f"- {row['dropped_tokens']:,} dropped + {row['shared_tokens']:,} shared"
            )
    console.out(", ".join(_counted(len(report[kind]), kind) for kind in ("notes", "troubles")))
    return 1 if report["troubles"] else 0


def _documents(dataset: DatasetConfig, args: argparse.Namespace) -> int:
    from lovecraft.data.splits import read, survey

    split, numbers = _pick(survey(dataset).division.splits, args.split)
    wanted = set(numbers[: args.n].tolist())
    width = shutil.get_terminal_size((WIDTH, 0)).columns
    for text in (text for number, (_, text) in enumerate(read(dataset)) if number in wanted):
        if args.json:
            console.out(_json({"document": text.name, "characters": len(text.text), "text": text.text}))
            continue
        lines = [
            line if len(line) <= width else line[: width - 1] + "…" for line in text.text.split("\n") if line.strip()
        ]
        console.out(_heading(f"{split} · {text.name} · {len(text.text):,} characters"))
        shown = "\n".join(lines[:FIRST_LINES]).translate(VISIBLE)
        console.out(shown + ("\n…\n" if len(lines) > FIRST_LINES else "\n"))
    return 0


def _heading(text: str) -> str:
    return _styled(f"── {text} ──", STYLES["heading"])


def _styled(text: str, style: str) -> str:
    text = text.translate(VISIBLE)
    return f"\033[{style}m{text}\033[0m" if style and console.fancy(sys.stdout) else text


# --- with tokens ----------------------------------------------------------------------------------


def _tokens(dataset: DatasetConfig, loaded: Loaded, args: argparse.Namespace) -> int:
    built, tokenizer = _build(dataset, loaded, args.target)
    if args.find is not None:
        return _find(dataset, built, tokenizer, args)
    if args.stats:
        return _stats(built, args)
    split, blocks = _pick(built.splits, "train" if args.step else args.split)
    if args.histogram is not None:
        return _histogram(split, blocks, args)
    chosen: Sequence[int] = range(min(len(blocks), args.n or (len(blocks) if args.json else FEW)))
    if args.step:
        passes = _passes(loaded, len(blocks), args.step)
        if not args.blocks:
            rows = [
                {"pass": number, "number": i, **piece}
                for number, numbers in enumerate(passes, 1)
                for i in numbers
                for piece in _pieces(blocks, i)
            ]
            return _rows(rows, args)
        chosen = list(itertools.chain(*passes))
    for i in chosen:
        console.out(_json(_as_json(blocks, i)) if args.json else _as_text(split, blocks, i, tokenizer))
    if not args.json and not args.step:
        console.say(f"{len(chosen):,} of {len(blocks):,} blocks of {split}; -n N prints N")
    return 0


def _build(dataset: DatasetConfig, loaded: Loaded, name: str | None) -> "tuple[Built, Tokenizer]":
    """Return the blocks and their tokenizer; say where a run was trained on others than are there now."""
    from lovecraft.data.build import identity

    built, tokenizer = target.build_blocks(dataset, loaded)
    if (file := records.find_record(name)) is not None:
        was, now = records.read(file)["inputs"], identity(dataset, tokenizer, loaded.cache)
        if changed := [what for what, content in now.items() if was.get(what, content) != content]:
            console.say(f"{name} was trained on another {' and another '.join(changed)} than this, which is there now")
    return built, tokenizer


def _rows(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> int:
    """Print rows of the same columns; return 1 where there are none."""
    if args.json:
        for row in rows:
            console.out(_json(row))
    elif rows:
        cells = [["none" if cell is None else str(cell) for cell in row.values()] for row in rows]
        console.table(cells, list(rows[0]), right=("pass", "number", "block", "character", "tokens"))
    return 0 if rows else 1


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _passes(loaded: Loaded, blocks: int, step: int) -> list[list[int]]:
    """Return the numbers of the blocks that an optimizer step takes, a list for each forward pass."""
    from lovecraft.train.batches import step_blocks, total_steps

    config: Any = resolve(loaded.cls)
    if not isinstance(config, TrainConfig):
        raise DataError("--step is a step of training", hint="name a Train config, or a run")
    if step > (last := total_steps(config, blocks)):
        raise DataError(f"there is no step {step:,}: the last one is {last:,}")
    return [numbers.tolist() for numbers in step_blocks(config, blocks, step)]


def _pieces(blocks: "Blocks", i: int) -> list[dict[str, Any]]:
    return [
        {"document": blocks.documents[document].name, "block": index, "tokens": length}
        for document, index, _, length, _ in blocks[i].pieces.tolist()
    ]


def _as_json(blocks: "Blocks", i: int) -> dict[str, Any]:
    block, pieces = blocks[i], _pieces(blocks, i)
    first = {name: pieces[0][name] for name in ("document", "block")}
    packed = {"pieces": pieces} if len(pieces) > 1 else {}
    return {**first, "input_ids": block.input_ids.tolist(), "labels": block.labels.tolist(), **packed}


def _as_text(split: str, blocks: "Blocks", i: int, tokenizer: "Tokenizer") -> str:
    from lovecraft.data.inspection import runs

    pieces, text = _pieces(blocks, i), []
    if len(pieces) > 1:
        tokens = sum(piece["tokens"] for piece in pieces)
        text.append(_heading(f"{split} {i} · {len(pieces)} pieces · {tokens} tokens") + "\n")
    for piece, found in zip(pieces, runs(blocks, i, tokenizer), strict=True):
        shared = f", {blocks.shared} of them shared" if piece["block"] else ""
        head = f"{piece['document']} · block {piece['block']} · {piece['tokens']} tokens{shared}"
        text.append((f"·· {head}" if len(pieces) > 1 else _heading(f"{split} {i} · {head}")) + "\n")
        for kind, same in itertools.groupby(found, key=lambda run: run[0]):
            left, right = MARKS[kind]
            shown = (_styled(run, STYLES["special" if special else kind]) for _, special, run in same)
            text.append(left + "".join(shown) + right)
        text.append("\n")
    return "".join(text)


def _stats(built: "Built", args: argparse.Namespace) -> int:
    from lovecraft.data.blocks import TOKENS
    from lovecraft.data.inspection import describe

    splits = dict([_pick(built.splits, args.split)]) if args.split else built.splits
    rows = {
        split: {"documents": describe(blocks.documents.table[:, TOKENS]), "blocks": describe(blocks.lengths)}
        for split, blocks in splits.items()
    }
    if args.json:
        console.out_json(rows)
    else:
        _table("tokens of", {f"{split} {what}": row for split, kinds in rows.items() for what, row in kinds.items()})
    return 0


def _histogram(split: str, blocks: "Blocks", args: argparse.Namespace) -> int:
    from lovecraft.data.inspection import histogram, histogram_svg

    bars = histogram(blocks.lengths)
    if args.histogram:
        file = Path(args.histogram)
        if file.suffix != ".svg":
            raise DataError(f"--histogram draws an SVG, and {file} does not end in .svg")
        console.write(file, histogram_svg(bars, f"{split}: lengths of {len(blocks):,} blocks"))
        console.out(str(file))
    elif args.json:
        console.out_json([{"from": first, "to": last, "blocks": number} for first, last, number in bars])
    else:
        highest = max(number for _, _, number in bars)
        for first, last, number in bars:
            console.out(f"{first:>7,} to {last:>7,}  {'█' * round(BAR * number / highest):<{BAR}}  {number:,}")
    return 0


def _find(dataset: DatasetConfig, built: "Built", tokenizer: "Tokenizer", args: argparse.Namespace) -> int:
    from lovecraft.data.inspection import find

    if not args.find:
        raise DataError("--find needs a text to find")
    searched = [_pick(built.splits, args.split)[0]] if args.split else list(built.splits)
    found = ((split, hit) for split, hit in find(args.find, built, tokenizer, dataset) if split in searched)
    hits = [{"split": split, **attrs.asdict(hit)} for split, hit in found]
    if not hits and not args.json:
        console.say(f"{args.find!r} is in none of {', '.join(searched)}")
    return _rows(hits, args)
