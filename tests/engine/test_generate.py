from pathlib import Path

import attrs
import pytest
import torch

from lovecraft.engine import generate as module
from lovecraft.engine.generate import Slot, events, load, rolled
from lovecraft.engine.request import Finish, Read, Request, SamplingParams
from lovecraft.errors import ConfigError, ModelError
from lovecraft.models.kv_cache import KVCache
from lovecraft.models.llama import Llama
from tests.tiny import tiny_model_dir

GREEDY = SamplingParams(temperature=0)
PROMPT = tuple(range(2, 22))


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Llama:
    return load(model_dir, device="cpu", dtype="float32", max_context=None)[0]


def slot(model: Llama, context: int = 64) -> Slot:
    return Slot(KVCache(model.architecture, 1, context, torch.float32, torch.device("cpu"), model.windows()))


@attrs.frozen
class Run:
    tokens: list[int]
    reads: list[int]
    finish: Finish


def run(model: Llama, place: Slot, request: Request) -> Run:
    found = list(events(model, place, request))
    tokens = [event for event in found if isinstance(event, int)]
    return Run(tokens, [event.cached for event in found if isinstance(event, Read)], found[-1])


def recompute(model: Llama, ids: tuple[int, ...], count: int) -> list[int]:
    """Continue greedily without a cache."""
    text = list(ids)
    for _ in range(count):
        with torch.inference_mode():
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    return text[len(ids) :]


def test_greedy_equals_transformers(model_dir: Path, model: Llama) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    ids = theirs.generate(torch.tensor([PROMPT]), do_sample=False, max_new_tokens=30, pad_token_id=1)[0]
    ours = run(model, slot(model), Request(PROMPT, 30, GREEDY, stop_ids=frozenset({1}))).tokens
    assert ours == ids[len(PROMPT) :].tolist()
    assert len(ours) > 10


def test_dynamic_scaling_equals_transformers_whatever_was_asked_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    dynamic = {"rope_type": "dynamic", "factor": 4.0}
    path = tiny_model_dir(tmp_path / "model", max_position_embeddings=32, rope_scaling=dynamic)
    model, place = load(path, device="cpu", dtype="float32", max_context=None)
    assert place.context == 128
    for tokens in (20, 70, 40):  # within the context trained on, far beyond, a part of that
        prompt = tuple(range(2, 2 + tokens))
        theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        ids = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=30, pad_token_id=1)[0]
        ours = run(model, place, Request(prompt, 30, GREEDY, stop_ids=frozenset({1}))).tokens
        assert ours == ids[tokens:].tolist()


@pytest.mark.parametrize("chunk", [1, 7, 19, 20])
def test_prompt_read_in_chunks_gives_the_same(model: Llama, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", chunk)
    assert run(model, slot(model), Request(PROMPT, 10, GREEDY)).tokens == recompute(model, PROMPT, 10)


def test_whole_chunks_that_the_slot_holds_are_not_read_again(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    place = slot(model)
    first = run(model, place, Request(PROMPT, 10, GREEDY))
    longer = (*PROMPT, *first.tokens[:4], 5)
    second = run(model, place, Request(longer, 8, GREEDY))
    assert (first.reads, second.reads) == ([0], [16])
    assert second.tokens == recompute(model, longer, 8)
    assert run(model, place, Request(PROMPT, 10, GREEDY)) == Run(first.tokens, [16], Finish("length"))


def test_a_hidden_state_does_not_depend_on_the_request_before(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    states: list[torch.Tensor] = []
    draw = module._draw

    def noting(model: Llama, hidden: torch.Tensor, *rest: object) -> int:
        states.append(hidden)
        return draw(model, hidden, *rest)

    monkeypatch.setattr(module, "_draw", noting)
    fresh, used = slot(model), slot(model)
    longer = (*PROMPT, *run(model, used, Request(PROMPT, 10, GREEDY)).tokens[:5])
    states.clear()
    run(model, used, Request(longer, 3, GREEDY))
    run(model, fresh, Request(longer, 3, GREEDY))
    assert all(torch.equal(a, b) for a, b in zip(states[:3], states[3:], strict=True))


def test_cancelling_between_steps_leaves_a_usable_slot(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    place = slot(model)
    for steps in (1, 2, 5):
        started = events(model, place, Request(PROMPT, 10, GREEDY))
        for _ in range(steps):
            next(started)
        started.close()
        assert len(place.ids) == place.cache.length
    assert run(model, place, Request(PROMPT, 10, GREEDY)).tokens == recompute(model, PROMPT, 10)


def test_error_in_the_middle_of_a_step_leaves_a_usable_slot(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    place = slot(model)
    started = events(model, place, Request(PROMPT, 10, GREEDY))
    assert isinstance(next(started), Read)
    next(started)
    monkeypatch.setattr(type(model.model.norm), "forward", lambda self, h: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(started)
    monkeypatch.undo()
    assert run(model, place, Request(PROMPT, 10, GREEDY)).tokens == recompute(model, PROMPT, 10)


def test_stop_id_ends_and_is_the_last_token(model: Llama) -> None:
    plain = recompute(model, PROMPT, 10)
    at = next(i for i, token in enumerate(plain) if i > 2 and token not in plain[:i])
    found = run(model, slot(model), Request(PROMPT, 10, GREEDY, frozenset({plain[at]})))
    assert (found.tokens, found.finish) == (plain[: at + 1], Finish("stop"))


def test_context_ends_a_request_that_does_not_roll(model: Llama) -> None:
    found = run(model, slot(model, 24), Request(PROMPT, 10, GREEDY))
    assert found.tokens == recompute(model, PROMPT, 5)  # the fifth is drawn from a full context
    assert found.finish == Finish("length")


def test_rolling_goes_on_over_the_head_and_the_newest_half(model: Llama) -> None:
    found = run(model, slot(model, 24), Request(PROMPT, 40, GREEDY, roll=True))
    text = list(PROMPT)
    window = list(PROMPT)
    for _ in range(40):
        if len(window) > 24:
            window = [*window[:3], *window[-13:]]  # an eighth, and the newest half with the token after it
        token = recompute(model, tuple(window), 1)[0]
        window.append(token)
        text.append(token)
    assert found.tokens == text[20:]
    assert found.reads == [0, 0, 0, 0, 0]
    assert found.finish == Finish("length")


def test_rolled_keeps_a_short_prompt_whole() -> None:
    assert rolled(range(64), 2, 64) == [0, 1, *range(32, 64)]
    assert rolled(range(64), 30, 64) == [*range(8), *range(32, 64)]


def test_rolled_ids_that_are_more_than_a_context_leave_room_in_it() -> None:
    assert rolled(range(100), 100, 64) == [*range(8), *range(68, 100)]
    assert rolled(range(100), 100, 2) == [99]


def test_same_seed_same_text_whatever_the_slot_holds(model: Llama) -> None:
    request = Request(PROMPT, 20, SamplingParams(1.0, seed=5))
    place = slot(model)
    first = run(model, place, request)
    assert run(model, place, request).tokens == first.tokens == run(model, slot(model), request).tokens
    assert run(model, place, Request(PROMPT, 20, SamplingParams(1.0, seed=6))).tokens != first.tokens


def test_ids_beyond_the_vocabulary_are_never_drawn(model: Llama) -> None:
    found = events(model, slot(model), Request(PROMPT, 40, SamplingParams(2.0)), vocabulary=30)
    assert all(event < 30 for event in found if isinstance(event, int))


def test_logits_that_are_not_finite_are_an_error(model_dir: Path) -> None:
    broken, place = load(model_dir, device="cpu", dtype="float32", max_context=None)
    with torch.no_grad():
        broken.model.norm.weight[5] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        list(events(broken, place, Request(PROMPT, 3)))


def test_max_context_can_only_be_lowered(model_dir: Path) -> None:
    assert load(model_dir, device="cpu", dtype="float32", max_context=40)[1].context == 40
    with pytest.raises(ConfigError, match=r"max_context is 65.* 64 tokens"):
        load(model_dir, device="cpu", dtype="float32", max_context=65)
