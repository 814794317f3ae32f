"""Talk to a model that has a chat template. It remembers the conversation while it fits the context.

/system TEXT   start over with this system message
/new           start over
/save FILE     write the conversation as JSON
/quit          leave (so does Ctrl-D)
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from lovecraft.cli import console
from lovecraft.cli.generate import refuse_idle
from lovecraft.cli.serve import find_served
from lovecraft.cli.words import within
from lovecraft.errors import ConfigError, LovecraftError

USAGE = "[CONFIG|RUN|MODEL] [--url URL] [--max-tokens N] [--temperature T] [--system TEXT]"
EXAMPLE = "lc chat models/smollm2_135m"
TAKES_OPTIONS = False

LOCAL = ("checkpoint",)
REMOTE = ("api_key_file", "model")

Messages = list[dict[str, str]]
Answer = Callable[[Messages], Iterator[str]]
"""Yields the reply to a conversation, as it is made."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc chat`."""
    add = parser.add_argument
    add("--max-tokens", type=within(int, 1, 1_000_000), default=512, metavar="N", help="tokens of a reply at most; 512")
    add("--temperature", type=within(float, 0, 2), default=0.7, metavar="T", help="0 is the likeliest token; 0.7")
    add("--top-p", type=within(float, 1e-9, 1), default=0.95, metavar="P", help="draw from this much probability; 0.95")
    add("--seed", type=within(int, 0, 2**62), default=0, metavar="N", help="draw the same replies again; 0")
    add("--system", metavar="TEXT", help="the system message")
    add("--checkpoint", metavar="WHICH", help="of a run: latest, best or a step's number")
    add("--url", help="let a server do it: any with OpenAI's chat API")
    add("--model", metavar="NAME", help="with --url: which of its models; the first one it lists")
    add("--api-key-file", type=Path, metavar="FILE", help="with --url: a file whose first key it is")


def run(args: argparse.Namespace) -> int:
    """Read lines and answer them until the end of the input."""
    refuse_idle(args, LOCAL, REMOTE)
    name, answer = _remote(args) if args.url else _local(args)
    console.say(f"this is {name}; /new, /system TEXT, /save FILE and /quit are commands")
    messages = _begin(args.system)
    while True:
        line = console.ask("> " if sys.stdin.isatty() else "")
        if not line or line.strip() == "/quit":
            return 0
        try:
            messages = _turn(args, line.strip(), messages, answer)
        except LovecraftError as error:  # this turn failed; the conversation goes on
            console.say(f"error: {error.message}")


def _begin(system: str | None) -> Messages:
    return [{"role": "system", "content": system}] if system else []


def _turn(args: argparse.Namespace, line: str, messages: Messages, answer: Answer) -> Messages:
    """Obey a command or answer a line; return the conversation after it."""
    command, _, rest = line.partition(" ")
    match command:
        case "":
            return messages
        case "/new":
            console.say("a new conversation")
            return _begin(args.system)
        case "/system":
            console.say(f"a new conversation, {'with this' if rest else 'without a'} system message")
            return _begin(rest)
        case "/save":
            if not rest:
                raise LovecraftError("/save takes a file's name")
            console.write(Path(rest), json.dumps(messages, indent=2, ensure_ascii=False) + "\n")
            console.say(f"saved to {rest}")
            return messages
        case _ if command.startswith("/"):
            raise LovecraftError(f"no command {command}; there are /new, /system, /save and /quit")
    asked = [*messages, {"role": "user", "content": line}]
    return [*asked, {"role": "assistant", "content": _show(answer(asked))}]


def _show(pieces: Iterator[str]) -> str:
    """Print the reply as it is made, and return it."""
    said = ""
    try:
        for piece in pieces:
            said += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:  # enough of this reply
        pass
    sys.stdout.write("\n")
    sys.stdout.flush()
    return said


def _local(args: argparse.Namespace) -> tuple[str, Answer]:
    """Return the model's name, and what answers with it in this process."""
    from lovecraft.chat_template import render
    from lovecraft.engine.batch import events
    from lovecraft.engine.generate import load
    from lovecraft.engine.request import Request, SamplingParams, check_length
    from lovecraft.engine.text import TextStream
    from lovecraft.tokenizer import load_tokenizer

    path, name, _, asked = find_served(args.target, args.checkpoint or "latest")
    render(path, [*_begin(args.system), {"role": "user", "content": "Hello."}])  # what cannot chat is refused now
    console.say(f"loading {path}")
    tokenizer = load_tokenizer(path)
    batch = load(path, tokenizer, device="auto", dtype="auto", max_context=None, model=asked)

    def answer(messages: Messages) -> Iterator[str]:
        ids = tokenizer.encode_template(render(path, messages))
        check_length(len(ids), args.max_tokens, batch.context, "stop")
        sampling = SamplingParams(args.temperature, args.top_p, seed=args.seed + len(messages))
        request = Request(tuple(ids), args.max_tokens, sampling, frozenset(tokenizer.stop_ids))
        text = TextStream(tokenizer, ids)
        yield from map(text.take, events(batch, request))

    return name, answer


def _remote(args: argparse.Namespace) -> tuple[str, Answer]:
    """Return the name of the server's model, and what asks it."""
    from lovecraft.serve import client
    from lovecraft.serve.keys import read_keys

    if args.target:
        raise ConfigError("with --url the server decides what runs", hint="--model names one of its models")
    key = read_keys(args.api_key_file)[0] if args.api_key_file else ""
    model = args.model or client.first_model(args.url, key)

    def answer(messages: Messages) -> Iterator[str]:
        body = {"model": model, "messages": messages, "max_tokens": args.max_tokens, "top_p": args.top_p}
        body |= {"temperature": args.temperature, "seed": args.seed + len(messages)}
        for chunk in client.stream(args.url, "chat/completions", body, key):
            for choice in chunk["choices"]:
                yield choice["delta"].get("content") or ""

    return model, answer
