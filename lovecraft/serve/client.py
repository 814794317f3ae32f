"""A client for any server with OpenAI's completion API, as small as it can be."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any

from lovecraft.errors import ServeError

FOREIGN = "is a server with OpenAI's completion API there?"
TIMEOUT = 600  # seconds between two signs of life, as in OpenAI's own clients


def first_model(url: str, key: str = "") -> str:
    """Return the name of the first model that the server lists. Raises ServeError."""
    with _open(url, "models", key) as response:
        try:
            models = json.load(response)["data"]
            return str(models[0]["id"])
        except IndexError:
            raise ServeError(f"{url} lists no model", hint="name one with --model") from None
        except (ValueError, KeyError, TypeError):
            raise ServeError(f"{url} answers, but with no list of models", hint=FOREIGN) from None


def stream(url: str, path: str, body: dict[str, Any], key: str = "") -> Iterator[dict[str, Any]]:
    """Yield the chunks of a streamed reply of `path`. Raises ServeError when it is refused, fails or breaks off."""
    done = False
    with _open(url, path, key, json.dumps({**body, "stream": True}).encode()) as response:
        try:
            for line in response:
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or (done := data == b"[DONE]"):
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise ServeError(f"{url}: {chunk['error'].get('message', chunk['error'])}")
                yield chunk
        except (OSError, HTTPException, ValueError) as error:  # ValueError: half a line of JSON
            raise ServeError(f"{url} broke off: {error}", hint="its log may say why") from None
    if not done:
        raise ServeError(f"{url} broke off in the middle of the text", hint="its log may say why")


def _open(url: str, path: str, key: str, data: bytes | None = None) -> HTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise ServeError(f"{url!r} is not a server's URL", hint="as http://127.0.0.1:8000")
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    try:
        return urllib.request.urlopen(urllib.request.Request(f"{base}/v1/{path}", data, headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            message = _message(error.read(65536))
        hint = "give --api-key-file FILE" if error.code == 401 and not key else "" if message else FOREIGN
        raise ServeError(f"{url}: {error.code}: {message or error.reason}", hint=hint) from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: no host in it
        reason = getattr(error, "reason", error)
        raise ServeError(f"cannot reach {url}: {reason}", hint="is `lc serve` running there?") from None


def _message(body: bytes) -> str:
    """Return what an error's body says; nothing of a web page."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):  # not OpenAI's shape
        text = body.decode(errors="replace").strip()[:200]
        return "" if text.startswith("<") else text
