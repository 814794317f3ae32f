"""Talk to a model that has a chat template. It remembers the conversation while it fits the context.

/system TEXT   start over with this system message
/new           start over
/save FILE     write the conversation as JSON
/quit          leave (so does Ctrl-D)
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lovecraft.cli import console
from lovecraft.cli.serve import find_served
from lovecraft.cli.words import within
from lovecraft.errors import LovecraftError

if TYPE_CHECKING:
    from lovecraft.engine.generate import Slot
    from lovecraft.models.llama import Llama
    from lovecraft.tokenizer import Tokenizer

USAGE = "CONFIG|RUN|MODEL [--max-tokens N] [--temperature T] [--system TEXT]"
EXAMPLE = "lc chat models/smollm2_135m"
TAKES_OPTIONS = False
Messages = list[dict[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `lc chat`."""
    add = parser.add_argument
    add("--max-tokens", type=within(int, 1, 1_000_000), default=512, metavar="N", help="tokens of a reply at most; 512")
    add("--temperature", type=within(float, 0, 2), default=0.7, metavar="T", help="0 is the likeliest token; 0.7")
    add("--top-p", type=within(float, 1e-9, 1), default=0.95, metavar="P", help="draw from this much probability; 0.95")
    add("--seed", type=within(int, 0, 2**62), default=0, metavar="N", help="draw the same replies again; 0")
    add("--system", metavar="TEXT", help="the system message")
    add("--checkpoint", default="latest", metavar="WHICH", help="of a run: latest, best or a step's number")


def run(args: argparse.Namespace) -> int:
    """Read lines and answer them until the end of the input."""
    from lovecraft.chat_template import render
    from lovecraft.engine.generate import load
    from lovecraft.tokenizer import load_tokenizer

    path, name, _, asked = find_served(args.target, args.checkpoint)
    render(path, [*_begin(args.system), {"role": "user", "content": "Hello."}])  # what cannot chat is refused now
    console.say(f"loading {path}")
    tokenizer = load_tokenizer(path)
    model, slot = load(path, device="auto", dtype="auto", max_context=None, model=asked)
    console.say(f"this is {name}; /new, /system TEXT, /save FILE and /quit are commands")
    messages = _begin(args.system)
    while True:
        line = console.ask("> " if sys.stdin.isatty() else "")
        if not line or line.strip() == "/quit":
            return 0
        try:
            messages = _turn(args, line.strip(), messages, model, slot, tokenizer)
        except LovecraftError as error:  # this turn failed; the conversation goes on
            console.say(f"error: {error.message}")


def _begin(system: str | None) -> Messages:
    return [{"role": "system", "content": system}] if system else []


def _turn(
    args: argparse.Namespace, line: str, messages: Messages, model: "Llama", slot: "Slot", tokenizer: "Tokenizer"
) -> Messages:
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
    return [*asked, {"role": "assistant", "content": _answer(args, asked, model, slot, tokenizer)}]


def _answer(args: argparse.Namespace, messages: Messages, model: "Llama", slot: "Slot", tokenizer: "Tokenizer") -> str:
    """Print the reply as it is made, and return it."""
    from lovecraft.chat_template import render
    from lovecraft.engine.generate import events
    from lovecraft.engine.request import Request, SamplingParams, check_length
    from lovecraft.engine.text import TextStream

    ids = tokenizer.encode_template(render(tokenizer.path, messages))
    check_length(len(ids), args.max_tokens, slot.context, "stop")
    sampling = SamplingParams(args.temperature, args.top_p, seed=args.seed + len(messages))
    request = Request(tuple(ids), args.max_tokens, sampling, frozenset(tokenizer.stop_ids))
    text, said = TextStream(tokenizer, ids), ""
    try:
        for event in events(model, slot, request, vocabulary=tokenizer.vocab_size):
            piece = text.take(event)
            said += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:  # enough of this reply
        pass
    sys.stdout.write("\n")
    sys.stdout.flush()
    return said
