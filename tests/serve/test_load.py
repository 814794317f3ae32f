"""Thousands of requests of all kinds at once: good, malformed, abandoned. Nothing is 500 and nothing is left behind."""

import asyncio
import json
import os
import random
import string
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from lovecraft.chat_template import ChatTemplate
from lovecraft.serve.app import make_app
from lovecraft.serve.asgi import Access
from lovecraft.tokenizer import Tokenizer
from tests.fake import scripted
from tests.serve.test_chat import ASKED, template  # noqa: F401
from tests.serve.test_metrics import read
from tests.serve.test_protocol import MALFORMED
from tests.serving import MODEL, TEXT, Made, serving

Make = Callable[..., Made]


async def ask(app: ASGIApp, path: str, body: bytes, leaves_after: int | None) -> tuple[int, bytes]:
    """Send a request, and leave after so many messages of the reply; return its status and body."""
    left, sent, status, content = asyncio.Event(), False, 0, b""
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    if leaves_after == 0:
        left.set()

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await left.wait()
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    messages = 0

    async def send(message: Any) -> None:
        nonlocal status, content, messages
        messages += 1
        status = message.get("status", status)
        content += message.get("body", b"")
        if messages == leaves_after:
            left.set()
        await asyncio.sleep(0)

    await app({**scope, "headers": headers}, receive, send)
    return status, content


def requests(count: int) -> Iterator[tuple[str, bytes, int | None]]:
    """Yield requests of all kinds."""
    rng = random.Random(5)
    for _ in range(count):
        kind = rng.random()
        leaves = rng.choice([None, None, 0, 1, 2, 5])
        fields: dict[str, Any] = {"model": MODEL, "max_tokens": rng.choice([1, 5, 40]), "n": rng.choice([1, 1, 2])}
        fields |= {"stream": rng.random() < 0.6, "stop": rng.choice([None, "had", ["er", " t"]])}
        fields |= {"temperature": rng.choice([0, 1, 2]), "seed": rng.randrange(9), "top_k": rng.choice([0, 3])}
        if kind < 0.2:
            yield rng.choice(["/v1/completions", "/tokenize"]), rng.choice(list(MALFORMED.values())), leaves
        elif kind < 0.3:
            broken = {**fields, rng.choice(list(fields)): rng.choice([None, -5, "x", [], {}, 1e300, True])}
            yield "/v1/completions", json.dumps({**broken, "prompt": "so"}).encode(), leaves
        elif kind < 0.6:
            yield "/v1/chat/completions", json.dumps({**fields, "messages": ASKED}).encode(), leaves
        else:
            prompt = rng.choice(["so", "it was", [70, 71], ["a", "b"], "x" * 500, ""])
            yield "/v1/completions", json.dumps({**fields, "prompt": prompt, "echo": kind > 0.9}).encode(), leaves


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mixed_requests_leave_nothing_behind(
    tokenizer: Tokenizer,
    template: ChatTemplate,  # noqa: F811
    count: int,
) -> None:
    files = len(os.listdir("/proc/self/fd"))
    with serving(tokenizer, scripted(tokenizer.encode(TEXT)), template=template, max_queue=100) as made:
        app = make_app(made.service, Access())

        async def run() -> list[tuple[int, bytes]]:
            gate = asyncio.Semaphore(64)

            async def one(path: str, body: bytes, leaves: int | None) -> tuple[int, bytes]:
                async with gate:
                    return await ask(app, path, body, leaves)

            found = await asyncio.gather(*(one(*given) for given in requests(count)))
            await asyncio.sleep(0.05)
            assert len(asyncio.all_tasks()) == 1
            return found

        found = asyncio.run(run())
        assert made.engine.jobs == 0
        numbers = read(made.client())
    statuses = Counter(status for status, _ in found)
    assert statuses.keys() <= {0, 200, 400, 404, 429}
    assert statuses[200] > count / 3
    assert statuses[400] > count / 10
    assert not any(b"internal" in content for _, content in found)
    ended = sum(value for (name, _), value in numbers.items() if name == "request_success_total")
    assert ended >= numbers["e2e_request_latency_seconds_count", f'model_name="{MODEL}"'] > count / 3
    assert len(os.listdir("/proc/self/fd")) <= files


# --- what the schemas allow, and a little more


def from_schema(schema: dict[str, Any], schemas: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values that a schema of /openapi.json allows."""
    if "$ref" in schema:
        return from_schema(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return st.one_of([from_schema(one, schemas) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -5), min(schema.get("maximum", 300), 300))
        case "number":
            return st.floats(schema.get("minimum", 0.01), schema.get("maximum", 100))
        case "string":
            return st.text(string.ascii_letters + " 海\n", max_size=8)
        case "array":
            items = from_schema(schema.get("items", {}), schemas)
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=3)
        case "object" if "properties" in schema:
            needed, fields = schema.get("required", []), schema["properties"]
            optional = {name: from_schema(one, schemas) for name, one in fields.items() if name not in needed}
            return st.fixed_dictionaries({n: from_schema(fields[n], schemas) for n in needed}, optional=optional)
        case "object":
            values = from_schema(schema.get("additionalProperties") or {}, schemas)
            return st.dictionaries(st.integers(0, 400).map(str), values, max_size=2)
    return st.none() | st.integers(0, 300) | st.text(max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_what_the_schemas_allow_is_answered_or_refused_by_name(make: Make, template: ChatTemplate, data: Any) -> None:  # noqa: F811
    client: TestClient = make(template=template).client()
    document = client.get("/openapi.json").json()
    path = data.draw(st.sampled_from([path for path, one in document["paths"].items() if "post" in one]))
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = data.draw(from_schema(schema, document["components"]["schemas"]))
    if "model" in body:
        body["model"] = MODEL
    if "max_tokens" in body:
        body["max_tokens"] = min(body["max_tokens"] or 5, 50)
    response = client.post(path, json=body)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]["param"], response.text
