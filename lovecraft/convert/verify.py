"""Hold what was written against what it was made from: every tensor, the network, the tokenizer, and logits."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from lovecraft.convert.source import Source
from lovecraft.convert.write import Tell
from lovecraft.device import resolve_device
from lovecraft.errors import ConversionFailed, ModelError
from lovecraft.models import build
from lovecraft.models.architecture import Architecture
from lovecraft.models.llama import Block
from lovecraft.pieces import adds_no_second
from lovecraft.tokenizer import Tokenizer, load_tokenizer

# What the tokenizer must give back to the letter: case, digits, blanks, line ends, accents, other scripts, emoji.
TEXTS = (
    "In 1928 the R'lyeh text, it's said, slept.",
    " a  b\t\tc \r\n\n  ",
    "naïve Ångström, “‘quoted’” — 狂気 🐙 मुंबई",
)
ROWS, TOKENS, BEYOND = 4, 32, 32  # prompts, tokens of each, and by how many one exceeds the window
LIMIT = 0.1  # of the logits' own spread. Rounding stays far below, one exchanged row or wrong angle is far above
SHOWN = 5


def check_tensors(found: Source, wanted: Source, expected: Callable[[str], Tensor], tell: Tell) -> None:
    """Compare every tensor with what was to be written, to the bit. Raises ConversionFailed with what differs."""
    if found.tensors.keys() != wanted.tensors.keys():
        raise ConversionFailed(f"written other tensors than meant: {sorted(found.tensors.keys() ^ wanted.tensors)}")
    wrong = []
    for number, name in enumerate(wanted.tensors, 1):
        tell("verifying", number, len(wanted.tensors))
        there, meant = found.read(name), expected(name)
        if there.dtype != meant.dtype or there.shape != meant.shape:
            wrong.append(f"{name} is {there.dtype} {tuple(there.shape)}")
        elif differing := int((_bits(there) != _bits(meant)).sum()):
            most = (there.float() - meant.float()).abs().max().item()
            wrong.append(f"{name} in {differing} of {there.numel()} numbers, by up to {most:.3g}")
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ConversionFailed(f"it reads back other than it was written: {'; '.join(wrong[:SHOWN])}{more}")


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def check_architecture(found: Architecture, wanted: Architecture) -> None:
    """Raise ConversionFailed where the configuration reads back as another network."""
    there, meant = attrs.asdict(found), attrs.asdict(wanted)
    wrong = [f"{name} is {there[name]}, not {meant[name]}" for name in meant if there[name] != meant[name]]
    if wrong:
        raise ConversionFailed(f"the configuration reads back as another network: {'; '.join(wrong)}")


def check_tokenizer(found: Tokenizer, wanted: Tokenizer) -> None:
    """Compare tokens, special tokens and habits of two tokenizers. Raises ConversionFailed with what differs."""
    blank = adds_no_second(json.loads(wanted.library.to_str()))  # llama.cpp does, which was said
    for text in (text.lstrip(" ") if blank else text for text in TEXTS):
        ids = found.encode(text), wanted.encode(text)
        if ids[0] != ids[1]:
            raise ConversionFailed(f"the tokenizers differ: of {text!r} they make {ids[0]} and {ids[1]}")
    for name in ("bos_id", "eos_id", "stop_ids", "adds_bos"):
        there, meant = getattr(found, name), getattr(wanted, name)
        if there != meant:
            raise ConversionFailed(f"the tokenizers differ: {name} is {there}, not {meant}")


def check_files(found: Source, wanted: Source) -> None:
    """Raise ConversionFailed where config.json or a file that was to be copied reads back different."""
    wrong = [n for n, content in wanted.files.items() if n != "config.json" and found.files.get(n) != content]
    if wrong or found.config != wanted.config:
        raise ConversionFailed(f"read back other than they were written: {', '.join(wrong or ['config.json'])}")


def check_text(tokenizer: Tokenizer) -> None:
    """Raise ModelError when a tokenizer that was rebuilt from a GGUF loses text."""
    for text in TEXTS:
        if tokenizer.decode(tokenizer.encode(text)) != text:
            hint = "please report this model"
            raise ModelError(f"the rebuilt tokenizer does not give back the text {text!r}", hint=hint)


def tokenizer_of(source: Source) -> Tokenizer:
    """Return the tokenizer of a source. Raises ModelError where there is none that can be loaded."""
    if source.path.is_dir():
        return load_tokenizer(source.path)
    with tempfile.TemporaryDirectory() as directory:
        for name, content in source.files.items():
            (Path(directory) / name).write_bytes(content)
        return load_tokenizer(Path(directory))


def check_logits(found: Source, wanted: Source, edge: int, tell: Tell) -> float:
    """Return by how much the logits of both differ on several prompts, one longer than `edge` where that is not 0.

    The measure is the root mean square of the difference over the spread of the logits. Raises ConversionFailed where
    it is above LIMIT.
    """
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for shape in [(ROWS, TOKENS), (1, edge + BEYOND)][: 1 + (edge > 0)]:
        ids = torch.randint(wanted.architecture.vocab_size, shape, generator=generator)
        meant, there = logits(wanted, ids, tell), logits(found, ids, tell)
        off = ((there - meant).square().mean().sqrt() / meant.std()).item()
        if not off <= LIMIT:  # NaN too
            most = (there - meant).abs().max().item()
            raise ConversionFailed(
                f"on prompts of {shape[1]} tokens the logits differ by {off:.1%} of their spread, up to {most:.3g}; "
                f"rounding explains {LIMIT:.0%}"
            )
        worst = max(worst, off)
    return worst


@torch.inference_mode()
def logits(source: Source, ids: Tensor, tell: Tell) -> Tensor:
    """Return the logits (B, K, V) of the last tokens of ids (B, T), in float32, loading one block at a time."""
    architecture, device = source.architecture, resolve_device("auto")
    model = build(architecture, torch.float32, torch.device("meta"))

    def fill(module: nn.Module, prefix: str) -> None:
        weights = {name: source.read(prefix + name).to(device, torch.float32) for name in module.state_dict()}
        module.load_state_dict(weights, assign=True)

    def run(index: int, block: Block, h: Tensor) -> Tensor:
        tell("computing logits", index + 1, architecture.num_hidden_layers)
        layer = model.model.layers[index]
        fill(layer, f"model.layers.{index}.")
        h = block(h)
        layer.to("meta")
        return h

    fill(model.model.embed_tokens, "model.embed_tokens.")
    fill(model.model.norm, "model.norm.")
    hidden = model.hidden(ids.to(device), run_block=run)[:, -TOKENS:]  # (B, T, D) -> (B, K, D)
    if model.lm_head is not None:
        fill(model.lm_head, "lm_head.")
    return model.logits(hidden).cpu()
