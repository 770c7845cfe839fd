"""Writes a network as ONNX, node by node, so that it needs neither an exporter nor tracing.

Batch and sizes stay free: what a node does to sizes is said relative to what it reads. Only how
many pixels are cut or added to make features fit is written as a number; it is the same for all
sizes that the network takes. The file ends with probabilities: the activation of the card is its
last node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ModelError
from napari_unet.network.graph_rules import sides_to_fit, sizes_along

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from napari_unet.network import graph as g

OPSET = 17
"""Of 2022: every runtime in use knows it."""

IR_VERSION = 8  # of the same year
IMAGE, PROBABILITY = "image", "probability"
"""Names of the file's input and output."""

_AXES = {2: ("y", "x"), 3: ("z", "y", "x")}
_PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}
_FUNCTIONS: dict[str, str] = {
    "relu": "Relu",
    "selu": "Selu",
    "softplus": "Softplus",
    "hardswish": "HardSwish",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
}
_JOINS = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "maximum": "Max"}


def write_onnx(
    graph: g.Graph,
    tensors: Mapping[str, torch.Tensor],
    activation: str,
    size: int,
    metadata: Mapping[str, str],
) -> bytes:
    """Write a network as ONNX.

    Parameters
    ----------
    graph : Graph
        Its layers.
    tensors : mapping of str to Tensor
        Its state dict.
    activation : {"sigmoid", "softmax", "none"}
        What ends the network.
    size : int
        A size in pixels that the network takes along each axis.
    metadata : mapping of str to str
        Stands in the file as ``metadata_props``; its ``description`` as the text about it.

    Returns
    -------
    bytes
        The file: input ``image`` (batch, channels, *spatial), output ``probability``.

    Raises
    ------
    ModelError
        If a layer has no counterpart in ONNX.
    """
    return _Writer(graph, tensors, size).write(activation, metadata)


class _Writer:
    """The file so far; every method named like a node adds it under its name."""

    def __init__(self, graph: g.Graph, tensors: Mapping[str, torch.Tensor], size: int) -> None:
        from onnx import helper

        self._helper = helper
        self._graph, self._dims = graph, graph.spatial_dims
        self._tensors = {key: tensor.detach().cpu().numpy() for key, tensor in tensors.items()}
        self._sizes = [sizes_along(graph, axis, size) for axis in range(self._dims)]
        self._nodes: list[Any] = []
        self._weights: dict[str, NDArray[Any]] = {}

    def write(self, activation: str, metadata: Mapping[str, str]) -> bytes:
        """Write all nodes, the activation last."""
        for node in self._graph.nodes:
            getattr(self, f"_{node.op}")(node)
        last = self._graph.nodes[-1].name
        end = {"sigmoid": "Sigmoid", "softmax": "Softmax"}.get(activation, "Identity")
        options = {"axis": 1} if end == "Softmax" else {}
        self._put(end, [last], PROBABILITY, **options)
        helper, numpy_helper = self._helper, _numpy_helper()
        outer = helper.make_graph(
            self._nodes,
            "network",
            [self._described(IMAGE, self._graph.in_channels, "")],
            [self._described(PROBABILITY, self._graph.classes, "_out")],
            [numpy_helper.from_array(value, name) for name, value in self._weights.items()],
        )
        model = helper.make_model(
            outer,
            producer_name="napari-unet-interactive",
            doc_string=metadata.get("description", ""),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        content: bytes = model.SerializeToString()
        return content

    def _described(self, name: str, channels: int, suffix: str) -> Any:
        """Describe an input or output whose batch and sizes are free."""
        sizes = [f"{axis}{suffix}" for axis in _AXES[self._dims]]
        return self._helper.make_tensor_value_info(name, 1, ["batch", channels, *sizes])

    def _put(self, kind: str, reads: Sequence[str], name: str, **options: Any) -> str:
        """Add an operation."""
        operation = self._helper.make_node(kind, list(reads), [name], name=name, **options)
        self._nodes.append(operation)
        return name

    def _constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant."""
        self._weights[name] = np.ascontiguousarray(value, dtype)
        return name

    def _integers(self, name: str, values: Sequence[int]) -> str:
        """Add a list of whole numbers."""
        return self._constant(name, values, np.int64)

    def _weight(self, node: Any, key: str, shape: Sequence[int] | None = None) -> str:
        """Add a weight of a node."""
        value = self._tensors[f"{node.name}.{key}"]
        return self._constant(
            f"{node.name}.{key}", value if shape is None else value.reshape(shape)
        )

    def _per_channel(self, node: Any, key: str) -> str:
        """Add a weight (C,) so that it meets features (N, C, *spatial)."""
        return self._weight(node, key, (-1, *(1,) * self._dims))

    def _padded(self, name: str, read: str, sides: g.Sides, mode: str = "zeros") -> str:
        """Add pixels at the edges and cut those off that are too many; return the last name."""
        if mode not in _PADDING:
            raise ModelError(
                f"ONNX knows no padding {mode!r}. Save the network as TorchScript instead."
            )
        added = tuple((max(before, 0), max(after, 0)) for before, after in sides)
        cut = tuple((max(-before, 0), max(-after, 0)) for before, after in sides)
        if _any(added):
            pads = self._integers(f"{name}.pads", [0, 0, *_firsts(added), 0, 0, *_lasts(added)])
            read = self._put("Pad", [read, pads], f"{name}.padded", mode=_PADDING[mode])
        if _any(cut):
            ends = [-after or np.iinfo(np.int64).max for after in _lasts(cut)]
            lists = {"starts": _firsts(cut), "ends": ends, "axes": range(2, 2 + self._dims)}
            names = [self._integers(f"{name}.{key}", list(v)) for key, v in lists.items()]
            read = self._put("Slice", [read, *names], f"{name}.cut")
        return read

    def _convolution(self, node: g.Convolution) -> None:
        """Convolve; what is padded with something else than zeros is padded before."""
        read, sides = node.inputs[0], node.padding or ((0, 0),) * self._dims
        if node.padding_mode != "zeros" or min(map(min, sides)) < 0:
            read = self._padded(node.name, read, sides, node.padding_mode)
            sides = ((0, 0),) * self._dims
        weights = [self._weight(node, key) for key in ("weight", "bias")[: 1 + node.bias]]
        self._put(
            "Conv",
            [read, *weights],
            node.name,
            kernel_shape=node.kernel,
            strides=node.stride or (1,) * self._dims,
            dilations=node.dilation or (1,) * self._dims,
            pads=[*_firsts(sides), *_lasts(sides)],
            group=node.groups,
        )

    def _transposed_convolution(self, node: g.TransposedConvolution) -> None:
        """Spread every pixel, then cut off; what lies beyond shows the bias alone."""
        crop = node.crop or ((0, 0),) * self._dims
        more = [max(-after, 0) for _, after in crop]
        fits = min(before for before, _ in crop) >= 0
        if not fits or any(m >= s for m, s in zip(more, node.stride, strict=True)):
            raise ModelError(
                f"Layer {node.name} gives more pixels than ONNX can say. Save the network as "
                "TorchScript instead."
            )
        weights = [self._weight(node, key) for key in ("weight", "bias")[: 1 + node.bias]]
        self._put(
            "ConvTranspose",
            [node.inputs[0], *weights],
            node.name,
            kernel_shape=node.kernel,
            strides=node.stride,
            pads=[*_firsts(crop), *(max(after, 0) for after in _lasts(crop))],
            output_padding=more,
            group=node.groups,
        )

    def _norm(self, node: g.Norm) -> None:
        """Normalise; groups of channels are laid side by side and measured like one channel."""
        read, name = node.inputs[0], node.name
        if node.kind == "group":
            ones = self._constant(f"{name}.ones", np.ones(node.groups))
            zeros = self._constant(f"{name}.zeros", np.zeros(node.groups))
            shape = self._put("Shape", [read], f"{name}.shape")
            groups = self._integers(f"{name}.groups", [0, node.groups, -1])
            apart = self._put("Reshape", [read, groups], f"{name}.apart")
            normal = self._put(
                "InstanceNormalization", [apart, ones, zeros], f"{name}.normal", epsilon=node.eps
            )
            if not node.affine:
                self._put("Reshape", [normal, shape], name)
                return
            normal = self._put("Reshape", [normal, shape], f"{name}.joined")
            scaled = self._put("Mul", [normal, self._per_channel(node, "weight")], f"{name}.scaled")
            self._put("Add", [scaled, self._per_channel(node, "bias")], name)
            return
        if node.kind == "layer":
            self._layer_norm(node)
            return
        if node.affine:
            weights = [self._weight(node, key) for key in ("weight", "bias")]
        else:
            weights = [
                self._constant(f"{name}.ones", np.ones(node.channels)),
                self._constant(f"{name}.zeros", np.zeros(node.channels)),
            ]
        if node.kind == "instance":
            self._put("InstanceNormalization", [read, *weights], name, epsilon=node.eps)
            return
        measured = [self._weight(node, key) for key in ("running_mean", "running_var")]
        self._put("BatchNormalization", [read, *weights, *measured], name, epsilon=node.eps)

    def _layer_norm(self, node: g.Norm) -> None:
        """Normalise the channels of each pixel, which stand last meanwhile."""
        name, axes = node.name, range(2 + self._dims)
        last = self._put("Transpose", node.inputs, f"{name}.last", perm=[0, *axes[2:], 1])
        weights = [self._weight(node, key) for key in ("weight", "bias") if node.affine]
        if not node.affine:
            weights = [self._constant(f"{name}.ones", np.ones(node.channels))]
        normal = self._put(
            "LayerNormalization", [last, *weights], f"{name}.normal", axis=-1, epsilon=node.eps
        )
        self._put("Transpose", [normal], name, perm=[0, axes[-1], *axes[1:-1]])

    def _activation(self, node: g.Activation) -> None:
        """Apply a function; what has no operation of its own is put together."""
        read, name, kind = node.inputs[0], node.name, node.kind
        if kind in _FUNCTIONS:
            self._put(_FUNCTIONS[kind], [read], name)
        elif kind == "leaky_relu":
            self._put("LeakyRelu", [read], name, alpha=node.slope)
        elif kind in ("elu", "celu"):
            self._put(kind.capitalize(), [read], name, alpha=node.slope)
        elif kind == "prelu":
            self._put("PRelu", [read, self._per_channel(node, "weight")], name)
        elif kind == "hardsigmoid":
            self._put("HardSigmoid", [read], name, alpha=1 / 6, beta=0.5)
        elif kind == "softmax":
            self._put("Softmax", [read], name, axis=1)
        elif kind == "relu6":
            bounds = [self._constant(f"{name}.{bound}", bound) for bound in (0, 6)]
            self._put("Clip", [read, *bounds], name)
        elif kind == "silu":
            self._put("Mul", [read, self._put("Sigmoid", [read], f"{name}.gate")], name)
        elif kind == "mish":
            gate = self._put("Softplus", [read], f"{name}.softplus")
            self._put("Mul", [read, self._put("Tanh", [gate], f"{name}.gate")], name)
        else:  # gelu: x * (erf(x / sqrt 2) + 1) / 2
            root = self._constant(f"{name}.root", np.sqrt(2))
            half, one = (self._constant(f"{name}.{n}", v) for n, v in (("half", 0.5), ("one", 1)))
            ratio = self._put("Div", [read, root], f"{name}.ratio")
            raised = self._put("Add", [self._put("Erf", [ratio], f"{name}.erf"), one], f"{name}.up")
            product = self._put("Mul", [read, raised], f"{name}.product")
            self._put("Mul", [product, half], name)

    def _pooling(self, node: g.Pooling) -> None:
        """Pool; what is padded is never the largest."""
        sides = node.padding or ((0, 0),) * self._dims
        options: dict[str, Any] = {
            "kernel_shape": node.kernel,
            "strides": node.stride,
            "pads": [*_firsts(sides), *_lasts(sides)],
        }
        if node.kind == "max":
            self._put("MaxPool", node.inputs, node.name, **options)
            return
        counts = int(node.counts_padding)
        self._put("AveragePool", node.inputs, node.name, count_include_pad=counts, **options)

    def _global_average(self, node: g.GlobalAverage) -> None:
        """Leave one pixel."""
        self._put("GlobalAveragePool", node.inputs, node.name)

    def _resize(self, node: g.Resize) -> None:
        """Interpolate as torch does."""
        options: dict[str, Any] = {"mode": node.mode, "cubic_coeff_a": -0.75}
        options["coordinate_transformation_mode"] = (
            "align_corners" if node.align_corners else "half_pixel"
        )
        if node.mode == "nearest":
            options["coordinate_transformation_mode"] = "asymmetric"
            options["nearest_mode"] = "floor"
        if len(node.inputs) == 1:
            scales = self._constant(f"{node.name}.scales", [1, 1, *(node.scale or ())])
            self._put("Resize", [node.inputs[0], "", scales], node.name, **options)
            return
        read, like = node.inputs
        sizes = self._shape_of(node.name, read, like)
        self._put("Resize", [read, "", "", sizes], node.name, **options)

    def _pixel_shuffle(self, node: g.PixelShuffle) -> None:
        """Channels become pixels."""
        if self._dims != 2:
            raise ModelError(
                "ONNX cannot turn channels into voxels. Save the network as TorchScript instead."
            )
        self._put("DepthToSpace", node.inputs, node.name, blocksize=node.factor, mode="CRD")

    def _pad(self, node: g.Pad) -> None:
        """Add pixels, or cut them off."""
        padded = self._padded(node.name, node.inputs[0], node.sides, node.mode)
        self._put("Identity", [padded], node.name)

    def _fit_to(self, node: g.FitTo) -> None:
        """Cut off or add what makes the sizes alike; the same for all sizes of the image."""
        own, wanted = node.inputs
        sides = tuple(sides_to_fit(node, sizes[own], sizes[wanted]) for sizes in self._sizes)
        self._put("Identity", [self._padded(node.name, own, sides, node.mode)], node.name)

    def _join(self, node: g.Join) -> None:
        """Join; a single pixel is repeated before channels are laid side by side."""
        if node.how != "concatenate":
            reads, kind = list(node.inputs), _JOINS[node.how]
            for number, read in enumerate(reads[1:-1], start=1):
                reads[0] = self._put(kind, [reads[0], read], f"{node.name}.{number}")
            last = [reads[0], reads[-1]] if len(reads) > 1 else reads
            self._put(kind if len(reads) > 1 else "Identity", last, node.name)
            return
        shapes = {read: tuple(sizes[read] for sizes in self._sizes) for read in node.inputs}
        largest = max(shapes, key=lambda read: shapes[read])
        reads = [
            read
            if shapes[read] == shapes[largest]
            else self._put(
                "Expand",
                [read, self._shape_of(f"{node.name}.{place}", read, largest)],
                f"{node.name}.{place}.repeated",
            )
            for place, read in enumerate(node.inputs)
        ]
        self._put("Concat", reads, node.name, axis=1)

    def _linear(self, node: g.Linear) -> None:
        """Scale and shift, by numbers and then each channel by its own."""
        read, name = node.inputs[0], node.name
        if node.factor != 1:
            factor = self._constant(f"{name}.factor", node.factor)
            read = self._put("Mul", [read, factor], f"{name}.multiplied")
        if node.offset:
            offset = self._constant(f"{name}.offset", node.offset)
            read = self._put("Add", [read, offset], f"{name}.shifted")
        if node.channels:
            read = self._put("Mul", [read, self._per_channel(node, "weight")], f"{name}.scaled")
            self._put("Add", [read, self._per_channel(node, "bias")], name)
        else:
            self._put("Identity", [read], name)

    def _channels(self, node: g.Channels) -> None:
        """Cut channels out."""
        bounds = {"starts": [node.first], "ends": [node.first + node.count], "axes": [1]}
        names = [self._integers(f"{node.name}.{key}", value) for key, value in bounds.items()]
        self._put("Slice", [*node.inputs, *names], node.name)

    def _dropout(self, node: g.Dropout) -> None:
        """Nothing: it is for training only."""
        self._put("Identity", node.inputs, node.name)

    def _shape_of(self, name: str, read: str, like: str) -> str:
        """Give the batch and channels of one, the sizes of another."""
        parts = [
            self._put("Shape", [read], f"{name}.own", start=0, end=2),
            self._put("Shape", [like], f"{name}.like", start=2),
        ]
        return self._put("Concat", parts, f"{name}.shape", axis=0)


def _numpy_helper() -> Any:
    """Import what turns arrays into constants."""
    from onnx import numpy_helper

    return numpy_helper


def _firsts(sides: g.Sides) -> list[int]:
    """Return the pixels before, axis by axis."""
    return [before for before, _ in sides]


def _lasts(sides: g.Sides) -> list[int]:
    """Return the pixels after, axis by axis."""
    return [after for _, after in sides]


def _any(sides: g.Sides) -> bool:
    """Say whether there is anything to do at the edges."""
    return any(side for pair in sides for side in pair)
