"""Follows the code in a TorchScript file as text: statement by statement, nothing is compiled.

The code is a small part of Python without imports, which :mod:`ast` turns into a tree. Features
are those of :class:`napari_unet.models.building.builder.GraphBuilder`; a number that depends on the
size of the image is an array with one value per probe. Where a choice depends on the size, both
ways are followed, each for its own probes, and the results are put together again.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.errors import ModelError
from napari_unet.models.building.features import Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.pickles import Made
from napari_unet.models.torchscript.calls import LONGEST_LIST
from napari_unet.models.torchscript.code import Function, Script, Unknown

if TYPE_CHECKING:
    from napari_unet.models.building.builder import GraphBuilder

_MOST_STEPS = 300_000
_DEEPEST = 60
_LARGEST_INT = 1 << 63

Followed = Callable[["Interpreter", list[Any], dict[str, Any]], Any]


class Interpreter:
    """Follows functions and methods.

    Parameters
    ----------
    script : Script
        The code.
    builder : GraphBuilder
        Gets the layers.
    constants : sequence
        Tensors that the code calls ``CONSTANTS.c0``, ``c1``...
    operations : mapping
        What is done for ``torch.relu`` and others, by name.

    Attributes
    ----------
    paths : dict of int to str
        Where in the modules each tensor stands, by its id.
    asked_sizes : bool
        Whether the network has asked for the size of a layer's result.
    """

    def __init__(
        self,
        script: Script,
        builder: GraphBuilder,
        constants: Sequence[Any],
        operations: Mapping[str, Followed],
    ) -> None:
        self.script, self.builder = script, builder
        self.constants, self.operations = constants, operations
        self.paths: dict[int, str] = {}
        self.asked_sizes = False
        self._steps = 0
        self._depth = 0
        self._diverging = 0

    def run(self, module: Made, image: Feature) -> Any:
        """Follow the forward pass of a module.

        Parameters
        ----------
        module : Made
            The outermost module.
        image : Feature
            Its input.

        Returns
        -------
        object
            What it returns.

        Raises
        ------
        ModelError
            If something in it is not known.
        """
        self.paths = _names_of_tensors(module)
        try:
            return self.call_method(module, "forward", [image], {})
        except _Refused as refused:
            raise ModelError(
                f"The network refuses every image: {refused}. Ask for an undamaged file."
            ) from refused

    def call_method(
        self, module: Made, name: str, arguments: list[Any], named: dict[str, Any]
    ) -> Any:
        """Follow a method."""
        method = self.script.method(module.by, name)
        if method is None:
            raise unsupported(f"{module.by.rpartition('.')[2]}.{name}")
        return self._call(method, [module, *arguments], named)

    def number(self, value: Any) -> Any:
        """Return one number where all living probes have the same."""
        if isinstance(value, np.ndarray):
            living = value[self.builder.alive]
            if len(living) and (living == living[0]).all():
                return living[0].item()
        return value

    def whole(self, value: Any) -> int:
        """Return a whole number that is the same for all probes."""
        value = self.number(value)
        if isinstance(value, np.ndarray):
            raise unsupported("a number that depends on the size of the image")
        if isinstance(value, torch.Tensor):
            value = value.item()
        if not isinstance(value, int | float) or int(value) != value:
            raise ValueError(f"{value} stands where a whole number was expected")
        return int(value)

    # ------------------------------------------------------------------------------ functions

    def _call(self, function: ast.FunctionDef, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Follow a function."""
        parameters = [argument.arg for argument in function.args.args]
        if len(arguments) > len(parameters):
            raise ValueError(f"{function.name} is given too much")
        if self._depth >= _DEEPEST:
            raise unsupported("functions in functions in functions")
        values = dict(zip(parameters, arguments, strict=False)) | named
        defaults = function.args.defaults
        for name, default in zip(
            parameters[len(parameters) - len(defaults) :], defaults, strict=True
        ):
            if name not in values:
                values[name] = self._value(default, {})
        self._depth += 1
        outside, self._diverging = self._diverging, 0  # it may end; what called it may not
        try:
            self._block(function.body, values)
        except _Return as result:
            return result.value
        finally:
            self._depth -= 1
            self._diverging = outside
        return None

    def _block(self, body: list[ast.stmt], values: dict[str, Any]) -> None:
        """Follow statements."""
        for statement in body:
            self._count()
            if isinstance(statement, ast.Assign):
                result = self._value(statement.value, values)
                for target in statement.targets:
                    self._assign(target, result, values)
            elif isinstance(statement, ast.AnnAssign):
                if statement.value is not None:
                    result = self._value(statement.value, values)
                    self._assign(statement.target, result, values)
            elif isinstance(statement, ast.Expr):
                self._value(statement.value, values)
            elif isinstance(statement, ast.Return):
                if self._diverging:
                    raise unsupported("a result that depends on the size of the image")
                given = statement.value
                raise _Return(None if given is None else self._value(given, values))
            elif isinstance(statement, ast.If):
                self._if(statement, values)
            elif isinstance(statement, ast.For):
                for item in self._items(self._value(statement.iter, values)):
                    self._assign(statement.target, item, values)
                    self._block(statement.body, values)
            elif isinstance(statement, ast.While):
                while self._truth(self._value(statement.test, values)):
                    self._count()
                    self._block(statement.body, values)
            elif not isinstance(statement, ast.Pass):
                raise unsupported(f"a statement of the kind {type(statement).__name__}")

    def _count(self) -> None:
        """Note a step; there must not be too many."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise unsupported("a program of very many steps")

    def _assign(self, target: ast.expr, value: Any, values: dict[str, Any]) -> None:
        """Give a value its name, or several."""
        if isinstance(target, ast.Name):
            values[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            items = self._items(value)
            if len(items) != len(target.elts):
                raise ValueError("values and names differ in number")
            for part, item in zip(target.elts, items, strict=True):
                self._assign(part, item, values)
        elif isinstance(target, ast.Subscript):
            holder = self._value(target.value, values)
            if not isinstance(holder, list):
                raise unsupported("writing into a layer's result")
            holder[self.whole(self._value(target.slice, values))] = value
        else:
            raise unsupported("a network that changes while it runs")

    def _items(self, value: Any) -> Sequence[Any]:
        """Return the parts of a list or tuple."""
        if not isinstance(value, list | tuple | range) or len(value) > LONGEST_LIST:
            raise ValueError("a list was expected")
        return value

    # ------------------------------------------------------------------------------- choices

    def _truth(self, value: Any) -> bool:
        """Return what is true or false for all living probes."""
        value = self.number(value)
        if isinstance(value, np.ndarray):
            raise unsupported("a choice that depends on the size of the image")
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, Feature | torch.Tensor | Unknown):
            raise unsupported("a choice that depends on the content of the image")
        return bool(value)

    def _if(self, statement: ast.If, values: dict[str, Any]) -> None:
        """Follow the branch that is taken, or both, each for its probes."""
        condition = self.number(self._value(statement.test, values))
        if not isinstance(condition, np.ndarray):
            self._block(statement.body if self._truth(condition) else statement.orelse, values)
            return
        alive = self.builder.alive.copy()
        chosen = condition.astype(bool)
        lists: dict[int, list[Any]] = {}
        _collect_lists(list(values.values()), lists)
        before = {key: list(one) for key, one in lists.items()}
        outcomes = []
        for mask, body in ((chosen, statement.body), (~chosen, statement.orelse)):
            for key, one in lists.items():
                one[:] = before[key]
            local = dict(values)
            self.builder.alive = alive & mask
            self._diverging += 1
            try:
                self._block(body, local)
            except _Refused:
                continue
            finally:
                self._diverging -= 1
            held = {key: list(one) for key, one in lists.items()}
            outcomes.append((self.builder.alive.copy(), local, held))
        if not outcomes:
            raise _Refused("it refuses both ways")
        mask, local, held = outcomes[0]
        if len(outcomes) == 2:
            other_mask, other, other_held = outcomes[1]
            for name in other.keys() | local.keys():
                local[name] = self._merged(local.get(name), mask, other.get(name), other_mask)
            for key, contents in held.items():
                joined = self._merged(contents, mask, other_held[key], other_mask)
                if isinstance(joined, Unknown):
                    raise unsupported(joined.why)
                held[key] = joined
            mask = mask | other_mask
        for key, contents in held.items():
            lists[key][:] = contents
        self.builder.alive = mask
        values.update(local)

    def _merged(self, one: Any, mask: Any, other: Any, other_mask: Any) -> Any:
        """Put together what two branches gave."""
        if one is other:
            return one
        if isinstance(one, Unknown) or (one is None and isinstance(other, Feature)):
            return other
        if isinstance(other, Unknown) or (other is None and isinstance(one, Feature)):
            return one
        numbers = int | float | np.ndarray
        if isinstance(one, numbers) and isinstance(other, numbers):
            return np.where(mask, one, other)
        if isinstance(one, Feature) and isinstance(other, Feature):
            merged = self.builder.either(one, mask, other, other_mask)
            return merged or Unknown("a layer that depends on the size of the image")
        if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
            parts = [self._merged(a, mask, b, other_mask) for a, b in zip(one, other, strict=True)]
            return type(one)(parts)
        if isinstance(one, str) and one == other:
            return one
        return Unknown("a value that depends on the size of the image")

    # ---------------------------------------------------------------------------- expressions

    def _value(self, node: ast.expr, values: dict[str, Any]) -> Any:
        """Compute an expression."""
        self._count()
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._named(node.id, values)
        if isinstance(node, ast.Call):
            return self._called(node, values)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, values)
        if isinstance(node, ast.List | ast.Tuple):
            items = [self._value(part, values) for part in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.Dict):
            keys = [self._value(key, values) for key in node.keys if key is not None]
            return dict(zip(keys, (self._value(v, values) for v in node.values), strict=True))
        if isinstance(node, ast.Subscript):
            return self._item(self._value(node.value, values), self._value(node.slice, values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._value(node.operand, values)
            if isinstance(number, int | float | np.ndarray):
                return -number
        if isinstance(node, ast.IfExp):
            taken = self._truth(self._value(node.test, values))
            return self._value(node.body if taken else node.orelse, values)
        raise unsupported(f"an expression of the kind {type(node).__name__}")

    def _named(self, name: str, values: dict[str, Any]) -> Any:
        """Return the value of a name."""
        if name in values:
            value = values[name]
            return value
        if name in {"inf", "nan"}:
            return float(name)
        raise ValueError(f"{name} is not known in its code")

    def _item(self, holder: Any, key: Any) -> Any:
        """Return a part of a list, tuple or dict."""
        if isinstance(holder, dict):
            return holder[key]
        if isinstance(holder, list | tuple):
            return holder[self.whole(key)]
        raise unsupported("an item of what is no list")

    def _attribute(self, node: ast.Attribute, values: dict[str, Any]) -> Any:
        """Return a function of the file, a constant, or what a module holds."""
        path = _dotted(node)
        if path is not None and path.startswith("__torch__."):
            return Function(path)
        if path is not None and path.startswith("CONSTANTS.c"):
            return self.constants[int(path.removeprefix("CONSTANTS.c"))]
        return self.member(self._value(node.value, values), node.attr)

    def member(self, holder: Any, name: str) -> Any:
        """Return what a module holds under a name."""
        if not isinstance(holder, Made):
            raise unsupported(f"the attribute {name}")
        if name == "training":
            return False
        if isinstance(holder.state, dict) and name in holder.state:
            return holder.state[name]
        constant = self.script.constant(holder.by, name)
        if constant is None:
            raise ValueError(f"a module has no {name}")
        return self._value(constant, {})

    def _called(self, node: ast.Call, values: dict[str, Any]) -> Any:
        """Follow a call."""
        path = _dotted(node.func)
        if path in {"annotate", "unchecked_cast"} and len(node.args) == 2:
            return self._value(node.args[1], values)
        if path == "uninitialized":
            return Unknown("a value that is not set")
        arguments = [self._value(part, values) for part in node.args]
        named = {k.arg: self._value(k.value, values) for k in node.keywords if k.arg}
        if path == "ops.prim.RaiseException":
            raise _Refused(str(arguments[0] if arguments else ""))
        if path is not None and path in values and isinstance(values[path], Function):
            return self._function(values[path].path, arguments, named)
        if path is not None and path.startswith("__torch__."):
            return self._function(path, arguments, named)
        if (path is not None and path.partition(".")[0] in {"torch", "ops"}) or path in _BUILTINS:
            return self.operate(str(path), arguments, named)
        if isinstance(node.func, ast.Attribute):
            holder = self._value(node.func.value, values)
            if isinstance(holder, Made):
                return self.call_method(holder, node.func.attr, arguments, named)
        raise unsupported(path or "a call of an unusual kind")

    def _function(self, path: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Follow a function of the file."""
        if path not in self.script.functions:
            raise unsupported(path)
        return self._call(self.script.functions[path], arguments, named)

    def operate(self, path: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Do what an operation of torch does."""
        if path == "getattr" and len(arguments) == 2:
            return self.member(arguments[0], str(arguments[1]))
        for value in arguments:
            if isinstance(value, Unknown):
                raise unsupported(value.why)
        # relu_ works in place; the text goes on with its result.
        operation = self.operations.get(path) or self.operations.get(path.rstrip("_"))
        if operation is None:
            raise unsupported(path)
        result = operation(self, arguments, named)
        if isinstance(result, int) and abs(result) > _LARGEST_INT:
            raise ValueError("a number is larger than torch's are")
        return result


class _Return(Exception):  # no error: it ends a function
    """A function has ended with a value."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class _Refused(Exception):  # told as a ModelError where nothing catches it
    """The original raises here."""


_BUILTINS = {"int", "float", "bool", "range", "getattr", "len", "str", "list", "min", "max"}


def _dotted(node: ast.expr) -> str | None:
    """Return a name with its dots; None where it is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def _collect_lists(found: list[Any], lists: dict[int, list[Any]]) -> None:
    """Collect the lists among values, and those in them."""
    for value in found:
        if isinstance(value, list) and id(value) not in lists:
            lists[id(value)] = value
            _collect_lists(value, lists)
        elif isinstance(value, tuple):
            _collect_lists(list(value), lists)


def _names_of_tensors(module: Made) -> dict[int, str]:
    """Say under which path of modules each tensor stands."""
    names: dict[int, str] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Made]] = [("", module)]
    while waiting:
        prefix, holder = waiting.pop()
        if id(holder) in seen or not isinstance(holder.state, dict):
            continue
        seen.add(id(holder))
        for key, value in holder.state.items():
            if isinstance(value, torch.Tensor):
                names.setdefault(id(value), prefix.removesuffix("."))
            elif isinstance(value, Made):
                waiting.append((f"{prefix}{key}.", value))
    return names
