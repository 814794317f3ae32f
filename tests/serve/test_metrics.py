"""/metrics: the format, and that the numbers add up."""

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from lovecraft.engine.request import Finish, Read, Request
from lovecraft.serve.metrics import COUNTERS, GAUGES, HISTOGRAMS, Metrics
from lovecraft.tokenizer import Tokenizer
from tests.fake import Steps
from tests.serve.test_app import post
from tests.serving import TEXT, Made

Make = Callable[..., Made]
LINE = re.compile(r'lovecraft:(\w+)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)')


def read(client: TestClient) -> dict[tuple[str, str], float]:
    """Return every number by its name and labels, after checking the format."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for line in response.text.splitlines():
        if not line.startswith(("# HELP lovecraft:", "# TYPE lovecraft:")):
            match = LINE.fullmatch(line)
            assert match, line
            found[match[1], match[2]] = float(match[3])
    return found


def test_every_name_is_there_with_its_type(client: TestClient) -> None:
    text = client.get("/metrics").text
    for names, kind in ((GAUGES, "gauge"), (COUNTERS, "counter"), (HISTOGRAMS, "histogram")):
        for name in names:
            assert f"# TYPE lovecraft:{name} {kind}\n" in text


def test_tokens_and_ends_are_counted(client: TestClient, tokenizer: Tokenizer) -> None:
    new = len(tokenizer.encode(TEXT)) + 1
    for fields in ({}, {"stream": True}, {"n": 2, "max_tokens": 3}):
        post(client, **fields)
    found, label = read(client), 'model_name="org/tiny"'
    assert found["generation_tokens_total", label] == 2 * new + 6
    assert found["prompt_tokens_total", label] == 3 * (1 + len(tokenizer.encode("so")))
    assert found["request_success_total", f'{label},finished_reason="stop"'] == 2
    assert found["request_success_total", f'{label},finished_reason="length"'] == 2
    assert found["num_requests_running", label] == found["num_requests_waiting", label] == 0
    assert found["time_to_first_token_seconds_count", label] == 4
    assert found["e2e_request_latency_seconds_count", label] == 3
    assert found["request_generation_tokens_bucket", f'{label},le="+Inf"'] == 3
    assert found["request_generation_tokens_bucket", f'{label},le="8"'] == 1
    assert found["request_generation_tokens_sum", label] == 2 * new + 6


def test_requests_are_counted_by_path_and_status(client: TestClient) -> None:
    post(client)
    post(client, temperature=9)
    client.get("/v1/models/org/tiny")
    client.get("/anything/at/all")
    found = read(client)
    assert found["http_requests_total", 'method="POST",path="/v1/completions",status="200"'] == 1
    assert found["http_requests_total", 'method="POST",path="/v1/completions",status="400"'] == 1
    assert found["http_requests_total", 'method="GET",path="other",status="200"'] == 1
    assert found["http_requests_total", 'method="GET",path="other",status="404"'] == 1


@pytest.mark.parametrize(("code", "corrupted"), [("model_error", 1), ("internal_error", 0)])
def test_failures_are_counted(make: Make, code: str, corrupted: int) -> None:
    def generate(request: Request) -> Steps:
        yield Read(0)
        return Finish("failed", code=code)

    client = make(generate).client()
    post(client)
    found, label = read(client), 'model_name="org/tiny"'
    assert found["request_success_total", f'{label},finished_reason="error"'] == 1
    assert found.get(("corrupted_requests_total", label), 0) == corrupted


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.count("http_requests_total", path='a"b\\c\nd')
    assert 'lovecraft:http_requests_total{path="a\\"b\\\\c\\nd"} 1.0\n' in metrics.text({})


def test_engine_that_makes_no_step_is_unhealthy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lovecraft.serve.service.STUCK_SECONDS", -1)
    made = make()
    client = made.client()
    assert client.get("/health").json() == {"status": "ready"}  # it has nothing to do
    monkeypatch.setattr(type(made.engine), "jobs", 1)
    response = client.get("/health")
    assert (response.status_code, response.json()) == (503, {"status": "stuck"})
