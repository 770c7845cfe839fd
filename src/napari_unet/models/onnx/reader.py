"""Reads the network in an ONNX file: its operations are translated, none is run.

What exporters write around the layers, the arithmetic on sizes (Shape, Gather, Concat, ...), is
computed here for many sizes of image at once, see :mod:`napari_unet.models.building.builder`; so a
file that was exported for 512 x 512 pixels becomes a network for any size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf tells no types

from napari_unet.errors import ModelError
from napari_unet.models.building.builder import GraphBuilder, all_found
from napari_unet.models.building.features import Feature, probe_sizes
from napari_unet.models.building.notes import MAX_NODES
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.damage import DAMAGED, what_failed
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.onnx.numbers import FOLDED, LARGEST_COMPUTED
from napari_unet.models.onnx.operations import OPERATIONS
from napari_unet.models.onnx.tensors import damaged, read_tensor
from napari_unet.models.onnx.values import Known, Step, Value
from napari_unet.models.own_card import each_with_card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_unet.models.found import Found

_MOST_STEPS = 50_000
_DEEPEST = 20
_DOMAINS = {"", "ai.onnx", "pkg.onnxscript.torch_lib", "com.microsoft"}


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
        if not model.HasField("graph") or not model.graph.node:
            raise ModelError(damaged(path, "it holds no network"))
        card = next((prop.value for prop in model.metadata_props if prop.key == CARD_KEY), None)
        return each_with_card(Reader(model, path).read(), card)
    except (MemoryError, DecodeError, *DAMAGED) as error:
        raise ModelError(what_failed(path.name, error, damaged(path, error))) from error


class Reader:
    """Walks through the operations of a file in their order.

    Parameters
    ----------
    model : onnx.ModelProto
        The file's content.
    path : Path
        The file, for messages and weights beside it.

    Attributes
    ----------
    builder : GraphBuilder
        Gets the layers.
    opset : int
        Version of the operations.
    """

    builder: GraphBuilder

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
        constants = {
            tensor.name: read_tensor(tensor, self.path) for tensor in self.graph.initializer
        }
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
            if not self._is_fixed(inputs[0]) or len(self.builder.nodes) >= MAX_NODES:
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
            fold = FOLDED.get(node.op_type)
            if fold is None:
                raise unsupported(node.op_type)
            return self.fold(fold, inputs, options)
        translate = OPERATIONS.get(node.op_type)
        if translate is None:
            raise unsupported(node.op_type)
        name = _name_of(node, self.weights)
        result = translate(self, Step(node.op_type, inputs, options, name, len(node.output)))
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
        taken = self.array(condition)
        branch = options["then_branch" if bool(taken.reshape(-1)[0]) else "else_branch"]
        local = dict(values)
        local.update({t.name: Known((read_tensor(t, self.path),)) for t in branch.initializer})
        self._run(branch.node, local, depth + 1)
        return [local[output.name] for output in branch.output]

    # -------------------------------------------------------------------------- known numbers

    def _constant(self, options: dict[str, Any]) -> np.ndarray:
        """Read the array of a Constant."""
        for key, value in options.items():
            if key == "value":
                return read_tensor(value, self.path)
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

    def fold(
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
            if array.size > max(LARGEST_COMPUTED, *(v.arrays[0].size for v in knowns), 0):
                raise unsupported("computing a very large constant")
        return [Known(tuple(column)) for column in zip(*results, strict=True)]

    def array(self, value: Value) -> np.ndarray:
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
        return [int(v) for v in self.array(value).reshape(-1)]

    def per_probe(self, value: Value) -> np.ndarray:
        """Return a vector of whole numbers for each probe, shape (probes, n)."""
        if not isinstance(value, Known):
            raise unsupported("sizes that depend on the content of the image")
        count = len(self.builder.alive)
        arrays = value.arrays * count if value.is_constant else value.arrays
        return np.stack([np.asarray(a).reshape(-1) for a in arrays]).astype(np.int64)

    def weights_of(self, value: Value) -> torch.Tensor:
        """Return an array as a tensor."""
        array = self.array(value)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise unsupported(f"weights of type {array.dtype}")
        return torch.from_numpy(np.array(array, np.float32))

    def optional(self, inputs: Sequence[Value], place: int) -> torch.Tensor | None:
        """Return an input as a tensor, if it is given."""
        if place >= len(inputs) or inputs[place] is None:
            return None
        return self.weights_of(inputs[place])


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
