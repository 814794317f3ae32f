"""The writing page: one file, which asks nobody but this server for anything."""

import base64
import functools
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response


async def page(request: Request) -> Response:
    """Write with the model, in a browser."""
    html, headers = _page()
    return Response(html, headers=headers, media_type="text/html")


@functools.cache
def _page() -> tuple[bytes, dict[str, str]]:
    """Return the page, and headers that let a browser run its own script and style and nothing else."""
    html = files("lovecraft.serve").joinpath("page.html").read_bytes()
    script, style = (_hash(html, tag) for tag in (b"script", b"style"))
    rules = {
        "default-src": "'none'",
        "script-src": script,
        "style-src": style,
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return html, {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in rules.items()),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }


def _hash(html: bytes, tag: bytes) -> str:
    [content] = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
