"""Between text and ids: a prompt's ids, and the text that may be shown of a continuation. Imports no torch."""

from collections.abc import Collection, Sequence

from lovecraft.engine.detokenizer import Detokenizer
from lovecraft.engine.request import Event, Finish, Read, Scored
from lovecraft.engine.stop import StopMatcher
from lovecraft.errors import RequestError
from lovecraft.tokenizer import Tokenizer


def prompt_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a prompt, after BOS where that is the tokenizer's habit, as training puts it.

    Raises RequestError where that leaves nothing to continue.
    """
    bos = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    ids = bos + tokenizer.encode(text)
    if not ids:
        raise RequestError("the prompt is empty; give at least one character to continue", param="prompt")
    return ids


def sentence_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens after which a sentence is over: their text ends with its mark or a line."""
    return frozenset(i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).endswith((".", "!", "?", "\n")))


class TextStream:
    """The text of one continuation: what happens in the engine goes in, text comes out up to a stop string.

    Streamed and unstreamed replies are made of the same pieces, so they have the same text.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], *, stops: Sequence[str] = (), silent: Collection[int] = ()
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer.decode, prompt)
        self._matcher = StopMatcher(stops)
        self._silent = {*tokenizer.stop_ids, *silent}  # they end texts; not all tokenizers call them special
        self.reads: list[Read] = []
        self.tokens = 0
        self.decoded = 0
        """Characters so far, with those that are not shown yet."""

        self.reason: str | None = None
        """Why it ended: stop or length. Nothing that is taken after that counts."""

    @property
    def cut(self) -> bool:
        """Whether a stop string ended it."""
        return self._matcher.stopped

    @property
    def cached(self) -> int:
        """Tokens of the prompt that did not have to be read."""
        return self.reads[0].cached if self.reads else 0

    @property
    def rolls(self) -> int:
        """How often the context was rolled."""
        return max(0, len(self.reads) - 1)

    def take(self, event: Event | None) -> str:
        """Return the text that may be shown after `event`. Raises RequestError for a Finish that says failed."""
        if isinstance(event, Scored):
            event = event.token
        match event:
            case Scored():
                return self.take(event.token)
            case int():
                self.tokens += 1
                text = "" if event in self._silent else self._detokenizer.push(event)
                return self._matched(text)
            case Read():
                self.reads.append(event)
            case Finish(reason="failed"):
                raise RequestError(event.message, code=event.code, status=event.status)
            case Finish():
                text = self._matched(self._detokenizer.flush()) + self._matcher.flush()
                self.reason = self.reason or event.reason
                return text
        return ""

    def _matched(self, text: str) -> str:
        self.decoded += len(text)
        shown = self._matcher.push(text)
        self.reason = "stop" if self._matcher.stopped else None
        return shown
