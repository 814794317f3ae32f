"""The routes of the OpenAI-compatible server."""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lovecraft.errors import RequestError
from lovecraft.serve import completions
from lovecraft.serve.asgi import HANDLERS, Access, Guard
from lovecraft.serve.protocol import model_object, parse
from lovecraft.serve.service import Service
from lovecraft.serve.sse import EventStream, unless_disconnected

MAX_BODY = 4 * 1024 * 1024


def make_app(service: Service, access: Access) -> ASGIApp:
    """Return the application that serves `service` to whom `access` lets in."""
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/completions", complete, methods=["POST"]),
        ],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return Guard(app, service, access)


async def health(request: Request) -> Response:
    """Say whether requests are taken: 200 or 503."""
    status = _service(request).status
    return JSONResponse({"status": status}, 200 if status == "ready" else 503)


async def models(request: Request) -> Response:
    """List the one model."""
    service = _service(request)
    return JSONResponse({"object": "list", "data": [model_object(service.name, service.created)]})


async def model(request: Request) -> Response:
    """Describe the model, if it is called so."""
    service = _service(request)
    service.check_name(request.path_params["name"])
    return JSONResponse(model_object(service.name, service.created))


async def complete(request: Request) -> Response:
    """Continue texts."""
    service = _service(request)
    body = parse(await _read(request))
    service.check_name(body.model)
    choices = await asyncio.to_thread(completions.prepare, service, body)  # a long prompt takes long to tokenize
    reply = completions.start(service, choices)
    if body.stream:
        return EventStream(completions.stream(reply, body.wants_usage), reply.close)
    try:
        done = await unless_disconnected(request.receive, completions.whole(reply))
    finally:
        reply.close()
    return Response() if done is None else JSONResponse(done)


async def _read(request: Request) -> bytes:
    """Return the body. Raises RequestError unless it says that it is JSON, and when it is too long.

    The content type matters: a web page can send other types here without asking the browser's permission.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError("the content type must be application/json", status=415)
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


def _service(request: Request) -> Service:
    return request.app.state.service
