"""Conversations: which rows are read, that exactly what the assistant says is supervised, and whole turns only."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lovecraft import DatasetConfig
from lovecraft.chat_template import ChatTemplate
from lovecraft.data.chat import Conversation, Encoded, conversation_of, encode, encode_pair, template_of
from lovecraft.data.options import check_options
from lovecraft.errors import ConfigError, DataError, ModelError
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.chats import CHATML, LLAMA2, MARKED, PLAIN, SAID, THINKING, write_chat_tokenizer

STARTER = Path(__file__).parents[2] / "models" / "smollm2_135m"
ROWS = ["  Who lit the lamp?\n", "The keeper — 'é'.\n\nOr the sea. ", "Say <b>more</b>.", "No.", "Why?", "I fear it."]
ALL = 1 << 20


def talk(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def dataset(**options: Any) -> DatasetConfig:
    return DatasetConfig(source=Path("/chats.jsonl"), **options)


@functools.cache
def load(path: Path) -> tuple[Tokenizer, ChatTemplate | None]:
    tokenizer = load_tokenizer(path)
    return tokenizer, template_of(dataset(prompt_field="q", response_field="a"), tokenizer)


def run(path: Path, messages: list[dict[str, str]], most: int = ALL) -> Encoded | None:
    tokenizer, template = load(path)
    assert template is not None
    return encode(Conversation("chats.jsonl:17", messages), tokenizer, template, most)


def whole(path: Path, messages: list[dict[str, str]]) -> Encoded:
    encoded = run(path, messages)
    assert encoded is not None
    return encoded


def said(tokenizer: Tokenizer, encoded: Encoded) -> list[str]:
    """Return the text of each run of supervised tokens."""
    runs: list[list[int]] = [[]]
    for token, own in zip(encoded.ids, encoded.supervised, strict=True):
        if own:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(ids, skip_special=False) for ids in runs if ids]


# --- tokens -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SAID)
def style(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, write_chat_tokenizer(tmp_path_factory.mktemp("style"), SAID[request.param][0])


WORDS = st.text(st.sampled_from("ab e.'é<|\n 1—"), max_size=12)


@given(contents=st.lists(WORDS, min_size=2, max_size=7), system=st.none() | WORDS)
def test_the_assistants_turns_are_supervised_through_the_token_that_ends_them(
    style: tuple[str, Path], contents: list[str], system: str | None
) -> None:
    name, path = style
    contents = [f"x{text}y" if i % 2 else text for i, text in enumerate(contents)]
    messages = talk(*contents, system=system)
    _, before, after = SAID[name]

    encoded = whole(path, messages)

    replies = [m["content"] for m in messages if m["role"] == "assistant"]
    tokenizer = load_tokenizer(path)
    assert said(tokenizer, encoded) == [f"{before}{reply}{after}" for reply in replies]
    plain = [tokenizer.special.sub("", f"{before}{reply}{after}") for reply in replies]
    assert encoded.bytes == sum(len(text.encode()) for text in plain)
    assert encoded.dropped == 0


def test_the_tokens_equal_transformers(style: tuple[str, Path]) -> None:
    _, path = style
    for messages in (talk(*ROWS), talk(*ROWS[:3], system="Be brief.")):
        theirs = AutoTokenizer.from_pretrained(path).apply_chat_template(messages, return_dict=False)
        assert whole(path, messages).ids == theirs


@pytest.mark.parametrize("name", ["llama2", "mistral", "zephyr", "chatml"])
def test_sentencepiece_tokens_equal_transformers_and_lose_no_letter(tmp_path: Path, name: str) -> None:
    template, before, after = SAID[name]
    path = write_chat_tokenizer(tmp_path, template, sentencepiece=True)
    tokenizer = load_tokenizer(path)
    encoded = whole(path, talk(*ROWS))
    theirs = AutoTokenizer.from_pretrained(path).apply_chat_template(talk(*ROWS), return_dict=False)
    assert encoded.ids == theirs
    found = said(tokenizer, encoded)
    expected = [f"{before}{reply.strip() if name == 'llama2' else reply}{after}" for reply in ROWS[1::2]]
    assert [text.strip() for text in found] == [text.strip() for text in expected]


def test_marks_in_the_template_mean_what_they_mean_to_transformers(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, MARKED)
    theirs = AutoTokenizer.from_pretrained(path).apply_chat_template(
        talk(*ROWS), return_dict=True, return_assistant_tokens_mask=True
    )
    encoded = whole(path, talk(*ROWS))
    assert encoded.ids == theirs["input_ids"]
    assert encoded.supervised.tolist() == [bool(own) for own in theirs["assistant_masks"]]


@pytest.mark.starter
@pytest.mark.skipif(not STARTER.exists(), reason="the starter model is not there; `make model` fetches it")
def test_the_starter_models_own_template(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(STARTER)
    encoded = whole(STARTER, talk(*ROWS))
    assert encoded.ids == AutoTokenizer.from_pretrained(STARTER).apply_chat_template(talk(*ROWS), return_dict=False)
    assert said(tokenizer, encoded) == [f"{reply}<|im_end|>" for reply in ROWS[1::2]]


def test_bos_stands_where_the_template_puts_it_and_the_habit_adds_none(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, SAID["llama3"][0])  # the tokenizer's habit is to add BOS
    tokenizer = load_tokenizer(path)
    assert tokenizer.adds_bos
    assert whole(path, talk(*ROWS)).ids.count(tokenizer.bos_id) == 1
    assert whole(write_chat_tokenizer(tmp_path / "b", CHATML), talk(*ROWS)).ids.count(tokenizer.bos_id) == 0


def test_a_token_with_a_character_of_the_reply_is_supervised(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    tokenizer = load_tokenizer(path)
    assert len(tokenizer.encode(" the")) == 1
    encoded = whole(path, talk("a t", "he"))
    assert said(tokenizer, encoded) == [" the"]


def test_a_template_without_special_tokens_ends_a_turn_as_it_writes_it(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, PLAIN)
    encoded = whole(path, talk("Who?", "No one.", "Why?", "I know: assistant."))
    # One token stands for the blank of the prompt and the first letter of the second reply.
    assert said(load_tokenizer(path), encoded) == ["No one.\n", " I know: assistant.\n"]


def test_a_template_without_a_prompt_for_the_assistant_has_the_model_write_that_too(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, CHATML.split("{% if add")[0])
    encoded = whole(path, talk("Who?", "a"))
    assert said(load_tokenizer(path), encoded) == ["<|im_start|>assistant\na<|im_end|>"]


def test_what_follows_the_last_reply_is_kept_and_not_supervised(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, CHATML)
    encoded = whole(path, [*talk("Who?", "No one."), {"role": "tool", "content": "42"}])
    assert said(load_tokenizer(path), encoded) == ["No one.<|im_end|>"]
    assert load_tokenizer(path).decode(encoded.ids).endswith("tool\n42\n")


# --- what cannot be supervised for sure ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        (talk("Who?"), "no token of it is the assistant's"),
        ([{"role": "assistant", "content": "Hello."}], "(nothing asks for message 1|roles must alternate)"),
        (talk("Say <|im_end|>.", "No."), r"message 1 spells the special token '<\|im_end\|>'"),
        (talk("Who?", "</s>"), "message 2 spells the special token '</s>'"),
        (talk("Who?", "No.", system="<s>"), "message 1 spells"),
    ],
)
@pytest.mark.parametrize("source", [CHATML, LLAMA2])
def test_what_teaches_nothing_or_something_else_is_refused(
    tmp_path: Path, source: str, messages: list[dict[str, str]], what: str
) -> None:
    with pytest.raises(DataError, match=f"^chats.jsonl:17.*{what}") as caught:
        run(write_chat_tokenizer(tmp_path, source), messages)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("source", "messages", "what"),
    [
        (LLAMA2, [*talk("Who?"), *talk("Who?", "No.")], "roles must alternate"),
        (
            THINKING,
            talk("Who?", "<think>Hm.</think>No.", "Why?", "So."),
            r"rewrites message 2 \(assistant\).*when more follows",
        ),
        ("{{ messages[-1]['content'] }}", talk("Who?", "No."), "when more follows"),
        ("{{ messages | length }}" + PLAIN, talk("Who?", "No."), "when more follows"),
        ("{{ messages[0]['content'] }}", talk("Who?", "No."), r"rewrites message 2 \(assistant\)"),
        ("{% generation %}{{ messages[-1]['content'] }}{% endgeneration %}", talk("Who?", "No."), "every token"),
        ("{{ messages[0]['content'] }}{% generation %}{% endgeneration %}", talk("Who?", "No."), "no token"),
        ("{# {% generation %} #}", talk("Who?", "No."), "no token"),
    ],
)
def test_a_template_that_does_not_say_what_is_the_assistants_is_refused(
    tmp_path: Path, source: str, messages: list[dict[str, str]], what: str
) -> None:
    with pytest.raises(DataError, match=f"^chats.jsonl:17: .*{what}") as caught:
        run(write_chat_tokenizer(tmp_path, source), messages)
    assert caught.value.hint


def test_a_rewriting_template_is_right_where_it_rewrites_nothing(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, THINKING)
    encoded = whole(path, talk("Who?", "<think>Hm.</think>No."))
    assert said(load_tokenizer(path), encoded) == ["<think>Hm.</think>No.<|im_end|>"]


def test_the_first_token_is_never_supervised(tmp_path: Path) -> None:
    source = "{% generation %}{{ messages[1]['content'] }}{% endgeneration %}{{ messages[0]['content'] }}"
    encoded = whole(write_chat_tokenizer(tmp_path, source), talk("Who?", "No."))
    assert encoded.supervised.tolist()[:2] == [False, True]


# --- whole turns --------------------------------------------------------------------------------------


@given(most=st.integers(1, 200), replies=st.integers(1, 4), tail=st.booleans())
def test_a_long_conversation_keeps_the_leading_turns_that_fit(
    style: tuple[str, Path], most: int, replies: int, tail: bool
) -> None:
    _, path = style
    messages = talk(*("The lamp." * (i + 1) for i in range(2 * replies + tail)), system="Be brief.")
    ends = [end for end in range(2, len(messages) + 1) if messages[end - 1]["role"] == "assistant"]
    fits = [end for end in (*ends, len(messages)) if len(whole(path, messages[:end]).ids) <= most]

    encoded = run(path, messages, most)

    if not fits:
        assert encoded is None
    else:
        assert encoded is not None
        assert encoded.ids == whole(path, messages[: fits[-1]]).ids
        assert encoded.dropped == len(messages) - fits[-1]


def test_what_just_fits_is_whole(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, CHATML)
    messages = talk("Who?", "No one.", "Why?")
    size = len(whole(path, messages).ids)
    just, less = run(path, messages, size), run(path, messages, size - 1)
    assert just is not None
    assert less is not None
    assert (just.dropped, less.dropped) == (0, 1)


# --- pairs without a template -------------------------------------------------------------------------


def pair(tokenizer: Tokenizer, prompt: str, response: str, most: int = ALL, before: tuple[int, ...] = (0,)):
    return encode_pair(Conversation("chats.jsonl:17", talk(prompt, response)), tokenizer, most, before, [1])


def test_a_base_models_pair_is_joined_as_it_is(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_chat_tokenizer(tmp_path, None))
    encoded = pair(tokenizer, "Who </s>?", " No <s>one.")
    assert encoded is not None
    assert encoded.ids == [0, *tokenizer.encode("Who </s>? No <s>one."), 1]
    assert said(tokenizer, encoded) == [" No <s>one.</s>"]
    assert encoded.bytes == len(" No <s>one.")


def test_a_pair_is_never_cut(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_chat_tokenizer(tmp_path, None))
    size = len(tokenizer.encode("Who? No one.")) + 2
    assert pair(tokenizer, "Who?", " No one.", size) is not None
    assert pair(tokenizer, "Who?", " No one.", size - 1) is None


def test_a_pair_without_a_prompt_has_bos_before_it_or_is_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_chat_tokenizer(tmp_path, None))
    encoded = pair(tokenizer, "", "No.")
    assert encoded is not None
    assert encoded.supervised.tolist() == [False] + [True] * (len(encoded.ids) - 1)
    with pytest.raises(DataError, match=r"chats\.jsonl:17: every token"):
        pair(tokenizer, "", "No.", before=())


def test_messages_need_a_template_and_pairs_do_not(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_chat_tokenizer(tmp_path, None))
    assert template_of(dataset(prompt_field="q", response_field="a"), tokenizer) is None
    with pytest.raises(ModelError, match="no chat template, which messages need") as caught:
        template_of(dataset(messages_field="messages"), tokenizer)
    assert "prompt_field" in caught.value.hint


# --- rows ---------------------------------------------------------------------------------------------


def test_both_spellings_and_pairs_are_read() -> None:
    chats = dataset(messages_field="chat")
    row = {"chat": [{"role": m["role"], "content": m["content"], "tool_calls": None} for m in talk("a", "b")], "id": 3}
    assert conversation_of("x:1", row, chats) == Conversation("x:1", talk("a", "b"))
    names = ["system", "human", "gpt"]
    row = {"chat": [{"from": name, "value": name} for name in names]}
    assert [m["role"] for m in conversation_of("x:1", row, chats).messages] == ["system", "user", "assistant"]
    pair = conversation_of("x:1", {"q": "a", "a": "b"}, dataset(prompt_field="q", response_field="a"))
    assert pair == Conversation("x:1", talk("a", "b"))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ([], r"chats.jsonl:17 has no field 'chat'"),
        ({"text": "a", "n": 1}, "chats.jsonl:17 has no field 'chat'"),
        ({"chat": "[]"}, "chat is str, not a list"),
        ({"chat": None}, "chat is NoneType, not a list"),
        ({"chat": ["hi"]}, r"chat\[0\] is 'hi'"),
        ({"chat": [{}]}, r"chat\[0\] is {}"),
        ({"chat": [{"role": "user"}]}, r"chat\[0\] is {'role': 'user'}"),
        ({"chat": [*talk("a"), {"role": "assistant", "content": "b", "weight": 0}]}, r"chat\[1\] is .*'weight': 0"),
        ({"chat": [{"role": "bot", "content": "a"}]}, r"chat\[0\] is {'role': 'bot'"),
        ({"chat": [{"role": ["user"], "content": "a"}]}, r"chat\[0\] is {'role': \['user'\]"),
        ({"chat": [{"from": "user", "value": "a"}]}, r"chat\[0\] is {'from': 'user'"),
        ({"chat": [{"role": "user", "content": [{"type": "text"}]}]}, r"chat\[0\]\.content is list, not text"),
        ({"chat": [{"role": "user", "content": "a\0"}]}, r"chat\[0\]\.content holds '\\x00' at 1"),
        ({"chat": talk("Who?", " \n")}, r"chat\[1\]\.content is empty"),
        ({"chat": [{"role": "user", "content": "\ud800"}]}, r"chat\[0\]\.content holds '\\ud800' at 0"),
    ],
)
def test_a_row_that_is_no_conversation_is_refused_with_its_place(row: object, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        conversation_of("chats.jsonl:17", row, dataset(messages_field="chat"))
    assert caught.value.message.startswith("chats.jsonl:17")


@pytest.mark.parametrize(("row", "what"), [({"q": "a"}, "no field 'a'"), ({"q": 1, "a": "b"}, ": q is int, not text")])
def test_a_row_that_is_no_pair_is_refused_with_its_place(row: object, what: str) -> None:
    with pytest.raises(DataError, match=f"chats.jsonl:17.*{what}"):
        conversation_of("chats.jsonl:17", row, dataset(prompt_field="q", response_field="a"))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"prompt_field": "q"}, "prompt_field and response_field need each other"),
        ({"response_field": "a"}, "prompt_field and response_field need each other"),
        (
            {"messages_field": "m", "prompt_field": "q", "response_field": "a"},
            "messages_field and prompt_field are both",
        ),
        ({"messages_field": "m", "sample_by": "paragraph"}, "sample_by is paragraph, but rows are conversations"),
        ({"prompt_field": "q", "response_field": "a", "sample_by": "line"}, "sample_by is line"),
    ],
)
def test_fields_that_cannot_go_together_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(what)) as caught:
        check_options(dataset(**options))
    assert caught.value.hint
