"""The cache: built once, keyed by what matters, never half used."""

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
from lovecraft.data.build import (
    MATTERS,
    Built,
    build,
    build_inputs,
    cache_key,
    closest_inputs,
    differing,
    find,
    tokenize,
)
from lovecraft.data.sources import Text
from lovecraft.errors import ConfigError, DataError
from lovecraft.tokenizer import Tokenizer
from tests.tiny import BOS_ID, EOS_ID, TEXT

FILES = {"a.txt": TEXT, "b.txt": TEXT[::-1], "c.txt": "The bell — it rang!", "d.txt": TEXT.upper()}


@pytest.fixture
def dataset(texts: Callable[..., Path]) -> DatasetConfig:
    return DatasetConfig(source=texts(FILES), validation=("c.txt",), test=("d.txt",), block_size=32, stride=8)


def change(dataset: DatasetConfig, **changes: Any) -> DatasetConfig:
    return DatasetConfig(**{**attrs.asdict(dataset), **changes})


def content(built: Built) -> dict[str, list[Any]]:
    return {
        split: [blocks.tokens.tolist(), blocks.table.tolist(), [attrs.astuple(d) for d in blocks.documents]]
        for split, blocks in built.splits.items()
    }


def only_built(cache: Path) -> list[str]:
    return [p.name for p in (cache / "blocks").iterdir() if p.is_dir()]


# --- tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("add_eos", [True, False])
@pytest.mark.parametrize("add_bos", [True, False])
def test_bos_and_eos_stand_once_around_a_document(
    add_bos: bool, add_eos: bool, dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    built = build(change(dataset, add_bos=add_bos, add_eos=add_eos), tokenizer, tmp_path / "cache")

    blocks, text = built.splits["test"], tokenizer.encode(FILES["d.txt"])
    tokens = blocks.tokens.tolist()
    assert tokens == [BOS_ID] * add_bos + text + [EOS_ID] * add_eos
    labels = [label for block in blocks for label in block.labels.tolist() if label != -100]
    assert labels == tokens[1:], "BOS makes the first text token supervised; EOS is supervised"


def test_bos_follows_the_tokenizers_habit(dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    quiet = attrs.evolve(tokenizer, adds_bos=False, fingerprint="quiet")

    assert build(dataset, tokenizer, tmp_path / "cache").splits["train"].tokens[0] == BOS_ID
    assert build(dataset, quiet, tmp_path / "cache").splits["train"].tokens[0] != BOS_ID


def test_a_text_that_spells_special_tokens_gets_no_second_bos(tokenizer: Tokenizer, dataset: DatasetConfig) -> None:
    tokens, _ = tokenize([Text("a", "<s>one</s>")], dataset, tokenizer)

    assert tokens.tolist().count(BOS_ID) == tokens.tolist().count(EOS_ID) == 1


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

    assert built.splits["validation"].tokens.tolist() == [*tokenizer.encode(FILES["c.txt"]), EOS_ID]


def test_documents_know_their_bytes_and_those_of_their_first_token(
    tokenizer: Tokenizer, dataset: DatasetConfig
) -> None:
    found = [Text("a", "— it"), Text("b", "the sea")]
    with_bos, without = (tokenize(found, change(dataset, add_bos=bos), tokenizer)[1] for bos in (True, False))

    assert [d.bytes for d in with_bos] == [6, 7]
    assert [d.first_token_bytes for d in with_bos] == [0, 0]
    # "—" is three tokens of one byte each, none a character of its own
    assert [d.first_token_bytes for d in without] == [0, len(tokenizer.decode(tokenizer.encode("the sea")[:1]))]
    assert [d.tokens for d in with_bos] == [d.tokens + 1 for d in without]


def test_tokenizing_in_batches_changes_nothing(
    tokenizer: Tokenizer, dataset: DatasetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Text(str(i), TEXT[i * 7 : i * 9 + 20]) for i in range(30)]
    whole = tokenize(found, dataset, tokenizer)
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 100)

    parts = tokenize(found, dataset, tokenizer)

    assert parts[0].tolist() == whole[0].tolist()
    assert parts[1] == whole[1]


def test_a_text_without_tokens_is_refused_by_name(tokenizer: Tokenizer, dataset: DatasetConfig) -> None:
    with pytest.raises(DataError, match=r"no token in a\.txt"):
        tokenize([Text("a.txt", "")], dataset, tokenizer)


def test_tokens_take_two_bytes_where_they_fit(tokenizer: Tokenizer, dataset: DatasetConfig) -> None:
    large = attrs.evolve(tokenizer, vocab_size=65537)

    assert tokenize([Text("a", "one")], dataset, tokenizer)[0].dtype == np.uint16
    assert tokenize([Text("a", "one")], dataset, large)[0].dtype == np.uint32


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
    monkeypatch.setattr(module, "read_corpus", None)
    monkeypatch.setattr(module, "tokenize", None)

    second = build(change(dataset, shuffle=False), tokenizer, tmp_path / "cache")

    assert second.directory == first.directory
    assert content(second) == content(first)
    assert isinstance(second.splits["train"].tokens, np.memmap)


def test_a_changed_text_is_built_anew(dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = build(dataset, tokenizer, tmp_path / "cache")
    (dataset.source / "c.txt").write_text("Another.")

    second = build(dataset, tokenizer, tmp_path / "cache")

    assert second.directory != first.directory
    assert tokenizer.decode(second.splits["validation"].tokens.tolist()) == "Another."


def test_a_corpus_that_changes_while_it_is_read_is_not_kept(
    dataset: DatasetConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(*args: Any) -> Any:
        (dataset.source / "a.txt").write_text("Changed behind the back.")
        return tokenize(*args)

    monkeypatch.setattr(module, "tokenize", disturbed)

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
        ("train.tokens.npy", halve),
        ("train.table.npy", halve),
        ("train.tokens.npy", shorten),
        ("train.table.npy", shorten),
        ("validation.tokens.npy", Path.unlink),
        ("train.tokens.npy", lambda file: file.write_bytes(b"")),
        ("train.tokens.npy", lambda file: file.write_bytes(b"not an array, but as long as one may be " * 9)),
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
