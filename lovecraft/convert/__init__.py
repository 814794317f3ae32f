"""Turn a model into another form: a directory in Hugging Face layout, or a GGUF file for llama.cpp.

A reader (`source`, `gguf_model`) gives a `Source`: Hugging Face's names and shapes, and a way to load one tensor. The
writers (`write`) take any source, and `verify` holds what they wrote against it before it gets its name.
"""

import shutil
import time
from pathlib import Path

import attrs
import torch
from safetensors import SafetensorError

from lovecraft.checkpoint import SHARD_BYTES
from lovecraft.config.schema import RopeScaling
from lovecraft.convert import verify, write
from lovecraft.convert.gguf_model import as_written, metadata, read_gguf
from lovecraft.convert.gguf_tokenizer import tokenizer_metadata
from lovecraft.convert.source import Source, read_directory
from lovecraft.convert.write import Tell
from lovecraft.errors import ModelError
from lovecraft.files import new_directory, new_file
from lovecraft.models.architecture import ORIGINAL, scaled
from lovecraft.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KINDS = {"f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}


@attrs.frozen(kw_only=True)
class Conversion:
    """What was converted, or would be."""

    tensors: int

    files: dict[str, int]
    """The weight files and their bytes, in a model directory without headers."""

    dtype: str

    reason: str
    """Why this dtype; empty where it was asked for."""

    difference: float | None
    """How far the logits of source and result are apart, by their spread; None where the network is the same."""

    seconds: float


def convert(
    src: Path,
    dst: Path,
    *,
    dtype: str = "auto",
    kind: str = "auto",
    max_context: int | None = None,
    scaling: RopeScaling | None = None,
    shard_bytes: int = SHARD_BYTES,
    dry_run: bool = False,
    tell: Tell = lambda what, done, total: None,
) -> Conversion:
    """Convert the GGUF file or model directory `src` to `dst`; with `dry_run`, check the source and write nothing.

    `dst` becomes a GGUF with matrices of the type `kind` where its name ends in .gguf, else a model directory in
    `dtype`; auto keeps what the source stores. Raises ModelError when `src` cannot be converted or `dst` not be
    written, and ConversionFailed when what was written is not what was meant; there is no `dst` then.
    """
    start = time.perf_counter()
    _check_places(src, dst)
    try:
        source = read_directory(src) if src.is_dir() else read_gguf(src)
        wanted = _in_type(_stretched(source, max_context, scaling), dtype)
        stored, reason = str(wanted.dtype).removeprefix("torch."), source.reason if dtype == "auto" else ""
        if dst.suffix == ".gguf":
            reason = f"the source is {stored}" if kind == "auto" else ""
            stored = KINDS.get(kind) or ("F16" if wanted.dtype == torch.float16 else "BF16")
            files, difference = _to_gguf(wanted, dst, stored, dry_run, tell)
        else:
            files, difference = _to_directory(source, wanted, dst, shard_bytes, dry_run, tell)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{src} was not converted: {error}", hint="check the disk's free space and rights") from error
    return Conversion(
        tensors=len(wanted.tensors),
        files=files,
        dtype=stored,
        reason=reason,
        difference=difference,
        seconds=time.perf_counter() - start,
    )


Made = tuple[dict[str, int], float | None]
"""The weight files with their bytes, and how far the logits are apart."""


def _to_directory(source: Source, wanted: Source, dst: Path, shard_bytes: int, dry_run: bool, tell: Tell) -> Made:
    if "tokenizer.json" in wanted.files:
        tokenizer = _tokenizer(wanted)
        if "config.json" not in wanted.files:  # then it was rebuilt from a GGUF
            verify.check_text(tokenizer)
    files = write.files_of(wanted, shard_bytes)
    sizes = {file: sum(wanted.tensors[name].nbytes for name in names) for file, names in files.items()}
    _check_room(dst, sum(sizes.values()))
    if dry_run:
        return sizes, None
    with new_directory(dst) as directory:
        write.write_directory(wanted, directory, files, tell)
        found = read_directory(directory)
        verify.check_tensors(found, wanted, lambda name: write.rounded(wanted, name), tell)
        verify.check_architecture(found.architecture, wanted.architecture)
        verify.check_files(found, wanted)
        before, after = source.architecture, wanted.architecture
        if before == after and all(wanted.tensors[name].dtype == t.dtype for name, t in source.tensors.items()):
            return sizes, None
        edge = after.sliding_window or (before.context if before.rope_parameters != after.rope_parameters else 0)
        return sizes, verify.check_logits(found, wanted, edge if edge < after.context else 0, tell)


def _to_gguf(wanted: Source, dst: Path, kind: str, dry_run: bool, tell: Tell) -> Made:
    tokenizer, network = _tokenizer(wanted), as_written(wanted.architecture)
    pairs = metadata(wanted, network, dst.stem, kind)
    pairs |= tokenizer_metadata(tokenizer, wanted.files, network.vocab_size)
    size = write.gguf_size(wanted, pairs, kind)
    _check_room(dst, size)
    if dry_run:
        return {dst.name: size}, None
    with new_file(dst) as file:
        write.write_gguf(wanted, file, pairs, kind, tell)
        found = read_gguf(file)
        verify.check_tensors(found, wanted, lambda name: write.quantised(wanted, name, kind), tell)
        verify.check_architecture(found.architecture, network)
        verify.check_tokenizer(verify.tokenizer_of(found), tokenizer)
        return {dst.name: size}, verify.check_logits(found, wanted, 0, tell)


def _check_places(src: Path, dst: Path) -> None:
    if not src.exists():
        raise ModelError(f"there is no {src}", hint="a model directory or a GGUF file can be converted")
    if dst.exists():
        raise ModelError(f"{dst} exists already", hint="name another destination, or remove it first")
    if dst.resolve().is_relative_to(src.resolve()):
        raise ModelError(f"{dst} lies inside {src}", hint="name a destination elsewhere")


def _check_room(dst: Path, size: int) -> None:
    free = shutil.disk_usage(next(parent for parent in dst.absolute().parents if parent.exists())).free
    if free < size:
        raise ModelError(f"{dst} needs {size:,} bytes, and {free:,} are free", hint="name another disk, or free space")


def _tokenizer(source: Source) -> Tokenizer:
    """Return a source's tokenizer. Raises ModelError where it has ids that the embedding has no row for."""
    tokenizer, rows = verify.tokenizer_of(source), source.architecture.vocab_size
    if tokenizer.vocab_size > rows:
        what = f"the tokenizer has {tokenizer.vocab_size} tokens, and the embedding {rows} rows"
        raise ModelError(what, hint="the files of the directory must be of the same model")
    return tokenizer


def _in_type(source: Source, dtype: str) -> Source:
    """Return a source whose weights are to be written in `dtype`."""
    if dtype == "auto":
        return source
    spellings = [key for key in ("torch_dtype", "dtype") if key in source.config] or ["torch_dtype"]
    config = source.config | dict.fromkeys(spellings, dtype)
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in source.tensors.items()}
    return attrs.evolve(source, config=config, tensors=tensors)


def _stretched(source: Source, max_context: int | None, scaling: RopeScaling | None) -> Source:
    """Return a source with another RoPE scaling and context in its config.json."""
    config = scaled(source.config, scaling)
    if max_context is not None:
        rope = attrs.evolve(source, config=config).architecture.rope_parameters
        for key in ("rope_parameters", "rope_scaling"):
            if config.get(key) and rope.original_max_position_embeddings:
                config[key] = {**config[key], ORIGINAL: rope.original_max_position_embeddings}
        config["max_position_embeddings"] = max_context
    stretched = attrs.evolve(source, config=config)
    if max_context not in (None, reach := stretched.architecture.context):
        raise ModelError(
            f"the RoPE scaling reaches {reach} tokens, --max-context asks for {max_context}",
            hint="the factor of --rope-scaling sets the context",
        )
    return stretched
