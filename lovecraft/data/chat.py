"""Conversations: rows to messages, and messages to tokens of which only the assistant's are supervised.

What the assistant says is found by rendering: the template's text of the messages before a reply, up to where the
assistant speaks, is what the model is given when it is used, and what comes after that, through the token that ends the
turn, is what it has to say. A template that marks the assistant's text by {% generation %} is taken at its word.
"""

import bisect
import datetime
import re
from collections.abc import Sequence

import attrs
import numpy as np

from lovecraft.chat_template import ChatTemplate, Messages, find_template
from lovecraft.config.schema import DatasetConfig
from lovecraft.errors import DataError, ModelError
from lovecraft.tokenizer import Tokenizer

# How a message is spelled: the field of who speaks, the field of what is said, and the names of the speakers.
SPELLINGS = (
    ("role", "content", {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}),
    ("from", "value", {"system": "system", "human": "user", "gpt": "assistant"}),
)
MESSAGE = (
    'a message is {"role": system, user, assistant or tool, "content": text} or {"from": system, human or gpt, '
    '"value": text}; nothing else in it would be read'
)
CORRECT = "correct the record, or remove it"
MARKS = "take a template that marks the assistant's text by {% generation %}"

TODAY = datetime.date(2024, 7, 26)  # for templates that write the date; the one that Llama 3's fall back to

Span = tuple[int, int]  # start and end in characters


@attrs.frozen
class Conversation:
    """One conversation: its record's name and its messages {"role", "content"}."""

    name: str
    messages: Messages = attrs.field(repr=False)


@attrs.frozen(eq=False)
class Encoded:
    """The tokens of a conversation."""

    ids: list[int]

    supervised: np.ndarray
    """(ids,) bool: what the assistant says, through the token that ends its turn; never the first token."""

    bytes: int
    """Of the replies in UTF-8, without the special tokens in them."""

    dropped: int
    """Messages at the end that are left out, because the conversation is too long with them."""


def template_of(dataset: DatasetConfig, tokenizer: Tokenizer) -> ChatTemplate | None:
    """Return the tokenizer's chat template; None for pairs where it has none, which `encode_pair` joins as they are.

    Raises ModelError where it has none for messages, or a broken one.
    """
    template = find_template(tokenizer.path, TODAY)
    if template is None and dataset.messages_field is not None:
        hint = "take a chat model's tokenizer; pairs (prompt_field and response_field) need no template"
        raise ModelError(f"{tokenizer.path} has no chat template, which messages need", hint=hint)
    return template


# --- rows -------------------------------------------------------------------------------------------


def conversation_of(name: str, row: object, dataset: DatasetConfig) -> Conversation:
    """Return the conversation in the fields of a row that `dataset` names: messages, or a prompt and its response.

    Raises DataError, naming the record and the field, for what is not text by somebody known, and for an empty reply.
    """
    named = (dataset.messages_field, dataset.prompt_field, dataset.response_field)
    values = [_value(name, row, field) for field in named if field is not None]
    if dataset.messages_field is None:
        prompt = _said(f"{name}: {dataset.prompt_field}", "user", values[0])
        return Conversation(name, [prompt, _said(f"{name}: {dataset.response_field}", "assistant", values[1])])
    where, messages = f"{name}: {dataset.messages_field}", values[0]
    if not isinstance(messages, list):
        raise DataError(f"{where} is {type(messages).__name__}, not a list of messages", hint=MESSAGE)
    return Conversation(name, [_message(f"{where}[{number}]", message) for number, message in enumerate(messages)])


def _value(name: str, row: object, field: str) -> object:
    if not isinstance(row, dict) or field not in row:
        fields = f"its fields are {', '.join(map(str, row))}" if isinstance(row, dict) else f"it is {row!r:.40}"
        raise DataError(f"{name} has no field {field!r}", hint=fields)
    return row[field]


def _message(where: str, message: object) -> dict[str, str]:
    given = {key: value for key, value in message.items() if value is not None} if isinstance(message, dict) else {}
    for speaker, content, roles in SPELLINGS:
        if given.keys() == {speaker, content} and str(given[speaker]) in roles:
            return _said(f"{where}.{content}", roles[str(given[speaker])], given[content])
    raise DataError(f"{where} is {given or message!r:.80}", hint=MESSAGE)


def _said(where: str, role: str, text: object) -> dict[str, str]:
    if not isinstance(text, str):
        raise DataError(f"{where} is {type(text).__name__}, not text", hint=CORRECT)
    if wrong := re.search("[\0\ud800-\udfff]", text):
        raise DataError(f"{where} holds {wrong.group()!r} at {wrong.start()}, which is not text", hint=CORRECT)
    if role == "assistant" and not text.strip():
        raise DataError(f"{where} is empty", hint="it would teach the model to say nothing: remove the exchange")
    return {"role": role, "content": text}


# --- tokens -----------------------------------------------------------------------------------------


def encode(conversation: Conversation, tokenizer: Tokenizer, template: ChatTemplate, most: int) -> Encoded | None:
    """Return the tokens of a conversation: the leading messages through the last reply with which `most` suffice.

    None where the first reply is too much already. What BOS and EOS there are the template writes.
    Raises DataError, naming the record, where a message spells a special token, where the template refuses it or does
    not say for sure what is the assistant's, and where nothing is supervised or everything.
    """
    name, messages = conversation.name, conversation.messages
    for number, message in enumerate(messages, 1):
        if found := tokenizer.special.search(message["content"]):
            hint = "it would become that token: spell it otherwise, or remove the record"
            raise DataError(f"{name}: message {number} spells the special token {found.group()!r}", hint=hint)
    try:
        encoded = _encode(conversation, len(messages), tokenizer, template)
        if len(encoded.ids) <= most:
            return encoded
        ends = [number for number, message in enumerate(messages, 1) if message["role"] == "assistant"]
        fit = bisect.bisect_right(ends, most, key=lambda end: len(_encode(conversation, end, tokenizer, template).ids))
        return _encode(conversation, ends[fit - 1], tokenizer, template) if fit else None
    except ModelError as error:
        raise DataError(f"{name}: {error.message}", hint=error.hint or CORRECT) from None


def encode_pair(
    pair: Conversation, tokenizer: Tokenizer, most: int, before: Sequence[int], after: Sequence[int]
) -> Encoded | None:
    """Return the tokens of a pair without a template: prompt and response joined as they are, between those given.

    None where they are more than `most`. Raises DataError, naming the record, where everything is supervised.
    """
    prompt, response = (message["content"] for message in pair.messages)
    ids, offsets = tokenizer.encode_with_offsets(prompt + response, template=False)
    own = _own(pair.name, [*[(-1, -1)] * len(before), *offsets], [(len(prompt), len(prompt + response))])
    own = np.append(own, np.full(len(after), True))
    return Encoded([*before, *ids, *after], own, len(response.encode()), 0) if len(own) <= most else None


def _encode(conversation: Conversation, end: int, tokenizer: Tokenizer, template: ChatTemplate) -> Encoded:
    messages = conversation.messages[:end]
    text, spans = template.render_marked(messages)
    if not template.marks_turns:
        replies = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [_turn(text, messages, number, template, tokenizer.special) for number in replies]
    ids, offsets = tokenizer.encode_with_offsets(text, template=True)
    size = sum(len(tokenizer.special.sub("", text[start:end]).encode()) for start, end in spans)
    return Encoded(ids, _own(conversation.name, offsets, spans), size, len(conversation.messages) - end)


def _turn(text: str, messages: Messages, number: int, template: ChatTemplate, special: re.Pattern[str]) -> Span:
    """Return where in `text`, which all messages give, the reply `messages[number]` starts and ends."""
    reply = f"message {number + 1} (assistant)"
    if number == 0:
        raise ModelError(f"nothing asks for {reply}", hint=f"remove that message, or {MARKS}")
    prompt = template.render(messages[:number], prompt=True)
    upto = text if number + 1 == len(messages) else template.render(messages[: number + 1], prompt=False)
    end = _end(upto, len(prompt), messages[number]["content"].strip(), special)
    if end is None or not text.startswith(prompt) or text[:end] != upto[:end]:
        raise ModelError(f"the chat template rewrites {reply}, or what precedes it when more follows", hint=MARKS)
    return len(prompt), end


def _end(text: str, start: int, content: str, special: re.Pattern[str]) -> int | None:
    """Return where the turn from `start` ends: behind the first special token after `content`, else with `text`.

    None where the content is not there. It holds no special token, so it stands between two of them.
    """
    end = None
    for token in special.finditer(text, start):
        if content in text[start : token.start()]:
            end = token.end()
        start = token.end()
    return len(text) if content in text[start:] else end


def _own(name: str, offsets: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Return which tokens are the assistant's: those that stand for any character of the spans."""
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    own = np.zeros(len(offsets), bool)
    for start, end in spans:
        own |= (starts < end) & (ends > start)
    if len(own) and own.all():
        raise DataError(f"{name}: every token of it is the assistant's", hint="a prompt must ask for the reply")
    own[:1] = False  # nothing precedes it
    if not own.any():
        raise DataError(f"{name}: no token of it is the assistant's, so that it teaches nothing", hint=CORRECT)
    return own
