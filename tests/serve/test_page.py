"""The writing page: one file that asks only its own server, under rules that let nothing else run."""

import base64
import hashlib
import re
from collections.abc import Callable

from starlette.testclient import TestClient

from tests.serving import Made


def test_page_needs_no_key(make: Callable[..., Made]) -> None:
    made = make()
    response = made.client(keys=["sesame"]).get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert 'id="story"' in response.text
    assert "sesame" not in response.text


def test_page_is_there_while_the_model_is_loading(make: Callable[..., Made]) -> None:
    made = make()
    made.service.served = {}
    assert made.client().get("/").status_code == 200
    assert made.client().get("/v1/models").status_code == 503


def test_page_takes_no_other_method(client: TestClient) -> None:
    assert client.post("/").status_code == 405


def test_only_its_own_script_and_style_may_run(client: TestClient) -> None:
    response = client.get("/")
    rules = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == "'self'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r" (style|on\w+)=", response.text), "which the rules forbid"


def test_page_names_no_other_place(client: TestClient) -> None:
    text = client.get("/").text
    assert "http" not in text
    assert "innerHTML" not in text, "texts are never read as HTML"
    assert not re.search(r"keep\(.?key", text), "the key stays in memory"
