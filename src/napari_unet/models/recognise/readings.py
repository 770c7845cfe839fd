"""What tensors cannot tell, and who tells it: names of a family, the shapes, or a default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    pooling: Literal["max", "average"] = "max"
    strided: bool = False
    """Whether the first convolution of a level halves the size, instead of a pooling."""
    resize: Literal["nearest", "linear"] = "linear"
    align_corners: bool = False
    norm: Literal["instance", "group"] = "instance"
    """What a norm is that has weights but no statistics."""
    groups: int = 8
    bare_norm: bool = False
    """Whether an instance norm without tensors follows each convolution of a block."""
    fit: Literal["none", "up", "skip"] = "none"
    """What is cropped or padded when the two sides of a join differ in size."""
    active_up: bool | None = None
    """Whether an activation follows the upsampling's convolution; None: as its norm tells."""
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
        return Reading(family=self.name, known=frozenset(told), **told)


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


def sentences(reading: Reading, facts: Sequence[str]) -> dict[str, str]:
    """Say what was assumed: all that neither the family nor the tensors tell.

    Parameters
    ----------
    reading : Reading
        How the tensors are read.
    facts : sequence of str
        Fields of the reading that matter for this network.

    Returns
    -------
    dict of str to str
        A short name and a sentence each.
    """
    texts = {
        "skip_first": (
            "skip order",
            "The skip comes before the upsampled features."
            if reading.skip_first
            else "The upsampled features come before the skip.",
        ),
        "skips": (
            "skips",
            "Features of the same level are added; tensors cannot tell it from no skips at all."
            if reading.skips
            else "There are no skips; tensors cannot tell it from features that are added.",
        ),
        "padded": (
            "padding",
            "The convolutions keep the size."
            if reading.padded
            else "The convolutions are not padded.",
        ),
        "order": (
            "order of norm and activation",
            "The norm stands before the activation."
            if reading.order == "norm-activation"
            else "The activation stands before the norm.",
        ),
        "activation": (
            "activation of the layers",
            f"The layers are activated by {reading.activation}.",
        ),
        "pooling": (
            "pooling",
            "The first convolution of each level halves the size by a stride of 2."
            if reading.strided
            else f"The size is halved by {reading.pooling} pooling.",
        ),
        "resize": (
            "upsampling",
            "The size is doubled by repeating pixels."
            if reading.resize == "nearest"
            else "The size is doubled by linear interpolation, corner pixels "
            + ("on corner pixels." if reading.align_corners else "as parts of the image's area."),
        ),
        "norm": (
            "kind of norm",
            "The norms are instance norms."
            if reading.norm == "instance"
            else f"The norms are group norms of {reading.groups} groups.",
        ),
        "bare_norm": (
            "norm without weights",
            "An instance norm without weights follows each convolution."
            if reading.bare_norm
            else "There is no norm between the layers.",
        ),
    }
    texts["adjacent_linear"] = (
        "activation between neighbours",
        "No activation stands between convolutions that follow each other in a sequence."
        if reading.adjacent_linear
        else "An activation stands between convolutions that follow each other in a sequence.",
    )
    texts["active_up"] = (
        "activation after upsampling",
        "An activation follows the convolution of each upsampling."
        if reading.active_up
        else "No activation follows the convolution of each upsampling.",
    )
    return {
        texts[fact][0]: texts[fact][1] + ("" if fact == "skips" else " The tensors do not tell.")
        for fact in facts
        if fact not in reading.known and fact in texts
    }
