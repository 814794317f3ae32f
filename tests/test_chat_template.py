"""Chat templates: the same text as transformers writes, the marks of {% generation %}, and nothing of the sandbox."""

import datetime
import json
import pickle
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lovecraft.chat_template import ChatTemplate, find_template, render
from lovecraft.errors import ModelError
from tests.chats import CHATML, MARKED, PLAIN, SAID, write_chat_tokenizer

MESSAGES = [
    {"role": "user", "content": "  Who lit the lamp?\n"},
    {"role": "assistant", "content": "The keeper — 'é'.\n\nOr the sea. "},
    {"role": "user", "content": "Say <b>more</b>."},
    {"role": "assistant", "content": "No."},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def load(path: Path, template: str, **config: object) -> ChatTemplate:
    found = find_template(write_chat_tokenizer(path, template, **config))
    assert found is not None
    return found


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("system", [False, True])
def test_the_text_equals_transformers(tmp_path: Path, name: str, prompt: bool, system: bool) -> None:
    template = load(tmp_path, SAID[name][0])
    messages = [SYSTEM, *MESSAGES[:3]] if system else MESSAGES[:3]
    theirs = AutoTokenizer.from_pretrained(tmp_path)

    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    assert template.render(messages, prompt=prompt) == expected
    assert not prompt or render(tmp_path, messages) == expected


def test_what_transformers_gives_a_template_ours_has_too(tmp_path: Path) -> None:
    source = (
        "{{ {'a': '<é>'} | tojson }}{{ unk_token }}{{ tools is none }}{{ documents is none }}{{ pad_token is defined }}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}"
    )
    template = load(tmp_path, source, unk_token={"__type": "AddedToken", "content": "<s>"}, pad_token=None)
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(MESSAGES, tokenize=False)
    assert template.render(MESSAGES, prompt=False) == expected == '{"a": "<é>"}<s>TrueTrueFalseuser'


def test_marks_say_what_is_the_assistants(tmp_path: Path) -> None:
    template = load(tmp_path, MARKED)
    text, spans = template.render_marked(MESSAGES)
    assert template.marks_turns
    assert [text[start:end] for start, end in spans] == [MESSAGES[i]["content"] + "<|im_end|>" for i in (1, 3)]
    assert load(tmp_path, "a{% generation %}{% endgeneration %}b").render_marked(MESSAGES) == ("ab", [])
    assert not load(tmp_path, CHATML).marks_turns
    assert load(tmp_path, CHATML).render_marked(MESSAGES)[1] == []


def test_the_date_may_be_held_fast(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, "{{ strftime_now('%d %b %Y') }}")
    template = find_template(path, datetime.date(2024, 7, 26))
    assert template is not None
    assert template.render(MESSAGES, prompt=False) == "26 Jul 2024"
    assert str(time.localtime().tm_year) in render(path, MESSAGES)


def test_a_template_is_pickled_by_where_it_lies(tmp_path: Path) -> None:
    path = write_chat_tokenizer(tmp_path, "{{ strftime_now('%Y') }}" + PLAIN)
    template = find_template(path, datetime.date(2024, 7, 26))
    assert template is not None
    again = pickle.loads(pickle.dumps(template))
    assert again.render(MESSAGES, prompt=True) == template.render(MESSAGES, prompt=True)


def test_a_template_may_be_a_file_or_one_of_several(tmp_path: Path) -> None:
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ 'yes' }}"}]
    assert find_template(write_chat_tokenizer(tmp_path, None)) is None
    assert load(tmp_path, several).render(MESSAGES, prompt=False) == "yes"
    (tmp_path / "chat_template.jinja").write_text("{{ 'file' }}")
    assert render(tmp_path, MESSAGES) == "file"
    (tmp_path / "tokenizer_config.json").unlink()
    assert render(tmp_path, MESSAGES) == "file"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{% for m in messages %}", "is broken"),
        ("{% generation %}{{ messages }}", "is broken"),
        ("{{ messages.append(1) }}", "refuses"),
        ("{{ ().__class__.__mro__ }}", "refuses"),
        ("{{ raise_exception('no such role') }}", "refuses these messages: no such role"),
        ("{{ messages[0]['content'] + None }}", "refuses"),
        ("{{ messages[0]['name'] + 'x' }}", "refuses"),
        ("{{ 'x' * messages[0]['content'] | int(-1) ** 99999 / 0 }}", "refuses"),
    ],
)
def test_a_template_that_fails_is_the_models_mistake(tmp_path: Path, source: str, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        render(write_chat_tokenizer(tmp_path, source), MESSAGES)


def test_a_model_without_a_template_is_told_what_it_can_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template") as caught:
        render(write_chat_tokenizer(tmp_path, None), MESSAGES)
    assert "lc generate" in caught.value.hint
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())
