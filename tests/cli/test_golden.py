"""Every mistake's message, word for word. `LC_GOLDEN=write make test` rewrites them; the diff shows what changed.

What the light commands can refuse stands in `tests/golden/mistakes.txt`: a tracer notes which of the source's
statements that make a message were run, and `NOT_HERE` says why the others were not.
"""

import ast
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from lovecraft.config import record
from lovecraft.config.load import load
from lovecraft.config.modules import forget

Command = Callable[..., Any]
Write = Callable[[str, str], Path]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def check(name: str, text: str) -> None:
    """Compare a text with the golden one, or replace that where LC_GOLDEN=write."""
    text = re.sub(r"(lovecraft/config/\w*schema\.py):\d+", r"\1:N", text)  # a line more there changes nothing for users
    path = GOLDEN / name
    if os.environ.get("LC_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


TRAIN = "from projects.tiny import default\n\nclass Train(default.Train):\n"
DATASET = "from projects.texts import default\n\nclass Dataset(default.Dataset):\n"

MODULES = {
    # names in a class
    "typo": "from lovecraft import AdamW\n" + TRAIN + "    max_step = 10\n    optimiser = AdamW\n",
    "cyrillic": TRAIN + "    еpochs = 3\n",
    "shadow": TRAIN + "    @property\n    def batch_size(self) -> int:\n        return 4\n",
    "special": TRAIN + "    def __init__(self) -> None:\n        pass\n",
    "abstract": "from abc import ABC\n" + TRAIN.replace("(", "(ABC, ") + "    pass\n",
    "mixin": "class Fast:\n    batchsize = 1\n\n" + TRAIN.replace("(", "(Fast, ") + "    pass\n",
    # values
    "types": (
        "from projects.tiny import default\n\n"
        "class Dataset(default.Train.dataset):\n    block_size = '32'\n    source = 'texts'\n    tokenizer = 3\n\n"
        "class Train(default.Train):\n    dataset = Dataset\n    batch_size = True\n    optimizer = Dataset\n"
        "    epochs = 0\n    max_minutes = float('inf')\n    device = 'gpu'\n"
    ),
    "tuples": "from lovecraft import AdamW\n\nclass Optimizer(AdamW):\n    betas = (0.9,)\n\n"
    + TRAIN
    + "    optimizer = Optimizer\n",
    "incomplete": "import workspace\n\nclass Train(workspace.Train):\n    batch_size = 4\n",
    "mutable": DATASET + "    train = ['a.txt']\n",
    "field": "import attrs\n" + TRAIN + "    batch_size = attrs.field(default=4)\n",
    "instance": "from lovecraft import AdamW\n" + TRAIN + "    optimizer = AdamW(lr=1e-4)\n",
    "module": "from projects.texts import default as texts\n" + TRAIN + "    dataset = texts\n",
    "checked": (
        "from typing import Annotated\n\ndef even(value: int) -> bool:\n    return value % 2 == 0\n\n"
        + TRAIN
        + "    pairs: Annotated[int, even] = 3\n"
    ),
    # derived values
    "cycle": (
        "from lovecraft import derived\n"
        + TRAIN
        + "    @derived\n    def batch_size(self) -> int:\n        return 16 // self.accumulation\n\n"
        "    @derived\n    def accumulation(self) -> int:\n        return 16 // self.batch_size\n"
    ),
    "derived": "from lovecraft import derived\n"
    + TRAIN
    + "    @derived\n    def batch_size(self) -> int:\n        return 'four'\n",
    "value": "from lovecraft import derived\n"
    + TRAIN
    + "    @derived\n    def batch_size(self) -> int:\n        return super().batch_size()\n",
    "parentheses": "from lovecraft import derived\n" + TRAIN + "    batch_size = derived()\n",
    "nothing": "from lovecraft import derived\n" + TRAIN + "    batch_size = derived(4)\n",
    "section": "from lovecraft import AdamW, derived\n"
    + TRAIN
    + "    @derived\n    def optimizer(self) -> type:\n        return AdamW\n",
    # new options
    "declared": (
        "from typing import Annotated, Any, Literal\nfrom lovecraft import AdamW, derived\n"
        + TRAIN
        + "    batch_size: float = 4.0\n    mine: list[int] = [1]\n"
        "    second: AdamW = AdamW\n    third: 'Nowhere' = 1\n"
        "    fourth: 'int |' = 1\n    fifth: Annotated[int, 'small'] = 1\n    sixth: Literal['none'] | None = None\n\n"
        "    @derived\n    def seventh(self):\n        return 1\n"
    ),
    "named": TRAIN
    + "    größe: int = 1\n    why: int = 1\n    no_seed: bool = True\n    Seed: int = 1\n    __slots__ = ()\n",
    "unused": TRAIN + "    epoch: int = 3\n    lr: float = 1e-4\n    warmup_steps: int = 100\n",
    # sealed classes
    "decorated": "import attrs\n" + TRAIN.replace("class", "@attrs.define\nclass") + "    batch_size = 4\n",
    "changed": "from projects.tiny import default\n\ndefault.Train.batch_size = 4\n",
    "deleted": "from projects.tiny import default\n\ndel default.Train.batch_size\n",
    "frozen": "from projects.tiny import default\n\ndefault.Train().batch_size = 4\n",
    "thawed": "from projects.tiny import default\n\ndel default.Train().batch_size\n",
    "called": "from projects.tiny import default\n\ndefault.Train(max_stepz=4)\n",
    "typed": TRAIN.partition("\n\n")[0] + "\n\nTrain = type('Train', (default.Train,), {'seed': 1})\n",
    "dict": "import lovecraft\nfrom projects.tiny import default\n\n"
    "lovecraft.override(default.Train, {'optimizer': {'lr': 3}})\n",
    "list": "import lovecraft\nfrom projects.tiny import default\n\nlovecraft.override(default.Train, ['seed'])\n",
    "through": "from projects.tiny import default\n\ndefault.Train(**{'save.every': 4, 'save': None})\n",
    # what a module defines
    "empty": "x = 1\n",
    "plain": "class Train:\n    max_steps = 10\n",
    "several": TRAIN.replace("Train(", "Short(") + "    pass\n\nclass Long(default.Train):\n    pass\n",
    # what a module does
    "prints": "print('loading')\n",
    "asks": "steps = input()\n",
    "exits": "import sys\n\nsys.exit(1)\n",
    "nowhere": "from projects.tiny import defualt\n",
    "nothing_there": "from workspace import Trian\n",
    "syntax": "class Train(:\n    pass\n",
    "circle": "from projects.wrong.circle_back import x\n",
    "circle_back": "from projects.wrong.circle import x\n",
    "loads": "import lovecraft\n\nlovecraft.load('wrong/loads_back')\n",
    "loads_back": "import lovecraft\n\nlovecraft.load('wrong/loads')\n",
    "model": "from lovecraft import ModelConfig\n\nclass Model(ModelConfig):\n    path = 'hf:org/name'\n",
    "my-config": TRAIN + "    pass\n",
}
"""Configs with a typical mistake each, as modules of the project `wrong`."""

FILES = {
    "projects/wrong/latin.py": b"x = '\xe9'\n",
    "projects/wrong/null.py": b"x = '\0'\n",
    "projects/wrong/folder.py/x.txt": b"",
    "projects/wrong/hidden.py": b"",
    "projects/wrong/hidden/config.py": b"x = 1\n",
    "projects/stray.py": b"x = 1\n",
    "models/tiny/config.json": b"{}",
    "models/empty/config.json": b"{}",
    "empty/x": b"",
}

RECORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "format": lambda r: r.update(format=99),
    "lacks": lambda r: r.pop("own"),
    "called": lambda r: r.update(config="../../x"),
    "damaged": lambda r: r["options"][0].pop("value"),
    "class": lambda r: r.update({"class": "os.system"}),
    "unknown": lambda r: r["options"][0].update(path="dataset.nothing"),
    "own": lambda r: r["own"].append("seed"),
    "section": lambda r: next(o for o in r["options"] if o["path"] == "optimizer").update(value="Popen"),
}
"""What was done to the records of runs."""

MISTAKES = (
    *(f"show wrong/{name}" for name in MODULES if not name.endswith("_back") and name != "model"),
    # names
    "show",
    "show tinny",
    "show tiny/4k",
    "show tiny/default/001",
    "show wrong",
    "show stray",
    "show workspace.py",
    "show wrong/latin",
    "show wrong/null",
    "show wrong/folder",
    "show wrong/unread",
    "show wrong/hidden/config",
    "show wrong/several:Shrot",
    "show wrong/plain:Train",
    "show tiny:Dataset",
    "plan hf:org/name",
    # models
    "plan tiny --model.path none",
    "plan tiny --model.init Init",
    "build wrong/model --path none --init Init",
    # flags
    "show tiny --max-stepz 10",
    "show tiny --block-size 10",
    "show tiny --max-steps ten",
    "show tiny --max-steps",
    "show tiny --max-steps 0",
    "show tiny --epochs nan",
    "show tiny --dataset.shuffle maybe",
    "show tiny --dataset.train [a",
    "show tiny --model.dtype fp17",
    "show tiny --model.path=",
    "show tiny --optimizer.betas 0.9",
    "show tiny --max-steps 1 --max_steps 2",
    "show tiny --optimizer Adam",
    "show tiny --optimizer",
    "show tiny --optimizer none",
    "show tiny --no-optimizer",
    "show tiny --save none --save.every 10",
    "show tiny --no-dataset.shuffle=yes",
    "show tiny --no-seed",
    "show tiny –seed 1",
    "show tiny 10",
    "show tiny --dataset tiny",
    "show tiny --dataset tinny",
    "show tiny --model models/empty",
    "show tiny --no-shuffle",
    "show tiny --optimizer SGD --optimizer.betas 1,2",
    "show tiny --eval.prompts -hello",
    "show tiny --optimizer.betas 0.9 0.95",
    "show tiny seed=1",
    "show tiny --model.dtype BFLOAT16",
    # what show and diff print
    "show tiny --why lr",
    "show tiny --save none --why save.every",
    "show tiny --why seed --python",
    "show models/empty --diff",
    "data models/empty",
    "data wrong/model",
    "diff tiny",
    "diff tiny texts",
    "ls tinny",
    # records
    *(f"show runs/wrong/{name} --seed 1" for name in ("json", "list", *RECORDS)),
    # what lc new and lc init write
    "new",
    "new project 4k",
    "new project a/b",
    "new project tiny",
    "new config a",
    "new config nope/a",
    "new config tiny/a --from texts:Dataset --texts texts",
    "new config tiny/a --from tiny/default/001",
    "new config tiny/a --copy",
    "new config tiny/a --copy --from tiny --description x",
    f"new project a --description {'x' * 200}",
    "new project a --dataset tiny",
    "new project a --texts nowhere",
    "new project a --texts empty",
    "init",
    "init projects/a",
    # commands
    "tarin tiny",
    "ls --max-steps 3",
    "show --why",
    "train texts",
)

MESSAGES = (
    *(f"config/{file.name}" for file in sorted((ROOT / "lovecraft" / "config").glob("*.py"))),
    *(f"cli/{name}.py" for name in ("__init__", "show", "ls", "diff", "new", "init", "options", "target")),
)
"""The files whose messages are listed."""

SAYING = {"_problem", "_special", "_declare", "_evaluate", "objection"}
"""Functions that return what is wrong as a text."""

NOT_HERE = {
    "expected a config class": "only scripts call it: tests/test_api.py",
    "is no kind of config": "only scripts call it: tests/test_api.py",
    "a config of one workspace cannot": "only a config that calls the core does it: tests/config/test_modules.py",
    "no workspace.py in": "the commands here run inside a workspace: tests/config/test_load.py",
    "// is the root of a workspace": "the commands here run inside a workspace: tests/cli/test_options.py",
    "models on the hub cannot": "of a model, not of a config",
    "is not a model directory": "of a model, not of a config",
    "there is no tokenizer": "of a model, not of a config",
    "}checkpoint": "of a run's checkpoints: tests/cli/test_target.py",
}
"""The messages that no command above shows, by a piece of their statement, and why."""


def statements(file: str) -> Iterator[ast.stmt]:
    """Yield the statements of a file of the package that make a message."""
    tree = ast.parse((ROOT / "lovecraft" / file).read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            value = node.exc if isinstance(node, ast.Raise) else getattr(node, "value", None)
            if not isinstance(node, ast.stmt) or not isinstance(value, ast.expr):
                continue
            called = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
            texts = [n for n in ast.walk(value) if isinstance(n, ast.JoinedStr)]
            if called.endswith("Error") or called == "problems.append" or (function.name in SAYING and texts):
                yield node


def test_every_message_stands_in_the_golden_file(lc: Command, workspace: Path, write: Write) -> None:
    for name, text in MODULES.items():
        write(f"projects/wrong/{name}.py", text)
    for name, data in FILES.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(data)
    (workspace / "projects/wrong/unread.py").symlink_to("/proc/self/mem")  # nobody can read its beginning
    good = json.dumps(record.make(load("tiny").cls, "tiny/default", workspace, {}))
    for name, change in RECORDS.items():
        change(kept := json.loads(good))
        write(f"runs/wrong/{name}/record.json", json.dumps(kept))
    write("runs/wrong/json/record.json", "{")
    write("runs/wrong/list/record.json", "[]")

    ran: set[tuple[str, int]] = set()
    package = str(ROOT / "lovecraft") + os.sep

    def lines(frame: FrameType, event: str, argument: object) -> Any:
        ran.add((frame.f_code.co_filename, frame.f_lineno))
        return lines

    def calls(frame: FrameType, event: str, argument: object) -> Any:
        return lines if frame.f_code.co_filename.startswith(package) else None

    told = []
    before = sys.gettrace()
    for words in MISTAKES:
        forget()
        sys.settrace(calls)
        try:
            done = lc(*words.split())
        finally:
            sys.settrace(before)
        assert (done.code, done.out) == (2, ""), words
        told.append(f"$ lc {words}\n{done.err}".replace(str(workspace), "…"))

    unseen = {}
    for file in MESSAGES:
        source = (ROOT / "lovecraft" / file).read_text(encoding="utf-8").splitlines()
        for node in statements(file):
            span = range(node.lineno, (node.end_lineno or 0) + 1)
            text = "\n".join(source[line - 1] for line in span)
            excused = any(piece in text for piece in NOT_HERE)
            if excused is any((str(ROOT / "lovecraft" / file), line) in ran for line in span):
                unseen[f"lovecraft/{file}:{node.lineno}"] = text
    assert not unseen, "\n".join(f"{place}\n{text}" for place, text in unseen.items())
    check("mistakes.txt", "\n".join(told))
