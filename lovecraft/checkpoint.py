"""Model directories in Hugging Face layout: config.json, *.safetensors and the tokenizer's files, in and out.

Weights go through memory one tensor at a time, in and out.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lovecraft.errors import ModelError
from lovecraft.files import write_atomic
from lovecraft.models import build, read_architecture
from lovecraft.models.architecture import Architecture, parse_architecture, read_config
from lovecraft.models.llama import Llama
from lovecraft.tokenizer import TOKENIZER_FILES

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CONSTANT = ".rotary_emb.inv_freq"  # old checkpoints hold it in every layer; it follows from config.json
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
ALIGNMENT = 64  # of tensors in memory, as PyTorch has it: sums come out the same to the bit only at equal alignment
PART = (
    1 << 15
)  # numbers that PyTorch copies with one thread: its own threads wait long for each other on a busy machine

Shape = tuple[int, ...]


@frozen
class Stored:
    """A tensor as the header of its file describes it."""

    file: Path
    shape: Shape
    kind: str  # as safetensors spells it: F32, BF16, ...


def load_model(
    path: Path, *, dtype: torch.dtype, device: torch.device, architecture: Architecture | None = None
) -> Llama:
    """Load the model directory `path` to `device`, its weights converted to `dtype`.

    The network is that of its config.json, or of another `architecture` with the same tensors. On a CPU, weights that
    are stored in `dtype` stay mapped from their file: what is written to them is this process's alone, but the file
    must not be overwritten meanwhile; replacing or removing it is harmless.

    Raises ModelError when a file is missing or damaged, or when tensors are missing, left over, or of another shape
    or kind than config.json asks for; that shows in the headers, before any weight is read.
    """
    model = build(architecture or read_architecture(path), dtype, torch.device("meta"))
    stored, sources = _match(path, model)
    weights: dict[str, Tensor] = {}
    for file in {stored[source].file: None for source in sources.values()}:
        weights |= _read_file(file, {n: s for n, s in sources.items() if stored[s].file == file}, dtype, device)
    model.load_state_dict(weights, assign=True)
    if HEAD in stored.keys() - weights.keys() and not torch.equal(
        _read(stored, HEAD), _read(stored, sources[EMBEDDING])
    ):
        hint = '"tie_word_embeddings": false in config.json takes the head'
        raise ModelError(f"{path}: config.json ties the head to the embedding, but the weights hold another", hint=hint)
    return model.eval()


def _read_file(file: Path, sources: Mapping[str, str], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Return tensors of one file in memory, as they are mapped where that will do."""
    with file.open("rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        header, begin = json.loads(raw.read(size)), 8 + size

    def placed(name: str) -> Tensor:
        mapped = opened.get_tensor(name)
        if device.type == "cpu" and mapped.dtype == dtype and mapped.data_ptr() % ALIGNMENT == 0:
            return mapped
        tensor = torch.empty(mapped.shape, dtype=dtype, device=device)
        if device.type != "cpu":
            return tensor.copy_(mapped)
        read = torch.empty(PART, dtype=mapped.dtype)  # and not from the mapping, whose pages would count as ours
        with file.open("rb") as raw:
            raw.seek(begin + header[name]["data_offsets"][0])
            for part in tensor.view(-1).split(PART):
                to = part if mapped.dtype == dtype else read[: len(part)]
                if raw.readinto(to.view(torch.uint8).numpy().data) < to.nbytes:
                    raise ModelError(f"{file} became shorter while it was read", hint="start again")
                if to is not part:
                    part.copy_(to)
        return tensor

    with safe_open(file, framework="pt") as opened, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(sources, pool.map(placed, sources.values()), strict=True))


def verify(path: Path) -> Architecture:
    """Return the architecture of the model directory `path`, all of whose weights are there, judged by their headers.

    Raises ModelError like `load_model`.
    """
    architecture = read_architecture(path)
    _match(path, build(architecture, torch.float32, torch.device("meta")))
    return architecture


def _match(path: Path, model: Llama) -> tuple[dict[str, Stored], dict[str, str]]:
    """Return the tensors in a model directory, and for each tensor of `model` the name of the one to fill it with."""
    stored = read_headers(path)
    odd = [f"{name} ({header.kind})" for name, header in stored.items() if header.kind not in FLOATS]
    if odd:
        raise ModelError(f"{path}: only floating-point weights can be loaded, not {_listed(odd)}")
    return stored, match_names(_shapes(stored), _shapes(model.state_dict()), path)


def read_headers(path: Path) -> dict[str, Stored]:
    """Return every tensor that the weight files of the model directory `path` hold, by name.

    Reads headers only, which safetensors checks against the files' sizes. Raises ModelError when there are no weights
    or a file is missing or damaged.
    """
    stored = {}
    for file in weight_files(path):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - a handle is no mapping
                    header = opened.get_slice(name)
                    stored[name] = Stored(file, tuple(header.get_shape()), header.get_dtype())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: {error}", hint="copy or download this file again") from None
    return stored


def save_model(
    directory: Path,
    weights: nn.Module | Mapping[str, Tensor],
    *,
    like: Path,
    dtype: torch.dtype,
    tokenizer: Path | None = None,
    config: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `weights`, converted to `dtype`, to `directory` beside the config, tokenizer and licence of `like`.

    The tokenizer's files are those of the directory `tokenizer`, and what stands in config.json is `config`, where they
    are given; the type in it becomes `dtype`. Raises ModelError when the weights are not those it asks for.
    """
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    content = dict(config or read_config(like))
    architecture = parse_architecture(content, str(like / "config.json"))
    wanted = build(architecture, dtype, torch.device("meta")).state_dict()
    sources = match_names(_shapes(tensors), _shapes(wanted), like)
    directory.mkdir(parents=True, exist_ok=True)
    files = plan_files({name: tensor.nbytes for name, tensor in wanted.items()}, shard_bytes)
    for file, names in files.items():
        described = {name: wanted[name] for name in names}
        write_file(directory / file, described, lambda name: tensors[sources[name]].detach().to("cpu", dtype))
    if len(files) > 1:
        write_atomic(directory / INDEX, index_of(files, sum(tensor.nbytes for tensor in wanted.values())))
    spellings = [key for key in ("torch_dtype", "dtype") if key in content] or ["torch_dtype"]
    content |= dict.fromkeys(spellings, str(dtype).removeprefix("torch."))
    write_atomic(directory / "config.json", json.dumps(content, indent=2) + "\n")
    copied = [(tokenizer or like, name) for name in TOKENIZER_FILES] + [(like, name) for name in LICENCES]
    for file in (file for source, pattern in copied for file in source.glob(pattern)):
        if directory.resolve() != file.parent.resolve():
            shutil.copyfile(file, directory / file.name)


def write_file(file: Path, tensors: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
    """Write a safetensors file of `tensors`, which may be on the meta device; `read` gives each, one after the other.

    The first begins at a multiple of ALIGNMENT, as no other writer has it, so that it can stay mapped when loaded.
    """
    kinds = {dtype: kind for kind, dtype in FLOATS.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        place = [end, end := end + tensor.nbytes]
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in tensors:
            out.write(read(name).contiguous().view(-1).view(torch.uint8).numpy().data)


def plan_files(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """Return the weight files of a model directory, each with the names of its tensors.

    A file holds tensors of at most `limit` bytes, or a single one.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": names for i, names in enumerate(shards, 1)}


def index_of(files: Mapping[str, list[str]], total: int) -> str:
    """Return the text of the index that belongs to several weight files with `total` bytes of tensors."""
    places = {name: file for file, names in files.items() for name in names}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2) + "\n"


def match_names(found: Mapping[str, Shape], wanted: Mapping[str, Shape], where: Path) -> dict[str, str]:
    """Return for each tensor of the network, `wanted`, the name among `found` that holds it.

    Without a head of its own the network takes its embedding from either name. Raises ModelError that names what is
    missing, left over or misshaped.
    """
    sources = {name: name for name in wanted}
    known = set(wanted)
    if HEAD not in wanted:
        known.add(HEAD)
        sources[EMBEDDING] = EMBEDDING if EMBEDDING in found else HEAD
    missing = [name for name, source in sources.items() if source not in found]
    extra = [name for name in found if name not in known and not name.endswith(CONSTANT)]
    misshaped = [
        f"{source} {found[source]} instead of {wanted[name]}"
        for name, source in sources.items()
        if source in found and found[source] != wanted[name]
    ]
    problems = {"missing": missing, "left over": extra, "of another shape": misshaped}
    if any(problems.values()):
        said = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
        tie = 'where the head is the embedding, config.json must say "tie_word_embeddings": true'
        raise ModelError(f"{where}: the weights do not fit config.json; {said}", hint=tie if missing == [HEAD] else "")
    return sources


def _read(stored: Mapping[str, Stored], name: str) -> Tensor:
    with safe_open(stored[name].file, framework="pt") as opened:
        return opened.get_tensor(name)


def _shapes(tensors: Mapping[str, Tensor | Stored]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def weight_files(path: Path, whole: str = WEIGHTS, index: str = INDEX) -> list[Path]:
    """Return the weight files of a model directory: `whole`, or those that `index` names.

    Raises ModelError when there is neither, or when the index is none.
    """
    if (path / whole).exists():
        return [path / whole]
    try:
        names = sorted(set(json.loads((path / index).read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        hint = (
            "pickled weights are never loaded; `lc convert` makes safetensors of them"
            if any(path.glob("*.bin"))
            else ""
        )
        raise ModelError(f"{path}: there is neither {whole} nor {index}", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path / index}: not an index of weights: {error!r}") from None
    outside = [name for name in names if Path(str(name)).name != name]  # or no string
    if outside:
        raise ModelError(f"{path / index}: names files outside its directory: {_listed(map(str, outside))}")
    return [path / name for name in names]


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
