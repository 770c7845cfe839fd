"""What the five panels share: the viewer, the engine, the model in use, the labels at hand.

Panels read from it and call it; it tells them by signals what changed. It owns the one running
job, so progress, cancelling and errors are handled in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.errors import UnetError
from napari_unet.models.card import Card
from napari_unet.models.library import with_reading
from napari_unet.widget.annotation import Annotation
from napari_unet.widget.engine import Engine, Job

if TYPE_CHECKING:
    import numpy as np
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_unet.settings import Device
    from napari_unet.widget.channels import Subject
    from napari_unet.widget.live_labels import LiveLabels


@dataclass(frozen=True)
class LoadedModel:
    """The model in use, as the engine told: its card, its file and what was computed from it.

    ``readings`` are the titles of all ways in which the file can be read, ``reading`` the one in
    use.
    """

    card: Card
    path: Path
    facts: dict[str, Any]
    reading: int = 0
    readings: tuple[str, ...] = ("",)

    @property
    def reference(self) -> str:
        """What names the model to the engine: its file, and which reading of it."""
        return with_reading(self.path, self.reading)


class Session(QObject):
    """The state of one dock.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer the dock belongs to.
    engine : Engine
        The other end of the process that computes.
    device : str
        The processor to compute on, "auto" for the best there is.
    """

    model_changed = Signal()
    labels_changed = Signal()
    layers_changed = Signal()
    layer_chosen = Signal(object)
    busy_changed = Signal(bool)
    job_started = Signal(str, object)
    told = Signal(str)
    closed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        engine: Engine,
        device: Device = "auto",
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.engine = engine
        self.device = device
        self.model: LoadedModel | None = None
        self.job: Job | None = None
        self.live: LiveLabels | None = None
        self._labels: Labels | None = None
        self._annotations: dict[int, Annotation] = {}
        # Several changes at once are told once, in the next turn of the event loop: what the
        # panels do then does not add to the time napari takes for a new layer.
        self._layers_settle = QTimer(self, singleShot=True, interval=0)
        self._layers_settle.timeout.connect(self.layers_changed)
        for event in self._layer_events():
            event.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        viewer.layers.selection.events.active.connect(self._on_active)

    # -- jobs ---------------------------------------------------------------------------------

    def start(
        self,
        title: str,
        job: str,
        done: Callable[[dict[str, Any]], None],
        *,
        arrays: dict[str, Any] | None = None,
        quiet: bool = False,
        **parameters: Any,
    ) -> Job | None:
        """Ask the engine for a job; `done` gets its result on the GUI thread.

        Parameters
        ----------
        title : str
            What the person reads while it runs.
        job : str
            Name of the job, see :mod:`napari_unet.worker.jobs`.
        done : callable
            Called with the result; not called on failure or cancel.
        arrays : dict of str to array, optional
            Sent beside the parameters.
        quiet : bool
            Do not show progress or a title: for jobs too short to watch.

        Returns
        -------
        Job or None
            None if the engine refused, which the person has been told.
        """
        try:
            running = self.engine.submit(job, arrays=arrays or {}, **parameters)
        except UnetError as error:
            self.tell(str(error), warn=True)
            return None
        self.job = running
        running.done.connect(done)
        running.failed.connect(self._on_failed)
        running.finished.connect(partial(self._on_finished, running))
        if not quiet:
            running.cancelled.connect(lambda: self.tell("Cancelled; nothing was changed."))
            self.tell(f"{title}…")
            self.job_started.emit(title, running)
        self.busy_changed.emit(True)
        return running

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self.job is not None

    def tell(self, text: str, *, warn: bool = False) -> None:
        """Show a line in the dock's status; with ``warn`` as a notification, too."""
        self.told.emit(text)
        if warn:
            from napari.utils.notifications import show_warning

            show_warning(text)

    # -- model --------------------------------------------------------------------------------

    def use_model(self, model: LoadedModel) -> None:
        """Make a model the one in use."""
        self.model = model
        self.model_changed.emit()

    # -- labels -------------------------------------------------------------------------------

    @property
    def labels(self) -> Labels | None:
        """The labels layer that Correct, Retrain and Export speak of."""
        return self._labels

    def use_labels(self, layer: Labels | None) -> None:
        """Make a labels layer the one at hand; not while a run is writing into it."""
        if self._is_live(layer):
            return
        if layer is not self._labels:
            self._labels = layer
            self.labels_changed.emit()

    def annotation(
        self,
        layer: Labels,
        subject: Subject | None = None,
        base: np.ndarray | None = None,
    ) -> Annotation:
        """Return the corrections of a labels layer; from the first call on they are followed."""
        key = id(layer)
        if key not in self._annotations:
            made = Annotation(self.viewer, layer, subject, base, self)
            made.changed.connect(self.labels_changed)
            made.told.connect(self.told)
            self._annotations[key] = made
        elif subject is not None:
            self._annotations[key].subject = subject
        return self._annotations[key]

    def annotations(self) -> list[Annotation]:
        """List the labels layers that are followed."""
        return list(self._annotations.values())

    # -- private ------------------------------------------------------------------------------

    def close(self) -> None:
        """End the running job and let go of every layer."""
        self.closed.emit()
        for event in self._layer_events():
            event.disconnect(self._on_layers)
        self.viewer.layers.events.removed.disconnect(self._on_layer_removed)
        self.viewer.layers.selection.events.active.disconnect(self._on_active)
        for annotation in self.annotations():
            annotation.close()
            annotation.deleteLater()
        self._annotations.clear()
        self._labels = None
        self.engine.close()

    def _layer_events(self) -> list[Any]:
        """Return the events after which the list of layers reads differently."""
        events = self.viewer.layers.events
        names = ("inserted", "removed", "reordered", "renamed")
        return [getattr(events, name) for name in names if hasattr(events, name)]

    def _on_layers(self, event: Any = None) -> None:
        self._layers_settle.start()

    def _on_active(self, event: Any) -> None:
        if not self._is_live(event.value):
            self.layer_chosen.emit(event.value)

    def _is_live(self, layer: Any) -> bool:
        """Whether a layer is under construction."""
        return layer is not None and self.live is not None and self.live.owns(layer)

    def _on_finished(self, job: Job) -> None:
        if job is self.job:  # a slot of its result may have started the next one already
            self.job = None
            self.busy_changed.emit(False)

    def _on_failed(self, message: str, is_users: bool) -> None:
        self.told.emit(message)
        from napari.utils.notifications import show_error, show_warning

        (show_warning if is_users else show_error)(message)

    def _on_layer_removed(self, event: Any) -> None:
        annotation = self._annotations.pop(id(event.value), None)
        if annotation is not None:
            annotation.close()
            annotation.deleteLater()
        if self._is_live(event.value) and self.job is not None:
            self.job.cancel()
        if event.value is self._labels:
            self.use_labels(None)
