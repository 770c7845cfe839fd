"""Tries what was read on the test image of a package, which says what comes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.errors import UnetError
from napari_unet.models.bioimageio.postprocessing import read_postprocessing
from napari_unet.models.card import Card
from napari_unet.models.model import Model, assemble
from napari_unet.settings import Normalization, checked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unet.models.bioimageio.package import Package
    from napari_unet.models.bioimageio.steps import Step
    from napari_unet.models.bioimageio.tensors import Tensor
    from napari_unet.models.found import Found

_MOST_TESTED_PIXELS = 2**22


def read_test_image(package: Package, folder: Path, tensor: Tensor) -> NDArray[Any] | None:
    """Read a test tensor as (N, C, *spatial); None if there is none that could be read."""
    source = tensor.test
    if source is None or not source.endswith(".npy") or not package.holds(source):
        return None
    try:
        values = np.load(package.fetch(source, None, folder), mmap_mode="r", allow_pickle=False)
        values = np.array(values) if values.nbytes < 2**30 else None
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError):
        return None
    if values is None or values.ndim != len(tensor.axes) or values.dtype.kind not in "biuf":
        return None
    if "c" not in tensor.axes:
        return np.expand_dims(values, 1)
    return np.moveaxis(values, tensor.axes.index("c"), 1)


def difference_of(
    found: Found,
    image: NDArray[Any] | None,
    wanted: NDArray[Any] | None,
    steps: Sequence[Step],
) -> float | None:
    """Compute the package's test image: the largest difference, as a share of the largest value.

    None if there is no test image, or this reading does not take images of that size; of a mask,
    the share of pixels that differ.
    """
    if image is None or wanted is None or image[0, 0].size > _MOST_TESTED_PIXELS:
        return None
    try:
        model = _assembled(found)
    except UnetError:
        return math.inf  # the tensors do not fit this reading
    rule = model.card.normalization
    pixels = np.stack([normalize(plane, measure(plane, rule)) for plane in image])
    try:
        with torch.inference_mode():
            answer = model.net(torch.from_numpy(pixels))
            if "activation" not in found.assumed:
                answer = model.activate(answer)
                if model.card.activation == "none":  # is cut off here, but not by each package
                    wanted = np.clip(wanted, 0, 1)
    except (UnetError, RuntimeError):
        return None
    given = _laid_on(answer.numpy(), wanted.shape)
    if given is None:
        return None
    threshold = read_postprocessing(steps, {}).threshold
    if threshold is not None:
        return float(np.mean((given > threshold) != (wanted > 0.5)))
    largest = max(float(np.abs(wanted).max()), 1e-6)
    return float(np.abs(given - wanted.astype(np.float64)).max()) / largest


def _laid_on(given: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Bring an answer to the size of the test output: every second pixel, or the middle."""
    if given.ndim != len(shape) or given.shape[:2] != shape[:2]:
        return None
    if all(size % other == 0 for size, other in zip(given.shape, shape, strict=True)):
        steps = [size // other for size, other in zip(given.shape, shape, strict=True)]
        return given[tuple(slice(None, None, step) for step in steps)]
    for axis, (size, other) in enumerate(zip(given.shape, shape, strict=True)):
        if size < other:
            return None
        given = given.take(range((size - other) // 2, (size - other) // 2 + other), axis)
    return given


def _assembled(found: Found) -> Model:
    """Build the network of a reading, with copies of its weights."""
    shape = found.architecture
    normalization = found.card.get("normalization", Normalization())
    card = checked(
        Card,
        {
            "name": "test",
            "architecture": shape,
            "normalization": normalization,
            "activation": found.card.get("activation", "sigmoid"),
            "input_channels": tuple(f"channel {n}" for n in range(shape.in_channels)),
            "outputs": tuple(f"output {n}" for n in range(shape.classes)),
        },
    )
    tensors = {key: tensor.detach().clone() for key, tensor in found.tensors.items()}
    return assemble("the package", card, tensors)


def confirmed(found: Found) -> Found:
    """Take out what needs no assuming any more: the network gives what it should."""
    fields = {*Card.model_fields, "post-processing", "weights", "size"}
    assumed = {field: text for field, text in found.assumed.items() if field in fields}
    return replace(found, assumed=assumed, title="")


def doubtful(found: Found, difference: float) -> Found:
    """Tell in the card that the network does not quite give what it should."""
    text = (
        f"The answer to the package's own test image differs by up to {difference:.2g} of the "
        "largest value from what it should be."
    )
    return replace(found, assumed={**found.assumed, "test image": text})
