"""Ids to text, one at a time: what may be shown of a sequence whose next token is not known yet."""

from collections.abc import Callable, Sequence

CONTEXT = 6
"""Ids before a continuation that decide how it begins: whether its first word keeps its space."""

PATIENCE = 32
"""Ids without a whole character after which what there is gets shown."""


class Detokenizer:
    """Turns ids into text so that the pieces joined are the text of all ids, after the text of the prompt.

    `decode` turns ids into text, bytes that are not UTF-8 into U+FFFD. It is called on the last few ids only. Right for
    byte-level vocabularies (a character may take several tokens) and for byte-fallback ones, whose decoder looks at a
    whole run of byte tokens at once: a byte that breaks a run there spoils only what has not been shown.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._window = _tail(decode, prompt)
        self._settled = len(self._window)  # ids of the window whose text was shown to the last character
        self._shown = _whole(decode(self._window))

    def push(self, token: int) -> str:
        """Take one id; return the text that is now certain, often none."""
        self._window.append(token)
        text = self._text()
        overdue = len(self._window) - self._settled > PATIENCE
        whole = text if overdue else _whole(text)
        piece = whole[len(self._shown) :]
        self._shown += piece
        if piece and whole == text:  # all of it is shown: from here only the newest ids are needed
            self._window = self._window[self._settled :]
            self._settled = len(self._window)
            self._shown = self._decode(self._window)
        elif overdue:  # special tokens, which have no text
            del self._window[self._settled :]
        return piece

    def flush(self) -> str:
        """Return what is still held back: bytes that never became a character, as U+FFFD."""
        text = self._text()
        piece, self._shown = text[len(self._shown) :], text
        self._settled = len(self._window)
        return piece

    def _text(self) -> str:
        text = self._decode(self._window)
        if not text.startswith(self._shown):  # a bad byte has spoilt a run of byte tokens that was shown already
            self._window = self._window[self._settled :]
            self._settled, self._shown = 0, ""
            text = self._decode(self._window)
        return text


def _whole(text: str) -> str:
    """Return `text` without what may be the first bytes of a character: up to three U+FFFD at its end."""
    end = len(text)
    while end > max(0, len(text) - 3) and text[end - 1] == "\ufffd":
        end -= 1
    return text[:end]


def _tail(decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> list[int]:
    """Return the last ids of the prompt, a few more than `CONTEXT` where that would cut a character."""
    for count in range(CONTEXT, CONTEXT + 4):
        tail = list(prompt[-count:])
        if not decode(tail).startswith("\ufffd"):
            break
    return tail
