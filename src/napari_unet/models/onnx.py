"""Reads the network in an ONNX file: its operations are translated, none is run.

What exporters write around the layers, the arithmetic on sizes (Shape, Gather, Concat, ...), is
computed here for many sizes of image at once, see :mod:`napari_unet.models.graph_builder`; so a
file that was exported for 512 x 512 pixels becomes a network for any size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from napari_unet.errors import ModelError
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.graph_builder import (
    CHANNEL,
    Feature,
    GraphBuilder,
    all_found,
    probe_sizes,
    unsupported,
)
from napari_unet.models.own_card import with_card
from napari_unet.network.graph import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unet.models.found import Found
    from napari_unet.network.graph import PaddingMode, Sides

_MOST_STEPS = 50_000
_LARGEST_COMPUTED = 1 << 20
_DEEPEST = 20
_LINEAR_ABOVE = 15.0  # softplus differs from its input by less than 1e-6
_LARGEST_INT = 2.0**62
_DOMAINS = {"", "ai.onnx", "pkg.onnxscript.torch_lib", "com.microsoft"}
_PADDING_MODES: dict[str, PaddingMode] = {
    "constant": "zeros",
    "reflect": "reflect",
    "edge": "replicate",
    "wrap": "circular",
}


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers that do not depend on the image's content: one array, or one per probe."""

    arrays: tuple[np.ndarray, ...]

    @property
    def is_constant(self) -> bool:
        """Whether they are the same for every probe."""
        return len(self.arrays) == 1


@dataclass(frozen=True, eq=False)
class Grouped:
    """A feature whose channels were gathered in groups by a Reshape, for a norm of groups."""

    feature: Feature
    groups: int


@dataclass(frozen=True, eq=False)
class Above:
    """Where a feature is larger than a number: it is only known as a part of softplus."""

    feature: Feature
    threshold: float


Value = Feature | Known | Grouped | Above | None


def read_onnx(path: Path) -> list[Found]:
    """Read the network in an ONNX file.

    Parameters
    ----------
    path : Path
        The file; weights that lie beside it are read from its folder only.

    Returns
    -------
    list of Found
        One for each output that is an image.

    Raises
    ------
    ModelError
        If the file is damaged, has several inputs, or an operation that is not known.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, OSError, ValueError, MemoryError) as error:
        raise ModelError(_damaged(path, error)) from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(_damaged(path, "it holds no network"))
    try:
        card = next((prop.value for prop in model.metadata_props if prop.key == CARD_KEY), None)
        return [with_card(found, card) for found in _Reader(model, path).read()]
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        OverflowError,
        RuntimeError,
        ArithmeticError,
        AttributeError,
        MemoryError,
    ) as error:
        raise ModelError(_damaged(path, error)) from error


class _Reader:
    """Walks through the operations of a file in their order."""

    def __init__(self, model: Any, path: Path) -> None:
        self.path = path
        self.functions = {(f.domain, f.name): f for f in model.functions}
        self.opsets = {entry.domain: int(entry.version) for entry in model.opset_import}
        self.opset = self.opsets.get("", self.opsets.get("ai.onnx", 0))
        self.producer = str(model.producer_name)
        self.graph = model.graph
        self.steps = 0

    def read(self) -> list[Found]:
        """Translate the whole graph."""
        constants = {tensor.name: self._tensor(tensor) for tensor in self.graph.initializer}
        for sparse in self.graph.sparse_initializer:
            raise unsupported(f"sparse weights ({sparse.values.name})")
        inputs = [value for value in self.graph.input if value.name not in constants]
        if len(inputs) != 1:
            raise ModelError(
                f"The network in {self.path.name} has {_counted(len(inputs))} inputs "
                f"({', '.join(value.name for value in inputs)}); one image is given to a network "
                "here. Use a network with one input."
            )
        self.weights: set[str] = set(constants)
        values: dict[str, Value] = {name: Known((array,)) for name, array in constants.items()}
        try:
            images = self._images(inputs[0], values, fixed=False)
        except ModelError:
            if not self._is_fixed(inputs[0]):
                raise
            # Sizes that were computed at its export may be fixed in it: of the declared image.
            images = self._images(inputs[0], values, fixed=True)
        if not images:
            raise ModelError(
                f"The network in {self.path.name} gives no image. Use a network for segmentation."
            )
        family = f"ONNX of {self.producer}" if self.producer else "ONNX"
        return all_found(self.builder, [(f"output {name}", f) for name, f in images], family)

    def _images(
        self, given: Any, constants: dict[str, Value], *, fixed: bool
    ) -> list[tuple[str, Feature]]:
        """Translate all operations; give the results that are features."""
        self.steps = 0
        values = {**constants, given.name: self._start(given, fixed=fixed)}
        self._run(self.graph.node, values, 0)
        results = [(output.name, values.get(output.name)) for output in self.graph.output]
        return [(name, value) for name, value in results if isinstance(value, Feature)]

    def _is_fixed(self, given: Any) -> bool:
        """Whether the file declares a size of the image."""
        shape = given.type.tensor_type.shape.dim
        return sum(bool(d.HasField("dim_value") and d.dim_value > 0) for d in shape[1:]) > 1

    def _start(self, given: Any, *, fixed: bool) -> Feature:
        """Make the image feature from the declared input."""
        kind = given.type.tensor_type
        if kind.elem_type not in {
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.FLOAT16,
            onnx.TensorProto.DOUBLE,
            onnx.TensorProto.BFLOAT16,
        }:
            raise ModelError(
                f"The network in {self.path.name} takes no real numbers but another type. Export "
                "it with a float32 input."
            )
        shape = [
            int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None
            for d in kind.shape.dim
        ]
        if len(shape) not in {4, 5}:
            raise ModelError(
                f"The network in {self.path.name} takes data with {len(shape)} axes; 4 (planes) "
                "or 5 (volumes) were expected. Use a network for images."
            )
        dims = len(shape) - 2
        channels, is_last = self._input_channels(given.name, shape)
        order = (0, *range(2, 2 + dims), 1) if is_last else tuple(range(2 + dims))
        declared = (shape[1:-1] if is_last else shape[2:]) if fixed else None
        self.builder = GraphBuilder(dims, channels, probe_sizes(dims, declared))
        return self.builder.image.reordered(order)

    def _input_channels(self, name: str, shape: list[int | None]) -> tuple[int, bool]:
        """Find how many channels the image has, and whether they are the last axis.

        The first operation tells: a transposition to (N, C, *spatial) or a convolution.
        """
        to_first = [0, len(shape) - 1, *range(1, len(shape) - 1)]
        reached = {name}
        is_last = False
        for node in self.graph.node:
            if not node.input or node.input[0] not in reached:
                continue
            if node.op_type == "Transpose":
                is_last = is_last or list(_attributes(node).get("perm", [])) == to_first
                reached.update(node.output)
            elif node.op_type == "Conv" and len(node.input) > 1:
                weight = next((t for t in self.graph.initializer if t.name == node.input[1]), None)
                declared = shape[-1] if is_last else shape[1]
                if weight is not None and len(weight.dims) > 1:
                    groups = int(_attributes(node).get("group", 1))
                    return int(weight.dims[1]) * groups, is_last
                return declared or 0, is_last
            elif len(node.input) == 1 or node.op_type in {
                "Pad",
                "Sub",
                "Div",
                "Mul",
                "Add",
                "BatchNormalization",
            }:
                reached.update(node.output)
        return (shape[-1] if is_last else shape[1]) or 0, is_last

    def _run(self, nodes: Iterable[Any], values: dict[str, Value], depth: int) -> None:
        """Translate operations; results go into ``values`` under their names."""
        if depth > _DEEPEST:
            raise unsupported("functions in functions in functions")
        for node in nodes:
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise unsupported("a program of very many steps")
            if node.domain not in _DOMAINS and (node.domain, node.op_type) not in self.functions:
                raise unsupported(f"{node.domain}::{node.op_type}")
            inputs = [values[name] if name else None for name in node.input]
            results = self._translate(node, inputs, values, depth)
            for name, result in zip(node.output, results, strict=False):
                values[name] = result

    def _translate(
        self, node: Any, inputs: list[Value], values: dict[str, Value], depth: int
    ) -> Sequence[Value]:
        """Translate one operation."""
        options = _attributes(node)
        function = self.functions.get((node.domain, node.op_type))
        if function is not None:
            return self._call(function, inputs, options, depth)
        if node.op_type == "Constant":
            return [Known((self._constant(options),))]
        if node.op_type == "If":
            return self._if(inputs[0], options, values, depth)
        if node.op_type in {"Shape", "Size"}:
            return [self._shape(node.op_type, inputs[0], options)]
        if all(value is None or isinstance(value, Known) for value in inputs):
            fold = _FOLDED.get(node.op_type)
            if fold is None:
                raise unsupported(node.op_type)
            return self._fold(fold, inputs, options)
        translate = _TRANSLATED.get(node.op_type)
        if translate is None:
            raise unsupported(node.op_type)
        name = _name_of(node, self.weights)
        result = translate(self, _Step(node.op_type, inputs, options, name, len(node.output)))
        return result if isinstance(result, list) else [result]

    def _call(
        self, function: Any, inputs: list[Value], options: dict[str, Any], depth: int
    ) -> list[Value]:
        """Translate the body of a function of the file."""
        local: dict[str, Value] = dict(zip(function.input, inputs, strict=False))
        for name in function.input:
            local.setdefault(name, None)
        body = []
        for node in function.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for attribute in list(copy.attribute):
                if attribute.ref_attr_name:
                    copy.attribute.remove(attribute)
                    if attribute.ref_attr_name in options:
                        value = options[attribute.ref_attr_name]
                        copy.attribute.append(onnx.helper.make_attribute(attribute.name, value))
            body.append(copy)
        self._run(body, local, depth + 1)
        return [local[name] for name in function.output]

    def _if(
        self, condition: Value, options: dict[str, Any], values: dict[str, Value], depth: int
    ) -> list[Value]:
        """Follow the branch that is known to be taken."""
        taken = self._array(condition)
        branch = options["then_branch" if bool(taken.reshape(-1)[0]) else "else_branch"]
        local = dict(values)
        local.update({t.name: Known((self._tensor(t),)) for t in branch.initializer})
        self._run(branch.node, local, depth + 1)
        return [local[output.name] for output in branch.output]

    # -------------------------------------------------------------------------- known numbers

    def _tensor(self, tensor: Any) -> np.ndarray:
        """Read an array of the file, or of a file beside it."""
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return self._external(tensor)
        array: np.ndarray = numpy_helper.to_array(tensor)
        return array if array.dtype != object else array.astype(str)

    def _external(self, tensor: Any) -> np.ndarray:
        """Read an array from a file in the same folder."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        folder = self.path.resolve().parent
        place = (folder / entries.get("location", "")).resolve()
        if not place.is_relative_to(folder) or place == folder:
            raise ModelError(
                f"{self.path.name} asks for weights outside of its folder "
                f"({entries.get('location', '')}), which is not done. Ask for one file that "
                "holds everything."
            )
        if not place.is_file():
            raise ModelError(
                f"The weights of {self.path.name} lie in another file, {place.name}, which is "
                "missing. Put it into the same folder."
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        shape = tuple(int(size) for size in tensor.dims)
        count = math.prod(shape)
        offset = int(entries.get("offset") or 0)
        if min((0, *shape)) < 0 or offset < 0:
            raise ModelError(_damaged(self.path, "a tensor has a negative size"))
        if offset + count * dtype.itemsize > place.stat().st_size:
            raise ModelError(
                f"{place.name}, which holds weights of {self.path.name}, is too short. Copy or "
                "download it again."
            )
        return np.fromfile(place, dtype.newbyteorder("<"), count, offset=offset).reshape(shape)

    def _constant(self, options: dict[str, Any]) -> np.ndarray:
        """Read the array of a Constant."""
        for key, value in options.items():
            if key == "value":
                return self._tensor(value)
            if key in {"value_float", "value_floats"}:
                return np.array(value, np.float32)
            if key in {"value_int", "value_ints"}:
                return np.array(value, np.int64)
            if key in {"value_string", "value_strings"}:
                return np.array(value, str)
        raise unsupported("Constant of an unusual kind")

    def _shape(self, op: str, value: Value, options: dict[str, Any]) -> Known:
        """Give the shape or number of elements."""
        if isinstance(value, Feature):
            columns = np.stack(value.shape, axis=1)
            arrays = tuple(columns)
        elif isinstance(value, Known):
            arrays = tuple(np.array(array.shape, np.int64) for array in value.arrays)
        else:
            raise unsupported("the shape of an intermediate result")
        if op == "Size":
            return Known(tuple(np.array(math.prod(a.tolist()), np.int64) for a in arrays))
        part = slice(options.get("start", 0), options.get("end"))
        return Known(tuple(array[part] for array in arrays))

    def _fold(
        self, fold: Callable[..., Any], inputs: list[Value], options: dict[str, Any]
    ) -> list[Value]:
        """Compute with numbers, for each probe where they differ."""
        knowns = [value for value in inputs if isinstance(value, Known)]
        count = max((len(value.arrays) for value in knowns), default=1)
        options = dict(options, opset=self.opset)
        results: list[list[np.ndarray]] = []
        with np.errstate(all="ignore"):
            for probe in range(count):
                arrays = [
                    v.arrays[probe if len(v.arrays) > 1 else 0] if isinstance(v, Known) else None
                    for v in inputs
                ]
                out = fold(options, *arrays)
                each = out if isinstance(out, list) else [out]
                results.append([np.asarray(a) for a in each])
        for array in results[0]:
            if array.size > max(_LARGEST_COMPUTED, *(v.arrays[0].size for v in knowns), 0):
                raise unsupported("computing a very large constant")
        return [Known(tuple(column)) for column in zip(*results, strict=True)]

    def _array(self, value: Value) -> np.ndarray:
        """Return numbers that are the same for all living probes."""
        if not isinstance(value, Known):
            raise unsupported("weights or sizes that depend on the content of the image")
        if value.is_constant:
            return value.arrays[0]
        living = [a for a, alive in zip(value.arrays, self.builder.alive, strict=True) if alive]
        if any(not np.array_equal(living[0], array) for array in living[1:]):
            raise unsupported("a number that depends on the size of the image")
        return living[0]

    def ints(self, value: Value) -> list[int]:
        """Return whole numbers that are the same for all living probes."""
        return [int(v) for v in self._array(value).reshape(-1)]

    def per_probe(self, value: Value) -> np.ndarray:
        """Return a vector of whole numbers for each probe, shape (probes, n)."""
        if not isinstance(value, Known):
            raise unsupported("sizes that depend on the content of the image")
        count = len(self.builder.alive)
        arrays = value.arrays * count if value.is_constant else value.arrays
        return np.stack([np.asarray(a).reshape(-1) for a in arrays]).astype(np.int64)

    def weights_of(self, value: Value) -> torch.Tensor:
        """Return an array as a tensor."""
        array = self._array(value)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise unsupported(f"weights of type {array.dtype}")
        return torch.from_numpy(np.array(array, np.float32))

    def optional(self, inputs: Sequence[Value], place: int) -> torch.Tensor | None:
        """Return an input as a tensor, if it is given."""
        if place >= len(inputs) or inputs[place] is None:
            return None
        return self.weights_of(inputs[place])


@dataclass(frozen=True, eq=False)
class _Step:
    """One operation: its inputs and options."""

    op: str
    inputs: list[Value]
    options: dict[str, Any]
    name: str
    results: int

    @property
    def x(self) -> Feature:
        """The first input, which must be a feature."""
        if not isinstance(self.inputs[0], Feature):
            raise unsupported(f"{self.op} of numbers that are no layer's result")
        return self.inputs[0]

    def given(self, place: int) -> Value:
        """Return an input, None where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None


# ------------------------------------------------------------------------------------- layers


def _windows(reader: _Reader, step: _Step, kernel: Sequence[int]) -> tuple[list[int], Sides]:
    """Return strides and paddings of a convolution or pooling."""
    dims = reader.builder.dims
    stride = list(step.options.get("strides", [1] * dims))
    dilation = list(step.options.get("dilations", [1] * dims))
    pads = list(step.options.get("pads", [0] * 2 * dims))
    automatic = step.options.get("auto_pad", "NOTSET")
    if len(stride) != dims or len(dilation) != dims or len(pads) != 2 * dims:
        raise unsupported(f"{step.op} with {len(stride)} strides on {dims} axes")
    if min(pads) < 0:
        raise unsupported(f"{step.op} with negative padding")
    if automatic == "VALID":
        pads = [0] * 2 * dims
    elif automatic in {"SAME_UPPER", "SAME_LOWER"}:
        pairs = []
        for axis in range(dims):
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            # For sides that are multiples of the stride, as those of tiles are.
            if stride[axis] > 1:
                fits = step.x.sizes[:, axis] % stride[axis] == 0
                reader.builder.kill(~fits, "pads to sizes that do not divide by its strides")
            total = max(reach - stride[axis], 0)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if automatic == "SAME_UPPER" else (large, small))
        return stride, tuple(pairs)
    return stride, tuple(zip(pads[:dims], pads[dims:], strict=True))


def _convolution(reader: _Reader, step: _Step) -> Value:
    weight = reader.weights_of(step.given(1))
    stride, sides = _windows(reader, step, weight.shape[2:])
    return reader.builder.convolution(
        step.x,
        weight,
        reader.optional(step.inputs, 2),
        stride=stride,
        dilation=step.options.get("dilations", ()),
        padding=sides,
        groups=int(step.options.get("group", 1)),
        name=step.name,
    )


def _transposed(reader: _Reader, step: _Step) -> Value:
    dims, options, x = reader.builder.dims, step.options, step.x
    weight = reader.weights_of(step.given(1))
    if set(options.get("dilations", [1])) != {1}:
        raise unsupported("a transposed convolution with dilation")
    kernel = weight.shape[2:]
    stride = list(options.get("strides", [1] * dims))
    extra = list(options.get("output_padding", [0] * dims))
    pads = list(options.get("pads", [0] * 2 * dims))
    automatic = options.get("auto_pad", "NOTSET")
    wanted = options.get("output_shape")
    crops = []
    for axis in range(dims):
        full = (x.sizes[:, axis] - 1) * stride[axis] + kernel[axis] + extra[axis]
        if wanted:
            total = reader.builder.same(full - list(wanted)[-dims + axis])
        elif automatic in {"SAME_UPPER", "SAME_LOWER"}:
            total = kernel[axis] + extra[axis] - stride[axis]
        else:
            before, after = (0, 0) if automatic == "VALID" else (pads[axis], pads[dims + axis])
            crops.append((before, after - extra[axis]))
            continue
        first = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        crops.append((first, total - first - extra[axis]))
    return reader.builder.transposed_convolution(
        x,
        weight,
        reader.optional(step.inputs, 2),
        stride=stride,
        crop=tuple(crops),
        groups=int(options.get("group", 1)),
        name=step.name,
    )


def _batch_norm(reader: _Reader, step: _Step) -> Value:
    scale, shift, mean, variance = (reader.weights_of(step.given(i)) for i in range(1, 5))
    return reader.builder.norm(
        step.x,
        "batch",
        scale,
        shift,
        mean=mean,
        variance=variance,
        eps=float(step.options.get("epsilon", 1e-5)),
        name=step.name,
    )


def _instance_norm(reader: _Reader, step: _Step) -> Value:
    scale, shift = reader.weights_of(step.given(1)), reader.weights_of(step.given(2))
    eps = float(step.options.get("epsilon", 1e-5))
    value = step.inputs[0]
    if isinstance(value, Grouped):
        if scale.shape != (value.groups,) or shift.shape != scale.shape:
            raise unsupported("a norm of groups with unusual weights")
        x = reader.builder.norm(value.feature, "group", eps=eps, groups=value.groups)
        each = value.feature.channels // value.groups
        x = (
            reader.builder.linear(x, scale.repeat_interleave(each), shift.repeat_interleave(each))
            if bool((scale != 1).any() or (shift != 0).any())
            else x
        )
        return Grouped(x, value.groups)
    return reader.builder.norm(step.x, "instance", scale, shift, eps=eps, name=step.name)


def _group_norm(reader: _Reader, step: _Step) -> Value:
    groups = int(step.options["num_groups"])
    scale, shift = reader.weights_of(step.given(1)), reader.weights_of(step.given(2))
    if scale.numel() == groups != step.x.channels:
        each = step.x.channels // groups
        scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    return reader.builder.norm(
        step.x,
        "group",
        scale,
        shift,
        eps=float(step.options.get("epsilon", 1e-5)),
        groups=groups,
        name=step.name,
    )


_PLAIN_ACTIVATIONS: dict[str, Any] = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "HardSwish": "hardswish",
    "Mish": "mish",
}


def _activation(reader: _Reader, step: _Step) -> Value:
    builder, op, options = reader.builder, step.op, step.options
    if op in _PLAIN_ACTIVATIONS:
        return builder.activation(step.x, _PLAIN_ACTIVATIONS[op])
    if op == "LeakyRelu":
        return builder.activation(step.x, "leaky_relu", slope=options.get("alpha", 0.01))
    if op == "Elu":
        return builder.activation(step.x, "elu", slope=options.get("alpha", 1.0))
    if op == "Selu":
        alpha, gamma = options.get("alpha", 1.67326), options.get("gamma", 1.0507)
        if abs(alpha - 1.67326) > 1e-4 or abs(gamma - 1.0507) > 1e-4:
            return builder.linear(builder.activation(step.x, "elu", slope=alpha), gamma)
        return builder.activation(step.x, "selu")
    if op == "Gelu":
        if options.get("approximate", "none") != "none":
            raise unsupported("Gelu in its approximate form")
        return builder.activation(step.x, "gelu")
    if op == "HardSigmoid":
        moved = builder.linear(step.x, options.get("alpha", 0.2), options.get("beta", 0.5))
        return builder.clip(moved, 0.0, 1.0)
    if op == "PRelu":
        slope = reader.weights_of(step.given(1))
        return builder.activation(step.x, "prelu", weight=slope, name=step.name)
    if op == "Softmax":
        axis = int(options.get("axis", -1 if reader.opset >= 13 else 1))
        if reader.opset < 13 and axis != 1 and axis != len(step.x.order) - 1:
            raise unsupported("a softmax over several axes")
        return builder.activation(step.x, "softmax", axis=axis)
    raise unsupported(op)


def _clip(reader: _Reader, step: _Step) -> Value:
    limits: list[float | None] = [step.options.get("min"), step.options.get("max")]
    for place in (1, 2):
        if step.given(place) is not None:
            limits[place - 1] = float(reader._array(step.given(place)).reshape(-1)[0])
    low, high = (None if v is None or abs(v) > 1e30 else float(v) for v in limits)
    if low == 0 and high == 6:
        return reader.builder.activation(step.x, "relu6")
    return reader.builder.clip(step.x, low, high)


def _pooling(reader: _Reader, step: _Step) -> Value:
    kernel = list(step.options["kernel_shape"])
    if len(kernel) != reader.builder.dims or set(step.options.get("dilations", [1])) != {1}:
        raise unsupported(f"{step.op} with dilation")
    if step.results > 1:
        raise unsupported(f"{step.op} that keeps its places")
    stride, sides = _windows(reader, step, kernel)
    return reader.builder.pooling(
        step.x,
        "max" if step.op == "MaxPool" else "average",
        kernel,
        stride=stride,
        padding=sides,
        ceil=bool(step.options.get("ceil_mode", 0)),
        counts_padding=bool(step.options.get("count_include_pad", 0)),
    )


def _global_average(reader: _Reader, step: _Step) -> Value:
    return reader.builder.global_average(step.x)


def _reduce_mean(reader: _Reader, step: _Step) -> Value:
    x = step.x
    axes = step.options.get("axes")
    if axes is None and step.given(1) is not None:
        axes = reader.ints(step.given(1))
    places = {x.order[axis] for axis in axes or range(len(x.order))}
    if places != set(range(2, 2 + reader.builder.dims)):
        raise unsupported("a mean that is not over all pixels")
    mean = reader.builder.global_average(x)
    if step.options.get("keepdims", 1):
        return mean
    return mean.reordered(tuple(axis for axis in x.order if axis < 2))


def _resize(reader: _Reader, step: _Step) -> Value:
    """Resize of opset 10 and later, and Upsample of earlier ones."""
    builder, options, x = reader.builder, step.options, step.x
    order = x.order
    if len(order) != 2 + builder.dims:
        raise unsupported("resizing of what is no image")
    legacy = step.op == "Upsample" or reader.opset < 11
    scales = step.given(1 if legacy else 2) or None
    sizes = None if legacy else step.given(3)
    axes = list(options.get("axes", range(len(order))))
    if legacy and scales is None and "scales" in options:
        scales = Known((np.array(options["scales"]),))
    if isinstance(scales, Known) and scales.arrays[0].size == 0:
        scales = None
    wanted = np.stack(x.shape, axis=1)
    factors: NDArray[Any] | None = None
    if scales is not None:
        living = reader._fold(lambda _, a: np.asarray(a, float), [scales], {})[0]
        numbers = _floats_per_probe(reader, living)
        for place, axis in enumerate(axes):
            wanted[:, axis] = np.floor(wanted[:, axis] * numbers[:, place] + 1e-6)
        if (numbers[builder.alive] == numbers[builder.alive][:1]).all():
            factors = np.ones(len(order))
            factors[axes] = numbers[builder.alive][0]
    elif sizes is not None:
        for place, axis in enumerate(axes):
            wanted[:, axis] = reader.per_probe(sizes)[:, place]
    else:
        raise unsupported("resizing to no size")
    spatial = [order.index(2 + axis) for axis in range(builder.dims)]
    others = [place for place in range(len(order)) if place not in spatial]
    if (wanted[builder.alive][:, others] != np.stack(x.shape, 1)[builder.alive][:, others]).any():
        raise unsupported("resizing of channels")
    mode = options.get("mode", "nearest")
    how = options.get("coordinate_transformation_mode", "asymmetric" if legacy else "half_pixel")
    target = wanted[:, spatial]
    exact = None if factors is None else [float(factors[place]) for place in spatial]
    plain = x.reordered(x.plain)
    result = _resized(builder, plain, mode, how, options, exact, target)
    return result.reordered(order)


def _floats_per_probe(reader: _Reader, value: Value) -> np.ndarray:
    """Return a vector of real numbers for each probe."""
    if not isinstance(value, Known):
        raise unsupported("factors that depend on the content of the image")
    arrays = value.arrays * len(reader.builder.alive) if value.is_constant else value.arrays
    return np.stack([np.asarray(a, float).reshape(-1) for a in arrays])


def _resized(
    builder: GraphBuilder,
    x: Feature,
    mode: str,
    how: str,
    options: dict[str, Any],
    factors: list[float] | None,
    sizes: np.ndarray,
) -> Feature:
    """Resize by a rule of ONNX for which there is one of ours."""
    if factors is None:
        factors_known = builder._constant_scale(x, sizes)
        whole = factors_known is not None and all(f == int(f) for f in factors_known)
        factors = list(factors_known) if factors_known is not None and whole else None
    whole = factors is not None and all(f == int(f) for f in factors)
    if mode == "nearest":
        rule = options.get("nearest_mode", "round_prefer_floor")
        if how == "asymmetric" and rule == "floor":
            return builder.resize(x, "nearest", scale=factors, sizes=None if factors else sizes)
        if factors is None or not whole or not _repeats(how, rule, [int(f) for f in factors]):
            raise unsupported(f"nearest resizing of the kind {how}, {rule}")
        return builder.resize(x, "nearest", scale=factors)
    if mode not in {"linear", "cubic"}:
        raise unsupported(f"resizing of the kind {mode}")
    if mode == "cubic":
        if abs(options.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6 or builder.dims != 2:
            raise unsupported("cubic resizing of an unusual kind")
    if how == "asymmetric" and mode == "linear" and factors is not None and whole:
        return builder.resize_from_corner(x, [int(f) for f in factors])
    if how not in {"half_pixel", "pytorch_half_pixel", "align_corners"}:
        raise unsupported(f"{mode} resizing of the kind {how}")
    return builder.resize(
        x,
        "linear" if mode == "linear" else "cubic",
        scale=factors,
        sizes=None if factors else sizes,
        align_corners=how == "align_corners",
    )


def _repeats(how: str, rule: str, factors: list[int]) -> bool:
    """Whether a rule for the nearest pixel repeats each pixel as often as the factor says."""
    for factor in factors:
        place = np.arange(8 * factor, dtype=float)
        if how in {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"}:
            source = (place + 0.5) / factor - 0.5
        elif how == "asymmetric":
            source = place / factor
        elif how == "tf_half_pixel_for_nn":
            source = (place + 0.5) / factor
        else:
            return False
        nearest = {
            "round_prefer_floor": np.ceil(source - 0.5),
            "round_prefer_ceil": np.floor(source + 0.5),
            "floor": np.floor(source),
            "ceil": np.ceil(source),
        }.get(rule)
        if nearest is None or (np.clip(nearest, 0, 7) != place // factor).any():
            return False
    return True


def _concat(reader: _Reader, step: _Step) -> Value:
    parts = [value for value in step.inputs if isinstance(value, Feature)]
    if len(parts) != len(step.inputs):
        raise unsupported("joining of a layer with fixed numbers")
    if parts[0].order[int(step.options["axis"])] != CHANNEL:
        raise unsupported("joining along an axis that is not the channels")
    return reader.builder.join("concatenate", parts)


def _arithmetic(reader: _Reader, step: _Step) -> Value:
    """Add, Sub, Mul, Div, Max, Sum of layers and numbers."""
    builder, op = reader.builder, step.op
    if any(isinstance(value, Grouped) for value in step.inputs):
        raise unsupported(f"{op} in a norm of groups")
    features = [value for value in step.inputs if isinstance(value, Feature)]
    if len(features) == len(step.inputs):
        how = {"Add": "add", "Sum": "add", "Sub": "subtract", "Mul": "multiply", "Max": "maximum"}
        if op not in how:
            raise unsupported(f"{op} of two layers")
        return builder.join(how[op], features)  # type: ignore[arg-type]
    if len(step.inputs) != 2 or op in {"Max", "Sum"}:
        raise unsupported(f"{op} with fixed numbers")
    x = features[0]
    number = _number(x, reader._array(step.inputs[1 if step.inputs[0] is x else 0]))
    first = step.inputs[0] is x
    if op == "Add":
        return builder.linear(x, 1.0, number)
    if op == "Mul":
        return builder.linear(x, number)
    if op == "Sub":
        return builder.linear(x, 1.0, -number) if first else builder.linear(x, -1.0, number)
    if op == "Div" and first:
        return builder.linear(x, 1.0 / number)
    raise unsupported(f"{op} by a layer")


def _number(x: Feature, array: np.ndarray) -> float | torch.Tensor:
    """Return numbers that a layer is combined with: one, or one per channel."""
    if array.dtype.kind not in "fiu":
        raise unsupported("arithmetic with what are no numbers")
    if array.size == 1:
        return float(array.reshape(-1)[0])
    place = x.order.index(CHANNEL)
    shape = (1,) * (len(x.order) - array.ndim) + array.shape
    expected = tuple(x.channels if axis == place else 1 for axis in range(len(x.order)))
    if shape != expected:
        raise unsupported("arithmetic with numbers that differ from pixel to pixel")
    return torch.from_numpy(np.array(array, np.float32).reshape(-1))


def _pow(reader: _Reader, step: _Step) -> Value:
    exponent = reader._array(step.given(1))
    if exponent.size == 1 and float(exponent.reshape(-1)[0]) == 2:
        return reader.builder.join("multiply", [step.x, step.x])
    raise unsupported("Pow")


def _pad(reader: _Reader, step: _Step) -> Value:
    builder, x = reader.builder, step.x
    mode = _PADDING_MODES.get(step.options.get("mode", "constant"))
    if mode is None:
        raise unsupported(f"padding of the kind {step.options.get('mode')}")
    value: Any = step.options.get("value", 0.0)
    if step.given(2) is not None and reader._array(step.given(2)).size:
        value = reader._array(step.given(2)).reshape(-1)[0]
    given = step.options.get("pads", step.options.get("paddings"))
    pads = (
        np.tile(np.array(given, np.int64), (len(builder.alive), 1))
        if given is not None
        else reader.per_probe(step.given(1))
    )
    axes = list(range(len(x.order)))
    if step.given(3) is not None:
        axes = [axis % len(x.order) for axis in reader.ints(step.given(3))]
    if pads.shape[1] != 2 * len(axes):
        raise unsupported("padding of an unusual kind")
    before: list[Any] = [0] * builder.dims
    after: list[Any] = [0] * builder.dims
    for place, axis in enumerate(axes):
        first, last = pads[:, place], pads[:, len(axes) + place]
        if x.order[axis] >= 2:
            before[x.order[axis] - 2], after[x.order[axis] - 2] = first, last
        elif (first[builder.alive] | last[builder.alive]).any():
            raise unsupported("padding of channels")
    if float(value) != 0 and (np.any(pads[builder.alive] > 0)) and mode == "zeros":
        raise unsupported(f"padding with the value {float(value):g}")
    return builder.pad_by(x.reordered(x.plain), before, after, mode).reordered(x.order)


def _slice(reader: _Reader, step: _Step) -> Value:
    builder, options = reader.builder, step.options
    x = step.x
    if "starts" in options:
        count = len(builder.alive)
        starts = np.tile(np.array(options["starts"], np.int64), (count, 1))
        ends = np.tile(np.array(options["ends"], np.int64), (count, 1))
        axes = list(options.get("axes", range(starts.shape[1])))
        steps = [1] * len(axes)
    else:
        starts, ends = reader.per_probe(step.given(1)), reader.per_probe(step.given(2))
        given = step.given(3)
        axes = list(range(starts.shape[1])) if given is None else reader.ints(given)
        steps = [1] * len(axes) if step.given(4) is None else reader.ints(step.given(4))
    for place, axis in enumerate(axes):
        x = builder.slice(x, axis, starts[:, place], ends[:, place], steps[place])
    return x


def _split(reader: _Reader, step: _Step) -> list[Value]:
    x = step.x
    if x.order[int(step.options.get("axis", 0))] != CHANNEL:
        raise unsupported("splitting along an axis that is not the channels")
    sizes = step.options.get("split")
    if sizes is None and step.given(1) is not None:
        sizes = reader.ints(step.given(1))
    if sizes is None:
        each = -(-x.channels // step.results)
        sizes = [each] * (step.results - 1) + [x.channels - each * (step.results - 1)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return [
        reader.builder.channels(x, int(start), int(count))
        for start, count in zip(starts, sizes, strict=False)
    ]


def _same(reader: _Reader, step: _Step) -> Value:
    return step.inputs[0]


def _cast(reader: _Reader, step: _Step) -> Value:
    if step.op == "Cast" and int(step.options["to"]) not in {1, 10, 11, 16}:
        raise unsupported("rounding of a layer's result to whole numbers")
    return step.inputs[0]


def _transpose(reader: _Reader, step: _Step) -> Value:
    x = step.x
    wanted = list(step.options.get("perm", range(len(x.order))[::-1]))
    if sorted(wanted) != list(range(len(x.order))):
        raise unsupported("a transposition of an unusual kind")
    return x.reordered(tuple(x.order[axis] for axis in wanted))


def _reshape(reader: _Reader, step: _Step) -> Value:
    """Reshape, Flatten, Squeeze, Unsqueeze that leave an image or channels in place."""
    builder, value = reader.builder, step.inputs[0]
    feature = value.feature if isinstance(value, Grouped) else step.x
    now = np.stack(feature.shape, axis=1)
    if step.op == "Reshape":
        target = reader.per_probe(step.given(1))
        if not isinstance(value, Grouped) and not step.options.get("allowzero", 0):
            for place in range(min(target.shape[1], now.shape[1])):
                target[:, place] = np.where(target[:, place] == 0, now[:, place], target[:, place])
    elif step.op == "Flatten":
        axis = int(step.options.get("axis", 1)) % len(feature.order)
        target = np.stack([now[:, :axis].prod(axis=1), now[:, axis:].prod(axis=1)], axis=1)
    else:
        axes = step.options.get("axes")
        if axes is None and step.given(1) is not None:
            axes = reader.ints(step.given(1))
        target = _squeezed(step.op, now, axes)
    total = now.prod(axis=1)
    known = np.where(target < 0, 1, target).prod(axis=1)
    target = np.where(target < 0, (total // np.maximum(known, 1))[:, None], target)
    alive = builder.alive
    if (target.prod(axis=1) != total)[alive].any():
        raise unsupported("a reshape of an unusual kind")
    if isinstance(value, Grouped):
        if target.shape == now.shape and (target == now)[alive].all():
            return feature
        groups = target[:, 1] if target.shape[1] > 1 else np.array([0])
        if (groups == value.groups)[alive].all() and feature.order == feature.plain:
            return value
        raise unsupported("a reshape in a norm of groups")
    plain = feature.order == feature.plain and target.shape[1] >= 3
    if (
        plain
        and (target[:, 0] == 1)[alive].all()
        and (target.shape != now.shape or (target != now)[alive].any())
    ):
        groups = target[:, 1][alive]
        if (groups == groups[0]).all() and 0 < groups[0] and feature.channels % groups[0] == 0:
            if (feature.sizes != 1)[alive].any():
                return Grouped(feature, int(groups[0]))
    return builder.reshape(feature, target)


def _squeezed(op: str, now: np.ndarray, axes: Sequence[int] | None) -> np.ndarray:
    """Give the shape without, or with more, axes of size 1."""
    count = now.shape[1]
    if op == "Squeeze":
        if axes is None:
            axes = [axis for axis in range(count) if (now[:, axis] == 1).all()]
        dropped = {axis % count for axis in axes}
        return now[:, [axis for axis in range(count) if axis not in dropped]]
    total = count + len(axes or ())
    added = {axis % total for axis in axes or ()}
    columns = iter(now.T)
    ones = np.ones(len(now), np.int64)
    return np.stack([ones if a in added else next(columns) for a in range(total)], axis=1)


def _depth_to_space(reader: _Reader, step: _Step) -> Value:
    if reader.builder.dims != 2:
        raise unsupported("DepthToSpace of volumes")
    return reader.builder.pixel_shuffle(
        step.x,
        int(step.options["blocksize"]),
        depth_first=step.options.get("mode", "DCR") == "DCR",
    )


def _matrix(reader: _Reader, step: _Step) -> Value:
    """Gemm and MatMul with weights that mix the channels."""
    weight = reader.weights_of(step.given(1))
    x = step.x
    if weight.ndim != 2 or x.order[-1] != CHANNEL:
        raise unsupported(f"{step.op} that does not mix the channels")
    bias = None
    if step.op == "Gemm":
        if step.options.get("transA", 0):
            raise unsupported("Gemm of a transposed layer")
        if not step.options.get("transB", 0):
            weight = weight.T
        weight = weight * float(step.options.get("alpha", 1.0))
        bias = reader.optional(step.inputs, 2)
        if bias is not None:
            bias = bias.reshape(-1).expand(weight.shape[0]) * float(step.options.get("beta", 1.0))
    else:
        weight = weight.T
    return reader.builder.dense(x, weight.contiguous(), bias, step.name)


def _erf(reader: _Reader, step: _Step) -> Value:
    return reader.builder.error_function(step.x)


def _greater(reader: _Reader, step: _Step) -> Value:
    threshold = reader._array(step.given(1))
    if threshold.size != 1:
        raise unsupported("Greater")
    return Above(step.x, float(threshold.reshape(-1)[0]))


def _where(reader: _Reader, step: _Step) -> Value:
    """Softplus as some exporters write it: the value itself where it is large."""
    condition, x, curve = (step.given(place) for place in range(3))
    if isinstance(condition, Above) and isinstance(x, Feature) and isinstance(curve, Feature):
        node = reader.builder.nodes.get(curve.node)
        is_softplus = isinstance(node, Activation) and node.kind == "softplus"
        if (
            node is not None
            and is_softplus
            and condition.threshold >= _LINEAR_ABOVE
            and x is condition.feature
        ):
            if node.inputs == (x.node,):
                return curve
    raise unsupported("Where")


def _arg_max(reader: _Reader, step: _Step) -> Value:
    """Class numbers at the end: the probabilities before them say the same and more."""
    if step.options.get("select_last_index", 0):
        raise unsupported("ArgMax of an unusual kind")
    return reader.builder.activation(
        step.x, "softmax", axis=int(step.options.get("axis", 0)), name="classes"
    )


def _expand(reader: _Reader, step: _Step) -> Value:
    """Repeat pixels of a feature of size 1; joins repeat by themselves."""
    x = step.x
    if len(x.order) == 2 + reader.builder.dims and (x.sizes == 1).all():
        return x
    raise unsupported(step.op)


_TRANSLATED: dict[str, Callable[[_Reader, _Step], Any]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    **dict.fromkeys(
        [*_PLAIN_ACTIVATIONS, *"LeakyRelu Elu Selu Gelu HardSigmoid PRelu Softmax".split()],
        _activation,
    ),
    "Clip": _clip,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _reduce_mean,
    "Resize": _resize,
    "Upsample": _resize,
    "Concat": _concat,
    **dict.fromkeys("Add Sub Mul Div Max Sum".split(), _arithmetic),
    "Neg": lambda reader, step: reader.builder.linear(step.x, -1.0),
    "Pow": _pow,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
    "CastLike": _same,
    "Transpose": _transpose,
    **dict.fromkeys("Reshape Flatten Squeeze Unsqueeze".split(), _reshape),
    "DepthToSpace": _depth_to_space,
    "Gemm": _matrix,
    "MatMul": _matrix,
    "Erf": _erf,
    "Greater": _greater,
    "Where": _where,
    "ArgMax": _arg_max,
    "Expand": _expand,
}


# ------------------------------------------------------------------------- arithmetic on sizes


def _integer_or_real_division(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide as ONNX does: whole numbers are cut towards zero."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        exact = np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1))
        return np.asarray(exact, a.dtype)
    return np.asarray(a / b)


def _reshaped(options: dict[str, Any], a: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Reshape; 0 keeps a size."""
    target = [int(v) for v in shape.reshape(-1)]
    if not options.get("allowzero", 0):
        target = [a.shape[i] if v == 0 else v for i, v in enumerate(target)]
    return a.reshape(target)


def _sliced(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> np.ndarray:
    """Slice, in both ways of giving its numbers."""
    if given and given[0] is not None and given[1] is not None:
        starts, ends = given[0].tolist(), given[1].tolist()
        axes = given[2].tolist() if len(given) > 2 and given[2] is not None else None
        steps = given[3].tolist() if len(given) > 3 and given[3] is not None else None
    else:
        starts, ends = list(options["starts"]), list(options["ends"])
        axes, steps = options.get("axes"), None
    axes = list(range(len(starts))) if axes is None else list(axes)
    steps = steps or [1] * len(starts)
    parts = [slice(None)] * a.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        beyond = end < -a.shape[axis] and step < 0
        parts[axis] = slice(start, None if beyond else end, step)
    return a[tuple(parts)]


def _axes(options: dict[str, Any], given: tuple[np.ndarray | None, ...]) -> tuple[int, ...] | None:
    """Return axes that are an option in old files and an input in new ones."""
    if given and given[0] is not None:
        return tuple(int(v) for v in given[0].reshape(-1))
    axes = options.get("axes")
    return None if axes is None else tuple(int(v) for v in axes)


def _unsqueezed(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> np.ndarray:
    return np.expand_dims(a, _axes(options, given) or ())


def _squeezed_array(
    options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None
) -> np.ndarray:
    return np.squeeze(a, axis=_axes(options, given))


def _reduced(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return the folding of a reduction."""

    def fold(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> np.ndarray:
        keep = bool(options.get("keepdims", 1))
        return np.asarray(function(a, axis=_axes(options, given), keepdims=keep), a.dtype)

    return fold


def _filled(options: dict[str, Any], shape: np.ndarray) -> np.ndarray:
    """ConstantOfShape."""
    value = options.get("value")
    number = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return np.full(_small_shape(shape), number.reshape(-1)[0], number.dtype)


def _small_shape(shape: np.ndarray) -> tuple[int, ...]:
    """Refuse to compute an array that is much larger than sizes are."""
    sizes = tuple(int(v) for v in np.asarray(shape).reshape(-1))
    if math.prod(max(size, 1) for size in sizes) > _LARGEST_COMPUTED or min((0, *sizes)) < 0:
        raise unsupported("computing a very large constant")
    return sizes


def _range(_: dict[str, Any], start: np.ndarray, stop: np.ndarray, step: np.ndarray) -> np.ndarray:
    count = abs(float(stop) - float(start)) / max(abs(float(step)), 1e-9)
    _small_shape(np.array([min(count, 1e12)]).astype(np.int64))
    return np.arange(start.item(), stop.item(), step.item()).astype(start.dtype)


def _expanded(_: dict[str, Any], a: np.ndarray, shape: np.ndarray) -> np.ndarray:
    target = np.broadcast_shapes(a.shape, _small_shape(shape))
    _small_shape(np.array(target))
    return np.array(np.broadcast_to(a, target))


def _tiled(_: dict[str, Any], a: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    times = [int(v) for v in repeats.reshape(-1)]
    _small_shape(np.array([s * t for s, t in zip(a.shape, times, strict=True)]))
    return np.tile(a, times)


def _cast_array(options: dict[str, Any], a: np.ndarray) -> np.ndarray:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(int(options["to"]))
    if a.dtype.kind == "f" and dtype.kind in "iu":
        a = np.nan_to_num(a).clip(-_LARGEST_INT, _LARGEST_INT)
    return a.astype(dtype)


def _split_array(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> list[Any]:
    axis = int(options.get("axis", 0))
    sizes = given[0] if given and given[0] is not None else options.get("split")
    if sizes is None:
        count = int(options.get("num_outputs") or a.shape[axis])
        return list(np.array_split(a, min(count, a.shape[axis]), axis))
    return list(np.split(a, np.cumsum(np.asarray(sizes))[:-1], axis))


def _scattered(
    _: dict[str, Any], a: np.ndarray, places: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """ScatterND."""
    a = a.copy()
    a[tuple(np.moveaxis(places, -1, 0))] = values
    return a


def _batch_flattened(options: dict[str, Any], a: np.ndarray) -> np.ndarray:
    axis = int(options.get("axis", 1))
    return a.reshape(math.prod(a.shape[:axis]), -1)


def _pairwise(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return the folding of an operation without options."""
    return lambda _, *arrays: function(*arrays)


def _extreme(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return the folding of Min or Max of any number of arrays."""

    def fold(_: dict[str, Any], first: np.ndarray, *others: np.ndarray) -> np.ndarray:
        for other in others:
            first = function(first, other)
        return first

    return fold


_FOLDED: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, a: a,
    "Dropout": lambda _, a, *rest: a,
    "Gather": lambda o, a, at: np.take(a, at, axis=int(o.get("axis", 0))),
    "GatherND": lambda _, a, at: a[tuple(np.moveaxis(at, -1, 0))],
    "Concat": lambda o, *arrays: np.concatenate(arrays, axis=int(o["axis"])),
    "Slice": _sliced,
    "Cast": _cast_array,
    "CastLike": lambda _, a, like: a.astype(like.dtype),
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed_array,
    "Reshape": _reshaped,
    "Flatten": _batch_flattened,
    "Transpose": lambda o, a: np.transpose(a, o.get("perm")),
    "Add": _pairwise(np.add),
    "Sub": _pairwise(np.subtract),
    "Mul": _pairwise(np.multiply),
    "Div": _pairwise(_integer_or_real_division),
    "Mod": lambda o, a, b: np.fmod(a, b) if o.get("fmod", 0) else np.mod(a, b),
    "Pow": lambda _, a, b: np.power(a.astype(float), b).astype(a.dtype),
    "Floor": _pairwise(np.floor),
    "Ceil": _pairwise(np.ceil),
    "Round": _pairwise(np.rint),
    "Neg": _pairwise(np.negative),
    "Abs": _pairwise(np.abs),
    "Sqrt": _pairwise(np.sqrt),
    "Reciprocal": _pairwise(np.reciprocal),
    "Exp": _pairwise(np.exp),
    "Log": _pairwise(np.log),
    "Sign": _pairwise(np.sign),
    "Min": _extreme(np.minimum),
    "Max": _extreme(np.maximum),
    "Equal": _pairwise(np.equal),
    "Greater": _pairwise(np.greater),
    "GreaterOrEqual": _pairwise(np.greater_equal),
    "Less": _pairwise(np.less),
    "LessOrEqual": _pairwise(np.less_equal),
    "Not": _pairwise(np.logical_not),
    "And": _pairwise(np.logical_and),
    "Or": _pairwise(np.logical_or),
    "Where": _pairwise(np.where),
    "Range": _range,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Tile": _tiled,
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "Split": _split_array,
    "ScatterND": _scattered,
}


# ------------------------------------------------------------------------------------ helpers


def _attributes(node: Any) -> dict[str, Any]:
    """Return the options of an operation; texts are decoded."""
    options = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [text.decode("utf-8", "replace") for text in value]
        options[attribute.name] = value
    return options


def _name_of(node: Any, weights: set[str]) -> str:
    """Name a layer after its weights, or after the operation."""
    for given in node.input[1:]:
        if given in weights and "." in given and not given.startswith("onnx::"):
            return str(given.rpartition(".")[0])
    return str(node.name).strip("/") if "/" in node.name else ""


def _counted(number: int) -> str:
    """Write a small number as a word."""
    return {0: "no", 2: "two", 3: "three", 4: "four"}.get(number, str(number))


def _damaged(path: Path, reason: object) -> str:
    """Say that a file is damaged, and how."""
    return (
        f"{path.name} is no ONNX network that can be read, or is damaged ({reason}). Copy or "
        "download it again, or export it again."
    )
