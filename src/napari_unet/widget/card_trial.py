"""While a card is open, each change is tried on a piece of what is in view, one after the other.

The engine does one job at a time. A change that comes while the last one is still computed waits,
and only the latest waits: what lies between was never seen. Saving does not wait for a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_unet.widget.pictures import grey_plane
from napari_unet.widget.trial import Piece, piece_in_view

if TYPE_CHECKING:
    from napari_unet.widget.card_dialog import CardDialog
    from napari_unet.widget.engine import Job
    from napari_unet.widget.segment_panel import SegmentPanel
    from napari_unet.widget.session import LoadedModel, Session


class CardTrial(QObject):
    """Computes the pictures of a card that is open.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Knows the image.
    model : LoadedModel
        Whose card it is.
    dialog : CardDialog
        Its window.
    """

    def __init__(
        self, session: Session, segment: SegmentPanel, model: LoadedModel, dialog: CardDialog
    ) -> None:
        super().__init__(session)
        self._session, self._segment, self._model = session, segment, model
        self._dialog: CardDialog | None = dialog
        self._job: Job | None = None
        self._piece: Piece | None = None
        self._wanted: dict[str, Any] | None = None
        self._places: list[int] = []
        self._has_plain = False
        self._after: Callable[[], None] | None = None
        session.busy_changed.connect(self._on_busy)
        dialog.finished.connect(self._on_closed)

    def ask(self, card: dict[str, Any], told: dict[str, str]) -> None:
        """Ask for the picture of a card.

        Parameters
        ----------
        card : dict
            All of its fields, as plain values.
        told : dict of str to str
            What a person says of the network.
        """
        self._wanted = {"reading": self._model.reading, "card": card, "assume": told}
        self._start()

    def then(self, action: Callable[[], None]) -> None:
        """Do something that needs the engine; a picture that is computed is given up.

        Parameters
        ----------
        action : callable
            What is to be done.
        """
        self._wanted = None
        if self._session.is_busy:
            self._after = action
            if self._job is not None:
                self._job.cancel()
        else:
            action()

    # -- private ------------------------------------------------------------------------------

    def _start(self) -> None:
        """Try what was asked for last, unless the engine is busy: then it is done later."""
        subject = self._segment.subject()
        if self._wanted is None or self._session.is_busy or subject is None:
            return
        if self._piece is None:
            dims = self._model.card.architecture.spatial_dims
            self._piece = piece_in_view(self._session.viewer, subject, dims)
        settings = self._segment.settings(self._piece.channels, invert=subject.invert)
        plain = [] if self._has_plain else [{"reading": self._model.reading}]
        trials, self._wanted = [*plain, self._wanted], None
        self._places = [0, 1] if plain else [1]
        self._job = self._session.start(
            "Looking at what is in view",
            "try_models",
            self._on_tried,
            arrays={"image": self._piece.array},
            quiet=True,
            model=self._model.reference,
            axes=self._piece.axes,
            settings=settings.replace(tile_px=None).model_dump(mode="json"),
            trials=trials,
        )

    def _on_tried(self, result: dict[str, Any]) -> None:
        """Show what came out."""
        dialog, piece = self._dialog, self._piece
        if dialog is None or piece is None:
            return
        grey = grey_plane(piece.array, piece.axes, piece.channels)
        for number, place in enumerate(self._places):
            probability = result.get(f"probability_{number}")
            if probability is None:
                why = result.get("problems", {}).get(str(number), "It gave no answer.")
                dialog.preview.fail(place, why)
            else:
                dialog.preview.show_answer(place, grey, result["cards"][str(number)], probability)
        last = str(len(self._places) - 1)
        if last in result.get("assumptions", {}):
            dialog.follow(result["assumptions"][last])
        self._has_plain = True

    def _on_busy(self, busy: bool) -> None:
        """Go on with what waits."""
        if busy:
            return
        self._job = None
        if self._after is not None:
            action, self._after = self._after, None
            action()
        elif self._dialog is not None:
            self._start()
        else:
            self.deleteLater()

    def _on_closed(self) -> None:
        """Give up the picture that is computed for a window that has gone."""
        self._dialog, self._wanted = None, None
        if self._job is not None:
            self._job.cancel()
        elif not self._session.is_busy:
            self.deleteLater()
