"""Segment images with a U-Net, correct the labels, and let the network learn from them.

The names below are what scripts use. Each is imported when it is first asked for, so that
``import napari_unet`` costs nothing: neither torch nor napari is loaded by it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet.arrays.metrics import evaluate
    from napari_unet.files.images import read_image
    from napari_unet.files.masks import export_labels
    from napari_unet.models.export import export_model
    from napari_unet.models.model import Model, save_model
    from napari_unet.models.opening import load_model, open_weights
    from napari_unet.runs.finetune import finetune
    from napari_unet.runs.predict import predict, segment
    from napari_unet.runs.samples import Sample
    from napari_unet.settings import FinetuneSettings, InstanceSettings, SegmentSettings

    __version__: str

__all__ = [
    "FinetuneSettings",
    "InstanceSettings",
    "Model",
    "Sample",
    "SegmentSettings",
    "__version__",
    "evaluate",
    "export_labels",
    "export_model",
    "finetune",
    "load_model",
    "open_weights",
    "predict",
    "read_image",
    "save_model",
    "segment",
]

_DISTRIBUTION = "napari-unet-interactive"
_HOMES = {
    "FinetuneSettings": "napari_unet.settings",
    "InstanceSettings": "napari_unet.settings",
    "Model": "napari_unet.models.model",
    "Sample": "napari_unet.runs.samples",
    "SegmentSettings": "napari_unet.settings",
    "evaluate": "napari_unet.arrays.metrics",
    "export_labels": "napari_unet.files.masks",
    "export_model": "napari_unet.models.export",
    "finetune": "napari_unet.runs.finetune",
    "load_model": "napari_unet.models.opening",
    "open_weights": "napari_unet.models.opening",
    "predict": "napari_unet.runs.predict",
    "read_image": "napari_unet.files.images",
    "save_model": "napari_unet.models.model",
    "segment": "napari_unet.runs.predict",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name == "__version__":
        return _version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, the ones not imported yet included."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the version of the installed package; "0+unknown" when it only lies on the path."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"
