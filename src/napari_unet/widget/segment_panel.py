"""Segment: choose an image, map its channels, get labels; re-label without the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSlider, PushButton, SpinBox
from qtpy.QtCore import QTimer

from napari_unet.settings import LARGEST_ZOOM, InstanceSettings, Precision, SegmentSettings
from napari_unet.widget.channels import ChannelSource, Subject, default_sources, list_sources
from napari_unet.widget.fields import (
    choice,
    column,
    help_of,
    named,
    problem_line,
    shortened,
    show_problem,
)
from napari_unet.widget.layers import (
    guess_layer_axes,
    note_axes,
    plane_problem,
    possible_axes,
    shown_index,
)
from napari_unet.widget.segmenter import RELABEL_JOB, Segmenter
from napari_unet.widget.session import Session

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_unet.models.card import Card

ALL_PLANES, SHOWN_PLANE = "all planes", "only the plane shown"
PRECISIONS = list(get_args(Precision))
RELABEL_MS = 25
"""So long a slider must rest."""
AXIS_NAMES = {"T": "time", "Z": "z", "C": "channel", "Y": "y", "X": "x"}


class SegmentPanel:
    """The second section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._segmenter = Segmenter(session)
        self.image = choice("image", "Image", "The image layer to label.", self.images)
        self.image_problem = problem_line("image")
        self.axes = choice(
            "axes",
            "Axes",
            "What the axes of the image are. Change it if it was misread.",
            self._axes_choices,
        )
        self.channel_rows = Container(widgets=[], labels=True, label="")
        self.channel_rows.margins = (0, 0, 0, 0)
        self._channels: list[ComboBox] = []
        self._suggested: Card | None = None
        self._usual: InstanceSettings | None = None
        self.planes = choice(
            "planes",
            "Planes",
            "Label the whole stack, or just the plane you look at.",
            [ALL_PLANES, SHOWN_PLANE],
        )
        self.invert = CheckBox(text="Dark objects on a bright background", label="")
        named(self.invert, "invert", help_of(SegmentSettings, "invert"))
        self.object_size = SpinBox(label="Object size (px)", min=0, max=10_000, value=0)
        named(
            self.object_size,
            "object_size",
            f"{help_of(SegmentSettings, 'object_size_px')} 0: not scaled.",
        )
        self.object_size_problem = problem_line("object_size")
        self.segment = PushButton(text="Segment", label="")
        named(self.segment, "segment", "Label the image with the model, in a layer of its own.")
        self.threshold = FloatSlider(label="Threshold", min=0.05, max=0.95, step=0.01, value=0.5)
        named(self.threshold, "threshold", help_of(InstanceSettings, "threshold"))
        self.min_size = SpinBox(label="Smallest (px)", min=0, max=1_000_000, value=20)
        named(self.min_size, "min_size", help_of(InstanceSettings, "min_size"))
        self.split = CheckBox(text="Split touching objects", label="", value=True)
        named(self.split, "split", help_of(InstanceSettings, "split"))
        self.split_level = FloatSlider(label="Split level", min=0.1, max=0.9, step=0.01, value=0.5)
        named(self.split_level, "split_level", help_of(InstanceSettings, "split_level"))
        self.fill_holes = CheckBox(text="Fill holes in objects", label="")
        named(self.fill_holes, "fill_holes", help_of(InstanceSettings, "fill_holes"))
        self.tile_px = SpinBox(label="Tile (px)", min=0, max=8192, step=16, value=0)
        named(self.tile_px, "tile_px", help_of(SegmentSettings, "tile_px"))
        self.tile_problem = problem_line("tile_px")
        self.forget_tiles = PushButton(text="Try larger tiles again", label="")
        named(
            self.forget_tiles,
            "forget_tiles",
            "Where memory ran out, a week of runs begins with the smaller tiles that fitted. "
            "Forget them.",
        )
        self.augment = CheckBox(text="Average over 8 turns of the image", label="")
        named(self.augment, "augment", help_of(SegmentSettings, "augment"))
        self.precision = choice(
            "precision", "Precision", help_of(SegmentSettings, "precision"), PRECISIONS
        )
        self.container: Container = column(
            self.image,
            self.image_problem,
            self.axes,
            self.channel_rows,
            self.planes,
            self.invert,
            self.object_size,
            self.object_size_problem,
            self.segment,
            self.threshold,
            self.min_size,
            self.split,
            self.split_level,
            self.fill_holes,
        )
        self.advanced: Container = column(
            self.tile_px, self.tile_problem, self.forget_tiles, self.augment, self.precision
        )
        self._relabel_timer = QTimer(
            self.container.native, singleShot=True, interval=RELABEL_MS, timeout=self.relabel
        )
        self._connect()

    def _connect(self) -> None:
        session = self._session
        session.layers_changed.connect(self._on_layers)
        session.layer_chosen.connect(self._on_layer_chosen)
        self.image.changed.connect(self._on_image)
        self.axes.changed.connect(self._on_axes)
        self.segment.changed.connect(self.run)
        self.forget_tiles.changed.connect(self._segmenter.forget_tiles)
        self.tile_px.changed.connect(self.validate)
        self.object_size.changed.connect(self._on_object_size)
        for control in (
            self.threshold,
            self.min_size,
            self.split,
            self.split_level,
            self.fill_holes,
        ):
            control.changed.connect(self._on_objects_setting)
        session.model_changed.connect(self._on_model)
        session.busy_changed.connect(self.validate)
        self._on_image()

    # -- what the fields say ------------------------------------------------------------------

    def images(self) -> list[Image]:
        """List the image layers that are open."""
        from napari.layers import Image

        return [layer for layer in self._session.viewer.layers if isinstance(layer, Image)]

    def subject(self) -> Subject | None:
        """Return the image as the network is to see it, or None if no image is chosen."""
        image = self.image.value
        if image is None or self.axes.value is None:
            return None
        picked = tuple(row.value for row in self._channels)
        return Subject(image, self.axes.value, picked, bool(self.invert.value))

    def instance_settings(self) -> InstanceSettings:
        """Return how objects are to be found."""
        return InstanceSettings(
            threshold=round(float(self.threshold.value), 3),
            min_size=self.min_size.value,
            split=self.split.value,
            split_level=round(float(self.split_level.value), 3),
            fill_holes=self.fill_holes.value,
        )

    def settings(self, channels: tuple[int, ...] | None, *, invert: bool) -> SegmentSettings:
        """Return the settings of a run on the given channels."""
        return SegmentSettings(
            channels=channels,
            invert=invert,
            object_size_px=self.object_size.value or None,
            tile_px=self.tile_px.value or None,
            augment=self.augment.value,
            precision=self.precision.value,
            device=self._session.device,
            instances=self.instance_settings(),
        )

    def validate(self) -> bool:
        """Show what is wrong beside each field; the button follows."""
        wrong = show_problem(self.image_problem, self._image_problem())
        wrong |= show_problem(self.object_size_problem, self._object_size_problem())
        wrong |= show_problem(self.tile_problem, self._tile_problem())
        ready = not wrong and self._session.model is not None and not self._session.is_busy
        self.segment.enabled = ready
        self.forget_tiles.enabled = not self._session.is_busy
        return ready

    # -- actions ------------------------------------------------------------------------------

    def run(self) -> None:
        """Label the image; the labels go into a layer of their own."""
        subject = self.subject()
        if subject is None or not self.validate():
            return
        plane = self._shown_plane(subject)
        problem = plane_problem(self._session.viewer) if plane else None
        if problem is not None:
            self._session.tell(problem)
            return
        gathered = subject.gather()
        settings = self.settings(gathered.channels, invert=subject.invert)
        self._segmenter.segment(subject, gathered, settings, plane)

    def relabel(self) -> None:
        """Find the objects again in the kept probability, with the settings as they are now."""
        self._relabel_timer.stop()
        running = self._session.job
        if running is not None:
            if running.name == RELABEL_JOB:  # with settings that are no longer wanted
                running.cancel()
            self._relabel_timer.start()
        else:
            self._segmenter.relabel(self.instance_settings())

    # -- private ------------------------------------------------------------------------------

    def _axes_choices(self) -> list[tuple[str, str]]:
        image = self.image.value
        return [] if image is None else [(_axes_text(a), a) for a in possible_axes(image)]

    def _on_layers(self) -> None:
        """Follow layers that were added, removed or renamed."""
        before = self.image.value
        self.image.reset_choices()
        if self.image.value is before:
            self._update_channels(keep=True)
        self.validate()

    def _on_layer_chosen(self, layer: Any) -> None:
        """Take the image the person selects in the layer list as the one to label."""
        if layer in self.images() and not self._session.is_busy:
            self.image.reset_choices()
            self.image.value = layer

    def _on_image(self, _: Any = None) -> None:
        """Read the axes of a newly chosen image."""
        image = self.image.value
        with self.axes.changed.blocked():
            self.axes.reset_choices()
            axes = None if image is None else guess_layer_axes(image)
            if axes is not None:
                self.axes.value = axes
        self.axes.visible = len(self.axes.choices) > 1
        self._update_channels()
        self.validate()
        if image is not None:
            self._session.layer_chosen.emit(image)  # the labels at hand are its labels

    def _on_axes(self, axes: str | None) -> None:
        """Keep with the image what the person says its axes are."""
        if self.image.value is not None and axes:
            note_axes(self.image.value, axes)
        self._update_channels()

    def _update_channels(self, _: Any = None, *, keep: bool = False) -> None:
        """Show a row for each network input, with what could feed it.

        With ``keep`` what the person picked stays, as far as it is still there.
        """
        image, axes, model = self.image.value, self.axes.value, self._session.model
        if image is None or not axes:
            self.channel_rows.visible = self.planes.visible = False
            return
        others = [layer for layer in self.images() if layer is not image]
        sources = list_sources(image, axes, others)
        inputs = model.card.input_channels if model else ("image",)
        picked = default_sources(sources, len(inputs))
        if keep and len(self._channels) == len(inputs):
            before = [row.value for row in self._channels]
            picked = [b if b in sources else p for b, p in zip(before, picked, strict=True)]
        # Rows are used again: one taken out of a container would stay behind as a hidden window.
        for number in range(len(self.channel_rows), len(inputs)):
            self.channel_rows.append(_channel_row(number))
        self._channels = list(self.channel_rows)[: len(inputs)]
        for row in list(self.channel_rows)[len(inputs) :]:
            row.visible = False
        for row, name, source in zip(self._channels, inputs, picked, strict=True):
            _fill_channel_row(row, name, sources, source)
        self.channel_rows.visible = len(sources) > 1 or len(inputs) > 1
        dims = model.card.architecture.spatial_dims if model else 2
        self.planes.visible = len(_lead_axes(axes, dims)) > 0

    def _on_model(self) -> None:
        """Take the thresholds the model works best with."""
        model = self._session.model
        if model is not None:
            was = self._suggested
            # A retrained model is looked at with what the person had set for its parent.
            self._suggest(model.card, keep=was is not None and model.card.parent == was.name)
        self._update_channels()
        self.validate()

    def _on_object_size(self) -> None:
        """Let the smallest object follow, unless the person has set it."""
        if self._suggested is not None:
            self._suggest(self._suggested, keep=True)
        self.validate()

    def _suggest(self, card: Card, *, keep: bool) -> None:
        """Show how objects are best found; or keep what the person has set."""
        best = card.instances_at(self.object_size.value or None)
        if not keep or self.instance_settings() == self._usual:
            self.threshold.value = best.threshold
            self.min_size.value = best.min_size
            self.split.value = best.split
            self.split_level.value = best.split_level
            self.fill_holes.value = best.fill_holes
            self._relabel_timer.stop()
        self._suggested, self._usual = card, best

    def _on_objects_setting(self, _: Any = None) -> None:
        """Wait until the slider rests, then find the objects again."""
        self.split_level.enabled = self.split.value
        self._relabel_timer.start()

    def _shown_plane(self, subject: Subject) -> dict[str, int]:
        """Return the position on each slider axis to label, or none for all planes."""
        if self.planes.value == ALL_PLANES:
            return {}
        model = self._session.model
        dims = model.card.architecture.spatial_dims if model else 2
        index = shown_index(self._session.viewer, subject.image)
        return {
            axis: i
            for axis, i in zip(subject.axes, index, strict=False)
            if axis in _lead_axes(subject.axes, dims)
        }

    def _image_problem(self) -> str | None:
        image, model = self.image.value, self._session.model
        if image is None:
            return "Open an image first, e.g. by dropping a file on the viewer."
        if self.axes.value is None:
            return (
                f"This image has {image.ndim} axes; 5 can be named: t, z, channel, y, x. Split it."
            )
        if (
            model
            and model.card.architecture.spatial_dims == 3
            and "Z" not in (self.axes.value or "")
        ):
            return "This model labels volumes: choose an image with a z axis."
        return None

    def _object_size_problem(self) -> str | None:
        model, size = self._session.model, self.object_size.value
        if model is None or not size:
            return None
        known = model.card.object_size_px
        if known is None:
            return "This model does not say how large its objects are. Leave this at 0."
        if not 1 / LARGEST_ZOOM <= known / size <= LARGEST_ZOOM:
            return f"This model knows objects of {known:.0f} px; that is too far away."
        return None

    def _tile_problem(self) -> str | None:
        model, tile = self._session.model, self.tile_px.value
        if model is None or not tile:
            return None
        stride, halo = model.facts["stride"], model.facts["halo"]
        least = 2 * halo + stride
        if tile < least:
            return f"This model needs tiles of at least {least} px. Choose {least} or 0."
        if tile % stride:
            return f"Choose a multiple of {stride}, e.g. {round(tile / stride) * stride} px."
        return None


def _channel_row(number: int) -> ComboBox:
    """Build the row that says what feeds one network input."""
    return choice(f"channel_{number}", "image", "What this network input sees.", [])


def _fill_channel_row(
    row: ComboBox, name: str, sources: list[ChannelSource], source: ChannelSource
) -> None:
    """Let a row offer the sources of one network input."""
    row.choices = [(s.text, s) for s in sources]
    row.value = source
    row.label = shortened(name)
    row.tooltip = f"Which channel of the image the network sees as: {name}."
    row.visible = True


def _axes_text(axes: str) -> str:
    """Spell axes out, e.g. "z, y, x"."""
    return ", ".join(AXIS_NAMES[axis] for axis in axes)


def _lead_axes(axes: str, spatial_dims: int) -> str:
    """Return the axes that are walked plane by plane (volume by volume for a 3D model)."""
    spatial = "ZYX" if spatial_dims == 3 else "YX"
    return "".join(axis for axis in axes if axis not in spatial + "C")
