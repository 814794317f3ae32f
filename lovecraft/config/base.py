"""The language itself: a config is a class, a subclass overrides by assignment, Python's own lookup decides who wins.

    class TrainConfig(Config):
        max_steps: Annotated[int, gt(0)] = 1000      # an option: annotation, default, and the sentence under it
        '''Optimizer steps to run.'''

    class Short(TrainConfig):
        max_steps = 10                               # an override: no decorator, no annotation

The metaclass finds the options of each class, refuses what is none, and remembers where each value was written.
`resolve` (in resolve.py) turns a class into a frozen instance tree.
"""

import functools
import inspect
import operator
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from lovecraft.config import modules, names, origin, values
from lovecraft.config.origin import Origin, history, named, origin_of, place, written
from lovecraft.errors import ConfigError

T = TypeVar("T")
_HELPERS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)
_REQUIRED = attrs.NOTHING


@attrs.frozen
class Option:
    """One option of a config class, as its declaration says."""

    name: str
    hint: Any = attrs.field(eq=False)
    quiet: bool = False

    @property
    def section(self) -> Any:
        """The base class that a section must derive from; None for a plain option."""
        plain, _, _ = values.core(self.hint)
        kind = typing.get_args(plain)[0] if typing.get_origin(plain) is type else None
        return kind if isinstance(kind, _Meta) else None

    @property
    def optional(self) -> bool:
        """Whether the section may be switched off with None."""
        return values.core(self.hint)[1]


class _Computing(threading.local):
    """The derived values that this thread is computing, outermost first, as (id of the instance, name)."""

    def __init__(self) -> None:
        self.stack: list[tuple[int, str]] = []


_computing = _Computing()


class Derived:
    """A value computed from other options. A non-data descriptor: a plain value in an instance's dict hides it."""

    def __init__(self, function: Any = None) -> None:
        if not values.takes_one(function):
            what = "takes no parentheses" if function is None else "takes a method"
            modules.tell([f"{origin.caller()}: derived {what}; write `def name(self) -> type` below it"])
            function = type(self).__init__  # none of the user's, and the class is not used
        self.function: Callable[[Any], Any] = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, config: Any, owner: Any = None) -> Any:
        if config is None:  # Train.batch_size on the class itself
            return getattr(draft(owner), self.name)
        if inspect.getattr_static(type(config), self.name, None) is not self:
            return self.compute(config)  # reached through super(): an ingredient, not the option's value
        key = (id(config), self.name)
        if key in _computing.stack:
            names = [name for _, name in _computing.stack[_computing.stack.index(key) :]] + [self.name]
            where = place(history(type(config), self.name)[0][1])
            raise ConfigError(f"{where}: {self.name}: derived values form a cycle: {' -> '.join(names)}")
        _computing.stack.append(key)
        try:
            value = self.compute(config)
        finally:
            _computing.stack.pop()
        config.__dict__[self.name] = normalise(type(config), self.name, value)
        return config.__dict__[self.name]

    def compute(self, config: Any) -> Any:
        """Return what the function says of a config; what it prints goes to stderr, since stdout is for data."""
        try:
            with modules.stdout_aside():
                return self.function(config)
        except TypeError as error:
            at = error.__traceback__ and error.__traceback__.tb_next
            if at is None or at.tb_next is not None or "object is not callable" not in str(error):
                raise
            where = place(Origin(at.tb_frame.f_code.co_filename, at.tb_lineno))
            raise ConfigError(f"{where}: {self.name}: {error}; an option is a value: read it without ()") from error


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
    __declared__: dict[str, Option]
    __file__: str
    __anonymous__: bool

    @classmethod
    def __prepare__(mcs, name: str, bases: tuple[type, ...], /, **_: Any) -> _Body:  # type: ignore[override]
        return _Body()

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], anonymous: bool = False) -> Any:
        if not isinstance(body, _Body):  # a decorator makes the class anew, from a plain dict
            if "__origins__" not in body:
                hint = "write a class statement, or lovecraft.override(cls, {option: value})"
                raise ConfigError(f"{origin.caller()}: {name}: a config class cannot be made by type()", hint=hint)
            raise _decorated(name, body["__origins__"])
        cls = super().__new__(mcs, name, bases, dict(body))
        cls.__origins__ = body.origins
        cls.__file__ = origin.file_of(cls.__module__) or _start(body.origins).file
        cls.__anonymous__ = anonymous
        if problems := [*_declare(cls), *_strangers(cls)]:
            modules.tell(problems)
        cls.__sealed__ = True
        return cls

    def __init__(cls, *_: Any, **__: Any) -> None:
        pass

    @property
    def __attrs_attrs__(cls) -> Any:
        """The fields, for `attrs.evolve` and the like: making them takes half the time that the schema does."""
        of: Any = {n: attrs.field(default=inspect.getattr_static(cls, n, _REQUIRED)) for n in cls.__options__}
        return attrs.fields(attrs.make_class(cls.__name__, of, slots=False, init=False, eq=False, repr=False))

    def __call__(cls, **changes: Any) -> Any:
        """`Train(max_steps=3)` is the resolved instance of a subclass that says so."""
        from lovecraft.config.override import override
        from lovecraft.config.resolve import resolve

        return resolve(override(cls, changes, dict.fromkeys(changes, origin.calling())))

    def __get__(cls, config: Any, owner: Any = None) -> Any:
        """In a derived value `super().optimizer` is what the flags made of that class, not the bare class."""
        if not isinstance(config, Config):
            return cls
        return next((section for section in vars(config).values() if type(section) is named(cls)), None) or draft(cls)

    def __setattr__(cls, name: str, value: Any) -> None:
        if not cls.__dict__.get("__sealed__"):
            return super().__setattr__(name, value)
        if name.startswith("__"):
            raise _decorated(cls.__qualname__, cls.__origins__)
        raise ConfigError(f"{origin.caller()}: {cls.__qualname__} is a config; subclass it to change {name!r}")

    def __delattr__(cls, name: str) -> None:
        raise ConfigError(f"{origin.caller()}: {cls.__qualname__} is a config; it cannot lose {name!r}")


def _decorated(name: str, origins: dict[str, Origin]) -> ConfigError:
    return ConfigError(
        f"{place(_start(origins))}: {name}: a config class takes no decorator",
        hint="remove it: a subclass is complete",
    )


def _start(origins: dict[str, Origin]) -> Origin:
    """Return where a class begins: Python first gives its body the name of the module."""
    return next(iter(origins.values()), Origin(""))


def _declare(cls: Any) -> Iterator[str]:
    """Give a class its options, the inherited ones in the order of first declaration, then its own. Yield problems.

    An inherited option keeps its declaration; the checks of one that repeats it come on top.
    """
    found: dict[str, Option] = {}
    for base in reversed(cls.__mro__[1:]):
        for name, option in vars(base).get("__declared__", {}).items():
            found[name] = _repeated(found[name], option.hint) if name in found else option
    cls.__options__, cls.__declared__ = found, {}
    for name, (raw, namespace) in _own_annotations(cls, found).items():
        hint, wrong = _evaluate(raw, namespace, vars(cls))
        option = cls.__declared__[name] = Option(name, hint, quiet=values.quiet in values.core(hint)[2])
        if name in found and not wrong and (kind := values.name_type(found[name].hint)) != values.name_type(hint):
            wrong = f"it is declared as {kind}; drop the annotation"
        elif name not in found:
            wrong = ("" if is_library(cls) else names.objection(name, found)) or wrong
        if isinstance(hint, _Meta):
            wrong = wrong or f"it is a section; write type[{hint.__name__}]"
        elif not wrong and option.section is None:
            wrong = values.objection(hint)
        if wrong:
            yield f"{written(cls, name)}: {name}: {wrong}"
        found[name] = _repeated(found[name], hint) if name in found else option


def _repeated(option: Option, hint: Any) -> Option:
    """Return an option that a subclass declares again: a value must be right for both types."""
    again = option.section is None and hint != option.hint
    return attrs.evolve(option, hint=values.both(option.hint, hint)) if again else option


def _own_annotations(cls: Any, inherited: dict[str, Option]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return what the class declares by annotation or a new `@derived`: the types as written, and their globals."""
    module = vars(sys.modules.get(cls.__module__, types))
    found = {name: (raw, module) for name, raw in _annotations(cls).items() if not name.startswith("_")}
    for name, value in vars(cls).items():
        if isinstance(value, Derived) and name not in found and name not in inherited:
            found[name] = (_annotations(value.function).get("return", Any), value.function.__globals__)
    return found


def _annotations(owner: Any) -> dict[str, Any]:
    """Return annotations unevaluated where Python can: from 3.14 on they are code that may raise NameError."""
    if sys.version_info < (3, 14):
        return inspect.get_annotations(owner)
    import annotationlib

    return annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)


def _evaluate(raw: Any, namespace: dict[str, Any], body: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the type that an annotation means, and what is wrong with it. Names of the module go first."""
    holder = type("", (), {"__annotations__": {"it": raw}})
    try:
        return typing.get_type_hints(holder, dict(body), namespace, include_extras=True)["it"], ""
    except NameError as error:
        what = f"{error.name!r}, unknown where the class begins"
        return Any, f"its annotation names {what}; define or import it above"
    except (AttributeError, TypeError, SyntaxError) as error:
        return Any, f"its annotation {getattr(raw, '__forward_arg__', raw)!r} is no type: {error}"


def _strangers(cls: Any) -> Iterator[str]:
    """Yield what is wrong with the names of the class, and of plain mixins, that are not options."""
    trusted = (object, typing.Generic, *(base for base in cls.__mro__[1:] if isinstance(base, _Meta)))
    for base in cls.__mro__ if len(trusted) > 2 else ():  # Config itself may
        if base in trusted:
            continue
        for name, value in vars(base).items():
            if wrong := _special(name, value) if name.startswith("_") else _problem(cls, name, value):
                yield f"{place(origin_of(base, name))}: {cls.__qualname__}{wrong}"


def _special(name: str, value: Any) -> str:
    """Refuse what would change how configs are made, compared or read; other private names are the class's own."""
    known = ("__annotate__", "__annotate_func__")  # Python's own
    special = name.startswith("__") and name.endswith("__") and isinstance(value, _HELPERS) and name not in known
    what = "has no place in a config; write @derived, or a method with a plain name"
    return f".{name} {what}" if special or name == "__slots__" else ""


def _problem(cls: Any, name: str, value: Any) -> str:
    options = cls.__options__
    if name not in options:
        if isinstance(value, _HELPERS):
            return ""
        known = [n for n, option in options.items() if option.section or not isinstance(value, type)]
        close = f": {names.strange(name)}" if not name.isascii() else names.did_you_mean(name, known)
        constant = f"; a constant is called _{name}" if name.isupper() else ""
        return f" has no {'section' if isinstance(value, type) else 'option'} {name!r}{constant or close}"
    section = options[name].section
    if section is not None and isinstance(value, (Derived, *_HELPERS)):
        return f".{name} is a section and cannot be derived; assign a class, one that derives from {section.__name__}"
    if isinstance(type(value), _Meta) and not cls.__anonymous__:
        return f".{name} is an instance; assign the class, and subclass it to change what it says"
    if isinstance(value, _HELPERS):
        return f".{name} is an option; write @derived above the method that computes it"
    if isinstance(value, list | dict | set | bytearray) and not values.objection(options[name].hint):
        return f".{name} is a {type(value).__name__}, which classes would share; write a tuple"
    if type(value).__name__ in ("_CountingAttr", "Field"):
        return f".{name} is a field of attrs or dataclasses; write the plain default"
    return ""


class Config(metaclass=_Meta):
    """Base of every config class. Instances are frozen, and equal iff their classes and all their values are."""

    if TYPE_CHECKING:

        def __init__(self, **changes: Any) -> None: ...

    def __setattr__(self, name: str, value: Any) -> None:
        raise ConfigError(f"{origin.caller()}: a resolved {type(self).__qualname__} is frozen; {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"{origin.caller()}: a resolved {type(self).__qualname__} is frozen; it cannot lose {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _said(self) == _said(other)

    def __hash__(self) -> int:
        return hash((type(self), *_said(self).values()))

    def __deepcopy__(self, memo: Any = None) -> Any:
        return self

    __copy__ = __deepcopy__

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Of a workspace's class note the workspace too: where this is unpickled, that may not be loaded yet."""
        module, inside = type(self).__module__, type(self).__qualname__
        if module.partition(".")[0] not in modules.OURS or "<locals>" in inside:
            return super().__reduce_ex__(protocol)
        root = Path(type(self).__file__).parents[module.count(".")]
        return _blank, (module, inside, root), vars(self)

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in _said(self).items())})"


def _blank(module: str, inside: str, root: Path) -> Any:
    """Return an empty instance of a workspace's class, for pickle to fill."""
    return object.__new__(operator.attrgetter(inside)(modules.run(module, root)))


def _said(config: Any) -> dict[str, Any]:
    """Return the options of an instance; its dict may also hold what a `cached_property` keeps there."""
    return {name: vars(config)[name] for name in type(config).__options__ if name in vars(config)}


# --- reading classes ------------------------------------------------------------------------------


def is_library(cls: Any) -> bool:
    """Return whether a class is the library's own."""
    return bool(cls.__module__.partition(".")[0] == "lovecraft")


def library_class(cls: Any) -> Any:
    """Return the nearest class of the library: what a section is, whatever users call their subclasses.

    A section of a kind that users made up is what they call it.
    """
    found = next(base for base in named(cls).__mro__ if is_library(base))
    return named(cls) if found is Config else found


def normalise(cls: Any, name: str, value: Any) -> Any:
    """Return a plain option's value checked and normalised; raise ConfigError with the place that gave it."""
    try:
        return values.structure(value, cls.__options__[name].hint)
    except ValueError as error:
        where = next((place(at) for _, at in history(cls, name)), cls.__qualname__)
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
