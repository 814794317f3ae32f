"""The description of the API: valid, and what requests and replies look like."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from lovecraft.chat_template import ChatTemplate
from lovecraft.serve.app import ENDPOINTS
from tests.serve.test_chat import ASKED, template  # noqa: F401
from tests.serve.test_logprobs import scoring
from tests.serving import Made


@pytest.fixture
def client(make: Callable[..., Made], template: ChatTemplate) -> TestClient:  # noqa: F811
    return make(scoring([70, 71]), template=template).client()


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def fits(document: dict[str, Any], name: str, value: object) -> None:
    """Check a value by one of the document's schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def test_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_path_is_described(document: dict[str, Any]) -> None:
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == {(one.path.replace(":path", ""), one.method) for one in ENDPOINTS}
    assert all(found["summary"].endswith(".") for methods in document["paths"].values() for found in methods.values())


@pytest.mark.parametrize("fields", [{}, {"logprobs": 2, "echo": True}, {"n": 2, "max_tokens": 3}])
def test_replies_are_as_described(client: TestClient, document: dict[str, Any], fields: dict[str, Any]) -> None:
    body = {"model": "org/tiny", "prompt": "so", **fields}
    fits(document, "CompletionRequest", body)
    fits(document, "Completion", client.post("/v1/completions", json=body).json())
    stream = client.post("/v1/completions", json={**body, "stream": True}).text
    for frame in stream.removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]:
        fits(document, "Completion", json.loads(frame.removeprefix("data: ")))


def test_chats_are_as_described(client: TestClient, document: dict[str, Any]) -> None:
    body = {"model": "org/tiny", "messages": ASKED, "logprobs": True, "top_logprobs": 2, "max_tokens": 3}
    fits(document, "ChatRequest", body)
    fits(document, "ChatCompletion", client.post("/v1/chat/completions", json=body).json())
    stream = client.post("/v1/chat/completions", json={**body, "stream": True}).text
    for frame in stream.removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]:
        fits(document, "ChatCompletionChunk", json.loads(frame.removeprefix("data: ")))


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("Health", "/health", None),
        ("Models", "/v1/models", None),
        ("Model", "/v1/models/org/tiny", None),
        ("Error", "/v1/models/none", None),
        ("Error", "/nowhere", None),
        ("Tokens", "/tokenize", {"prompt": "so"}),
        ("Prompt", "/detokenize", {"tokens": [70]}),
    ],
)
def test_the_rest_is_as_described(
    client: TestClient, document: dict[str, Any], name: str, path: str, body: Any
) -> None:
    fits(document, name, (client.post(path, json=body) if body else client.get(path)).json())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("CompletionRequest", {"temperature": 3}),
        ("CompletionRequest", {"logprobs": 21}),
        ("CompletionRequest", {"n": 0}),
        ("CompletionRequest", {"logit_bias": {"5": 101}}),
        ("ChatRequest", {"messages": []}),
        ("ChatRequest", {"messages": [{"role": "tool", "content": "a"}]}),
    ],
)
def test_limits_are_in_the_schemas(document: dict[str, Any], name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        fits(document, name, {"model": "m", "prompt": "so", "messages": ASKED, **fields})
