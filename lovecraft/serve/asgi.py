"""The outermost layer: request ids, who may come in, and errors as OpenAI spells them."""

import hashlib
import hmac
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lovecraft.errors import RequestError
from lovecraft.serve.replies import Error, ErrorDetail
from lovecraft.serve.service import Service

log = logging.getLogger(__name__)

OPEN = frozenset({"/", "/health"})
"""Paths that need no key and answer while the model is loading; every other path needs one, known or not."""

PATH = re.compile(r"/|/health|/metrics|/openapi\.json|/(de)?tokenize|/v1/(chat/)?completions|/v1/models")
"""Paths that are counted by themselves; what else people ask for would fill the metrics."""

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

NO_PATH = "there is no such path; /openapi.json describes those there are"

HEADERS: dict[int, dict[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    413: {"connection": "close"},  # the rest of the body is not read
    429: {"retry-after": "1"},
    500: {"x-should-retry": "false"},  # the same request would fail again, at full cost
    503: {"retry-after": "5"},
}


@attrs.frozen
class Access:
    """Who may come in."""

    keys: Sequence[bytes] = ()
    """SHA-256 of each accepted key; none lets everyone in."""

    hosts: frozenset[str] | None = None
    """Names that the Host header may have, against web pages that resolve their own name to this machine; None: any."""


class Guard:
    """Gives every response a request id, and lets in only what `access` allows and `service` can take."""

    def __init__(self, app: ASGIApp, service: Service, access: Access) -> None:
        self._app, self._service, self._access = app, service, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        number = given if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = number

        async def send_numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = number
                path = scope["path"] if PATH.fullmatch(scope["path"]) else "other"
                labels = {"method": scope["method"], "path": path, "status": str(message["status"])}
                self._service.metrics.count("http_requests_total", **labels)
            await send(message)

        refused = self._refusal(scope["path"], headers)
        await (error_response(refused) if refused else self._app)(scope, receive, send_numbered)

    def _refusal(self, path: str, headers: Headers) -> RequestError | None:
        """Decide by the path as it was asked for, never by a URL that is built from the Host header."""
        if self._access.hosts is not None and _host(headers) not in self._access.hosts:
            return RequestError("this server does not answer to that Host", code="host_not_allowed", status=403)
        if path in OPEN:
            return None
        if self._access.keys and not _has_key(headers.get("authorization", ""), self._access.keys):
            return RequestError("the API key is missing or wrong", code="invalid_api_key", status=401)
        if self._service.status != "ready":
            return RequestError(f"the server is {self._service.status}", code="unavailable", status=503)
        return None


def _host(headers: Headers) -> str:
    """Return the Host header's name without its port, in lower case."""
    return re.sub(r":\d+$", "", headers.get("host", "")).lower()


def _has_key(authorization: str, keys: Sequence[bytes]) -> bool:
    """Compare hashes, in constant time, with every key."""
    scheme, _, key = authorization.partition(" ")
    digest = hashlib.sha256(key.strip().encode("latin-1")).digest()  # headers are decoded as latin-1
    matches = [hmac.compare_digest(digest, one) for one in keys]
    return scheme.lower() == "bearer" and any(matches)


# --- errors -----------------------------------------------------------------------------------------


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an object as JSON."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def error_response(error: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as OpenAI's clients read it."""
    return json_response(error_object(error), error.status, {**HEADERS.get(error.status, {}), **(headers or {})})


def error_object(error: RequestError) -> Error:
    """Return OpenAI's error object for an error."""
    kind = "server_error" if error.status >= 500 else KINDS.get(error.status, "invalid_request_error")
    return Error(ErrorDetail(error.message, kind, error.param, error.code))


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer a request that is wrong, or that met a bug of ours: of that not a word, the traceback goes to the log."""
    match error:
        case RequestError():
            return error_response(error)
        case HTTPException():
            detail = (
                "no such path; /openapi.json describes those there are" if error.status_code == 404 else error.detail
            )
            message = f"{request.method} {request.scope['path']}: {detail}"
            return error_response(RequestError(message, status=error.status_code), error.headers)
        case ClientDisconnect():
            return Response(status_code=400)  # nobody reads it
    log.error("request %s failed", request.state.request_id)
    return error_response(RequestError("internal error", code="internal_error", status=500))


HANDLERS = dict.fromkeys((RequestError, HTTPException, ClientDisconnect, Exception), answer_error)
