"""The input and the output of a network, as the description of a package tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.bioimageio.steps import Step
from napari_unet.models.bioimageio.values import as_dict, dicts, finite, positive, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_LETTERS = {"batch": "b", "channel": "c", "index": "i", "time": "t"}
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network, as the description tells it."""

    name: str
    axes: str
    """One letter each, e.g. ``bcyx``."""
    channels: tuple[str, ...] | None
    steps: tuple[Step, ...]
    rates: dict[str, float]
    """Pixels of an output per pixel of the input, by axis; empty of an input."""
    pixel_size_um: float | None
    test: str | None
    range: tuple[float | None, float | None]

    @property
    def spatial(self) -> str:
        """Its spatial axes, in order."""
        return "".join(axis for axis in self.axes if axis in "zyx")


def tensors_of(description: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Read the one input and the one output."""
    inputs, outputs = (dicts(description, field) for field in ("inputs", "outputs"))
    if (len(inputs), len(outputs)) != (1, 1):
        raise ModelError(
            f"The network has {_count(inputs, 'input')} and {_count(outputs, 'output')}; only one "
            "image in and one out can be used here. Choose another package."
        )
    tests = [_first(description.get(field)) for field in ("test_inputs", "test_outputs")]
    source = _tensor(inputs[0], None, tests[0])
    target = _tensor(outputs[0], inputs[0], tests[1])
    for tensor in (source, target):
        # Keras keeps the channels last; its reader knows.
        plain = {f"bc{tensor.spatial}", f"b{tensor.spatial}c", f"b{tensor.spatial}"}
        if tensor.spatial not in {"yx", "zyx"} or tensor.axes not in plain:
            raise ModelError(
                f"The network's tensor {tensor.name} has the axes {tensor.axes.upper()}; images "
                "of Y and X or Z, Y and X with channels can be used here. Choose another package."
            )
    return source, target


def _tensor(tensor: dict[str, Any], reference: dict[str, Any] | None, test: str | None) -> Tensor:
    """Read the description of a tensor, in the words of any format."""
    axes = tensor.get("axes")
    data = tensor.get("data")
    kind = "preprocessing" if reference is None else "postprocessing"
    own: dict[str, Any] = {
        "name": str(tensor.get("id") or tensor.get("name") or "image"),
        "steps": tuple(_step(step) for step in dicts(tensor, kind)),
        "test": text_of(as_dict(tensor.get("test_tensor")).get("source")) or test,
        "range": _range(data.get("range") if isinstance(data, dict) else tensor.get("data_range")),
    }
    if isinstance(axes, str):  # formats 0.3 and 0.4
        shape = tensor.get("shape")
        scales = shape.get("scale") if isinstance(shape, dict) else None
        rates = {}
        if reference is not None and isinstance(scales, list) and len(scales) == len(axes):
            rates = {axis: positive(scale, 1.0) for axis, scale in zip(axes, scales, strict=True)}
        if reference is not None and isinstance(shape, list):
            rates = _fixed_rates(axes, shape, reference.get("shape"))
        return Tensor(axes=axes, channels=None, rates=rates, pixel_size_um=None, **own)
    axes = [as_dict(axis) for axis in axes] if isinstance(axes, list) else []
    letters = "".join(_letter(axis) for axis in axes)
    names = next((axis.get("channel_names") for axis in axes if _letter(axis) == "c"), None)
    before = {} if reference is None else _scales(reference)
    rates = {
        letter: before.get(letter, 1.0) / scale
        for letter, scale in _scales(tensor).items()
        if reference is not None
    }
    return Tensor(
        axes=letters,
        channels=tuple(map(str, names)) if isinstance(names, list) else None,
        rates=rates,
        pixel_size_um=_pixel_size_um(axes),
        **own,
    )


def _first(names: Any) -> str | None:
    """Return the one name in a list."""
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def _step(step: dict[str, Any]) -> Step:
    """Read an operation; its options may be left out."""
    return Step(str(step.get("id") or step.get("name")), as_dict(step.get("kwargs")))


def _letter(axis: dict[str, Any]) -> str:
    """Return the letter of an axis of format 0.5."""
    kind = str(axis.get("type"))
    return _LETTERS.get(kind) or str(axis.get("id") or "x")


def _scales(tensor: dict[str, Any]) -> dict[str, float]:
    """Return the pixel sizes of a tensor of format 0.5, by axis."""
    axes = tensor.get("axes")
    if not isinstance(axes, list):
        return {}
    spatial = [axis for axis in map(as_dict, axes) if axis.get("type") == "space"]
    return {_letter(axis): positive(axis.get("scale"), 1.0) for axis in spatial}


def _fixed_rates(axes: str, shape: list[Any], reference: Any) -> dict[str, float]:
    """Compare the fixed sizes of an output with those of the input."""
    if not isinstance(reference, list) or not len(reference) == len(shape) == len(axes):
        return {}
    sizes = zip(axes, shape, reference, strict=True)
    return {a: positive(out, 1.0) / positive(into, 1.0) for a, out, into in sizes if a in "zyx"}


def _pixel_size_um(axes: list[dict[str, Any]]) -> float | None:
    """Return the size of a pixel along Y, if the description tells it with its unit."""
    for axis in axes:
        if _letter(axis) == "y" and axis.get("unit") in _MICROMETRES:
            return positive(axis.get("scale"), 1.0) * _MICROMETRES[axis["unit"]]
    return None


def _range(given: Any) -> tuple[float | None, float | None]:
    """Read the range of values; endless ones are None."""
    if not isinstance(given, list | tuple) or len(given) != 2:
        return (None, None)
    low, high = (finite(bound) for bound in given)
    return low, high


def _count(items: Sequence[object], name: str) -> str:
    """Count things in words."""
    return f"{len(items)} {name}{'s' * (len(items) != 1)}"
