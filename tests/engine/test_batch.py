from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovecraft.engine import batch as module
from lovecraft.engine.batch import Batch, Slot, events, rolled
from lovecraft.engine.generate import load
from lovecraft.engine.request import Event, Finish, Read, Request, SamplingParams, Scored
from lovecraft.models.kv_cache import KVCache
from lovecraft.models.llama import Llama
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import tiny_model_dir

GREEDY = SamplingParams(temperature=0)
PROMPT = tuple(range(2, 22))


@pytest.fixture(scope="module")
def model(model_dir: Path, tokenizer: Tokenizer) -> Llama:
    return load(model_dir, tokenizer, device="cpu", dtype="float32", max_context=None)._model


def slot(model: Llama, context: int = 64) -> Slot:
    return Slot(KVCache(model.architecture, 1, context, torch.float32, torch.device("cpu"), model.windows()))


@attrs.frozen
class Run:
    tokens: list[int]
    reads: list[int]
    finish: Finish


def run(model: Llama, place: Slot, request: Request) -> Run:
    found = [event for event in events(Batch(model, [place]), request) if event is not None]
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
    batch = load(path, load_tokenizer(path), device="cpu", dtype="float32", max_context=None)
    model, [place] = batch._model, batch._slots
    assert batch.context == 128
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
    logits = Batch._logits

    def noting(batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
        states.append(hidden)
        return logits(batch, hidden)

    monkeypatch.setattr(Batch, "_logits", noting)
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
        started = events(Batch(model, [place]), Request(PROMPT, 10, GREEDY))
        for _ in range(steps):
            next(started)
        started.close()
        assert len(place.ids) == place.cache.length
    assert run(model, place, Request(PROMPT, 10, GREEDY)).tokens == recompute(model, PROMPT, 10)


def test_error_in_the_middle_of_a_step_leaves_a_usable_slot(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    place = slot(model)
    started = events(Batch(model, [place]), Request(PROMPT, 10, GREEDY))
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
    found = events(Batch(model, [slot(model)], vocabulary=30), Request(PROMPT, 40, SamplingParams(2.0)))
    assert all(event < 30 for event in found if isinstance(event, int))


def test_a_rolled_half_begins_with_a_sentence() -> None:
    assert rolled(range(64), 8, 64, breaks={40, 45, 60}) == [*range(8), *range(41, 64)]
    assert rolled(range(64), 8, 64, breaks={20, 60}) == [*range(8), *range(32, 64)]


def batch_of(model: Llama, slots: int = 3, context: int = 64, **options: object) -> Batch:
    return Batch(model, [slot(model, context) for _ in range(slots)], **options)


def together(batch: Batch, requests: list[Request], delays: list[int] | None = None) -> list[list[Event]]:
    """Run requests side by side, each from the step on that `delays` says, or when a slot is free."""
    waiting = sorted(zip(delays or [0] * len(requests), range(len(requests)), strict=True))
    names: dict[object, int] = {}
    found: list[list[Event]] = [[] for _ in requests]
    step = 0
    while waiting or names:
        while waiting and waiting[0][0] <= step and len(names) < batch.slots:
            number = waiting.pop(0)[1]
            names[batch.add(requests[number])] = number
        for _, act in batch.work():
            for one, event in act():
                found[names[one]].append(event)
                if isinstance(event, Finish):
                    batch.drop(one)
                    del names[one]
        step += 1
    return found


def bare(events: list[Event]) -> list[Event]:
    """Leave out what the cache held, which depends on who came before."""
    return [attrs.evolve(event, cached=0) if isinstance(event, Read) else event for event in events]


REQUESTS = st.builds(
    Request,
    st.lists(st.integers(2, 9), min_size=1, max_size=23).map(tuple),
    st.integers(1, 12),
    st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 1.0]),
        top_p=st.sampled_from([1.0, 0.9]),
        seed=st.integers(0, 99),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        frequency_penalty=st.sampled_from([0.0, 0.5]),
        logit_bias=st.dictionaries(st.integers(2, 99), st.just(3.0), max_size=2),
    ),
    st.sets(st.integers(2, 40), max_size=3).map(frozenset),
    roll=st.booleans(),
    min_tokens=st.integers(0, 3),
    logprobs=st.sampled_from([None, 0, 2]),
    score_prompt=st.booleans(),
)


@pytest.fixture(scope="module", params=["float32", "bfloat16", "qwen3", "mistral"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    dtype = "bfloat16" if request.param == "bfloat16" else "float32"
    changes = {"family": request.param} if request.param in ("qwen3", "mistral") else {}
    if request.param == "mistral":
        changes["sliding_window"] = 9
    path = tiny_model_dir(tmp_path_factory.mktemp("packed"), max_position_embeddings=64, **changes)
    return load(path, load_tokenizer(path), device="cpu", dtype=dtype, max_context=None)._model


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.tuples(REQUESTS, st.integers(0, 6)), min_size=2, max_size=5))
def test_a_request_never_depends_on_its_neighbours(packed: Llama, asked: list[tuple[Request, int]]) -> None:
    dtype = packed.head.dtype
    module.PREFILL_CHUNK = 8

    def new(slots: int) -> Batch:
        shape = (packed.architecture, 1, 24, dtype, torch.device("cpu"), packed.windows())
        return Batch(packed, [Slot(KVCache(*shape)) for _ in range(slots)], vocabulary=100, breaks={3})

    try:
        alone = [together(new(1), [request])[0] for request, _ in asked]
        found = together(new(3), *map(list, zip(*asked, strict=True)))
    finally:
        module.PREFILL_CHUNK = 512
    assert [bare(one) for one in found] == [bare(one) for one in alone]


def test_the_oldest_prompt_is_read_first_and_decoding_goes_on(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    batch = batch_of(model)
    quick, long, short = (batch.add(Request(PROMPT[-n:], 20, GREEDY)) for n in (8, 20, 4))
    steps = [[ones for ones, act in batch.work() if act() is not None] for _ in range(5)]
    assert steps == [
        [[quick]],
        [[quick], [long]],
        [[quick], [long]],
        [[quick], [long], [short]],
        [[quick, long, short]],
    ]


def test_a_prompt_that_another_slot_has_read_is_copied(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    found = together(batch_of(model), [Request(PROMPT, 6, GREEDY)] * 3)
    assert [one[0] for one in found] == [Read(0), Read(16), Read(16)]
    assert all([*one[1:]] == [*recompute(model, PROMPT, 6), Finish("length")] for one in found)


def test_a_row_that_is_not_finite_fails_alone(model: Llama) -> None:
    class Breaking(Batch):
        def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = super()._logits(hidden)
            if len(logits) == 3:
                logits[1] = float("nan")
            return logits

    batch = Breaking(model, [slot(model) for _ in range(3)])
    found = together(batch, [Request(PROMPT, 5, GREEDY)] * 3)
    assert [one[-1].reason for one in found] == ["length", "failed", "length"]
    assert "not finite" in found[1][-1].message
    assert all(one[1:-1] == recompute(model, PROMPT, 5) for one in (found[0], found[2]))
    assert together(batch, [Request(PROMPT, 5, GREEDY)])[0][-1] == Finish("length")


def test_dropping_frees_the_slot_at_once(model: Llama) -> None:
    batch = batch_of(model, slots=1)
    for _ in range(3):
        one = batch.add(Request(PROMPT, 50, GREEDY))
        next(batch.work())[1]()
        batch.drop(one)
        batch.drop(one)
        assert batch.usage == 0
        assert list(batch.work()) == []


def test_scores_of_a_prompt_and_its_continuation(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    monkeypatch.setattr(module, "SCORED_ROWS", 3)
    request = Request(PROMPT, 4, GREEDY, logprobs=2, score_prompt=True)
    read, *tokens, finish = together(batch_of(model), [request])[0]
    ids = [*PROMPT, *recompute(model, PROMPT, 4)]
    with torch.inference_mode():
        logs = model(torch.tensor([ids]))[0].float().log_softmax(-1)
    scored = [*read.scores, *tokens]
    assert finish == Finish("length")
    assert [one.token for one in scored] == ids[1:]
    for row, one in zip(logs, scored, strict=False):
        assert one.logprob == pytest.approx(float(row[one.token]), abs=1e-4)
        assert [token for token, _ in one.top] == row.topk(2).indices.tolist()
    assert all(isinstance(one, Scored) for one in tokens)


def test_a_prompt_can_be_scored_alone_and_is_read_anew_for_it(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFILL_CHUNK", 8)
    batch = batch_of(model, slots=1)
    together(batch, [Request(PROMPT, 3, GREEDY)])
    [[read, finish]] = together(batch, [Request(PROMPT, 0, score_prompt=True)])
    assert (read.cached, len(read.scores), finish) == (0, len(PROMPT) - 1, Finish("length"))
    assert all(one.top == () for one in read.scores)


def test_no_stop_before_the_least_number_of_tokens(model: Llama) -> None:
    stops = frozenset(recompute(model, PROMPT, 3))
    assert len(run(model, slot(model), Request(PROMPT, 10, GREEDY, stops)).tokens) == 1
    found = run(model, slot(model), Request(PROMPT, 10, GREEDY, stops, min_tokens=4))
    assert not stops & set(found.tokens[:4])
    assert len(found.tokens) >= 4


def test_penalties_know_the_prompt_and_the_continuation_apart(model: Llama) -> None:
    first = recompute(model, PROMPT, 1)[0]

    def tokens(ids: tuple[int, ...], **rules: float) -> list[int]:
        return run(model, slot(model), Request(ids, 8, SamplingParams(0, **rules))).tokens

    assert tokens(PROMPT, presence_penalty=2.0, frequency_penalty=2.0)[0] == first  # the prompt does not count
    often = tokens(PROMPT, frequency_penalty=-2.0)
    assert often[1:] == [first] * 7 or len(set(often)) < 8
    never = tokens(PROMPT, repetition_penalty=1e9)
    assert not set(never) & set(PROMPT)
    assert len(set(never)) == 8


def test_a_long_rolled_text_takes_no_more_memory(model: Llama) -> None:
    batch = batch_of(model, slots=2, context=24)
    sizes = [sum(store.data.nbytes for store in one.cache.stores) for one in batch._slots]
    [long, short] = together(batch, [Request(PROMPT, 400, GREEDY, roll=True), Request(PROMPT[:3], 5, GREEDY)])
    assert sum(isinstance(event, int) for event in long) == 400
    assert sum(isinstance(event, Read) for event in long) > 30
    assert short[1:-1] == recompute(model, PROMPT[:3], 5)
    assert sizes == [sum(store.data.nbytes for store in one.cache.stores) for one in batch._slots]
