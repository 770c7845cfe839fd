"""Export: leave with masks that other programs open at the right size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import Container, PushButton
from qtpy.QtWidgets import QFileDialog

from napari_unet.errors import UnetError
from napari_unet.settings import ExportSettings
from napari_unet.widget.fields import (
    choice,
    column,
    help_of,
    named,
    problem_line,
    show_problem,
    text_line,
)
from napari_unet.widget.layers import METADATA_KEY, from_layer_shape, pixel_size
from napari_unet.widget.session import Session
from napari_unet.widget.thread import InThread

if TYPE_CHECKING:
    from napari.layers import Labels

FORMATS = {
    "OME-TIFF": ("ome-tiff", ".ome.tif"),
    "ImageJ TIFF": ("imagej-tiff", ".tif"),
    "PNG": ("png", ".png"),
}
ENDINGS = {
    ".ome.tif": (".tif", ".tiff"),
    ".tif": (".tif", ".tiff"),
    ".png": (".png",),
}
"""What a file name may end in, by the ending it gets otherwise."""
KINDS = {"objects (1, 2, 3 …)": "instance", "classes": "semantic", "foreground (0, 255)": "binary"}


class ExportPanel:
    """The fifth section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._writing: InThread | None = None
        self.what = text_line("export_summary", "")
        self.format = choice(
            "export_format", "Format", help_of(ExportSettings, "format"), list(FORMATS)
        )
        self.kind = choice("export_kind", "Values", help_of(ExportSettings, "kind"), list(KINDS))
        self.problem = problem_line("export_format")
        self.export = named(
            PushButton(text="Export mask…", label=""),
            "export",
            "Write the labels at hand to a file, with their pixel size and axes.",
        )
        self.container: Container = column(
            self.what, self.format, self.problem, self.kind, self.export
        )
        self.export.changed.connect(self.ask_and_export)
        self.format.changed.connect(self._show)
        session.labels_changed.connect(self._show)
        session.layers_changed.connect(self._show)
        self._show()

    def ask_and_export(self) -> None:
        """Ask where to, then export."""
        layer = self._session.labels
        if layer is None:
            return
        ending = FORMATS[self.format.value][1]
        proposal = str(self._folder(layer) / f"{layer.name}{ending}")
        path, _ = QFileDialog.getSaveFileName(
            self.container.native, "Export mask", proposal, f"{self.format.value} (*{ending})"
        )
        if path:
            self.export_to(path if path.lower().endswith(ENDINGS[ending]) else path + ending)

    def export_to(self, path: str | Path) -> None:
        """Write the labels at hand to a file, in a thread, so that the window stays alive.

        Parameters
        ----------
        path : str or Path
            The file; an existing one is replaced only when the new one is complete.
        """
        layer = self._session.labels
        if layer is None:
            return
        labels, axes = from_layer_shape(layer)
        sizes, unit = pixel_size(layer)
        kind = KINDS[self.kind.value]
        if kind == "semantic" and layer.metadata.get(METADATA_KEY, {}).get("labels") == "instance":
            labels = labels > 0  # one number per object, all of one class
        writing = InThread(
            _write,
            labels.astype(layer.data.dtype),
            path,
            settings=ExportSettings(format=FORMATS[self.format.value][0], kind=kind),
            axes=axes,
            pixel_size_um=sizes if unit == "um" else None,
        )
        writing.returned.connect(self._on_written)
        writing.failed.connect(self._on_failed)
        self._writing = writing
        self.export.enabled = False
        self._session.tell("Writing the mask…")
        writing.start()

    def _on_written(self, path: Path) -> None:
        self._writing = None
        self._show()
        self._session.tell(f"Mask written to {path}.")

    def _on_failed(self, error: Exception) -> None:
        self._writing = None
        self._show()
        if not isinstance(error, UnetError):
            raise error
        self._session.tell(str(error), warn=True)

    def _folder(self, layer: Labels) -> Path:
        """Return the folder of the image the labels belong to, else the home folder."""
        subject = self._session.annotation(layer).subject
        source = subject.image.source.path if subject is not None else None
        return Path(source).parent if source else Path.home()

    def _show(self) -> None:
        layer = self._session.labels
        problem = None
        if layer is not None and self.format.value == "PNG" and layer.ndim > 2:
            problem = "PNG holds one plane. Choose a TIFF format for a stack."
        wrong = show_problem(self.problem, problem)
        self.export.enabled = layer is not None and not wrong and self._writing is None
        self.what.value = "No labels yet." if layer is None else _describe(layer)


def _write(labels, path, *, settings, axes, pixel_size_um):
    """Export in a thread: the heavy imports and the writing happen here."""
    from napari_unet.files.masks import export_labels

    return export_labels(
        labels,
        path,
        format=settings.format,
        kind=settings.kind,
        axes=axes,
        pixel_size_um=pixel_size_um,
    )


def _describe(layer: Labels) -> str:
    """Say what will be written."""
    sizes, unit = pixel_size(layer)
    unit = "µm" if unit == "um" else "pixel units"
    size = " x ".join(f"{s:.4g}" for s in sizes)
    shape = " x ".join(str(n) for n in layer.data.shape)
    return f"{layer.name}: {shape}, {size} {unit} per pixel."
