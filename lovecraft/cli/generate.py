"""Continue a text, and print it as it is made.

Two words are what to run and the prompt. One word is what to run, and the prompt comes from stdin; but a word with a
space that is not a path is the prompt, and the project you stand in is what to run. With --url the word is the prompt.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from lovecraft.cli import console
from lovecraft.cli.serve import find_served
from lovecraft.cli.words import within
from lovecraft.errors import ConfigError

USAGE = "[CONFIG|RUN|MODEL] [PROMPT] [--url URL]"
EXAMPLE = 'lc generate finetune_lovecraft "The old lighthouse" --max-tokens 400 | tee story.txt'
TAKES_OPTIONS = False
BARE = 2

LOCAL = ("checkpoint", "context", "device", "dtype", "max_context")
REMOTE = ("api_key_file", "model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc generate`."""
    add = parser.add_argument
    add("--max-tokens", type=within(int, 1, 1_000_000), default=256, metavar="N", help="tokens to make at most; 256")
    add("--temperature", type=within(float, 0, 2), default=0.8, metavar="T", help="0 is the likeliest token; 0.8")
    add("--top-p", type=within(float, 1e-9, 1), default=0.95, metavar="P", help="draw from this much probability; 0.95")
    add("--top-k", type=within(int, 0, 2**31), default=0, metavar="K", help="draw from so many tokens; 0: all")
    add("--min-p", type=within(float, 0, 1), default=0.0, metavar="P", help="least probability, of the likeliest's; 0")
    add(
        "--repetition-penalty",
        type=within(float, 1e-9, 100),
        default=1.0,
        metavar="R",
        help="above 1: say less twice; 1",
    )
    add("--seed", type=within(int, 0, 2**62), metavar="N", help="draw the same text again")
    add(
        "--stop",
        type=_some,
        action="append",
        default=[],
        metavar="TEXT",
        help="end before this text; may be given again",
    )
    add("--n", type=within(int, 1, 1000), default=1, metavar="N", help="continuations to make, one after the other")
    add("--no-echo", action="store_true", help="do not print the prompt")
    add("--ignore-eos", action="store_true", help="go on where the model would end")
    add(
        "--context",
        choices=("error", "stop", "roll"),
        help="when it is full; roll, the default: go on over its newest half",
    )
    add("--checkpoint", metavar="WHICH", help="of a run: latest, best or a step's number")
    add("--device", help="auto, cpu, cuda, cuda:N or mps")
    add("--dtype", help="auto, float32, bfloat16 or float16")
    add("--max-context", type=within(int, 2, 2**31), metavar="N", help="a shorter context than the model's")
    add("--url", help="let a server do it: any with OpenAI's completion API")
    add("--model", metavar="NAME", help="with --url: which of its models; the first one it lists")
    add("--api-key-file", type=Path, metavar="FILE", help="with --url: a file whose first key it is")


@attrs.define
class Outcome:
    """What a continuation took."""

    tokens: int = 0
    rolls: int = 0
    reason: str = ""


def run(args: argparse.Namespace) -> int:
    """Print the prompt and its continuations."""
    refuse_idle(args, LOCAL, REMOTE)
    word, prompt = _words(args)
    make = _remote(args) if args.url else _local(args, word)
    for number in range(args.n):
        if args.n > 1:
            _write(f"--- {number + 1} of {args.n} ---\n")
        _tell(args, prompt, make, number)
    return 0


def refuse_idle(args: argparse.Namespace, local: Sequence[str], remote: Sequence[str]) -> None:
    """Raise ConfigError for a flag that has no effect with --url, or none without."""
    for name in local if args.url else remote:
        if getattr(args, name) is not None:
            flag, how = name.replace("_", "-"), "has no effect with" if args.url else "goes with"
            raise ConfigError(f"--{flag} {how} --url", hint="the server decides about its model" if args.url else "")


Make = Callable[[str, int, Outcome], Iterator[str]]
"""Yields the text of the continuation with a number, and fills in its outcome."""


def _words(args: argparse.Namespace) -> tuple[str | None, str]:
    """Return what to run and the prompt."""
    words = list(args.bare)
    if args.url and len(words) > 1:
        raise ConfigError("with --url there is only the prompt", hint="--model names the model; quote the prompt")
    alone = len(words) == 1 and " " in words[0] and not Path(words[0]).exists()
    word = None if args.url or alone or not words else words.pop(0)
    if not words and sys.stdin.isatty():
        console.say("type the text to continue, and Ctrl-D after its last line")
    try:
        prompt = words[0] if words else sys.stdin.read().removesuffix("\n")
        prompt.encode()
    except UnicodeError:
        raise ConfigError("the prompt is not UTF-8", hint="convert it: iconv -f latin1 -t utf-8") from None
    return word, prompt


def _tell(args: argparse.Namespace, prompt: str, make: Make, number: int) -> None:
    outcome, start = Outcome(), time.monotonic()
    pieces = make(prompt, number, outcome)
    first = next(pieces, "")  # what is wrong shows before anything is printed
    _write(("" if args.no_echo else prompt) + first)
    try:
        for piece in pieces:
            _write(piece)
    except KeyboardInterrupt:
        _write("\n")
        raise
    _write("\n")
    seconds = time.monotonic() - start
    rolls = f", context rolled {'once' if outcome.rolls == 1 else f'{outcome.rolls} times'}" if outcome.rolls else ""
    console.say(f"{outcome.tokens} tokens, {outcome.tokens / seconds:.1f} tokens/s, {_why(args, outcome)}{rolls}")


def _why(args: argparse.Namespace, outcome: Outcome) -> str:
    match outcome.reason:
        case "stop":
            return "ended by the model or --stop" if args.stop else "ended by the model"
        case "length":
            return "the context is full" if outcome.tokens < args.max_tokens else "stopped at --max-tokens"
    return outcome.reason  # another server's own


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _local(args: argparse.Namespace, word: str | None) -> Make:
    """Return a maker that runs the model in this process."""
    from lovecraft.engine.batch import events, rolled
    from lovecraft.engine.generate import load
    from lovecraft.engine.request import Request, SamplingParams, check_length, new_seed
    from lovecraft.engine.text import TextStream, prompt_ids
    from lovecraft.tokenizer import load_tokenizer

    path, _, _, asked = find_served(word, args.checkpoint or "latest")
    tokenizer = load_tokenizer(path)
    device, dtype = args.device or "auto", args.dtype or "auto"
    batch = load(path, tokenizer, device=device, dtype=dtype, max_context=args.max_context, model=asked)

    def make(prompt: str, number: int, outcome: Outcome) -> Iterator[str]:
        ids = prompt_ids(tokenizer, prompt)
        policy = args.context or "roll"
        if policy == "roll" and len(ids) >= batch.context:
            whole, ids = len(ids), rolled(ids, len(ids), batch.context)
            console.say(f"the prompt has {whole} tokens, too many; its beginning and end are read, {len(ids)} in all")
        check_length(len(ids), args.max_tokens, batch.context, policy)
        seed = new_seed() if args.seed is None else args.seed + number
        sampling = SamplingParams(
            args.temperature, args.top_p, args.top_k, args.min_p, seed, repetition_penalty=args.repetition_penalty
        )
        stop_ids = frozenset(() if args.ignore_eos else tokenizer.stop_ids)
        request = Request(tuple(ids), args.max_tokens, sampling, stop_ids, roll=policy == "roll")
        text = TextStream(tokenizer, ids, stops=args.stop)
        for event in events(batch, request):
            yield text.take(event)
            outcome.tokens, outcome.rolls, outcome.reason = text.tokens, text.rolls, text.reason or ""
            if text.reason:
                return

    return make


def _remote(args: argparse.Namespace) -> Make:
    """Return a maker that asks a server. It is sent only what differs from every server's default."""
    from lovecraft.serve import client
    from lovecraft.serve.keys import read_keys

    key = read_keys(args.api_key_file)[0] if args.api_key_file else ""
    model = args.model or client.first_model(args.url, key)
    special = {"top_k": args.top_k, "min_p": args.min_p, "stop": args.stop, "ignore_eos": args.ignore_eos}

    def make(prompt: str, number: int, outcome: Outcome) -> Iterator[str]:
        body = {"model": model, "prompt": prompt, "max_tokens": args.max_tokens, "temperature": args.temperature}
        body |= {"top_p": args.top_p, "stream_options": {"include_usage": True}}
        body |= {name: value for name, value in special.items() if value}
        body |= {} if args.repetition_penalty == 1 else {"repetition_penalty": args.repetition_penalty}
        body |= {} if args.seed is None else {"seed": args.seed + number}
        for chunk in client.stream(args.url, "completions", body, key):
            outcome.tokens = (chunk.get("usage") or {}).get("completion_tokens", outcome.tokens)
            outcome.rolls = (chunk.get("lovecraft") or {}).get("context_rolls", outcome.rolls)
            for choice in chunk["choices"]:
                outcome.reason = choice.get("finish_reason") or outcome.reason
                yield choice.get("text") or ""

    return make


def _some(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty text would end it at once")
    return text
