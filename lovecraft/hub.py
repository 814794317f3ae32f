"""Models and tokenizers of the Hugging Face hub, fetched once by huggingface_hub and read from its cache.

Weights are taken as safetensors, code and pickles never; only a conversion may ask for other kinds of weights.
"""

import fnmatch
import functools
import logging
import re
import sys
import textwrap
from pathlib import Path

import huggingface_hub
from huggingface_hub import utils
from huggingface_hub.errors import HTTPError, NotASafetensorsRepoError, RevisionNotFoundError, SafetensorsParsingError

from lovecraft.errors import ModelError

log = logging.getLogger(__name__)
NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
SECONDS = 10  # that the hub has for its first answer
SETTINGS = ("*.json", "*.jinja", "tokenizer.model", "merges.txt")
PAPERS = ("LICEN[SC]E*", "NOTICE*", "README.md")
WEIGHTS = ("model*.safetensors",)  # some repositories hold the same once more, as consolidated.safetensors
ACCESS = (
    "check the name at https://huggingface.co/models; accept its terms there if it has any, and log in with "
    "`hf auth login`, or set HF_TOKEN"
)
AGAIN = "run the command again, online and with room on the disk: what is there already is not fetched twice"


@functools.lru_cache(maxsize=64)  # so that one command reads one commit, and says once that it is a cached one
def fetch(name: str, weights: tuple[str, ...] = WEIGHTS) -> Path:
    """Return the directory of `hf:org/name` or `hf:org/name@revision`, fetched now if need be; its name is the commit.

    `weights` are patterns of file names, of which the first that the model has is fetched; with none there are only
    its settings and its tokenizer. Without the hub the cached copy is returned, and that is said.
    Raises ModelError for what is no such name, cannot be had, or has no such weights.
    """
    if not (named := NAME.fullmatch(name)):
        raise ModelError(f"{name!r} names no model", hint="write hf:org/name, or hf:org/name@revision")
    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        about = huggingface_hub.HfApi().model_info(named[1], revision=named[2], timeout=SECONDS)
        kinds = _kinds(name, weights, [file.rfilename for file in about.siblings or ()])
        return _snapshot(named[1], named[2], kinds)
    except (OSError, HTTPError) as error:
        what, hint = _why(error)
        if (copy := _cached(named[1], named[2], weights)) is None:
            raise ModelError(f"{name} cannot be fetched: {what}", hint=hint) from error
        log.warning("%s: %s; the cached copy of commit %s is read", name, what, copy.name[:12])
        return copy


def weights_there(name: str) -> dict[str, int]:
    """Return how many weights a model has on the hub, by type; none where that cannot be asked."""
    repository, _, revision = name.removeprefix("hf:").partition("@")
    try:
        found = huggingface_hub.HfApi().get_safetensors_metadata(repository, revision=revision or None)
    except (OSError, HTTPError, SafetensorsParsingError, NotASafetensorsRepoError):
        return {}
    return {str(kind): count for kind, count in found.parameter_count.items()}


def _kinds(name: str, weights: tuple[str, ...], files: list[str]) -> tuple[str, ...]:
    """Return the first of the patterns that a model has files for. Raises ModelError if it has for none."""
    found = next((kind for kind in weights if fnmatch.filter(files, kind)), None)
    if weights and found is None:
        others = [file for file in files if file.endswith((".bin", ".gguf", ".safetensors", ".pt", ".pth"))]
        convert = weights == WEIGHTS and any(file.endswith(".bin") for file in others)
        hint = f"lc convert {name} DIR makes some" if convert else "name another; a GGUF is fetched by `hf download`"
        raise ModelError(
            f"{name} has no {' or '.join(weights)}, only {', '.join(others[:5]) or 'other files'}", hint=hint
        )
    return () if found is None else (found,)


def _cached(repository: str, revision: str | None, weights: tuple[str, ...]) -> Path | None:
    """Return the copy in the cache, if it is whole."""
    for kinds in [(kind,) for kind in weights] or [()]:
        try:
            copy = _snapshot(repository, revision, kinds, local=True)
        except OSError:  # the library found none
            continue
        if all(any(copy.glob(kind)) for kind in ("config.json", *kinds)):
            return copy
    return None


def _snapshot(repository: str, revision: str | None, kinds: tuple[str, ...], *, local: bool = False) -> Path:
    wanted = [*SETTINGS, *PAPERS, *kinds]
    return Path(
        huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=wanted, ignore_patterns="*/*", local_files_only=local
        )
    )


def _why(error: Exception) -> tuple[str, str]:
    """Return (what is wrong, what to do about it)."""
    if isinstance(error, RevisionNotFoundError):
        return (
            "it has no such revision",
            "what follows the @ is a branch, a tag or a commit; without it, it is the newest",
        )
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404):
        return "it is not on the hub, or gated or private", ACCESS
    said = textwrap.shorten(str(error.__cause__ or error) or type(error).__name__, 300)
    if isinstance(error, (ConnectionError, HTTPError)):
        return f"the hub cannot be reached ({said})", AGAIN
    return said, AGAIN
