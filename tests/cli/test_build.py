"""`lc build`: the blocks, and why they are stale."""

import pytest

from tests.tiny import tiny_model_dir


@pytest.fixture(autouse=True)
def model(workspace):
    tiny_model_dir(workspace / "models" / "tiny")


def test_dry_run_says_never_built_then_fresh_then_which_option_made_it_stale(lc):
    first = lc("build", "texts", "--dry-run")
    built = lc("build", "texts")
    again = lc("build", "texts", "--dry-run")
    other = lc("build", "texts", "dataset", "--dry-run", "--block-size", "16", "--stride", "9")

    assert (first.code, first.out.strip()) == (1, "dataset  stale  never built")
    assert built.code == 0
    assert (again.code, again.out.strip()) == (0, f"dataset  fresh  {built.out.strip()}")
    assert other.code == 1
    assert other.out.splitlines() == ["dataset  stale  stride: 8 → 9", "dataset  stale  block_size: 32 → 16"]


def test_dry_run_names_the_corpus_when_a_text_changed(lc, workspace):
    lc("build", "texts")
    (workspace / "texts" / "a.txt").write_text("Another tale.\n", encoding="utf-8")

    assert lc("build", "texts", "--dry-run").out.strip() == "dataset  stale  corpus: content has changed"


def test_an_unknown_part_is_refused(lc):
    outcome = lc("build", "texts", "modle")

    assert outcome.code == 2
    assert "no part 'modle'" in outcome.err


def test_without_a_tokenizer_the_error_names_the_flag(lc, workspace):
    (workspace / "models" / "tiny" / "tokenizer.json").unlink()

    outcome = lc("build", "texts")

    assert outcome.code == 2
    assert "--tokenizer" in outcome.err
