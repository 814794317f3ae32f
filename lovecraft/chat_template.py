"""A model's chat template: messages to the text that it was taught conversations in. Sandboxed; imports no torch."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lovecraft.errors import ModelError


def render(path: Path, messages: Sequence[dict[str, str]]) -> str:
    """Return the text of `messages` ({"role", "content"}) up to where the assistant speaks, by the template in `path`.

    Raises ModelError when the model directory has no chat template or the template refuses the messages.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    config = _config(path)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    functions = {"raise_exception": _refuse, "strftime_now": lambda text: datetime.datetime.now().strftime(text)}
    special = {name: _spelled(config.get(name)) for name in ("bos_token", "eos_token")}
    try:
        template = environment.from_string(_template(path, config), globals=functions)
        return template.render(messages=list(messages), add_generation_prompt=True, **special)
    except TemplateError as error:
        raise ModelError(f"the chat template of {path} refuses these messages: {error}") from None


def _template(path: Path, config: dict[str, Any]) -> str:
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((entry.get("template") for entry in found if entry.get("name") == "default"), None)
    if not isinstance(found, str):
        raise ModelError(
            f"{path} has no chat template", hint="it was not taught to chat; `lc generate` continues a text"
        )
    return found


def _config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no template there, then; a chat_template.jinja may still stand beside
        return {}


def _spelled(token: Any) -> str:
    return token if isinstance(token, str) else str((token or {}).get("content", ""))


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
