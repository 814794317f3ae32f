"""What users see, word for word. `LC_GOLDEN=write make test` rewrites the texts; the diff then shows what changed."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]
Write = Callable[[str, str], Path]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def check(name: str, text: str) -> None:
    """Compare a text with the golden one, or replace that where LC_GOLDEN=write."""
    text = re.sub(r"(lovecraft/config/schema\.py):\d+", r"\1:N", text)  # a line more there changes nothing for users
    path = GOLDEN / name
    if os.environ.get("LC_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


MODULES = {
    "typo": """
        from lovecraft import AdamW
        from projects.tiny import default

        class Train(default.Train):
            max_step = 10
            optimiser = AdamW
    """,
    "types": """
        from projects.tiny import default

        class Dataset(default.Train.dataset):
            block_size = "32"
            source = "texts"

        class Train(default.Train):
            dataset = Dataset
            batch_size = True
            optimizer = Dataset
            epochs = 0
    """,
    "incomplete": """
        import workspace

        class Train(workspace.Train):
            batch_size = 4
    """,
    "shadow": """
        from projects.tiny import default

        class Train(default.Train):
            @property
            def batch_size(self) -> int:
                return 4
    """,
    "mutable": """
        from projects.texts import default

        class Dataset(default.Dataset):
            train = ["a.txt"]
    """,
    "instance": """
        from lovecraft import AdamW
        from projects.tiny import default

        class Train(default.Train):
            optimizer = AdamW(lr=1e-4)
    """,
    "decorated": """
        import attrs
        from projects.tiny import default

        @attrs.define
        class Train(default.Train):
            batch_size = 4
    """,
    "cycle": """
        from lovecraft import derived
        from projects.tiny import default

        class Train(default.Train):
            @derived
            def batch_size(self) -> int:
                return 16 // self.accumulation

            @derived
            def accumulation(self) -> int:
                return 16 // self.batch_size
    """,
    "changed": """
        from projects.tiny import default

        default.Train.batch_size = 4
    """,
    "several": """
        from projects.tiny import default

        class Short(default.Train):
            max_steps = 1

        class Long(default.Train):
            max_steps = 100
    """,
}
"""Configs with a typical mistake each, as modules of the project `wrong`."""

MISTAKES = (
    *(f"show wrong/{name}" for name in MODULES),
    "show",
    "show tinny",
    "show tiny/4k",
    "show tiny/default/001",
    "show tiny --max-stepz 10",
    "show tiny --block-size 10",
    "show tiny --max-steps ten",
    "show tiny --max-steps 0",
    "show tiny --optimizer Adam",
    "show tiny --save none --save.every 10",
    "show tiny --no-dataset.shuffle=yes",
    "show tiny 10",
    "show tiny --dataset tiny",
    "show tiny --dataset tinny",
    "show tiny --why lr",
    "show hf:org/name",
    "diff tiny",
    "new project 4k",
    "tarin tiny",
)


def test_the_messages_of_typical_mistakes(lc: Command, workspace: Path, write: Write) -> None:
    for name, text in MODULES.items():
        write(f"projects/wrong/{name}.py", text)
    told = []
    for words in MISTAKES:
        done = lc(*words.split())
        assert (done.code, done.out) == (2, ""), words
        told.append(f"$ lc {words}\n{done.err}".replace(str(workspace), "…"))
    check("mistakes.txt", "\n".join(told))
