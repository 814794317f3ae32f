"""The description of the API, made of the types that are parsed and written."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import attrs
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lovecraft.serve.replies import Error

Handler = Callable[[Request], Awaitable[Response]]


@attrs.frozen
class Endpoint:
    """A path, what it takes and what it replies."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    body: type[msgspec.Struct] | None
    reply: type[msgspec.Struct] | str | None
    """A type, the media type of what is not JSON, or none of any JSON."""

    event: type[msgspec.Struct] | None = None
    """Of a stream of these."""


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI document."""
    kinds = [kind for one in endpoints for kind in (one.body, one.reply, one.event) if isinstance(kind, type)]
    _, schemas = msgspec.json.schema_components([*kinds, Error], ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for one in endpoints:
        paths.setdefault(one.path.replace(":path", ""), {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lovecraft", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _operation(one: Endpoint) -> dict[str, Any]:
    content = {one.reply: {}} if isinstance(one.reply, str) else {"application/json": _content(one.reply)}
    if one.event:
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-event": _content(one.event)["schema"]}
    error = {"description": "What is wrong.", "content": {"application/json": _content(Error)}}
    found: dict[str, Any] = {
        "operationId": one.handler.__name__,
        "summary": str(one.handler.__doc__).partition("\n")[0],
        "responses": {"200": {"description": "Done.", "content": content}, "default": error},
    }
    if names := re.findall(r"\{(\w+)", one.path):
        found["parameters"] = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    if one.body:
        found["requestBody"] = {"required": True, "content": {"application/json": _content(one.body)}}
    return found


def _content(kind: type[msgspec.Struct] | None) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"} if kind else {}}
