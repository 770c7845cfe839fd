"""The ways in which a file can be read, where it leaves that open: pick one, or try all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container, PushButton

from napari_unet.models.card import Card
from napari_unet.models.library import with_reading
from napari_unet.settings import Normalization
from napari_unet.widget.fields import choice, named, row
from napari_unet.widget.pictures import grey_plane
from napari_unet.widget.trial import piece_in_view
from napari_unet.widget.trial_dialog import TrialDialog

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.widget.segment_panel import SegmentPanel
    from napari_unet.widget.session import LoadedModel, Session

MOST_TRIED = 4


class Readings:
    """The row of the Model section that shows only where there is something to pick.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Knows the image, and what of it is in view.
    load : callable
        Uses the model of a reference.
    change_card : callable
        Saves a model with changed fields of its card, and uses it.
    show_card : callable
        Opens the card of a model with fields that are set already.
    """

    def __init__(
        self,
        session: Session,
        segment: SegmentPanel,
        *,
        load: Callable[[str], None],
        change_card: Callable[[LoadedModel, dict[str, Any]], None],
        show_card: Callable[[LoadedModel, dict[str, Any]], Any],
    ) -> None:
        self._session, self._segment = session, segment
        self._load, self._change_card, self._show_card = load, change_card, show_card
        self.reading = choice(
            "reading",
            "Reading",
            "The weights fit several networks. Pick one here, or try them on the image.",
            self._reading_choices,
        )
        self.try_readings = named(
            PushButton(text="Try on the image"),
            "try_readings",
            "Label what is in view in each way the file can be read, with grey values scaled in "
            "the usual ways, and pick by looking.",
        )
        self.container: Container = row(self.reading, self.try_readings)
        self.container.visible = False
        self.reading.changed.connect(self._on_reading)
        self.try_readings.changed.connect(self.try_all)

    def show_model(self, model: LoadedModel) -> None:
        """List the readings of a model's file; without any question of it the row is hidden."""
        with self.reading.changed.blocked():
            self.reading.reset_choices()
            self.reading.value = model.reading
        self.reading.visible = len(model.readings) > 1
        self.container.visible = self.reading.visible or "normalization" in model.card.assumed

    def set_busy(self, busy: bool) -> None:
        """Take no clicks while something runs."""
        self.reading.enabled = self.try_readings.enabled = not busy

    def try_all(self) -> None:
        """Run each reading of the file on what is in view, for the person to pick by looking.

        Where the file does not say how grey values were scaled, the usual ways are tried, too.
        """
        model, image = self._session.model, self._segment.image.value
        if model is None or image is None:
            self._session.tell("Open an image first; the models are tried on what is in view.")
            return
        ways = _ways_of_scaling(model.card, image.dtype)
        titles = _reading_titles(model)[:MOST_TRIED]
        groups = {title: list(ways) for title in titles}
        trials = [
            {"reading": number, "card": changes}
            for number in range(len(titles))
            for changes in ways.values()
        ]
        self._try(model, groups, trials, len(ways))

    def _reading_choices(self) -> list[tuple[str, int]]:
        model = self._session.model
        titles = [] if model is None else _reading_titles(model)
        return [(title, number) for number, title in enumerate(titles)]

    def _on_reading(self, reading: int | None) -> None:
        model = self._session.model
        if model is not None and reading is not None and reading != model.reading:
            self._load(with_reading(model.path, reading))

    def _take_trial(self, model: LoadedModel, trial: dict[str, Any]) -> None:
        """Use what was picked: another reading, and a changed card where grey values differ."""
        picked = replace(model, reading=trial["reading"])
        if trial["card"]:
            self._change_card(picked, trial["card"])
        elif picked != model:
            self._load(picked.reference)

    def _adjust_trial(
        self, model: LoadedModel, result: dict[str, Any], plain: int, trial: dict[str, Any]
    ) -> None:
        """Open the card of a reading that was tried; ``plain`` is the trial with it as it is."""
        card = Card.model_validate(result["cards"][str(plain)])
        facts = {**model.facts, "assumptions": result["assumptions"][str(plain)]}
        self._show_card(
            replace(model, card=card, facts=facts, reading=trial["reading"]), trial["card"]
        )

    def _try(
        self,
        model: LoadedModel,
        groups: dict[str, list[str]],
        trials: list[dict[str, Any]],
        ways: int,
    ) -> None:
        """Run trials, so many of each reading, on a piece of what is in view; show what comes."""
        subject = self._segment.subject()
        if subject is None:
            self._session.tell("Open an image first; the models are tried on what is in view.")
            return
        piece = piece_in_view(self._session.viewer, subject, model.card.architecture.spatial_dims)
        settings = self._segment.settings(piece.channels, invert=subject.invert)

        def show(result: dict[str, Any]) -> None:
            """Let the person look."""
            grey = grey_plane(piece.array, piece.axes, piece.channels)
            dialog = TrialDialog(
                groups,
                result,
                grey,
                model.reading * ways,
                parent=self.container.native.window(),
            )
            dialog.picked.connect(lambda number: self._take_trial(model, trials[number]))
            dialog.adjusted.connect(
                lambda number: self._adjust_trial(
                    model, result, number - number % ways, trials[number]
                )
            )
            self._session.tell("Look which one marks your objects.")
            dialog.open()

        self._session.start(
            "Trying on what is in view",
            "try_models",
            show,
            arrays={"image": piece.array},
            model=model.reference,
            axes=piece.axes,
            settings=settings.replace(tile_px=None).model_dump(mode="json"),
            trials=trials,
        )


def _reading_titles(model: LoadedModel) -> list[str]:
    """Name the readings of a file; numbers keep them apart."""
    if len(model.readings) == 1:
        return [""]
    return [f"Reading {n}: {title}".removesuffix(": ") for n, title in enumerate(model.readings, 1)]


def _ways_of_scaling(card: Card, dtype: Any) -> dict[str, dict[str, Any]]:
    """Return the changes of a card to try: the usual scalings if it is not known which is right."""
    if "normalization" not in card.assumed:
        return {"as it is": {}}
    ways = {"mean 0, deviation 1": Normalization(kind="mean-std")}
    if np.issubdtype(dtype, np.integer):
        most = np.iinfo(dtype).max
        ways[f"divided by {most}"] = Normalization(kind="divide", divisor=most)
    else:
        ways["as they are"] = Normalization(kind="none")
    changes = {text: {"normalization": way.model_dump(mode="json")} for text, way in ways.items()}
    return {"as it is": {}, **changes}
