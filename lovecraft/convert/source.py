"""A model to convert, in Hugging Face's terms: of a model directory with safetensors or with pickled weights."""

import functools
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import safe_open
from torch import Tensor

from lovecraft.checkpoint import CONSTANT, EMBEDDING, FLOATS, HEAD, LICENCES, match_names, read_headers, weight_files
from lovecraft.errors import ModelError
from lovecraft.models import build
from lovecraft.models.architecture import Architecture, parse_architecture, read_config
from lovecraft.tokenizer import TOKENIZER_FILES

PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
KEPT = ("config.json", *TOKENIZER_FILES, *LICENCES, "README.md")  # what goes along with the weights
# What torch.load was seen to raise for files of random bytes.
DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, AssertionError, TypeError, AttributeError)
DAMAGED += (struct.error, zipfile.BadZipFile)

Read = Callable[[str], Tensor]


@attrs.frozen(eq=False)
class Source:
    """A model whose weights are not read yet."""

    path: Path
    """The directory or the file."""

    config: dict[str, Any]
    """The content of config.json."""

    files: dict[str, bytes]
    """The directory's other files, and config.json where there is one to keep: name to content."""

    tensors: dict[str, Tensor]
    """Every tensor of the network on the meta device, in the type to write it in."""

    read: Read
    """Load one tensor, in the type that it is stored in."""

    reason: str = ""
    """Why that type, as one clause, where it is a choice."""

    @property
    def architecture(self) -> Architecture:
        """What config.json describes."""
        return parse_architecture(self.config, str(self.path))

    @property
    def dtype(self) -> torch.dtype:
        """The type of most of the weights."""
        sizes = dict.fromkeys((tensor.dtype for tensor in self.tensors.values()), 0)
        for tensor in self.tensors.values():
            sizes[tensor.dtype] += tensor.nbytes
        return max(sizes, key=sizes.__getitem__)


def read_directory(path: Path) -> Source:
    """Open a model directory as a source. Raises ModelError where its weights are missing, damaged or do not fit."""
    config = read_config(path)
    architecture = parse_architecture(config, str(path / "config.json"))
    pickled = any((path / name).exists() for name in (PICKLED, PICKLED_INDEX)) and not any(path.glob("*.safetensors"))
    stored, read = _pickled(path) if pickled else _mapped(path)
    names = fit(architecture, stored, path)
    if HEAD in stored and HEAD not in names and not torch.equal(read(HEAD), read(names[EMBEDDING])):
        hint = '"tie_word_embeddings": false in config.json takes the head'
        raise ModelError(f"{path}: config.json ties the head to the embedding, but the weights hold another", hint=hint)
    kept = {file.name: file.read_bytes() for pattern in KEPT for file in sorted(path.glob(pattern))}
    tensors = {name: stored[source] for name, source in names.items()}
    return Source(path, config, kept, tensors, lambda name: read(names[name]))


def fit(architecture: Architecture, stored: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """Return the name that holds each tensor of the network. Raises ModelError where they do not fit."""
    try:
        wanted = build(architecture, torch.float32, torch.device("meta")).state_dict()
    except RuntimeError as error:  # more bytes than there can be
        raise ModelError(f"{path}: no file holds weights of the sizes that it names: {error}") from None
    there, asked = ({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (stored, wanted))
    return match_names(there, asked, path)


def _mapped(path: Path) -> tuple[dict[str, Tensor], Read]:
    headers = read_headers(path)

    def read(name: str) -> Tensor:
        with safe_open(headers[name].file, framework="pt") as opened:
            return opened.get_tensor(name)

    for name, header in headers.items():
        if header.kind not in FLOATS and not name.endswith(CONSTANT):
            raise ModelError(f"{header.file}: {name} is {header.kind}; only floating-point weights can be converted")
    stored = {n: torch.empty(h.shape, dtype=FLOATS.get(h.kind), device="meta") for n, h in headers.items()}
    return stored, read


def _pickled(path: Path) -> tuple[dict[str, Tensor], Read]:
    """Open pickled weights, mapped into memory a file at a time."""
    load = functools.lru_cache(maxsize=1)(_load)  # the file before goes when the next one comes
    places, stored = {}, {}
    for file in weight_files(path, PICKLED, PICKLED_INDEX):
        for name, tensor in load(file).items():
            places[name] = file
            stored[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return stored, lambda name: load(places[name])[name]


def _load(file: Path) -> dict[str, Tensor]:
    """Return the tensors of one file, running none of the code that a pickle may name."""
    if not file.is_file():
        raise ModelError(f"there is no file {file}", hint="copy or download all files of the model again")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it names the code {named[1]}, which is not run" if named else "it is damaged, or no pickle at all"
        raise ModelError(f"{file} does not hold weights alone: {what}", hint="get them as safetensors") from None
    except DAMAGED as error:
        what = str(error).partition(". ")[0] or repr(error)
        raise ModelError(f"{file} cannot be read: {what}", hint="copy or download this file again") from None
    loaded = loaded if isinstance(loaded, dict) else {type(loaded).__name__: loaded}
    odd = [str(n) for n, t in loaded.items() if not (isinstance(t, Tensor) and t.dtype in FLOATS.values())]
    odd = [name for name in odd if not name.endswith(CONSTANT)]
    if odd:
        raise ModelError(f"{file} holds what is no floating-point tensor: {', '.join(odd[:5])}")
    return loaded
