"""The cache: built once, keyed by what matters, never half used."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from lovecraft import DatasetConfig
from lovecraft.data import build as module
from lovecraft.data import encoding
from lovecraft.data.blocks import Blocks
from lovecraft.data.build import (
    MATTERS,
    Built,
    build,
    build_inputs,
    cache_key,
    closest_inputs,
    differing,
    find,
)
from lovecraft.errors import ConfigError, DataError
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.chats import MISTRAL
from tests.tiny import EOS_ID, TEXT, write_tokenizer

FILES = {"a.txt": TEXT, "b.txt": TEXT[::-1], "c.txt": "The bell — it rang!", "d.txt": TEXT.upper()}


@pytest.fixture
def dataset(texts: Callable[..., Path]) -> DatasetConfig:
    return DatasetConfig(source=texts(FILES), validation=("c.txt",), test=("d.txt",), block_size=32, stride=8)


@pytest.fixture
def chatty(tmp_path: Path) -> Tokenizer:
    """A tokenizer with a chat template."""
    write_tokenizer(tmp_path / "chatty")
    (tmp_path / "chatty" / "chat_template.jinja").write_text(MISTRAL)
    return load_tokenizer(tmp_path / "chatty")


def change(dataset: DatasetConfig, **changes: Any) -> DatasetConfig:
    return DatasetConfig(**{**attrs.asdict(dataset), **changes})


def own_tokens(blocks: Blocks) -> list[int]:
    """Return the tokens of a split's documents, one behind the other."""
    found: dict[int, int] = {
        int(place): int(blocks.tokens[place])
        for _, _, offset, length, _ in blocks.table
        for place in range(offset, offset + length)
    }
    return [found[place] for place in sorted(found)]


def content(built: Built) -> dict[str, list[Any]]:
    return {
        split: [own_tokens(blocks), blocks.table.tolist(), [attrs.astuple(d) for d in blocks.documents]]
        for split, blocks in built.splits.items()
    }


def only_built(cache: Path) -> list[str]:
    return [p.name for p in (cache / "blocks").iterdir() if p.is_dir()]


# --- the tokenizer --------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "token"), [("add_bos", "bos_id"), ("add_eos", "eos_id")])
def test_a_tokenizer_without_the_token_is_refused(
    option: str, token: str, dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"{option} is set, but the tokenizer has no") as caught:
        build(change(dataset, **{option: True}), attrs.evolve(tokenizer, **{token: None}), tmp_path / "cache")

    assert caught.value.hint == f"set {option} = False"
    assert not (tmp_path / "cache").exists()


def test_a_tokenizer_without_bos_adds_none_by_habit(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    built = build(dataset, attrs.evolve(tokenizer, bos_id=None, adds_bos=False), tmp_path / "cache")

    assert own_tokens(built.splits["validation"]) == [*tokenizer.encode(FILES["c.txt"]), EOS_ID]


# --- the report -----------------------------------------------------------------------------------


def test_the_report_is_the_same_from_the_cache(dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (dataset.source / "e.txt").write_bytes(b"\xef\xbb\xbf" + FILES["c.txt"].encode())
    first, second = (build(dataset, tokenizer, tmp_path / "cache") for _ in range(2))

    assert first.report == second.report
    assert first.report.notes == ["e.txt: byte order mark removed"]
    assert first.report.troubles == ["the same text is in train (e.txt) and in validation (c.txt)"]
    assert {s: c.documents for s, c in first.report.splits.items()} == {"train": 3, "validation": 1, "test": 1}
    assert first.report.splits["test"].characters == len(FILES["d.txt"])


def test_documents_that_min_length_drops_are_reported(
    texts: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = texts({"a.txt": TEXT, "b.txt": "sea"})
    built = build(DatasetConfig(source=source, block_size=32, stride=8, min_length=20), tokenizer, tmp_path / "cache")

    assert built.report.notes == ["train: 1 documents are in no block, min_length dropped them"]
    assert {block.document for block in built.splits["train"]} == {0}


def test_dropping_every_train_block_is_refused(
    texts: Callable[..., Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    dataset = DatasetConfig(source=texts({"a.txt": "sea"}), block_size=64, stride=8, min_length=50)

    with pytest.raises(DataError, match="min_length = 50"):
        build(dataset, tokenizer, tmp_path / "cache")


# --- the cache ------------------------------------------------------------------------------------

CHANGES = {
    "format": "text",
    "sample_by": "line",
    "text_field": "story",
    "messages_field": "chat",
    "prompt_field": "question",
    "response_field": "answer",
    "train": ("a.txt",),
    "validation": (),
    "test": (),
    "validation_fraction": 0.5,
    "validation_count": 1,
    "split_seed": 1,
    "packing": "greedy",
    "block_size": 33,
    "stride": 9,
    "min_length": 2,
    "add_bos": False,
    "add_eos": False,
    "train_on_overlap": True,
}
NO_MATTER = {"source", "tokenizer", "bpe", "shuffle"}


def test_every_option_is_known_to_matter_or_not() -> None:
    options = {field.name for field in attrs.fields(DatasetConfig)}

    assert options == CHANGES.keys() | NO_MATTER
    assert set(MATTERS) | {"stride", "add_bos"} == CHANGES.keys()


@pytest.fixture
def key(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., str]:
    """Return a function that gives the key of a dataset's blocks."""
    return lambda dataset, tokenizer=tokenizer: cache_key(build_inputs(dataset, tokenizer, tmp_path / "cache"))


@pytest.mark.parametrize("option", CHANGES)
def test_an_option_that_matters_changes_the_key(option: str, dataset: DatasetConfig, key: Callable[..., str]) -> None:
    assert key(change(dataset, **{option: CHANGES[option]})) != key(dataset)


def test_the_tokenizer_changes_the_key(dataset: DatasetConfig, tokenizer: Tokenizer, key: Callable[..., str]) -> None:
    assert key(dataset, attrs.evolve(tokenizer, fingerprint="other")) != key(dataset)


@pytest.mark.parametrize(
    "act",
    [
        lambda source: (source / "a.txt").write_text("x"),
        lambda source: (source / "new.txt").write_text("x"),
        lambda source: (source / "b.txt").unlink(),
        lambda source: (source / "b.txt").rename(source / "B.txt"),
        lambda source: (source / "b.txt").rename(source / "a.md"),
    ],
    ids=["changed", "added", "removed", "in capitals", "renamed"],
)
def test_what_happens_to_the_corpus_changes_the_key(
    act: Callable[[Path], object], dataset: DatasetConfig, key: Callable[..., str]
) -> None:
    before = key(dataset)
    act(dataset.source)
    assert key(dataset) != before


def test_two_files_that_change_places_change_the_key(dataset: DatasetConfig, key: Callable[..., str]) -> None:
    before, source = key(dataset), dataset.source
    (source / "a.txt").rename(source.parent / "kept")
    (source / "b.txt").rename(source / "a.txt")
    (source.parent / "kept").rename(source / "b.txt")
    assert key(dataset) != before


def test_what_does_not_matter_leaves_the_key(dataset: DatasetConfig, tmp_path: Path, key: Callable[..., str]) -> None:
    before = key(dataset)
    (dataset.source / ".DS_Store").write_text("x")
    os.utime(dataset.source / "a.txt", (0, 0))
    elsewhere = dataset.source.rename(tmp_path / "moved")
    add_bos = True  # the tokenizer's habit
    assert key(change(dataset, source=elsewhere, tokenizer=tmp_path, shuffle=False, add_bos=add_bos)) == before
    (tmp_path / "link").symlink_to(elsewhere)
    assert key(change(dataset, source=tmp_path / "link")) == before


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("a.txt", "b.txt", "README"), {}),
        (("a.txt", "b.txt", "README.md"), {"train": ("*.txt",), "validation": ("b.txt",)}),
        (("train.txt", "test/b.txt", "README.md"), {}),
        (("a.jsonl", "b.jsonl", "README.md"), {"train": ("*.jsonl",)}),
    ],
    ids=["unread by its ending", "unmatched", "of no split", "in a format of its own"],
)
def test_only_files_that_are_read_change_the_key(
    names: tuple[str, ...], options: dict[str, Any], tmp_path: Path, key: Callable[..., str]
) -> None:
    for name in names:
        (file := tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    dataset = DatasetConfig(source=tmp_path / "source", **options)
    before = key(dataset)

    (tmp_path / "source" / names[-1]).write_text("edited")
    assert key(dataset) == before
    (tmp_path / "source" / names[-1]).unlink()
    (tmp_path / "source" / "NOTES").write_text("new")
    assert key(dataset) == before
    (tmp_path / "source" / names[1]).write_text("[]")
    edited = key(dataset)
    assert edited != before
    (tmp_path / "source" / names[0]).with_stem("train-2").write_text("new")
    assert key(dataset) not in (before, edited)


def test_a_single_files_name_changes_the_key(dataset: DatasetConfig, key: Callable[..., str]) -> None:
    alone = change(dataset, source=dataset.source / "a.txt", train=("*",), validation=(), test=())
    before = key(alone)
    (dataset.source / "a.txt").rename(dataset.source / "e.txt")
    assert key(change(alone, source=dataset.source / "e.txt")) != before


def test_the_closest_blocks_are_those_that_differ_least_and_share_a_file(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    now = build_inputs(change(dataset, block_size=48, stride=9), tokenizer, cache)
    assert closest_inputs(now, cache / "blocks") is None
    build(dataset, tokenizer, cache)
    build(change(dataset, block_size=64), tokenizer, cache)
    build(change(dataset, block_size=48), tokenizer, cache)
    before = closest_inputs(now, cache / "blocks")
    assert before is not None
    assert differing(before, now) == ["stride"]
    (dataset.source / "new.txt").write_text(TEXT)
    (dataset.source / "b.txt").unlink()
    before = closest_inputs(build_inputs(dataset, tokenizer, cache), cache / "blocks")
    assert before is not None
    assert differing(before, build_inputs(dataset, tokenizer, cache)) == ["corpus/new.txt", "corpus/b.txt"]
    alone = change(dataset, source=(dataset.source / "a.txt").rename(tmp_path / "elsewhere.txt"))
    assert closest_inputs(build_inputs(alone, tokenizer, cache), cache / "blocks") is None


def test_a_second_build_reads_and_tokenizes_nothing(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(dataset, tokenizer, tmp_path / "cache")
    monkeypatch.setattr(module, "read", None)
    monkeypatch.setattr(module, "encode", None)

    second = build(change(dataset, shuffle=False), tokenizer, tmp_path / "cache")

    assert second.directory == first.directory
    assert content(second) == content(first)
    assert isinstance(second.splits["train"].tokens, np.memmap)


def test_a_changed_text_is_built_anew(dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = build(dataset, tokenizer, tmp_path / "cache")
    (dataset.source / "c.txt").write_text("Another.")

    second = build(dataset, tokenizer, tmp_path / "cache")

    assert second.directory != first.directory
    assert tokenizer.decode(own_tokens(second.splits["validation"])) == "Another."


def test_a_corpus_that_changes_while_it_is_read_is_not_kept(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(*args: Any) -> Any:
        (dataset.source / "a.txt").write_text("Changed behind the back.")
        return encoding.encode(*args)

    monkeypatch.setattr(module, "encode", disturbed)

    with pytest.raises(DataError, match="changed while it was read"):
        build(dataset, tokenizer, tmp_path / "cache")

    assert only_built(tmp_path / "cache") == []


def test_concurrent_builders_build_once_and_get_the_same(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Built] = []
    written: list[Path] = []
    write = module._write

    def counted(directory: Path, *args: Any) -> None:
        written.append(directory)
        write(directory, *args)

    monkeypatch.setattr(module, "_write", counted)
    threads = [
        threading.Thread(target=lambda: built.append(build(dataset, tokenizer, tmp_path / "cache"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(written) == 1
    assert len(built) == 6
    assert all(content(b) == content(built[0]) for b in built)


KILLED = """
import os, signal, sys
from pathlib import Path
from lovecraft import DatasetConfig
from lovecraft.data import build
from lovecraft.tokenizer import load_tokenizer

save = build.np.save
def save_and_die(file, array):
    save(file, array)
    if "validation" in str(file):
        os.kill(os.getpid(), signal.SIGKILL)
build.np.save = save_and_die
source, tokenizer, cache = map(Path, sys.argv[1:])
dataset = DatasetConfig(source=source, validation=("c.txt",), test=("d.txt",), block_size=32, stride=8)
build.build(dataset, load_tokenizer(tokenizer), cache)
"""


def test_a_killed_build_leaves_nothing_that_is_used(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    words = [sys.executable, "-c", KILLED, str(dataset.source), str(tokenizer.path), str(cache)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    leftovers = only_built(cache)
    assert leftovers, "it died before it wrote anything"

    built = build(dataset, tokenizer, cache)

    assert all(name.startswith(".") for name in leftovers)
    assert content(built) == content(build(dataset, tokenizer, tmp_path / "fresh"))


def test_a_full_disk_is_said_and_leaves_nothing(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)

    with pytest.raises(DataError, match=r"cannot be written.*No space left"):
        build(dataset, tokenizer, tmp_path / "cache")

    assert only_built(tmp_path / "cache") == []


def test_a_disk_that_is_full_in_the_middle_of_a_file_is_said(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError("4096 requested and 0 written")  # as numpy puts it

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match=r"cannot be written.*4096 requested and 0 written; is the disk full"):
        build(dataset, tokenizer, tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_said(dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        build(dataset, tokenizer, tmp_path / "cache")


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def shorten(file: Path) -> None:
    """Say a smaller shape in the header of an array, whose bytes are all there."""
    rows = str(len(np.load(file)))
    file.write_bytes(
        file.read_bytes().replace(f"({rows},".encode(), f"({int(rows) - 1},".rjust(len(rows) + 2).encode())
    )


def renumber(file: Path) -> None:
    """Flip a digit of a count in the index."""
    file.write_text(re.sub(r'"shared_tokens": \d+', '"shared_tokens": 12345', file.read_text()))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tokens.bin", halve),
        ("train.table.npy", halve),
        ("validation.starts.npy", shorten),
        ("train.table.npy", shorten),
        ("validation.documents.npy", Path.unlink),
        ("tokens.bin", lambda file: file.write_bytes(b"")),
        ("tokens.bin", lambda file: file.write_bytes(b"not an array, but as long as one may be " * 9)),
        ("index.json", halve),
        ("index.json", Path.unlink),
        ("index.json", lambda file: file.write_text("[]")),
        ("index.json", lambda file: file.write_text("{}")),
        ("index.json", renumber),
    ],
)
def test_damaged_blocks_are_found_and_built_again_to_the_byte(
    name: str,
    damage: Callable[[Path], object],
    dataset: DatasetConfig,
    tokenizer: Tokenizer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    directory = build(dataset, tokenizer, tmp_path / "cache").directory
    sound = {file.name: file.read_bytes() for file in directory.iterdir()}
    damage(directory / name)
    assert find(directory) is None

    again = build(dataset, tokenizer, tmp_path / "cache")

    assert {file.name: file.read_bytes() for file in again.directory.iterdir()} == sound
    assert caplog.messages == [f"the token blocks in {directory} are damaged: they are built again"]
    assert only_built(tmp_path / "cache") == [directory.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_blocks_that_are_there_are_read_from_a_cache_that_cannot_be_written(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    first = build(dataset, tokenizer, tmp_path / "cache")
    for folder in (tmp_path / "cache", tmp_path / "cache" / "blocks"):
        folder.chmod(0o500)
    assert content(build(dataset, tokenizer, tmp_path / "cache")) == content(first)


def test_stride_is_checked_before_anything_is_read_or_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stride"):
        build(DatasetConfig(source=tmp_path / "none", block_size=8, stride=8), tokenizer, tmp_path / "cache")

    assert not (tmp_path / "cache").exists()


def test_a_corpus_that_is_not_there_has_no_inputs(dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        build_inputs(change(dataset, source=tmp_path / "none"), tokenizer, tmp_path)


# --- the real stories -----------------------------------------------------------------------------


@pytest.mark.corpus
@pytest.mark.skipif("LOVECRAFT_CORPUS" not in os.environ, reason="LOVECRAFT_CORPUS is not set")
def test_the_stories_are_cut_without_loss(tokenizer: Tokenizer, tmp_path: Path) -> None:
    dataset = DatasetConfig(
        source=Path(os.environ["LOVECRAFT_CORPUS"]).absolute(),
        validation=("the_call_of_cthulhu.txt",),
        test=("at_the_mountains_of_madness.txt",),
        block_size=4096,
        stride=512,
    )
    built = build(dataset, tokenizer, tmp_path / "cache")

    assert [c.documents for c in built.report.splits.values()] == [61, 1, 1]
    assert sum(c.characters for c in built.report.splits.values()) == 2_641_905
    assert (built.report.notes, built.report.troubles) == ([], [])
    for counts in built.report.splits.values():
        assert counts.supervised_tokens == counts.tokens - counts.documents


# --- packing and conversations ------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["greedy", "best_fit"])
def test_only_train_is_packed(packing: str, dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    plain = build(change(dataset, block_size=4096, stride=8), tokenizer, tmp_path / "cache")
    packed = build(change(dataset, block_size=4096, stride=8, packing=packing), tokenizer, tmp_path / "cache")

    assert [len(packed.splits[s]) < len(plain.splits[s]) for s in ("train", "validation", "test")] == [
        True,
        False,
        False,
    ]
    assert own_tokens(packed.splits["train"]) == own_tokens(plain.splits["train"])
    assert packed.splits["train"][0].lengths == [b.lengths[0] for b in plain.splits["train"]][:2]


def write_chats(path: Path, turns: int) -> Path:
    rows = [[{"role": r, "content": f"{r} says {i}."} for r in ("user", "assistant") * turns] for i in range(6)]
    path.write_text("".join(json.dumps({"chat": row}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("packing", ["none", "greedy", "best_fit"])
def test_a_conversation_is_never_cut_and_only_the_assistant_is_learnt_from(
    packing: str, chatty: Tokenizer, tmp_path: Path
) -> None:
    source = write_chats(tmp_path / "chats.jsonl", 2)
    options = {"block_size": 250, "stride": 0, "packing": packing, "validation_count": 2}
    built = build(DatasetConfig(source=source, messages_field="chat", **options), chatty, tmp_path / "cache")

    counts, blocks = built.report.splits["train"], built.splits["train"]
    assert counts.documents == len(blocks.table) == 4
    assert counts.masked_tokens > 0
    assert counts.supervised_tokens == sum(int((block.labels != -100).sum()) for block in blocks)
    learnt = [chatty.decode(block.labels[block.labels != -100].tolist(), skip_special=False) for block in blocks]
    said = "".join(learnt).split("</s>")[:-1]
    assert len(said) == 8
    assert all(text.startswith(" assistant says") for text in said)


def test_another_chat_template_makes_other_blocks(chatty: Tokenizer, tmp_path: Path) -> None:
    source = write_chats(tmp_path / "chats.jsonl", 1)
    dataset = DatasetConfig(source=source, messages_field="chat")
    before = build_inputs(dataset, chatty, tmp_path / "cache")
    template = chatty.path / "chat_template.jinja"
    template.write_text(template.read_text() + " ")

    after = build_inputs(dataset, load_tokenizer(chatty.path), tmp_path / "cache")

    assert differing(before, after) == ["chat_template"]
