"""The whole loop without a person: what ``napari-unet demo`` runs.

A generated image of stained tissue, whose truth is known, is segmented with the bundled model,
which was trained on other images. In a few boxes the labels are replaced by the truth, as a
person would correct them; the model learns from the boxes, and segments again. What is judged
lies outside the boxes: there nobody helped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.corrections import changed, count_changes
from napari_unet.arrays.metrics import evaluate, match_objects
from napari_unet.files.atomic import written_beside
from napari_unet.files.masks import export_labels
from napari_unet.models.model import load_model, save_model
from napari_unet.runs.finetune import finetune_steps
from napari_unet.runs.picture import draw_boxes, draw_corrected, draw_judged, grey_picture, lay_out
from napari_unet.runs.predict import segment_steps
from napari_unet.runs.progress import Job, Note
from napari_unet.runs.report import write_report
from napari_unet.runs.samples import Sample
from napari_unet.sample_data import PIXEL_SIZE_UM, tissue
from napari_unet.settings import Device, FinetuneSettings, SegmentSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unet.models.model import Model
    from napari_unet.runs.finetune import FinetuneResult

    Labels = NDArray[np.int32]
    Box = tuple[int, int, int, int]

MODEL = "nuclei"
SHAPE = (640, 640)
TILE_PX = 256
TRAINING = FinetuneSettings(seconds=None, steps=220)  # so a slow or busy computer learns as much
BOXES: tuple[Box, ...] = ((16, 16, 240, 304), (344, 352, 624, 624))
"""Regions that are corrected, (y0, x0, y1, x1) in pixels: about a third of the image."""


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found and wrote.

    ``before`` and ``after`` are the scores outside the boxes; ``finetune`` has those of the
    held-out part of the boxes; ``files`` names what was written.
    """

    image: NDArray[np.uint8]
    labels_before: Labels
    labels_after: Labels
    before: dict[str, float]
    after: dict[str, float]
    corrected_objects: int
    finetune: FinetuneResult
    files: dict[str, Path]


def demo_steps(
    out: Path,
    settings: FinetuneSettings | None = None,
    *,
    model: str = MODEL,
    seed: int = 0,
    shape: tuple[int, int] = SHAPE,
    boxes: tuple[Box, ...] = BOXES,
) -> Job[DemoResult]:
    """Run the loop and write masks, model, report and picture.

    Parameters
    ----------
    out : Path
        Folder; made if it is not there, files of an earlier demo are replaced.
    settings : FinetuneSettings, optional
        Budget, device and all else of the training; if not given, so many steps as one minute
        buys on two processors.
    model : str
        Name or file of the model to start with.
    seed : int
        Of the image.
    shape : tuple of int
        Size (Y, X) of the image in pixels.
    boxes : tuple of (y0, x0, y1, x1)
        Regions that are corrected, in pixels.

    Yields
    ------
    Progress
        Notes at each step of the loop, and the progress of the runs.

    Raises
    ------
    UnetError
        If the model cannot be loaded or a file cannot be written.
    """
    settings = settings or TRAINING
    start = load_model(model)
    segment = _segmenting(start, settings.device)
    image, truth = tissue(shape, seed)
    yield Note(
        f"1. Segmenting a tissue image of {shape[1]} x {shape[0]} px with {start.card.name}."
    )
    before = (yield from segment_steps(start, image, "YX", segment)).labels
    corrected, checked = correct(before, truth, boxes)
    count = count_changes(before, corrected)
    yield Note(f"2. Mending {count} errors in {len(boxes)} boxes, as a person would.")
    yield Note("3. Fine-tuning on the boxes.")
    sample = Sample(image[np.newaxis], corrected, checked, changed(before, corrected))
    result = yield from finetune_steps(start, [sample], settings, segment)
    yield Note("4. Segmenting again, and exporting.")
    after = (yield from segment_steps(result.model, image, "YX", segment)).labels
    scores = (evaluate(before, truth, ~checked), evaluate(after, truth, ~checked))
    files = _write_masks(out, image, truth, before, corrected, after)
    files["model"] = save_model(result.model, out / "model.safetensors")
    report = {
        **result.report,
        "demo": {
            "before": scores[0],
            "after": scores[1],
            "judged": "the image outside the corrected boxes",
            "corrected_objects": count,
            "boxes": boxes,
            "seed": seed,
            "segment": segment.model_dump(mode="json"),
        },
    }
    files["report"] = write_report(out / "report.json", report)
    panels = (
        (grey_picture(image), "Image", "stained tissue, generated, so the truth is known"),
        (_judged(image, before, truth, boxes), "Before", _line(scores[0])),
        (
            draw_boxes(draw_corrected(image, corrected, boxes), boxes),
            "Corrections",
            f"{len(boxes)} boxes with {_count(corrected, checked)} nuclei, {count} errors mended",
        ),
        (_judged(image, after, truth, boxes), "After", _line(scores[1])),
    )
    files["picture"] = _write_picture(out / "picture.png", lay_out(panels))
    return DemoResult(image, before, after, *scores, count, result, files)


def correct(
    labels: Labels, truth: Labels, boxes: tuple[Box, ...]
) -> tuple[Labels, NDArray[np.bool_]]:
    """Replace labels by the truth within boxes, as a careful person would correct them.

    Parameters
    ----------
    labels, truth : ndarray of int32, shape (Y, X)
        Labels to be corrected, and the true ones.
    boxes : tuple of (y0, x0, y1, x1)
        Where, in pixels.

    Returns
    -------
    corrected : ndarray of int32, shape (Y, X)
        The truth in the boxes, ``labels`` elsewhere; an object that was found keeps its number.
    checked : ndarray of bool, shape (Y, X)
        The boxes.
    """
    checked = np.zeros(truth.shape, bool)
    for y0, x0, y1, x1 in boxes:
        checked[y0:y1, x0:x1] = True
    number = np.arange(truth.max() + 1, dtype=np.int32) + int(labels.max())
    number[0] = 0
    for found, true in match_objects(labels, truth).pairs:
        number[true] = found
    return np.where(checked, number[truth], labels), checked


def _segmenting(model: Model, device: Device) -> SegmentSettings:
    """Return the settings of both segmentations: dark objects, in tiles."""
    return SegmentSettings(
        invert=True,
        tile_px=max(TILE_PX, 2 * model.net.halo + model.net.stride),
        device=device,
        instances=model.card.instances,
    )


def _judged(
    image: NDArray[np.uint8], labels: Labels, truth: Labels, boxes: tuple[Box, ...]
) -> NDArray[np.uint8]:
    """Draw labels with the boxes, outside of which they are judged."""
    return draw_boxes(draw_judged(image, labels, truth), boxes)


def _count(labels: Labels, where: NDArray[np.bool_]) -> int:
    """Count the objects in a region."""
    return int(np.count_nonzero(np.unique(labels[where])))


def _line(scores: dict[str, float]) -> str:
    """Say scores in one line."""
    found, wrong, missed = scores["tp"], scores["fp"], scores["fn"]
    return (
        f"outside the boxes: {found:.0f} found, {wrong:.0f} wrong, {missed:.0f} missed"
        f" (AP {scores['ap50']:.2f})"
    )


def _write_masks(
    out: Path,
    image: NDArray[np.uint8],
    truth: Labels,
    before: Labels,
    corrected: Labels,
    after: Labels,
) -> dict[str, Path]:
    """Write the image and all labels as OME-TIFF."""
    import tifffile

    size: dict[str, Any] = {
        f"PhysicalSize{axis}{part}": value
        for axis in "XY"
        for part, value in (("", PIXEL_SIZE_UM), ("Unit", "µm"))
    }
    path = out / "image.ome.tif"
    with written_beside(path) as beside:
        tifffile.imwrite(beside, image, ome=True, metadata={"axes": "YX", **size})
    labels = {"before": before, "corrected": corrected, "after": after, "truth": truth}
    masks = {
        name: export_labels(array, out / f"{name}.ome.tif", axes="YX", pixel_size_um=PIXEL_SIZE_UM)
        for name, array in labels.items()
    }
    return {"image": path, **masks}


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> Path:
    """Write a picture as PNG."""
    from PIL import Image

    with written_beside(path) as beside:
        Image.fromarray(picture).save(beside, format="PNG")
    return path
