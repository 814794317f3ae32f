"""From a request's body to the continuations that it asks for."""

from collections.abc import Iterable, Sequence

from lovecraft.engine.request import Policy, Request, check_length
from lovecraft.engine.text import TextStream, prompt_ids
from lovecraft.errors import ModelError, RequestError
from lovecraft.serve.logprobs import Line
from lovecraft.serve.protocol import ChatRequest, CompletionRequest, Message
from lovecraft.serve.reply import Choice
from lovecraft.serve.service import Served
from lovecraft.tokenizer import Tokenizer

Body = CompletionRequest | ChatRequest


def completion(served: Served, policy: Policy, body: CompletionRequest) -> list[Choice]:
    """Return the choices of a completion. Raises RequestError for what the model cannot take."""
    tokenizer, found = served.tokenizer, list[Choice]()
    for prompt in body.prompts():
        ids = prompt_ids(tokenizer, prompt) if isinstance(prompt, str) else prompt
        check_ids(tokenizer, ids, "prompt")
        echo = None if not body.echo else prompt if isinstance(prompt, str) else tokenizer.decode(ids)
        found += _choices(served, policy, body, ids, body.limit, echo, len(found))
    return found


def chat(served: Served, policy: Policy, body: ChatRequest) -> list[Choice]:
    """Return the choices of a chat completion. Raises RequestError for what the model cannot take."""
    ids = conversation_ids(served, body.messages)
    limit = body.limit or max(1, served.engine.context - len(ids))
    return _choices(served, policy, body, ids, limit)


def conversation_ids(served: Served, messages: Sequence[Message]) -> list[int]:
    """Return the ids of a conversation, up to where the assistant speaks. Raises RequestError."""
    tokenizer, template = served.tokenizer, served.template
    if template is None:
        raise RequestError("the model has no chat template; /v1/completions continues texts", param="messages")
    plain = [message.plain for message in messages]
    for number, message in enumerate(plain):
        if spelled := tokenizer.special.search(message["content"]):
            said = f"messages[{number}] spells the special token {spelled.group()!r}, which it would become"
            raise RequestError(said, param="messages")
    try:
        ids = tokenizer.encode_template(template.render(plain, prompt=True))
    except ModelError as error:
        raise RequestError(error.message.replace(f" of {template.path}", ""), param="messages") from None
    if not ids:
        raise RequestError("the chat template makes nothing of these messages", param="messages")
    return ids


def check_ids(tokenizer: Tokenizer, ids: Iterable[int], param: str) -> None:
    """Raise RequestError for an id that is no token: it would be read from outside the embedding."""
    if not all(0 <= token < tokenizer.vocab_size for token in ids):
        raise RequestError(f"a token id is outside the vocabulary of {tokenizer.vocab_size}", param=param)


def _choices(
    served: Served, policy: Policy, body: Body, ids: Sequence[int], limit: int, echo: str | None = None, first: int = 0
) -> list[Choice]:
    tokenizer, ends = served.tokenizer, body.stop_token_ids or []
    check_ids(tokenizer, ends, "stop_token_ids")
    check_ids(tokenizer, body.logit_bias or (), "logit_bias")
    check_length(len(ids), limit, served.engine.context, policy)
    found = []
    for number in range(body.choices):
        request = Request(
            prompt=tuple(ids),
            max_tokens=limit,
            sampling=body.sampling(number),
            stop_ids=frozenset([*ends, *(() if body.ignore_eos else tokenizer.stop_ids)]),
            roll=policy == "roll",
            min_tokens=body.min_tokens or 0,
            logprobs=body.top,
            score_prompt=echo is not None and body.top is not None,
        )
        text = TextStream(tokenizer, ids, stops=body.stops, silent=ends)
        line = None if body.top is None else Line(tokenizer)
        found.append(Choice(first + number, request, text, line, echo or "", counts_prompt=number == 0))
    return found
