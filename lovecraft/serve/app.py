"""The paths of the OpenAI-compatible server."""

import asyncio
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lovecraft.engine.text import prompt_ids
from lovecraft.errors import RequestError
from lovecraft.serve import page, prepare, replies
from lovecraft.serve.asgi import HANDLERS, Access, Guard, json_response
from lovecraft.serve.openapi import Endpoint, document
from lovecraft.serve.protocol import ChatRequest, CompletionRequest, DetokenizeRequest, Sampling, TokenizeRequest, parse
from lovecraft.serve.reply import CHAT, TEXT, Choice, Form, Reply, stream, whole
from lovecraft.serve.service import Served, Service
from lovecraft.serve.sse import EventStream, unless_disconnected

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY = 4 * 1024 * 1024
BODY_SECONDS = 30  # for a whole body to arrive


def make_app(service: Service, access: Access) -> ASGIApp:
    """Return the application that serves `service` to whom `access` lets in."""
    routes = [Route(one.path, one.handler, methods=[one.method]) for one in ENDPOINTS]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    app.state.service = service
    return Guard(app, service, access)


async def health(request: Request) -> Response:
    """Say whether requests are taken: 200 or 503."""
    status = _service(request).status
    return json_response(replies.Health(status), 200 if status == "ready" else 503)


async def metrics(request: Request) -> Response:
    """Say what happened so far, in the text format of Prometheus."""
    service = _service(request)
    gauges = {
        name: {
            "num_requests_running": served.engine.running,
            "num_requests_waiting": served.engine.waiting,
            "kv_cache_usage_perc": served.engine.kv_usage,
        }
        for name, served in service.served.items()
    }
    return Response(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")


async def openapi(request: Request) -> Response:
    """Describe this API."""
    return json_response(document(ENDPOINTS))


async def models(request: Request) -> Response:
    """List the models."""
    service = _service(request)
    return json_response(replies.Models([_model(service, name) for name in service.names]))


async def model(request: Request) -> Response:
    """Describe a model."""
    service = _service(request)
    name, _ = service.find(request.path_params["name"])
    return json_response(_model(service, name))


async def complete(request: Request) -> Response:
    """Continue texts."""
    service, body = _service(request), await _body(request, CompletionRequest)
    name, served = service.find(body.model)
    choices = await asyncio.to_thread(prepare.completion, served, service.policy, body)  # long prompts take long
    return await _answer(request, TEXT, name, body, choices)


async def chat(request: Request) -> Response:
    """Reply to a conversation."""
    service, body = _service(request), await _body(request, ChatRequest)
    name, served = service.find(body.model)
    choices = await asyncio.to_thread(prepare.chat, served, service.policy, body)
    return await _answer(request, CHAT, name, body, choices)


async def tokenize(request: Request) -> Response:
    """Turn a text or a conversation into tokens."""
    service, body = _service(request), await _body(request, TokenizeRequest)
    _, served = service.find(body.model)
    ids = await asyncio.to_thread(_ids, served, body)
    return json_response(replies.Tokens(ids, len(ids), served.engine.context))


async def detokenize(request: Request) -> Response:
    """Turn tokens into their text."""
    service, body = _service(request), await _body(request, DetokenizeRequest)
    _, served = service.find(body.model)
    prepare.check_ids(served.tokenizer, body.tokens, "tokens")
    return json_response(replies.Prompt(await asyncio.to_thread(served.tokenizer.decode, body.tokens)))


ENDPOINTS = (
    Endpoint("GET", "/", page.page, None, "text/html"),
    Endpoint("GET", "/health", health, None, replies.Health),
    Endpoint("GET", "/metrics", metrics, None, "text/plain"),
    Endpoint("GET", "/openapi.json", openapi, None, None),
    Endpoint("GET", "/v1/models", models, None, replies.Models),
    Endpoint("GET", "/v1/models/{name:path}", model, None, replies.Model),
    Endpoint("POST", "/v1/completions", complete, CompletionRequest, replies.Completion, replies.Completion),
    Endpoint("POST", "/v1/chat/completions", chat, ChatRequest, replies.ChatCompletion, replies.ChatCompletionChunk),
    Endpoint("POST", "/tokenize", tokenize, TokenizeRequest, replies.Tokens),
    Endpoint("POST", "/detokenize", detokenize, DetokenizeRequest, replies.Prompt),
)


async def _answer(request: Request, form: Form, name: str, body: Sampling, choices: list[Choice]) -> Response:
    service = _service(request)
    reply = Reply(form, name, service.served[name], service.metrics, choices)
    reply.start()
    if body.stream:
        return EventStream(stream(reply, body.wants_usage), reply.close)
    try:
        done = await unless_disconnected(request.receive, whole(reply))
    finally:
        reply.close()
    return Response() if done is None else json_response(done)


async def _body(request: Request, kind: type[T]) -> T:
    """Return the body. Raises RequestError unless it says that it is JSON and is, of the right length and in time.

    The content type matters: a web page can send other types here without asking the browser's permission.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("the content type must be application/json", status=415)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return parse(await _read(request), kind)
    except TimeoutError:
        raise RequestError(f"the body did not arrive within {BODY_SECONDS} s", status=408) from None


async def _read(request: Request) -> bytes:
    too_long = RequestError(f"the body is longer than {MAX_BODY} bytes", status=413)
    declared = request.headers.get("content-length", "0")
    if len(declared) > 15 or int(declared) > MAX_BODY:  # int() refuses thousands of digits
        raise too_long
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > MAX_BODY:
            raise too_long
    return bytes(body)


def _ids(served: Served, body: TokenizeRequest) -> list[int]:
    match body.prompt, body.messages:
        case str(text), None:
            return prompt_ids(served.tokenizer, text) if body.add_special_tokens else served.tokenizer.encode(text)
        case None, list(messages):
            return prepare.conversation_ids(served, messages)
    raise RequestError("give either prompt or messages", param="prompt")


def _model(service: Service, name: str) -> replies.Model:
    return replies.Model(name, service.created, service.served[name].engine.context)


def _service(request: Request) -> Service:
    return request.app.state.service
