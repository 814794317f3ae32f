"""A model's chat template: messages to the text that it was taught conversations in. Sandboxed; imports no torch."""

import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs
from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lovecraft.errors import ModelError

Messages = Sequence[Mapping[str, str]]

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BORDERS = ("\ud800", "\udfff")  # around what {% generation %} holds; lone surrogates, which no text has
# What a template that was not made for the messages raises, besides jinja's own: it adds None to a string, say.
REFUSALS = (TemplateError, TypeError, ValueError)


@attrs.frozen(eq=False)
class ChatTemplate:
    """A compiled template; make one with `find_template`. Pickling it loads it again."""

    path: Path
    """The model directory that it was read from."""

    marks_turns: bool
    """Whether it says itself, by {% generation %}, which text is the assistant's."""

    fingerprint: str
    """Hash of its text, and of the special tokens that it may name."""

    _date: datetime.date | None
    _template: Template = attrs.field(repr=False)

    def render(self, messages: Messages, *, prompt: bool) -> str:
        """Return the text of `messages` ({"role", "content"}); with `prompt` up to where the assistant speaks next.

        Raises ModelError when the template refuses the messages.
        """
        return self.render_marked(messages, prompt=prompt)[0]

    def render_marked(self, messages: Messages, *, prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """Return the text, and the (start, end) of what stands in {% generation %} in it; raise as `render` does."""
        try:
            text = self._template.render(messages=list(messages), add_generation_prompt=prompt)
        except REFUSALS as error:
            raise ModelError(f"the chat template of {self.path} refuses these messages: {error}") from None
        if not self.marks_turns:
            return text, []
        spans, at = [], 0
        pieces = re.split("[{}{}]".format(*BORDERS), text)  # outside, inside, outside, …
        for number, piece in enumerate(pieces):
            spans += [(at, at + len(piece))] if number % 2 and piece else []
            at += len(piece)
        return "".join(pieces), spans

    def __reduce__(self) -> tuple[object, ...]:
        return find_template, (self.path, self._date)


def render(path: Path, messages: Messages) -> str:
    """Return the text of `messages` up to where the assistant speaks, by the template of the model directory `path`.

    Raises ModelError when the model directory has no chat template or the template refuses the messages.
    """
    template = find_template(path)
    if template is None:
        hint = "it was not taught to chat; `lc generate` continues a text"
        raise ModelError(f"{path} has no chat template", hint=hint)
    return template.render(messages, prompt=True)


def find_template(path: Path, date: datetime.date | None = None) -> ChatTemplate | None:
    """Return the chat template of a model directory, None where it has none.

    A template that asks for the current time is told `date` where that is given, so that it always writes the same.
    Raises ModelError for a template that is broken.
    """
    config = _config(path)
    source = _source(path, config)
    if source is None:
        return None
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _json  # jinja's own escapes for HTML
    names: dict[str, Any] = {name: _spelled(config[name]) for name in SPECIAL if config.get(name)}
    names |= {"tools": None, "documents": None, "raise_exception": _refuse}
    names["strftime_now"] = lambda form: (date or datetime.datetime.now()).strftime(form)
    try:
        template = environment.from_string(source, globals=names)
    except TemplateError as error:
        raise ModelError(f"the chat template of {path} is broken: {error}") from None
    special = {name: names[name] for name in SPECIAL if name in names}
    fingerprint = hashlib.sha256(json.dumps([source, special]).encode()).hexdigest()[:16]
    marks_turns = re.search(r"\{%[-+]?\s*generation\b", source) is not None
    return ChatTemplate(path, marks_turns, fingerprint, date, template)


class _Generation(Extension):
    """The tag of transformers that marks the assistant's text."""

    tags = {"generation"}  # noqa: RUF012 - the library declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        start, end = (nodes.Output([nodes.TemplateData(border)], lineno=line) for border in BORDERS)
        return [start, nodes.Scope(body, lineno=line), end]


def _source(path: Path, config: dict[str, Any]) -> str | None:
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((entry.get("template") for entry in found if entry.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no template there, then; a chat_template.jinja may still stand beside
        return {}


def _spelled(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
