"""Tokens with their log-probabilities, and the text that each of them is."""

import functools
import re
from collections import deque
from collections.abc import Iterable, Sequence

import attrs

from lovecraft.engine.detokenizer import Detokenizer
from lovecraft.engine.request import Scored
from lovecraft.ranks import BYTES
from lovecraft.tokenizer import Tokenizer


@attrs.frozen
class Token:
    """A token as replies show it."""

    text: str
    bytes: bytes
    logprob: float | None
    """None of a prompt's first token."""

    top: tuple[tuple[str, bytes, float], ...]
    """The most probable tokens there: text, bytes and log-probability."""

    offset: int
    """Where it begins in the text; one that goes on with a character begins where that does."""

    ends: bool
    """Whether it ends a text, of which it is no part."""


class Line:
    """Tokens that wait for their text: what is held back of the one is held back of the other."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._waiting: deque[Token] = deque()
        self._shown = 0

    def add(self, scored: Scored, offset: int) -> None:
        """Take a token of the continuation, which begins at `offset`."""
        self._waiting.append(_describe(self._tokenizer, scored, offset))

    def add_prompt(self, ids: Sequence[int], scores: Iterable[Scored]) -> None:
        """Take the tokens of the prompt; `scores` are of all but the first."""
        detokenizer, offset = Detokenizer(self._tokenizer.decode), 0
        for scored in (Scored(ids[0], 0.0), *scores):
            self.add(scored, offset)
            offset += len(detokenizer.push(scored.token))
        self._waiting[0] = attrs.evolve(self._waiting[0], logprob=None, top=())

    def release(self, characters: int, *, everything: bool) -> list[Token]:
        """Return the tokens that begin in what is shown now that there are `characters` more of it."""
        self._shown += characters
        ready = []
        while self._waiting and (everything or self._waiting[0].offset < self._shown):
            ready.append(self._waiting.popleft())
        return ready


def _describe(tokenizer: Tokenizer, scored: Scored, offset: int) -> Token:
    top = tuple((*spell(tokenizer, token), logprob) for token, logprob in scored.top)
    ends = scored.token in tokenizer.stop_ids
    return Token(*spell(tokenizer, scored.token), scored.logprob, top, offset, ends)


@functools.lru_cache(maxsize=65536)
def spell(tokenizer: Tokenizer, token: int) -> tuple[str, bytes]:
    r"""Return the text of a token, and its bytes.

    Where these are no whole characters the text spells them, as OpenAI does, so that two such tokens have two texts:
    `bytes:\xe2\x80`.
    """
    before = tokenizer.encode("a")[-1:]  # so that a word keeps the space before it
    start = len(tokenizer.decode(before, skip_special=False))
    text = tokenizer.decode([*before, token], skip_special=False)[start:]
    if "\ufffd" not in text:
        return text, text.encode()
    piece = tokenizer.library.id_to_token(token) or ""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)
    data = bytes.fromhex(byte[1]) if byte else bytes(BYTES[letter] for letter in piece if letter in BYTES)
    try:
        return data.decode(), data  # U+FFFD itself
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{value:02x}" for value in data), data
