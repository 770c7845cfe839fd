"""One picture of the loop: image, labels before, what was corrected, labels after.

Objects are coloured by how they compare with the truth, so that the eye sees what changed::

    teal     found: overlaps its true object with an IoU of at least 0.5
    magenta  wrong: there is no such object, or it is merged, split or badly outlined
    yellow   missed: a true object that no label found
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.metrics import match_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.ImageDraw import ImageDraw

    Picture = NDArray[np.uint8]
    Labels = NDArray[np.integer[Any]]
    Box = tuple[int, int, int, int]

FOUND = (0, 190, 170)
WRONG = (235, 45, 150)
MISSED = (255, 205, 0)
BOX = (255, 255, 255)
LEGEND = (("found", FOUND), ("wrong", WRONG), ("missed", MISSED))

_FILL = 0.45
_GAP_PX = 16
_CAPTION_PX = 76
_LEGEND_PX = 44
_PAPER = (255, 255, 255)
_INK = (25, 25, 25)
_PALE_INK = (95, 95, 95)


def grey_picture(image: NDArray[Any]) -> Picture:
    """Turn grey values into a picture, from the 0.5th to the 99.8th percentile.

    Parameters
    ----------
    image : ndarray of real, shape (Y, X)
        Grey values.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        Grey.
    """
    low, high = np.percentile(image, (0.5, 99.8))
    scaled = (image.astype(float) - low) / max(high - low, 1e-9)
    grey = np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1)


def draw_judged(image: NDArray[Any], labels: Labels, truth: Labels) -> Picture:
    """Draw labels over an image, coloured by how they compare with the truth.

    Parameters
    ----------
    image : ndarray of real, shape (Y, X)
        Grey values.
    labels, truth : ndarray of int, shape (Y, X)
        Labels to be judged, and the true ones.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        The picture.
    """
    pairs = np.array(match_objects(labels, truth).pairs, int).reshape(-1, 2)
    is_found = np.isin(labels, pairs[:, 0]) & (labels > 0)
    missed = np.where(np.isin(truth, pairs[:, 1]), 0, truth)
    picture = grey_picture(image)
    _paint(picture, np.where(is_found, 0, labels), WRONG)
    _paint(picture, np.where(is_found, labels, 0), FOUND)
    _paint(picture, missed, MISSED, where=labels == 0)
    return picture


def draw_corrected(image: NDArray[Any], corrected: Labels, boxes: Sequence[Box]) -> Picture:
    """Draw the corrected regions with their objects, each in a colour of its own.

    Parameters
    ----------
    image : ndarray of real, shape (Y, X)
        Grey values; paler outside the boxes.
    corrected : ndarray of int, shape (Y, X)
        Labels as the person left them.
    boxes : sequence of (y0, x0, y1, x1)
        The regions in pixels, the end left out.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        The picture.
    """
    whole = grey_picture(image)
    picture = (whole * 0.30 + 255 * 0.62).astype(np.uint8)
    for y0, x0, y1, x1 in boxes:
        inside = picture[y0:y1, x0:x1]
        inside[:] = whole[y0:y1, x0:x1]
        labels = corrected[y0:y1, x0:x1]
        for number in np.unique(labels[labels > 0]):
            _paint(inside, np.where(labels == number, number, 0), _own_colour(int(number)))
    return picture


def draw_boxes(picture: Picture, boxes: Sequence[Box]) -> Picture:
    """Draw the outlines of regions, white with a dark edge.

    Parameters
    ----------
    picture : ndarray of uint8, shape (Y, X, 3)
        Drawn upon.
    boxes : sequence of (y0, x0, y1, x1)
        The regions in pixels, the end left out.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        The same array.
    """
    for wide, colour in ((4, (30, 30, 30)), (2, BOX)):
        for y0, x0, y1, x1 in boxes:
            frame = np.zeros(picture.shape[:2], bool)
            frame[y0:y1, x0:x1] = True
            frame[y0 + wide : y1 - wide, x0 + wide : x1 - wide] = False
            picture[frame] = colour
    return picture


def lay_out(panels: Sequence[tuple[Picture, str, str]]) -> Picture:
    """Put pictures of one size side by side, each under its caption, over the legend.

    Parameters
    ----------
    panels : sequence of (picture, title, line)
        What to show, from left to right.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        The sheet.
    """
    from PIL import Image, ImageDraw

    height, width = panels[0][0].shape[:2]
    step = width + _GAP_PX
    size = (step * len(panels) + _GAP_PX, _CAPTION_PX + height + _LEGEND_PX)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, title, line) in enumerate(panels):
        left = _GAP_PX + number * step
        sheet.paste(Image.fromarray(picture), (left, _CAPTION_PX))
        draw.text((left, 10), title, _INK, font=_font(28))
        draw.text((left, 45), line, _PALE_INK, font=_font(20))
    _draw_legend(draw, size[0] - _GAP_PX, _CAPTION_PX + height + 10)
    return np.asarray(sheet)


def _draw_legend(draw: ImageDraw, right: float, top: int) -> None:
    """Draw what the colours mean, ending at the right."""
    font = _font(20)
    for text, colour in reversed(LEGEND):
        right -= draw.textlength(text, font=font)
        draw.text((right, top), text, _INK, font=font)
        right -= 28
        draw.rectangle((right, top + 3, right + 18, top + 21), fill=colour)
        right -= 26


def _paint(
    picture: Picture,
    labels: Labels,
    colour: tuple[int, int, int],
    where: NDArray[np.bool_] | None = None,
) -> None:
    """Fill objects so that the image shines through, and draw their outlines."""
    from skimage.segmentation import find_boundaries

    inside = labels > 0 if where is None else (labels > 0) & where
    mixed = picture[inside] * (1 - _FILL) + np.array(colour) * _FILL
    picture[inside] = mixed.astype(np.uint8)
    picture[find_boundaries(labels, mode="inner")] = colour


def _own_colour(number: int) -> tuple[int, int, int]:
    """Return a bright colour for a number; neighbours in number are far apart in hue."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _font(size_px: int) -> Any:
    """Return Pillow's own font."""
    from PIL import ImageFont

    return ImageFont.load_default(size_px)
