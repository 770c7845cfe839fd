"""The code in a TorchScript file as trees: a small part of Python, without imports."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_unet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, eq=False)
class Function:
    """A function of the file, by its dotted path."""

    path: str


@dataclass(frozen=True, eq=False)
class Unknown:
    """A value that is not set, or that cannot be told for all sizes of image."""

    why: str


@dataclass(eq=False)
class Script:
    """The code of a file.

    Attributes
    ----------
    functions : dict of str to FunctionDef
        By dotted path: ``__torch__.torch.nn.functional.relu``.
    classes : dict of str to ClassDef
        By dotted path.
    """

    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)

    def method(self, cls: str, name: str) -> ast.FunctionDef | None:
        """Return a method of a class, None if it has none."""
        body = self.classes[cls].body if cls in self.classes else []
        for part in body:
            if isinstance(part, ast.FunctionDef) and part.name == name:
                return part
        return None

    def inputs(self, cls: str) -> list[str]:
        """Return the names of what the forward pass of a module must be given."""
        forward = self.method(cls, "forward")
        if forward is None:
            return []
        names = [argument.arg for argument in forward.args.args][1:]
        return names[: len(names) - len(forward.args.defaults)] or names[:1]

    def constant(self, cls: str, name: str) -> ast.expr | None:
        """Return the expression of a constant of a class."""
        body = self.classes[cls].body if cls in self.classes else []
        for part in body:
            if (
                isinstance(part, ast.AnnAssign)
                and isinstance(part.target, ast.Name)
                and part.target.id == name
            ):
                return part.value
        return None


def parse_code(texts: Mapping[str, str]) -> Script:
    """Turn the text of modules into trees.

    Parameters
    ----------
    texts : mapping of str to str
        Code by dotted name of the module.

    Returns
    -------
    Script
        Functions and classes.

    Raises
    ------
    ValueError
        If it is no code.
    ModelError
        If a class would do something when it is loaded.
    """
    script = Script()
    for module, text in texts.items():
        try:
            tree = ast.parse(text)
        except (SyntaxError, RecursionError, MemoryError) as error:  # the last: nested too deep
            raise ValueError(f"its code cannot be read: {module}") from error
        for part in tree.body:
            if isinstance(part, ast.FunctionDef):
                script.functions[f"{module}.{part.name}"] = part
            elif isinstance(part, ast.ClassDef):
                script.classes[f"{module}.{part.name}"] = part
    for cls in script.classes:
        if script.method(cls, "__setstate__") is not None:
            raise ModelError(
                f"The file holds code that runs when it is opened (__setstate__ of {cls}). It "
                "was not run. Ask for a state dict of the weights, an ONNX file, or one without "
                "quantized layers."
            )
    return script
