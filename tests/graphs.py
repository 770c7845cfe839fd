"""Small networks as lists of layers: some as they are known, others drawn at random."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.network import graph as g
from napari_unet.network.graph_net import GraphNet

if TYPE_CHECKING:
    from napari_unet.network.graph import Graph


class Sketch:
    """Notes down one node after the other; each method returns the new node's name."""

    def __init__(self, dims: int = 2, channels: int = 1) -> None:
        self.dims, self.nodes = dims, []
        self.channels = {g.IMAGE: channels}

    def add(self, kind: type[g.Node], inputs: str | tuple[str, ...], /, **options: Any) -> str:
        names = (inputs,) if isinstance(inputs, str) else inputs
        name = f"n{len(self.nodes) + 1}"
        self.nodes.append(kind(name=name, inputs=names, **options))
        channels = [self.channels[each] for each in names]
        count = options.get("out_channels", channels[0])
        if kind is g.Join and options["how"] == "concatenate":
            count = sum(channels)
        if kind is g.PixelShuffle:
            count //= options["factor"] ** self.dims
        self.channels[name] = options.get("count", count)
        return name

    def convolution(
        self, x: str, out: int, kernel: int | tuple[int, ...] = 3, **options: Any
    ) -> str:
        kernel = (kernel,) * self.dims if isinstance(kernel, int) else kernel
        options.setdefault("padding", tuple(((k - 1) // 2, k // 2) for k in kernel))
        return self.add(
            g.Convolution,
            x,
            in_channels=self.channels[x],
            out_channels=out,
            kernel=kernel,
            **options,
        )

    def norm(self, x: str, kind: str = "batch", **options: Any) -> str:
        return self.add(g.Norm, x, kind=kind, channels=self.channels[x], **options)

    def activation(self, x: str, kind: str = "relu", **options: Any) -> str:
        return self.add(g.Activation, x, kind=kind, **options)

    def upsampling(self, x: str, out: int, kernel: int, crop: tuple[int, int], step: Any) -> str:
        return self.add(
            g.TransposedConvolution,
            x,
            in_channels=self.channels[x],
            out_channels=out,
            kernel=tuple(kernel if each > 1 else 1 for each in step),
            stride=step,
            crop=tuple(crop if each > 1 else (0, 0) for each in step),
        )

    def graph(self, x: str | None = None) -> Graph:
        last = x or self.nodes[-1].name
        return g.Graph(
            spatial_dims=self.dims,
            in_channels=self.channels[g.IMAGE],
            classes=self.channels[last],
            nodes=tuple(self.nodes),
        )


def small_graph(
    *,
    dims: int = 2,
    padded: bool = True,
    norm: str = "batch",
    channels: int = 1,
    classes: int = 1,
    steps: tuple[tuple[int, ...], ...] | None = None,
) -> Graph:
    """A U-Net of two poolings, two convolutions per level and four channels."""
    sketch, x, skips = Sketch(dims, channels), g.IMAGE, []
    steps = steps or ((2,) * dims,) * 2
    options = {} if padded else {"padding": None}

    def block(x: str, width: int, step: tuple[int, ...]) -> str:
        kernel = tuple(3 if each > 1 else 1 for each in step)
        for _ in range(2):
            x = sketch.convolution(x, width, kernel, bias=norm == "none", **options)
            x = sketch.norm(x, norm) if norm != "none" else x
            x = sketch.activation(x)
        return x

    for level, step in enumerate(steps):
        skips.append(block(x, 4 * 2**level, step))
        x = sketch.add(g.Pooling, skips[-1], kind="max", kernel=step, stride=step)
    x = block(x, 4 * 2 ** len(steps), (2,) * dims)
    for level, step in reversed(list(enumerate(steps))):
        x = sketch.upsampling(x, 4 * 2**level, 2, (0, 0), step)
        skip = skips[level] if padded else sketch.add(g.FitTo, (skips[level], x))
        x = block(sketch.add(g.Join, (skip, x), how="concatenate"), 4 * 2**level, step)
    return sketch.graph(sketch.convolution(x, classes, 1))


def draw_graph(seed: int, dims: int = 2, *, exact: bool = True) -> Graph:
    """A U-shaped network, every layer and option of which is drawn at random."""
    draw = random.Random(seed)
    sketch = Sketch(dims)
    depth, is_padded = draw.choice([0, 1, 1, 2, 2, 3]), draw.random() < 0.7

    def unit(x: str, width: int) -> str:
        kernel = tuple(draw.choice([1, 3, 3, 3, 2 if is_padded else 3]) for _ in range(dims))
        dilation = tuple(draw.choice([1, 1, 2]) if is_padded and k == 3 else 1 for k in kernel)
        wide = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple((w // 2, w - w // 2) for w in wide) if is_padded else None
        mode = draw.choice(["zeros", "zeros", "reflect", "replicate"])
        x = sketch.convolution(
            x, width, kernel, dilation=dilation, padding=padding, padding_mode=mode
        )
        choice = draw.random()
        if choice < 0.3:
            x = sketch.norm(x)
        elif choice < 0.4 and not exact:
            x = sketch.norm(x, draw.choice(["instance", "group"]))
        elif choice < 0.5:
            x = sketch.add(g.Linear, x, factor=0.5, offset=0.1)
        kind = draw.choice(["relu", "leaky_relu", "elu", "gelu", "silu", "prelu", "dropout"])
        if kind == "dropout":
            return sketch.add(g.Dropout, x, share=0.2)
        return sketch.activation(x, kind)

    def block(x: str, width: int) -> str:
        for _ in range(draw.choice([1, 1, 2])):
            y = unit(x, width)
            if is_padded and draw.random() < 0.3:
                same = x if sketch.channels[x] == width else sketch.convolution(x, width, 1)
                y = sketch.add(g.Join, (y, same), how="add")
            x = y
        return x

    def smaller(x: str, step: tuple[int, ...]) -> str:
        way = draw.choice(["max", "average", "wide"] if is_padded else ["max", "average"])
        if way == "wide":
            kernel = tuple(3 if each == 2 else 1 for each in step)
            padding = tuple((1, 1) if each == 2 else (0, 0) for each in step)
            if draw.random() < 0.5:
                options = {"kernel": kernel, "stride": step, "padding": padding}
                return sketch.add(g.Pooling, x, kind="max", **options)
            return sketch.convolution(x, 3, kernel, stride=step, padding=padding)
        return sketch.add(g.Pooling, x, kind=way, kernel=step, stride=step)

    def larger(x: str, skip: str, width: int, step: tuple[int, ...]) -> str:
        ways = ["transposed", "wide", "odd", "nearest", "linear"]
        if is_padded:
            ways += ["to the size of the skip"]
        if is_padded and set(step) == {2}:
            ways += ["shuffle"]
        if not exact:
            ways += ["corners"]
        way = draw.choice(ways)
        if way in ("transposed", "wide", "odd"):
            sizes = {"transposed": (2, (0, 0)), "wide": (4, (1, 1)), "odd": (3, (1, 0))}
            return sketch.upsampling(x, width, *sizes[way], step)
        if way == "shuffle":
            return sketch.add(g.PixelShuffle, sketch.convolution(x, 2**dims, 1), factor=2)
        if way == "to the size of the skip":
            return sketch.add(g.Resize, (x, skip), mode=draw.choice(["nearest", "linear"]))
        mode = "linear" if way == "corners" else way
        scale = tuple(float(each) for each in step)
        return sketch.add(g.Resize, x, mode=mode, scale=scale, align_corners=way == "corners")

    x, skips, steps = g.IMAGE, [], []
    for level in range(depth):
        x = block(x, 2 + level)
        step = tuple(draw.choice([1, 2, 2]) for _ in range(dims)) if dims == 3 else (2, 2)
        skips.append(x)
        steps.append(step)
        x = smaller(x, step)
    x = block(x, 2 + depth)
    for level in reversed(range(depth)):
        x = larger(x, skips[level], 2 + level, steps[level])
        skip = skips[level]
        if not is_padded:
            skip = sketch.add(g.FitTo, (skip, x))
        elif draw.random() < 0.3:
            x = sketch.add(g.FitTo, (x, skip), where=draw.choice(["centre", "end"]))
        pair = (skip, x) if draw.random() < 0.5 else (x, skip)
        x = block(sketch.add(g.Join, pair, how="concatenate"), 2 + level)
    return sketch.graph(sketch.convolution(x, 2, 1))


def shaken_net(graph: Graph, seed: int = 0) -> GraphNet:
    """Build a network in float64 in which every weight counts and signals reach far."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = GraphNet(graph).double().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.double)
            if tensor.ndim > 1:
                tensor.copy_(1.6 * noise * tensor[0].numel() ** -0.5)
            elif name.endswith(("weight", "running_var")):
                tensor.copy_(1 + 0.3 * noise.clamp(-2, 2))
            else:
                tensor.copy_(0.2 * noise)
    return net
