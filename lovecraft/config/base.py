"""The language itself: a config is a class, a subclass overrides by assignment, Python's own lookup decides who wins.

    class TrainConfig(Config):
        max_steps: Annotated[int, gt(0)] = 1000      # an option: annotation, default, and the sentence under it
        '''Optimizer steps to run.'''

    class Short(TrainConfig):
        max_steps = 10                               # an override: no decorator, no annotation

The metaclass gives each class its attrs fields, refuses what is not an option, and remembers where each value was
written. `resolve` (in resolve.py) turns a class into a frozen instance tree.
"""

import difflib
import functools
import inspect
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from lovecraft.config import values
from lovecraft.errors import ConfigError

T = TypeVar("T")
_HELPERS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)
_REQUIRED = attrs.NOTHING


@attrs.frozen
class Origin:
    """The place that gave a value: a line of a file, or the words of a flag."""

    file: str
    line: int = 0
    said: str = ""


@attrs.frozen
class Option:
    """One option of a config class, as its declaration says."""

    name: str
    hint: Any = attrs.field(eq=False)
    quiet: bool = False

    @property
    def section(self) -> "type[Config] | None":
        """The base class that a section must derive from; None for a plain option."""
        return _section_of(self.hint)[0]

    @property
    def optional(self) -> bool:
        """Whether the section may be switched off with None."""
        return _section_of(self.hint)[1]


def _section_of(hint: Any) -> "tuple[type[Config] | None, bool]":
    plain, _ = values.unwrap(hint)
    kinds = typing.get_args(plain) if typing.get_origin(plain) in (typing.Union, types.UnionType) else (plain,)
    for kind in kinds:
        if typing.get_origin(kind) is type and isinstance(typing.get_args(kind)[0], _Meta):
            return typing.get_args(kind)[0], type(None) in kinds
    return None, False


class _Computing(threading.local):
    """The derived values that this thread is computing, outermost first, as (id of the instance, name)."""

    def __init__(self) -> None:
        self.stack: list[tuple[int, str]] = []


_computing = _Computing()


class Derived:
    """A value computed from other options. A non-data descriptor: a plain value in an instance's dict hides it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, config: Any, owner: Any = None) -> Any:
        if config is None:  # Train.batch_size on the class itself
            return getattr(draft(owner), self.name)
        if inspect.getattr_static(type(config), self.name, None) is not self:
            return self.function(config)  # reached through super(): an ingredient, not the option's value
        key = (id(config), self.name)
        if key in _computing.stack:
            names = [name for _, name in _computing.stack[_computing.stack.index(key) :]] + [self.name]
            where = place(history(type(config), self.name)[0][1])
            raise ConfigError(f"{where}: {self.name}: derived values form a cycle: {' -> '.join(names)}")
        _computing.stack.append(key)
        try:
            value = self.function(config)
        finally:
            _computing.stack.pop()
        config.__dict__[self.name] = normalise(type(config), self.name, value)
        return config.__dict__[self.name]


if TYPE_CHECKING:

    def derived(function: Callable[[Any], T]) -> T:
        """Make a method the value of an option."""
        ...

else:
    derived = Derived


class _Body(dict[str, Any]):
    """A class body that remembers the line of each assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, Origin] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        frame = sys._getframe(1)
        self.origins[name] = Origin(frame.f_code.co_filename, frame.f_lineno)
        super().__setitem__(name, value)


class _Meta(type):
    """Compiles config classes; seals them against later assignment."""

    __origins__: dict[str, Origin]
    __options__: dict[str, Option]
    __file__: str
    __anonymous__: bool

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **_: Any) -> _Body:  # type: ignore[override]
        return _Body()

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], anonymous: bool = False) -> Any:
        if not isinstance(body, _Body):  # a decorator makes the class anew, from a plain dict
            raise _decorated(name, _file(body.get("__module__")))
        cls = super().__new__(mcs, name, bases, dict(body))
        cls.__origins__ = body.origins
        cls.__file__ = _file(cls.__module__)
        cls.__anonymous__ = anonymous
        cls.__options__ = _options(cls)
        _refuse_strangers(cls)
        _compile(cls)
        cls.__sealed__ = True
        return cls

    def __init__(cls, *_: Any, **__: Any) -> None:
        pass

    def __call__(cls, **changes: Any) -> Any:
        """`Train(max_steps=3)` is the resolved instance of a subclass that says so."""
        from lovecraft.config.override import override
        from lovecraft.config.resolve import resolve

        return resolve(override(cls, changes))

    def __setattr__(cls, name: str, value: Any) -> None:
        if not cls.__dict__.get("__sealed__"):
            return super().__setattr__(name, value)
        if name.startswith("__"):
            raise _decorated(cls.__qualname__, cls.__file__)
        raise ConfigError(f"{_caller()}: {cls.__qualname__} is a config; subclass it to change {name!r}")

    def __delattr__(cls, name: str) -> None:
        raise ConfigError(f"{_caller()}: {cls.__qualname__} is a config; it cannot lose {name!r}")


def _decorated(name: str, file: str) -> ConfigError:
    return ConfigError(
        f"{place(Origin(file))}: {name}: a config class takes no decorator", hint="remove it: a subclass is complete"
    )


def _file(module: str | None) -> str:
    """Return the file of a module by name; empty where it has none."""
    return getattr(sys.modules.get(module or ""), "__file__", None) or ""


def _caller() -> str:
    """Return the place that called the function that calls this one."""
    frame = sys._getframe(2)
    return place(Origin(frame.f_code.co_filename, frame.f_lineno))


def _options(cls: Any) -> dict[str, Option]:
    """Collect the options of a class: the inherited ones in the order of first declaration, then its own.

    An inherited option keeps its declaration, with the checks in it, also where a subclass repeats its plain type.
    """
    found: dict[str, Option] = {}
    for base in reversed(cls.__mro__[1:]):
        found.update(base.__options__ if isinstance(base, _Meta) else {})
    for name, hint in _own_hints(cls, found).items():
        if name not in found:
            found[name] = _declare(cls, name, hint)
        elif values.name_type(found[name].hint) != values.name_type(hint):
            kind = values.name_type(found[name].hint)
            raise ConfigError(f"{written(cls, name)}: {name} is declared as {kind}; drop the annotation")
    return found


def _declare(cls: Any, name: str, hint: Any) -> Option:
    option = Option(name, hint, quiet=values.quiet in values.unwrap(hint)[1])
    if option.section is None and not values.supported(hint):
        raise ConfigError(
            f"{written(cls, name)}: {name}: an option cannot be of type {values.name_type(hint)}",
            hint="it can be int, float, str, bool, Path, Literal[...], a tuple of these, or one of these or None",
        )
    return option


def _own_hints(cls: Any, inherited: dict[str, Option]) -> dict[str, Any]:
    """Return the types of the options that the class itself declares, by annotation or by a new `@derived`."""
    own = [name for name in inspect.get_annotations(cls) if not name.startswith("_")]
    try:
        hints = typing.get_type_hints(cls, include_extras=True) if own else {}
        found = {name: hints[name] for name in own}
        for name, value in vars(cls).items():
            if isinstance(value, Derived) and name not in inherited:
                found[name] = typing.get_type_hints(value.function, include_extras=True).get("return", Any)
    except NameError as error:
        raise ConfigError(
            f"{written(cls)}: an annotation of {cls.__qualname__} names the unknown {error.name!r}"
        ) from None
    return found


def _refuse_strangers(cls: Any) -> None:
    """Raise ConfigError for every public name of the class, or of a plain mixin, that is not an option."""
    plain = [base for base in cls.__mro__ if base is cls or not isinstance(base, _Meta)]
    problems = []
    for base in plain:
        for name, value in vars(base).items():
            if name.startswith("_") or base in (object, typing.Generic):
                continue
            if wrong := _problem(cls, name, value):
                problems.append(f"{place(origin_of(base, name))}: {wrong}")
    if problems:
        raise ConfigError("\n".join(problems))


def _problem(cls: Any, name: str, value: Any) -> str:
    options = cls.__options__
    if name in options and options[name].section is not None and isinstance(value, Derived):
        return f"{cls.__qualname__}.{name} is a section, which is a class and cannot be derived"
    if name in options and isinstance(type(value), _Meta) and not cls.__anonymous__:
        return f"{cls.__qualname__}.{name} is an instance; assign the class, and subclass it to change what it says"
    if name in options and isinstance(value, _HELPERS):
        return f"{cls.__qualname__}.{name} is an option; write @derived above the method that computes it"
    if name in options and isinstance(value, list | dict | set | bytearray):
        return f"{cls.__qualname__}.{name} is a {type(value).__name__}, which classes would share; write a tuple"
    if name in options or isinstance(value, _HELPERS):
        return ""
    return f"{cls.__qualname__} has no option {name!r}{did_you_mean(name, options)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the known names where none is close and they are few."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, 1):
        return f"; did you mean {close[0]!r}?"
    return f"; it has {', '.join(sorted(names))}" if 0 < len(names) <= 20 else ""


def _compile(cls: Any) -> None:
    """Let attrs give the class its fields. Instances are made by `draft` and `resolve`, never by attrs.

    What attrs would generate anew for each class, Config has once: that halves the time to import the schema.
    """
    these: dict[str, Any] = {
        name: attrs.field(default=inspect.getattr_static(cls, name, _REQUIRED)) for name in cls.__options__
    }
    attrs.define(cls, these=these, slots=False, init=False, eq=False, repr=False)


class Config(metaclass=_Meta):
    """Base of every config class. Instances are frozen, and equal iff their classes and all their values are."""

    if TYPE_CHECKING:

        def __init__(self, **changes: Any) -> None: ...

    def __setattr__(self, name: str, value: Any) -> None:
        raise ConfigError(f"{_caller()}: a resolved {type(self).__qualname__} is frozen; {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"{_caller()}: a resolved {type(self).__qualname__} is frozen; it cannot lose {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *(vars(self).get(name) for name in type(self).__options__)))

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


# --- reading classes ------------------------------------------------------------------------------


def named(cls: Any) -> Any:
    """Return the class itself, or the one that an anonymous override was made from."""
    return next(base for base in cls.__mro__ if not base.__dict__.get("__anonymous__"))


def library_class(cls: Any) -> Any:
    """Return the nearest class of the library itself: what a section is, whatever users call their subclasses."""
    return next(base for base in named(cls).__mro__ if base.__module__.partition(".")[0] == "lovecraft")


def origin_of(cls: type, name: str) -> Origin:
    """Return where the body of `cls` itself sets or declares `name`."""
    known = cls.__dict__.get("__origins__", {})
    if name in known:
        return known[name]
    return Origin(getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__)


def history(cls: Any, name: str) -> list[tuple[Any, Origin]]:
    """Return every raw value that `name` was given, the winning one first, with its origin."""
    return [(vars(base)[name], origin_of(base, name)) for base in cls.__mro__ if name in vars(base)]


def written(cls: Any, name: str = "") -> str:
    """Return the place where `name` stands in the class, an override's own class meant, else where the class begins."""
    own = named(cls).__origins__
    return place(own.get(name) or next(iter(own.values()), Origin(cls.__file__)))


def place(origin: Origin) -> str:
    """Write an origin as `file:line`, relative to the workspace or the library where it lies in one, or as the flag."""
    from lovecraft.config.load import shorten

    if origin.said:
        return origin.said
    return f"{shorten(origin.file)}:{origin.line}" if origin.line else shorten(origin.file)


def normalise(cls: Any, name: str, value: Any) -> Any:
    """Return a plain option's value checked and normalised; raise ConfigError with the place that gave it."""
    try:
        return values.structure(value, cls.__options__[name].hint)
    except ValueError as error:
        where = next((place(origin) for _, origin in history(cls, name)), cls.__qualname__)
        raise ConfigError(f"{where}: {name}: {error}") from None


def draft(cls: Any) -> Any:
    """Return an instance whose derived values are computed when they are first read, its sections drafts as well.

    Methods and `@derived` of sections so have a proper `self`, and every later override is seen.
    """
    config = object.__new__(named(cls))
    for name, option in cls.__options__.items():
        value = inspect.getattr_static(cls, name, _REQUIRED)
        if isinstance(value, _Meta):
            value = draft(value)
        elif isinstance(value, Derived) or value is _REQUIRED:
            continue
        elif option.section is None:
            value = normalise(cls, name, value)
        config.__dict__[name] = value
    return config
