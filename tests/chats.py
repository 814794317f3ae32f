"""Chat templates in the style of well-known models', and tokenizers for them."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, trainers

from tests.tiny import TEXT, write_tokenizer

LOOP = "{% for m in messages %}"
END = "{% endfor %}"

CHATML = (
    LOOP + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}" + END + ""
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}" + LOOP + ""
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}" + END
)
LLAMA3 = (
    "{{- bos_token }}\n{%- for m in messages %}\n    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n"
)
MISTRAL = (
    "{{ bos_token }}" + LOOP + "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}" + END
)
ZEPHYR = (
    LOOP + "\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n" + END
)
PHI3 = (  # what ends the text depends on what follows
    LOOP + "{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}" + END + ""
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PLAIN = (  # no special token at all
    LOOP + "{{ m['role'] + ': ' + m['content'] + '\n' }}" + END + ""
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
MARKED = (
    LOOP + "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{% set said = m['content'] %}{{ said + '<|im_end|>' }}{% endgeneration %}{{ said }}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}" + END + ""
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING = (  # rewrites what was said when more follows
    LOOP + "{{ '<|im_start|>' + m['role'] + '\n' }}{% if not loop.last %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}" + END + ""
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SAID: dict[str, tuple[str, str, str]] = {
    "chatml": (CHATML, "", "<|im_end|>"),
    "llama2": (LLAMA2, " ", " </s>"),
    "llama3": (LLAMA3, "", "<|eot_id|>"),
    "mistral": (MISTRAL, " ", "</s>"),
    "zephyr": (ZEPHYR, "", "</s>"),
    "phi3": (PHI3, "", "<|end|>"),
    "marked": (MARKED, "", "<|im_end|>"),
}
"""Name → the template, and what the model itself has to write before and after the content of a reply."""

SPECIALS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end|>"]


def write_chat_tokenizer(path: Path, template: str | None, *, sentencepiece: bool = False, **config: Any) -> Path:
    """Write a byte-level tokenizer, or one in the style of SentencePiece, with a chat template; return `path`."""
    write_tokenizer(path)
    backend = _sentencepiece() if sentencepiece else Tokenizer.from_file(str(path / "tokenizer.json"))
    backend.add_special_tokens(SPECIALS)
    backend.save(str(path / "tokenizer.json"))
    content = json.loads((path / "tokenizer_config.json").read_text()) | config
    content |= {} if template is None else {"chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(content))
    return path


def _sentencepiece() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(TEXT.split(". "), trainer)
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(content))
