"""Pictures of an image, and of what a model makes of it, in the windows of the dock."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel

from napari_unet.models.card import FOREGROUND, Card

PICTURE_PX = 190
TINT = np.array((255, 140, 0), np.float32)


def foreground_of(card: Card, probability: np.ndarray) -> np.ndarray:
    """Return the probability that there is something, of one plane.

    Parameters
    ----------
    card : Card
        Says what the outputs are.
    probability : ndarray of float32, shape (classes, Y, X) or (classes, Z, Y, X)
        Of a volume the middle plane is taken.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        In 0..1.
    """
    if probability.ndim > 3:
        probability = probability.reshape(len(probability), -1, *probability.shape[-2:])
        probability = probability[:, probability.shape[1] // 2]
    if FOREGROUND in card.outputs:
        return probability[card.outputs.index(FOREGROUND)]
    if len(probability) == 1:
        return probability[0]
    return np.clip(1 - probability[0], 0, 1)


def grey_plane(array: np.ndarray, axes: str, channels: tuple[int, ...] | None) -> np.ndarray:
    """Return one grey plane of an image to look at, shape (Y, X)."""
    image = np.asarray(array, np.float32)
    if "C" in axes:
        image = np.moveaxis(image, axes.index("C"), 0)
        image = (image[list(channels)] if channels else image).mean(axis=0)
    while image.ndim > 2:
        image = image[len(image) // 2]
    return image


def as_grey(image: np.ndarray) -> np.ndarray:
    """Scale an image to 0..255 so that it can be seen."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0, 1)
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255


def tinted(grey: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Lay over an image what would be labelled, the stronger the surer."""
    sure = np.clip((np.nan_to_num(probability) - threshold) / (1 - threshold), 0, 1)
    share = np.where(probability >= threshold, 0.35 + 0.4 * sure, 0)[..., None]
    return grey[..., None] * (1 - share) + TINT * share


def answer(grey: np.ndarray, card: Card, probability: np.ndarray) -> tuple[np.ndarray, float]:
    """Lay over an image what a model would label.

    Parameters
    ----------
    grey : ndarray, shape (Y, X), range 0..255
        The image.
    card : Card
        Of the model.
    probability : ndarray of float32, shape (classes, Y, X) or (classes, Z, Y, X)
        Its answer.

    Returns
    -------
    rgb : ndarray, shape (Y, X, 3), range 0..255
        What would be labelled is orange, the stronger the surer.
    share : float
        Of the pixels that would be labelled, in 0..1.
    """
    foreground = foreground_of(card, np.asarray(probability))
    threshold = card.instances.threshold
    return tinted(grey, foreground, threshold), float((foreground >= threshold).mean())


def picture(rgb: np.ndarray, shown: QLabel | None = None) -> QLabel:
    """Show an array (Y, X, 3) as a picture of a fixed size, in a label given or a new one."""
    data = np.ascontiguousarray(np.clip(rgb, 0, 255).astype(np.uint8))
    height, width = data.shape[:2]
    image = QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    shown = shown or QLabel()
    shown.setFixedSize(PICTURE_PX, PICTURE_PX)
    shown.setAlignment(Qt.AlignmentFlag.AlignCenter)
    shown.setPixmap(
        QPixmap.fromImage(image).scaled(
            PICTURE_PX,
            PICTURE_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )
    return shown
