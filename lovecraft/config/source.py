"""What source files say beside their values: the sentence under an option, the comment behind a value."""

import ast
import functools
import inspect
import io
import linecache
import tokenize
from collections.abc import Callable
from typing import Any


@functools.cache
def _module(file: str) -> dict[str, dict[str, str]]:
    """Read a file's classes: {qualified name: {option: sentence}}; empty where there is no source."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    found: dict[str, dict[str, str]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = _sentences(node)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(node.body, f"{prefix}{node.name}.<locals>.")

    visit(tree.body, "")
    return found


def _sentences(node: ast.ClassDef) -> dict[str, str]:
    said = {}
    for statement, below in zip(node.body, node.body[1:], strict=False):
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(target, ast.Name) and isinstance(text, str):
            said[target.id] = inspect.cleandoc(text)
    return said


def sentence(cls: type, name: str) -> str:
    """Return the sentence that documents option `name`, written in the class that declares it."""
    for base in cls.__mro__:
        function = getattr(vars(base).get(name), "function", None)
        if function is not None and function.__doc__:
            return inspect.cleandoc(function.__doc__)
        file = vars(base).get("__file__", "")
        if said := _module(file).get(base.__qualname__, {}).get(name):
            return said
    return ""


@functools.cache
def comment(file: str, line: int) -> str:
    """Return the comment that ends a line of code, without its `#`; comments of linters and checkers count as none."""
    text, mark, found = linecache.getline(file, line).strip().partition("#")
    if mark and ("'" in text or '"' in text):  # it may stand inside a string
        found = _tokenized(f"{text}#{found}")
    words = found.lstrip("# ").strip()
    return "" if words.startswith(("noqa", "type:", "pyrefly:", "pyright:")) else words


def _tokenized(line: str) -> str:
    """Return the comment token of a line of code. The first call is slow: tokenize then compiles its patterns."""
    found = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(line).readline):
            found = token.string if token.type == tokenize.COMMENT else found
    except (tokenize.TokenError, IndentationError):  # the statement goes on below; this line of it has been read
        pass
    return found


def last_comment(function: Callable[..., Any]) -> str:
    """Return the last comment that ends a line of a function's body."""
    code = function.__code__
    lines = sorted({line for _, _, line in code.co_lines() if line})
    return next((words for line in reversed(lines) if (words := comment(code.co_filename, line))), "")


def forget() -> None:
    """Drop what was read of the files that have changed since."""
    linecache.checkcache()
    _module.cache_clear()
    comment.cache_clear()
