"""What goes wrong, as a tree. Every message says where and what, every hint says what to do next.

LovecraftError                  the user can fix it: message and hint on stderr, exit code 2, no traceback
├── ConfigError                 a config, an option, a flag or a record is wrong
├── DataError                   a corpus or a built dataset is wrong or missing
├── ModelError                  a model directory, a tokenizer or a conversion is wrong or missing
│   └── ConversionFailed        what a conversion wrote is not what it was to write; exit code 1
├── RunError                    a run cannot be started, resumed or found
├── ServeError                  the server cannot start
│   └── RequestError            one request is wrong; carries the OpenAI error fields
└── TrainingFailed              training cannot go on (NaN, out of memory); exit code 3

Anything else that escapes is a bug of ours and keeps its traceback.
"""


class LovecraftError(Exception):
    """A mistake that the user can fix.

    `message` says what is wrong and where; `hint` says what to do about it (may be empty).
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(LovecraftError):
    """A config, an option, a flag or a record is wrong."""


class DataError(LovecraftError):
    """A corpus or a built dataset is wrong or missing."""


class ModelError(LovecraftError):
    """A model directory, a tokenizer or a conversion is wrong or missing."""


class ConversionFailed(ModelError):
    """What a conversion wrote is not what it was to write; the message says by how much. It was removed."""

    exit_code = 1


class RunError(LovecraftError):
    """A run cannot be started, resumed or found."""


class ServeError(LovecraftError):
    """The server cannot start."""


class RequestError(ServeError):
    """One request to the server is wrong.

    `param` and `code` are the fields of OpenAI's error object; `status` is the HTTP status.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


class TrainingFailed(LovecraftError):
    """Training cannot go on; the message names the knobs that may help."""

    exit_code = 3
