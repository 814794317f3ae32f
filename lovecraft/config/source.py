"""What source files say beside their values: the sentence under an option, the comment behind a value."""

import ast
import functools
import inspect
import io
import linecache
import re
import tokenize
from collections.abc import Callable, Iterable
from typing import Any

_OPEN = (("(", ")"), ("[", "]"), ("{", "}"), ('"""', "?"), ("'''", "?"))
"""What opens a value that may go on below, and what closes it."""
_UP_TO_COMMENT = r"""(?:[^#'"]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')*#"""

_NAME = re.compile(r"\.(\w+)|(?<=['\"])(\w+)(?=['\"])")


@functools.cache
def _tree(file: str) -> ast.Module:
    """Return a file's syntax tree; an empty one where there is no source."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module([], [])


@functools.cache
def _classes(file: str) -> dict[str, ast.ClassDef]:
    """Return a file's classes by qualified name."""
    found: dict[str, ast.ClassDef] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = node
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(node.body, f"{prefix}{node.name}.<locals>.")

    visit(_tree(file).body, "")
    return found


def line_of(cls: type, file: str, name: str) -> int:
    """Return the line where the body of a class last sets `name`; 0 where there is no source."""
    found, rest = 0, list[Any](getattr(_classes(file).get(cls.__qualname__), "body", []))
    while rest:
        node = rest.pop()
        said = getattr(node, "name", node.id if isinstance(getattr(node, "ctx", None), ast.Store) else None)
        found = max(found, node.lineno) if said == name else found
        rest += () if isinstance(node, ast.FunctionDef | ast.ClassDef) else ast.iter_child_nodes(node)
    return found


@functools.cache
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
        node = _classes(vars(base).get("__file__", "")).get(base.__qualname__)
        if node is not None and (said := _sentences(node).get(name)):
            return said
    return ""


@functools.cache
def comment(file: str, line: int) -> str:
    """Return the comment that ends a line of code, without its `#`; comments of linters and checkers count as none.

    Of a statement that goes on below, without a comment on that line, it is that of its last line.
    """
    text, mark, found = (whole := linecache.getline(file, line).strip()).partition("#")
    if mark and ("'" in text or '"' in text):  # it may stand inside a string
        code = re.match(_UP_TO_COMMENT, whole)
        found = whole[code.end() :] if code else ""
    if not found and (text.endswith("\\") or any(text.count(a) > text.count(b) for a, b in _OPEN)):
        said = (n for n in ast.walk(_tree(file)) if isinstance(n, ast.Assign | ast.AnnAssign) and n.lineno == line)
        last = max((n.end_lineno or 0 for n in said), default=line)
        found = _tokenized("".join(linecache.getlines(file)[line - 1 : last]).strip())
    words = found.lstrip("# ").strip()
    return "" if words.startswith(("noqa", "type:", "pyrefly:", "pyright:")) else words


def _tokenized(code: str) -> str:
    """Return the comment that ends several lines of code. The first call is slow: tokenize compiles its patterns."""
    found = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.COMMENT and token.start[0] == code.count("\n") + 1:
                found = token.string
    except (tokenize.TokenError, IndentationError):  # the statement goes on below; this line of it has been read
        pass
    return found


def reads(name: str, files: Iterable[str], nested: Iterable[str]) -> bool:
    """Return whether code in the files reads an attribute `name`, other than by `nested` paths; also if unseen."""
    apart = "".join(rf"(?<!\b{path.rpartition('.')[0]})" for path in nested)
    for file in files:
        text, names = _read_names(file)
        # A pattern of its own for each name would take a tenth of the time to show a config of many options.
        if not text or (name in names and (not apart or re.search(rf"{apart}\.{name}\b|['\"]{name}['\"]", text))):
            return True
    return False


@functools.cache
def _read_names(file: str) -> tuple[str, set[str]]:
    """Return a file's text, and the names that stand in it behind a dot or in quotes."""
    text = "".join(linecache.getlines(file))
    return text, {attribute or quoted for attribute, quoted in _NAME.findall(text)}


def last_comment(function: Callable[..., Any]) -> str:
    """Return the last comment that ends a line of a function's body."""
    code = function.__code__
    lines = sorted({line for _, _, line in code.co_lines() if line})
    return next((words for line in reversed(lines) if (words := comment(code.co_filename, line))), "")


def forget() -> None:
    """Drop what was read of the files that have changed since."""
    linecache.checkcache()
    for read in (_tree, _classes, _sentences, _read_names):
        read.cache_clear()
    comment.cache_clear()
