"""A pickle read as data: nothing that it names is imported, nothing that it calls is called.

A pickle is a program for a small stack machine. Two of its instructions are dangerous where
Python follows them: the one that fetches any function by its name, and the one that calls it.
Here a name stays a name (:class:`Name`) and a call becomes a note of what would have been called
(:class:`Made`), so that a stranger's classes are neither needed nor run, and the tensors beside
them can still be read.
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from napari_unet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_STEPS = 20_000_000
_RUNS_CODE = frozenset(
    "asyncio bdb builtins.__import__ builtins.breakpoint builtins.compile builtins.delattr "
    "builtins.eval builtins.exec builtins.execfile builtins.globals builtins.input builtins.locals "
    "builtins.open builtins.print builtins.setattr builtins.vars cProfile cloudpickle code codeop "
    "commands ctypes dill doctest http imaplib importlib inspect joblib linecache "
    "marshal multiprocessing nt ntpath operator os pdb pickle pip pkgutil platform popen2 posix "
    "posixpath profile pty pydoc requests runpy shelve shutil signal site smtplib socket ssl "
    "subprocess sys tempfile threading timeit torch.hub torch.jit torch.load torch.ops "
    "torch.serialization torch.utils.cpp_extension trace types.CodeType types.FunctionType urllib "
    "venv webbrowser zipimport _operator _pickle _posixsubprocess _thread".split()
)
"""Modules and functions that no weights need and that programs are run with."""
_LISTS_OF_TORCHSCRIPT = "torch.jit._pickle."
"""Its functions make plain lists of numbers and tensors."""
_LAYOUT = "torch.serialization._get_layout"
"""Gives a constant that says how a sparse tensor is stored."""
_DATA_ROOTS = frozenset(
    "argparse array ast collections copy copyreg copy_reg datetime decimal easydict enum fractions "
    "functools ml_collections numpy omegaconf pandas pathlib random re sklearn torch uuid yacs "
    "addict builtins _codecs pytorch_lightning lightning monai".split()
)
"""Packages whose objects are plain values."""
_MAKERS = frozenset(
    "attrgetter bool bytearray bytes complex date datetime defaultdict deque device dict dtype "
    "encode float frozenset getattr int itemgetter list memory_format ndarray object partial range "
    "scalar set slice str time timedelta timezone tuple".split()
)
"""What such objects are made by, beside classes and functions whose names start with _."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; it was not imported."""

    path: str
    """Module and name: ``collections.OrderedDict``."""


@dataclass(eq=False)
class Made:
    """An object that a pickle would make; it was not made."""

    by: str
    """Class or function that would have made it."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


_MARK = object()


def read_pickle(
    file: IO[bytes],
    make: Callable[[str, tuple[Any, ...]], Any],
    refer: Callable[[Any], Any],
) -> Any:
    """Read one pickle from where a file stands.

    Parameters
    ----------
    file : file of bytes
        Left behind the pickle's end.
    make : callable
        Called with a class's or function's name and its arguments; gives the value, or
        NotImplemented where a note (:class:`Made`) is to be left in its place.
    refer : callable
        Called with what stands for something outside of the pickle, e.g. a storage; gives it.

    Returns
    -------
    object
        Lists, dicts, tuples, sets, numbers, texts, bytes; and what ``make`` and ``refer`` gave.

    Raises
    ------
    ModelError
        If it would run code.
    ValueError
        If it is no pickle, or a damaged one.
    """
    try:
        return _Machine(make, refer).run(file)
    except (
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(f"its instructions do not fit each other ({error})") from error


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(
        self,
        make: Callable[[str, tuple[Any, ...]], Any],
        refer: Callable[[Any], Any],
    ) -> None:
        self._make, self._refer = make, refer
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        """Follow the instructions up to the end; return what they leave."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts
            for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if count > _MOST_STEPS:
                    raise ValueError("it is too long")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        raise ValueError("it has no end")

    def _step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in _PUSHES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[int(argument)])
        else:
            handler = _HANDLERS.get(name)
            if handler is None:
                raise ValueError(f"it has an instruction that is not known ({name})")
            handler(self, argument)

    def _pop_to_mark(self) -> list[Any]:
        """Take what lies above the last mark."""
        taken = []
        while (value := self._stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _dict(self, _: Any) -> None:
        values = self._pop_to_mark()
        made: dict[Any, Any] = {}
        self._stack.append(made)
        self._set(made, values)

    def _frozenset(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _few(self, count: int) -> None:
        taken = self._stack[-count:]
        if len(taken) < count or any(value is _MARK for value in taken):
            raise ValueError("a tuple lacks its values")
        del self._stack[-count:]
        self._stack.append(tuple(taken))

    def _append(self, _: Any) -> None:
        value = self._stack.pop()
        self._add(self._stack[-1], [value])

    def _appends(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._add(self._stack[-1], values)

    def _add(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Made):
            raise ValueError("it appends to what is no list")

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set(self._stack[-1], [key, value])

    def _setitems(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._set(self._stack[-1], values)

    def _set(self, target: Any, values: list[Any]) -> None:
        items = target.items if isinstance(target, Made) else target
        if not isinstance(items, dict) or len(values) % 2:
            raise ValueError("it sets items of what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Other keys name no tensor; a nested tuple could take hashing very deep.
            if isinstance(key, str | int | float | bytes | None):
                items[key] = value

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Name(_modern(module, name)))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it names a class by what is no text")
        self._stack.append(Name(_modern(module, name)))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._call(function, arguments))

    def _newobj(self, _: Any) -> None:
        arguments, cls = self._stack.pop(), self._stack.pop()
        self._stack.append(self._call(cls, arguments, is_class=True))

    def _newobj_ex(self, _: Any) -> None:
        self._stack.pop()
        self._newobj(None)

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        arguments = tuple(self._pop_to_mark())
        self._stack.append(self._call(Name(_modern(module, name)), arguments, is_class=True))

    def _obj(self, _: Any) -> None:
        cls, *arguments = self._pop_to_mark()
        self._stack.append(self._call(cls, tuple(arguments), is_class=True))

    def _call(self, function: Any, arguments: Any, *, is_class: bool = False) -> Any:
        """Leave a value or a note in place of a call."""
        if not isinstance(arguments, tuple):
            raise ValueError("it calls with what are no arguments")
        if isinstance(function, Made):  # e.g. what getattr would have given
            return Made(function.by, arguments)
        if not isinstance(function, Name):
            raise ValueError("it calls what is no function")
        path = function.path
        if path in ("copyreg._reconstructor", "copyreg.__newobj__") and arguments:
            return self._call(arguments[0], (), is_class=True)
        if path == "builtins.getattr" and isinstance(arguments[0], Name):
            return Name(f"{arguments[0].path}.{arguments[1]}")
        _refuse_code(path, is_class=is_class)
        for argument in arguments:
            if isinstance(argument, Name):  # functools.partial(os.system, ...)
                _refuse_code(argument.path, is_class=True)
        made = self._make(path, arguments)
        return Made(path, arguments) if made is NotImplemented else made

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Made):
            target.state = state
        elif hasattr(target, "set_state"):
            target.set_state(state)

    def _persistent(self, _: Any) -> None:
        self._stack.append(self._refer(self._stack.pop()))

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _nothing(self, _: Any) -> None:
        pass


_PUSHES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT "
    "BINFLOAT".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MEMOIZE": _Machine._memoize,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._few(1),
    "TUPLE2": lambda machine, _: machine._few(2),
    "TUPLE3": lambda machine, _: machine._few(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "FROZENSET": _Machine._frozenset,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._newobj,
    "NEWOBJ_EX": _Machine._newobj_ex,
    "INST": _Machine._inst,
    "OBJ": _Machine._obj,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": _Machine._dup,
    "PROTO": _Machine._nothing,
    "FRAME": _Machine._nothing,
}


def _modern(module: str, name: str) -> str:
    """Join module and name, by the module's name of today."""
    return f"{'builtins' if module == '__builtin__' else module}.{name}".replace(
        "copy_reg.", "copyreg.", 1
    )


def _refuse_code(path: str, *, is_class: bool) -> None:
    """Raise if what is called runs code, or could."""
    if path.startswith(_LISTS_OF_TORCHSCRIPT) or path == _LAYOUT:
        return
    parts = path.split(".")
    known = any(".".join(parts[: count + 1]) in _RUNS_CODE for count in range(len(parts)))
    # Classes of strangers hold settings; their functions could do anything.
    is_plain = parts[0] in _DATA_ROOTS and (parts[-1] in _MAKERS or parts[-1].startswith("_"))
    if known or not (is_class or is_plain or parts[-1].lstrip("_")[:1].isupper()):
        raise ModelError(
            f"The file is a program rather than weights: it calls {path} when it is opened the "
            "usual way. It was not run. Do not open it elsewhere; ask the sender for the weights "
            'alone: torch.save(model.state_dict(), "weights.pth").'
        )
