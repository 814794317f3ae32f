from collections.abc import Sequence

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from lovecraft.engine.detokenizer import PATIENCE, Detokenizer
from lovecraft.tokenizer import Tokenizer
from tests.tiny import VOCABULARY

WORDS = ["▁the", "▁sea", "s", "▁", "é", ".", "▁▁", "海"]
BYTES = 3  # the id of the first byte token


@pytest.fixture(scope="session")
def fallback() -> tokenizers.Tokenizer:
    """A SentencePiece-like vocabulary: words with ▁ for a space, and a token for every byte, as Llama 2 and Mistral."""
    vocabulary = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *WORDS]
    made = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, [], byte_fallback=True))
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def spell(text: str) -> list[int]:
    """Return a text's byte tokens in the `fallback` vocabulary."""
    return [BYTES + byte for byte in text.encode()]


def pieces(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [*[detokenizer.push(token) for token in ids], detokenizer.flush()]


@given(prompt=st.text(max_size=8), text=st.text(max_size=20))
def test_pieces_join_to_the_text(tokenizer: Tokenizer, prompt: str, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pieces(Detokenizer(tokenizer.decode, tokenizer.encode(prompt)), ids)) == text


@given(prompt=st.lists(st.integers(2, VOCABULARY - 1), max_size=12), ids=st.lists(st.integers(2, VOCABULARY - 1)))
def test_any_ids_of_a_byte_level_vocabulary_give_what_decoding_them_at_once_gives(
    tokenizer: Tokenizer, prompt: list[int], ids: list[int]
) -> None:
    detokenizer = Detokenizer(tokenizer.decode, prompt)
    shown = pieces(detokenizer, ids)
    whole, before = tokenizer.decode([*prompt, *ids]), tokenizer.decode(prompt)
    # a character that the prompt began belongs to the continuation
    begun = [before[:end] for end in range(len(before) - 3, len(before) + 1) if set(before[end:]) <= {"\ufffd"}]
    assert whole in [text + "".join(shown) for text in begun]


@given(ids=st.lists(st.integers(2, VOCABULARY - 1)))
def test_at_most_three_characters_are_held_back(tokenizer: Tokenizer, ids: list[int]) -> None:
    detokenizer, shown = Detokenizer(tokenizer.decode), ""
    for count, token in enumerate(ids, 1):
        shown += detokenizer.push(token)
        whole = tokenizer.decode(ids[:count])
        assert whole.startswith(shown)
        assert whole.removeprefix(shown) in ("", "\ufffd", "\ufffd" * 2, "\ufffd" * 3)


fallback_ids = st.lists(st.one_of(st.sampled_from("é海😀\na").map(spell), st.integers(0, 7).map(lambda i: [259 + i])))


@given(prompt=fallback_ids, parts=fallback_ids)
def test_valid_byte_tokens_give_the_text(
    fallback: tokenizers.Tokenizer, prompt: list[list[int]], parts: list[list[int]]
) -> None:
    before, ids = [token for part in prompt for token in part], [token for part in parts for token in part]
    shown = "".join(pieces(Detokenizer(fallback.decode, before), ids))
    assert fallback.decode(before) + shown == fallback.decode([*before, *ids])


@given(ids=st.lists(st.integers(0, 258 + len(WORDS)), max_size=80))
def test_broken_byte_tokens_neither_raise_nor_lose_what_follows(fallback: tokenizers.Tokenizer, ids: list[int]) -> None:
    detokenizer = Detokenizer(fallback.decode)
    shown = "".join(pieces(detokenizer, [*ids, 259, 259]))
    assert shown.endswith("the the")


def test_first_word_keeps_its_space_behind_a_prompt(fallback: tokenizers.Tokenizer) -> None:
    assert Detokenizer(fallback.decode, [1, 259]).push(260) == " sea"
    assert Detokenizer(fallback.decode, [1]).push(260) == "sea"


def test_character_that_the_prompt_began_is_shown_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀")
    detokenizer = Detokenizer(tokenizer.decode, [*tokenizer.encode("so "), *ids[:2]])
    assert "".join(pieces(detokenizer, ids[2:])) == "😀"


def test_long_run_of_byte_tokens_before_the_continuation(fallback: tokenizers.Tokenizer) -> None:
    detokenizer = Detokenizer(fallback.decode, spell("😀" * 5))
    assert "".join(pieces(detokenizer, spell("😀海"))) == "😀海"


def test_garbage_without_end_is_shown_in_bounded_work(tokenizer: Tokenizer) -> None:
    lengths = []

    def decode(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return tokenizer.decode(ids)

    broken = tokenizer.encode("\u00e9")[1:]
    assert tokenizer.decode(broken) == "\ufffd"
    shown = "".join(pieces(Detokenizer(decode), broken * 500))
    assert shown == "\ufffd" * 500
    assert max(lengths) <= 2 * PATIENCE + 2


def test_special_tokens_without_end_cost_bounded_work(tokenizer: Tokenizer) -> None:
    lengths = []

    def decode(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return tokenizer.decode(ids)

    detokenizer = Detokenizer(decode, tokenizer.encode("so"))
    assert "".join(detokenizer.push(1) for _ in range(500)) == ""
    assert "".join(detokenizer.push(token) for token in tokenizer.encode(" it was")) == " it was"
    assert max(lengths) <= 2 * PATIENCE
