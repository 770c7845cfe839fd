"""One way to read tensors as a network, and the families whose names tell how to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers


@dataclass(frozen=True)
class Reading:
    """One way to read tensors as a network."""

    family: str = "U-Net"
    skip_first: bool = False
    skips: bool = True
    """Whether features of the same level are added, where nothing but their sum would tell."""
    padded: bool = True
    order: Literal["norm-activation", "activation-norm"] = "norm-activation"
    activation: str = "relu"
    slope: float | None = None
    """Below 0, of leaky ReLU; alpha of ELU. None: as PyTorch has it."""
    pooling: Literal["max", "average"] = "max"
    strided: bool = False
    """Whether the first convolution of a level halves the size, instead of a pooling."""
    active_stem: bool = True
    """Whether an activation follows a first convolution that stands alone before blocks."""
    active_down: bool | None = None
    """Whether an activation follows a convolution that halves the size; None: as names tell."""
    active_end: bool = True
    """Whether an activation follows the last convolution of a level."""
    pooled_last: bool = False
    """Whether pooling stands behind the first module of a level, which sees the size above."""
    strides: tuple[int, ...] = (2,)
    """How many times smaller each level is than the one above it, the image's first."""
    resize: Literal["nearest", "linear", "cubic"] = "linear"
    align_corners: bool = False
    resized_last: bool = False
    """Whether the convolution of an upsampling stands before what doubles the size."""
    norm: Literal["instance", "group", "layer"] = "instance"
    """What a norm is that has weights but no statistics."""
    groups: int = 8
    bare_norm: bool = False
    """Whether an instance norm without tensors follows each convolution of a block."""
    fit: Literal["none", "up", "skip"] = "none"
    """What is cropped or padded when the two sides of a join differ in size."""
    eps: float = 1e-5
    """Added to the variance in norms."""
    residual_end: Literal["after", "before", "none"] = "after"
    """Where the last activation of a block with a shortcut stands: after the sum or before it."""
    active_up: bool | None = None
    """Whether an activation follows the upsampling's convolution; None: as its norm tells."""
    reused: bool = True
    """Whether the one norm or the one PReLU of a module serves each of its convolutions."""
    squeezed: Literal["block", "sum", "skip"] = "block"
    """What is weighed channel by channel: a block before its sum, after it, or its skip alone."""
    bare_shortcuts: bool = False
    """Whether a shortcut without tensors leads past the convolutions of a module."""
    dilations: tuple[int, ...] = (1,)
    """Of the convolutions of the levels; one stands for all."""
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    input_added: bool = False
    """Whether the image is added to the answer."""
    adjacent_linear: bool = False
    """Whether nothing stands between convolutions that are neighbours in a numbered sequence."""
    known: frozenset[str] = frozenset()
    """Which of these the family tells."""

    def changed(self, **changes: Any) -> Reading:
        """Return a reading that differs in some points."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Family:
    """A published network, by the names of its tensors."""

    name: str
    patterns: tuple[str, ...]
    """Each fits the start of a key."""
    told: tuple[tuple[str, Any], ...]
    """What the published code does, field by field of :class:`Reading`."""
    card: tuple[tuple[str, Any], ...] = ()

    def reading(self) -> Reading:
        """Return the published network's reading."""
        told = dict(self.told)
        return Reading(family=self.name, known=frozenset(told) | _AS_USUAL, **told)


_AS_USUAL = frozenset(
    (
        "eps",
        "active_stem",
        "active_end",
        "pooled_last",
        "padding_mode",
        "dilations",
        "strides",
        "input_added",
        "bare_shortcuts",
        "resized_last",
    )
)
"""What all of the published networks do as a reading has it if nothing is told."""

_YASSOUALI = (
    ("skip_first", True),
    ("padded", True),
    ("activation", "relu"),
    ("pooling", "max"),
    ("order", "norm-activation"),
    ("resize", "linear"),
    ("align_corners", True),
    ("active_up", False),
)

FAMILIES = (
    Family(
        "milesial/Pytorch-UNet",
        (
            r"inc\.(double_conv|conv\.conv)\.0\.",
            r"down1\.(maxpool_conv|mpconv)\.1\.",
            r"up1\.conv\.",
        ),
        (
            ("skip_first", True),
            ("resize", "linear"),
            ("align_corners", True),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("order", "norm-activation"),
            ("fit", "up"),
        ),
    ),
    Family(
        "mateuszbuda/brain-segmentation-pytorch",
        (r"encoder1\.enc1conv1\.", r"upconv\d+\.", r"decoder1\.dec1conv1\."),
        (
            ("skip_first", False),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("order", "norm-activation"),
        ),
        (("activation", "sigmoid"),),
    ),
    Family(
        "jvanvugt/pytorch-unet",
        (r"down_path\.0\.block\.0\.", r"up_path\.0\.up\.", r"up_path\.0\.conv_block\.block\.0\."),
        (
            ("skip_first", False),
            ("resize", "linear"),
            ("align_corners", False),
            ("activation", "relu"),
            ("pooling", "max"),
            ("order", "activation-norm"),
            ("fit", "skip"),
            ("active_up", False),
        ),
        (("activation", "softmax"),),
    ),
    Family(
        "usuyama/pytorch-unet",
        (r"dconv_down1\.0\.", r"dconv_up1\.0\.", r"conv_last\."),
        (
            ("skip_first", False),
            ("resize", "linear"),
            ("align_corners", True),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
        ),
        (("activation", "sigmoid"),),
    ),
    Family(
        "LeeJunHyun/Image_Segmentation",
        (r"Conv1\.conv\.0\.", r"Up\d\.up\.1\.", r"Up_conv2\.conv\.0\.", r"Conv_1x1\."),
        (
            ("skip_first", True),
            ("resize", "nearest"),
            ("active_up", True),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("order", "norm-activation"),
        ),
        (("activation", "sigmoid"),),
    ),
    Family(
        "light-bn",
        (r"layer1_conv\.conv1\.", r"deconv1\.conv1\.", r"layer\d+_conv\.weight"),
        (
            ("skip_first", False),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("order", "norm-activation"),
            ("active_up", True),
        ),
        (("activation", "sigmoid"),),
    ),
    Family(
        "aladdinpersson",
        (r"downs\.0\.conv\.0\.", r"ups\.0\.weight", r"ups\.1\.conv\.0\.", r"final_conv\."),
        (
            ("skip_first", True),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("order", "norm-activation"),
        ),
    ),
    Family(
        "bubbliiiing/unet-pytorch",
        (r"vgg\.features\.0\.", r"up_concat4\.conv1\.", r"final\."),
        (
            ("skip_first", True),
            ("resize", "linear"),
            ("align_corners", True),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("bare_norm", False),
        ),
        (("activation", "softmax"),),
    ),
    Family(
        "yassouali/pytorch-segmentation of 2019",
        (r"start_conv\.0\.", r"down1\.down_conv\.0\.", r"up1\.up_conv\.0\."),
        (*_YASSOUALI, ("pooled_last", True)),
        (("activation", "softmax"),),
    ),
    Family(
        "yassouali/pytorch-segmentation",
        (r"down1\.down_conv\.0\.", r"middle_conv\.0\.", r"up1\.up_conv\.0\."),
        _YASSOUALI,
        (("activation", "softmax"),),
    ),
    Family(
        "nnU-Net",
        (
            r"encoder\.stages\.0\.0\.convs\.0\.conv\.",
            r"decoder\.transpconvs\.0\.",
            r"decoder\.seg_layers\.",
        ),
        (
            ("skip_first", False),
            ("padded", True),
            ("activation", "leaky_relu"),
            ("slope", 0.01),
            ("strided", True),
            ("norm", "instance"),
            ("order", "norm-activation"),
            ("active_up", False),
        ),
        (("activation", "softmax"), ("normalization", Normalization(kind="mean-std"))),
    ),
    Family(
        "torch-em",
        (r"encoders\.0\.0\.", r"base\.0\.", r"decoders\.0\.0\.", r"upsamplers\.0\.1\."),
        (
            ("skip_first", True),
            ("resize", "linear"),
            ("align_corners", False),
            ("padded", True),
            ("activation", "relu"),
            ("pooling", "max"),
            ("active_up", False),
            ("adjacent_linear", True),
        ),
        (("activation", "sigmoid"), ("normalization", Normalization(kind="mean-std"))),
    ),
)


def find_family(layers: Layers) -> Family | None:
    """Find the published network whose names the tensors have."""
    return next((family for family in FAMILIES if layers.has_keys(*family.patterns)), None)
