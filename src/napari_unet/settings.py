"""What a run can be told: frozen, checked values, each field with its unit and range.

The same objects serve the dock, the Python functions and the command line, and go into the
report of a run. The text of a field is the tooltip of its control and the help of its option,
so it is written once, here. Nothing in this module imports torch or napari.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_unet.errors import SettingError, described

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "half"]
Loss = Literal["both", "cross-entropy", "dice"]
Optimizer = Literal["adamw", "sgd"]
Norm = Literal["none", "batch", "instance", "group"]
PresetName = Literal["ronneberger2015", "same-bn", "light-bn", "upconv-dropout", "three-level"]

LARGEST_ZOOM = 16.0
"""Beyond this, either way, an object size is taken for a slip of the keyboard."""
LARGEST_MIN_SIZE = 1_000_000  # pixels

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: frozen, and a misspelt field is an error.

    Raises
    ------
    SettingError
        Naming the first field that is wrong, what it holds and what it may hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    _leaves_open: ClassVar[bool] = False
    """Whether a copy knows, too, which fields were not given: another may say what they are."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingError(_sentence(type(self), error)) from error

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again.

        Raises
        ------
        SettingError
            If a field does not exist or a value is out of its range.
        """
        kept = self.model_dump(exclude_unset=self._leaves_open)
        return checked(type(self), {**kept, **changes})


def checked(kind: type[S], values: dict[str, Any]) -> S:
    """Build settings from plain values; what is wrong is told in one sentence.

    Raises
    ------
    SettingError
        Naming the first field that is wrong, what it holds and what it may hold.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingError(_sentence(kind, error)) from error


def given_or_default(given: object, default: S) -> S:
    """Take the settings that were given to a function, or the default where there are none.

    Raises
    ------
    SettingError
        If something else was given: a dict, or settings of another kind.
    """
    if given is None:
        return default
    if isinstance(given, type(default)):
        return given
    name = type(default).__name__
    how = f"{name}(**values)" if isinstance(given, dict) else f"napari_unet.{name}(...)"
    raise SettingError(f"{name} was expected, {described(given)} was given. Give {how}.")


def _sentence(kind: type[Settings], error: ValidationError) -> str:
    """Say the first thing that is wrong with some values."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"Setting {field} of {kind.__name__} is missing. Give it a value."
    if first["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return f"There is no setting {field} in {kind.__name__}. There are: {known}."
    if not field:
        return f"{kind.__name__}: {message}."
    return f"Setting {field} = {first['input']!r}: {message}."


class Architecture(Settings):
    """The shape of a U-Net, from which :class:`napari_unet.network.unet.UNet` is built.

    A level is one rung of the U: ``widths`` has one entry per level, the deepest last, so a net
    of four poolings has five widths.
    """

    preset: PresetName | None = Field(
        None, description="Published U-Net this one started from, or none."
    )
    spatial_dims: Literal[2, 3] = Field(2, description="2 for planes (YX), 3 for volumes (ZYX).")
    in_channels: int = Field(1, ge=1, description="Image channels the network sees at once.")
    classes: int = Field(1, ge=1, description="Output channels of the network.")
    widths: tuple[int, ...] = Field(
        (64, 128, 256, 512, 1024),
        min_length=2,
        max_length=8,
        description="Feature channels of each level, the deepest last (1..4096 each).",
    )
    decoder_widths: tuple[tuple[int, ...], ...] | None = Field(
        None,
        description=(
            "Feature channels on the way up, the deepest stage first; in each stage those of "
            "the upsampling, then of every convolution. None: as many and as wide as on the "
            "way down."
        ),
    )
    convolutions: int = Field(2, ge=1, le=4, description="Convolutions per level.")
    padded: bool = Field(
        True, description="Convolutions keep the size; if not, the output is smaller (2015)."
    )
    bias: bool = Field(True, description="Convolutions before a norm have a bias, too.")
    norm: Norm = Field("none", description="Normalisation after each convolution.")
    norm_eps: float = Field(
        1e-5, gt=0, le=0.1, description="Small number added to the variance in the norm."
    )
    upsampling: Literal["transposed", "nearest", "linear"] = Field(
        "transposed",
        description="2x2 transposed convolution, or resizing followed by a 2x2 convolution.",
    )
    relu_after_upsampling: bool = Field(
        False, description="The norm, if there is one, and ReLU also after each upsampling."
    )
    skip_first: bool = Field(
        False, description="Order of the concatenation: the skip first, or the upsampled first."
    )
    output_kernel: Literal[1, 3] = Field(1, description="Size of the last convolution, in pixels.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of features dropped, 0..1.")
    dropout_levels: int = Field(
        2, ge=0, description="How many of the deepest levels of the contracting path have dropout."
    )
    separable: bool = Field(
        False, description="Depthwise-separable 3x3 convolutions: fewer weights, less work."
    )
    attention: bool = Field(False, description="Attention gates on the skips.")
    pyramid_pooling: bool = Field(False, description="Pyramid pooling at the bottom of the U.")
    residual: bool = Field(False, description="Residual connection around each level's block.")

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        stages = self.decoder_widths or ()
        if not all(1 <= width <= 4096 for level in (self.widths, *stages) for width in level):
            raise ValueError("every level needs between 1 and 4096 feature channels")
        if self.decoder_widths is not None and len(stages) != len(self.widths) - 1:
            raise ValueError("decoder_widths needs one entry for each level above the deepest")
        if any(not 2 <= len(stage) <= 5 for stage in stages):
            raise ValueError("each entry of decoder_widths needs the upsampling and 1..4 widths")
        if self.dropout_levels > len(self.widths):
            raise ValueError("dropout_levels cannot exceed the number of levels")
        return self


Bounds = tuple[float | None, float | None]
"""The least and the largest value; None where there is no bound."""


class Normalization(Settings):
    """How grey values are scaled before the network, from the statistics of the whole plane.

    In this order, each channel on its own unless they are measured jointly::

        grey value -> cut off at the limits -> (value - offset) / (scale + eps)
                   -> gain * value + shift  -> cut off at clip -> network
    """

    kind: Literal["percentile", "mean-std", "min-max", "divide", "fixed", "none"] = Field(
        "percentile",
        description=(
            "percentile: low becomes 0 and high becomes 1; mean-std: zero mean and unit "
            "variance; min-max: darkest 0, brightest 1; divide: by a fixed number; fixed: by "
            "fixed offsets and scales; none."
        ),
    )
    low: float = Field(1.0, ge=0, lt=100, description="Lower percentile, 0..100.")
    high: float = Field(99.8, gt=0, le=100, description="Upper percentile, 0..100.")
    divisor: float = Field(255.0, gt=0, description="The fixed number of kind 'divide'.")
    offsets: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        description="Grey values that become 0 with kind 'fixed': one per channel, or one for all.",
    )
    scales: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        description="Grey values per unit with kind 'fixed', above 0: one per channel, or one.",
    )
    joint: bool = Field(
        False, description="One measurement over all channels, instead of each on its own."
    )
    eps: float = Field(0.0, ge=0, le=0.1, description="Added to what is divided by.")
    limits: Bounds = Field(
        (None, None), description="Grey values beyond these are cut off before all else."
    )
    gain: float = Field(1.0, description="The scaled values are multiplied with it; not 0.")
    shift: float = Field(0.0, description="Then this is added.")
    clip: Bounds = Field(
        (None, None), description="What then lies beyond these is cut off, e.g. at 0 and 1."
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.low >= self.high:
            raise ValueError("the low percentile must be below the high one")
        if min(self.scales) <= 0:
            raise ValueError("every scale must be above 0")
        if len({1, len(self.offsets), len(self.scales)}) > 2:
            raise ValueError("offsets and scales must be as many, or one for all channels")
        numbers = (*self.offsets, *self.scales, self.gain, self.shift, *self.limits, *self.clip)
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise ValueError("every number must be finite")
        if self.gain == 0:
            raise ValueError("a gain of 0 leaves nothing of the image")
        for least, most in (self.limits, self.clip):
            if least is not None and most is not None and least >= most:
                raise ValueError("the lower bound must be below the upper one")
        return self


class InstanceSettings(Settings):
    """How objects are found in the network's output."""

    _leaves_open: ClassVar[bool] = True

    threshold: float = Field(
        0.5,
        ge=0.01,
        le=0.99,
        description="Pixels above this foreground probability belong to an object (0.01..0.99).",
    )
    min_size: int = Field(
        20,
        ge=0,
        le=LARGEST_MIN_SIZE,
        description="Objects smaller than this are dropped (pixels; voxels in 3D).",
    )
    split: bool = Field(True, description="Split objects that touch each other.")
    split_level: float = Field(
        0.5,
        ge=0.1,
        le=0.9,
        description=(
            "How readily they are split: lower joins parts, higher parts more. Above this depth, "
            "as the network gives it, lies the middle of an object; without meaning for networks "
            "that give none (0.1..0.9)."
        ),
    )
    fill_holes: bool = Field(False, description="Fill holes that lie inside a single object.")

    def scaled(self, factor: float) -> Self:
        """Return the same settings for an image that is so many times as large along each axis.

        Parameters
        ----------
        factor : float
            Above 0; the smallest size of an object scales with its square.

        Returns
        -------
        InstanceSettings
            For labels of planes.
        """
        return self.replace(min_size=min(LARGEST_MIN_SIZE, round(self.min_size * factor**2)))


class SegmentSettings(Settings):
    """How an image is given to the network and how objects are found in its answer."""

    _leaves_open: ClassVar[bool] = True

    channels: tuple[int, ...] | None = Field(
        None,
        description=(
            "Image channel for each network input, counted from 0. None: the same channels in "
            "the same order; a network of one input sees the mean of the image's channels."
        ),
    )
    invert: bool = Field(
        False, description="Turn the grey values round: for dark objects on a bright background."
    )
    object_size_px: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description=(
            "Typical diameter of the objects in this image (of long ones, their width), in pixels: "
            "the image is scaled before the network so that they have the size it knows. None: not "
            "scaled."
        ),
    )
    tile_px: int | None = Field(
        None,
        ge=16,
        le=8192,
        description="Largest tile the network sees at once, in pixels. None: chosen to fit.",
    )
    halo_px: int | None = Field(
        None,
        ge=0,
        description=(
            "Margin of each tile that is computed and thrown away, in pixels. None: as large as "
            "the network needs to give the same result as on the whole image; less is faster "
            "and only approximate."
        ),
    )
    device: Device = Field("auto", description="Processor: the best there is, or a chosen one.")
    precision: Precision = Field(
        "auto",
        description=(
            "Digits of the network's numbers. float32: all; half: about half the time, for "
            "probabilities that rarely differ by more than 0.03 on a CPU (0.0004 on average; more "
            "for a network that is not trained), less on a GPU; auto: half on an NVIDIA GPU, else "
            "float32."
        ),
    )
    augment: bool = Field(
        False,
        description=(
            "Show each tile to the network turned and mirrored in all 8 ways and average its "
            "answers: a little better, for 8 times the time."
        ),
    )
    instances: InstanceSettings = Field(
        InstanceSettings(),
        description=(
            "How objects are found in the network's output. What is not given is as the card of "
            "the model suggests, for this object size."
        ),
    )

    @field_validator("channels")
    @classmethod
    def _counted_from_0(cls, channels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if any(channel < 0 for channel in channels or ()):
            raise ValueError("channels are counted from 0")
        return channels


class FinetuneSettings(Settings):
    """How a network learns from corrections."""

    seconds: float | None = Field(
        60.0, gt=0, le=86_400, description="Time budget of the training, in seconds."
    )
    steps: int | None = Field(
        None, ge=1, description="Number of training steps; instead of a time budget."
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=0.1, description="Largest step of the optimiser, after warm-up."
    )
    optimizer: Optimizer = Field(
        "adamw",
        description=(
            "How the weights follow the gradient. adamw: AdamW, for all uses; sgd: stochastic "
            "gradient descent with a momentum, as the U-Net was published."
        ),
    )
    momentum: float = Field(
        0.99, ge=0, lt=1, description="Share of the last step that sgd keeps; 0.99 as published."
    )
    weight_decay: float = Field(
        1e-2, ge=0, le=1, description="Pull of the weights towards zero, with their size (L2)."
    )
    l1: float = Field(
        0.0, ge=0, le=1, description="Pull of the weights towards zero, whatever their size (L1)."
    )
    dropout: bool = Field(
        False,
        description="Let the network's own dropout, if it has any, drop signals while it learns.",
    )
    loss: Loss = Field(
        "both",
        description=(
            "What the network is to make small. both: the sum of cross-entropy and Dice loss; "
            "cross-entropy: as the U-Net was published; dice: the overlap alone."
        ),
    )
    batch: int = Field(4, ge=1, le=64, description="Crops per training step.")
    crop_px: int = Field(
        128, ge=32, le=1024, description="Side of the square training crops, in pixels."
    )
    frozen_levels: int = Field(
        0,
        ge=0,
        le=8,
        description="Levels of the contracting path, from the top, that stay as they are.",
    )
    batch_norm: Literal["fit", "adapt", "keep"] = Field(
        "fit",
        description=(
            "fit: batch norm goes over to the new images, before the training, as far as that "
            "lowers the loss; adapt: it measures them all the time; keep: it stays as it was "
            "measured on all that the model was trained on."
        ),
    )
    correction_weight: float = Field(
        2.0,
        ge=1,
        le=20,
        description="How much more a corrected pixel counts than one that was right already.",
    )
    held_out: float = Field(
        0.5,
        gt=0,
        lt=0.9,
        description=(
            "Share of the checked area that is kept aside to judge what was learned from the rest, "
            "0..1; after that the network learns from all of it."
        ),
    )
    flips: bool = Field(True, description="Mirror the training crops and turn them by quarters.")
    rotation_degrees: float = Field(
        30.0, ge=0, le=180, description="Largest free turn of the crops to either side, degrees."
    )
    zoom: float = Field(
        1.33, ge=1, le=4, description="Largest random magnification or reduction of the crops."
    )
    elastic_px: float = Field(
        10.0,
        ge=0,
        le=50,
        description="Strength of the elastic deformation: standard deviation of its grid, pixels.",
    )
    grey_values: float = Field(
        0.0, ge=0, le=1, description="Strength of random contrast and brightness changes, 0..1."
    )
    dimmed: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the crops that are made fainter: grey values nearer to 0. 0..1.",
    )
    changed_crops: float = Field(
        0.4,
        ge=0,
        le=1,
        description=(
            "Share of the crops that are freely turned, magnified, bent and changed in their grey "
            "values, 0..1; the others are mirrored and turned by quarters alone, and stay sharp."
        ),
    )
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="Start of the random numbers; same seed, same run."
    )
    device: Device = Field("auto", description="Processor: the best there is, or a chosen one.")
    precision: Precision = Field(
        "auto",
        description=(
            "Digits the network computes with while it learns; its weights keep all. float32: "
            "all; half: fewer (bfloat16; float16 with scaled gradients on GPUs without it), in "
            "about two thirds of the time where the processor is made for it; auto: half there, "
            "else float32."
        ),
    )
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description=(
            "Processors of this kind that learn together, each from its share of the crops of a "
            "step: the GPUs of this computer, or so many processes on its CPU."
        ),
    )

    @model_validator(mode="after")
    def _has_a_budget(self) -> Self:
        if self.seconds is None and self.steps is None:
            raise ValueError("give a budget in seconds or in steps")
        return self


ExportFormat = Literal["imagej-tiff", "ome-tiff", "png"]
ZarrFormat = Literal["ome-zarr", "zarr"]
MaskKind = Literal["instance", "semantic", "binary"]


class ExportSettings(Settings):
    """How labels are written as a mask."""

    format: ExportFormat = Field("ome-tiff", description="File format of the mask.")
    kind: MaskKind = Field(
        "instance",
        description="One number per object, one number per class, or 0 and 255 only.",
    )
