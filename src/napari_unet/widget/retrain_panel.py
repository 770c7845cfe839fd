"""Retrain: the network learns from what was checked, and the result is judged before use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from magicgui.widgets import Container, PushButton, SpinBox

from napari_unet.errors import UnetError
from napari_unet.models.card import Card, main_score
from napari_unet.models.versions import delete_set_aside, list_versions, parent_of, take_back
from napari_unet.settings import FinetuneSettings
from napari_unet.widget.broken_off import BrokenOff
from napari_unet.widget.comparison import Comparison
from napari_unet.widget.fields import (
    column,
    help_of,
    named,
    problem_line,
    row,
    scroll_to,
    show_problem,
    text_line,
)
from napari_unet.widget.outcome_dialog import OutcomeDialog, headline
from napari_unet.widget.plots import LearningCurve
from napari_unet.widget.segment_panel import SegmentPanel
from napari_unet.widget.session import LoadedModel, Session
from napari_unet.widget.teaching import Teaching, find_teaching
from napari_unet.widget.versions_dialog import VersionsDialog

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.models.versions import Version

GAP_PX = 12
"""Between the dock and a dialog beside it."""


class Forerunner(NamedTuple):
    """The model that learned: its name, and what names it to the engine if it is still there."""

    name: str
    reference: str | None


class RetrainPanel:
    """The fourth section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Says which image and channels a foreign labels layer belongs to, and the settings in use.
    load : callable
        Makes the model of a file the one in use.
    """

    def __init__(
        self, session: Session, segment: SegmentPanel, load: Callable[[str], None]
    ) -> None:
        self._session = session
        self._segment = segment
        self._load = load
        self._result: dict[str, Any] | None = None
        self._candidate: LoadedModel | None = None
        self._old: Forerunner | None = None
        self._dialog: OutcomeDialog | VersionsDialog | None = None
        self._is_stopping = False
        self.seconds = named(
            SpinBox(label="Budget (s)", min=5, max=86_400, value=60),
            "seconds",
            help_of(FinetuneSettings, "seconds"),
        )
        self.problem = problem_line("retrain")
        self.lessons = text_line("lessons")
        self.broken_off = BrokenOff(session)
        self.retrain = named(
            PushButton(text="Retrain"),
            "retrain",
            "Let the network learn from all that you checked, then compare it with the one in use.",
        )
        self.stop = named(
            PushButton(text="Stop", enabled=False),
            "stop",
            "End the training now and keep what was learned so far.",
        )
        self.curve = LearningCurve()
        self.curve.setObjectName("learning_curve")
        self.result = text_line("result", "")
        self.details = named(
            PushButton(text="Before and after…", visible=False),
            "before_and_after",
            "Show the scores of both models side by side, and what they label otherwise.",
        )
        self.versions = named(
            PushButton(text="Versions…"),
            "versions_list",
            "List all versions of this model: what each learned, how well it does, back to any.",
        )
        self.use_candidate = named(
            PushButton(text="Use the new model anyway", label="", visible=False),
            "use_candidate",
            "Switch to the retrained model although it was not shown to be better.",
        )
        self.rollback = named(
            PushButton(text="Back to the model before", label="", enabled=False),
            "rollback",
            "Use the model this one was retrained from. Nothing is deleted.",
        )
        self.container: Container = column(
            self.broken_off.container,
            self.seconds,
            self.problem,
            self.lessons,
            row(self.retrain, self.stop),
        )
        self.outcome: Container = column(
            self.result, self.use_candidate, row(self.details, self.versions), self.rollback
        )
        self._connect()
        self.validate()

    def _connect(self) -> None:
        session = self._session
        self.retrain.changed.connect(self.run)
        self.stop.changed.connect(self._on_stop)
        self.rollback.changed.connect(self.go_back)
        self.use_candidate.changed.connect(self._take_candidate)
        self.details.changed.connect(self.show_outcome)
        self.versions.changed.connect(self.show_versions)
        self.broken_off.go_on.changed.connect(self.go_on)
        for signal in (
            session.labels_changed,
            session.layers_changed,
            session.model_changed,
            session.busy_changed,
        ):
            signal.connect(self.validate)
        session.model_changed.connect(self._tell_outcome)
        session.closed.connect(self._close_dialog)

    def validate(self, _: Any = None) -> bool:
        """Say beside the button what is missing; the button follows."""
        teaching = find_teaching(self._session, self._segment)
        wrong = show_problem(self.problem, self._problem(teaching))
        self.lessons.value = "" if wrong else teaching.describe()
        self.lessons.visible = not wrong
        model, busy = self._session.model, self._session.is_busy
        self.retrain.enabled = not wrong and not busy and model is not None
        self.rollback.enabled = not busy and model is not None and bool(model.card.history)
        self.versions.enabled = model is not None
        for control in (self.use_candidate, self.broken_off.go_on, self.broken_off.discard):
            control.enabled = not busy
        return bool(self.retrain.enabled)

    # -- actions ------------------------------------------------------------------------------

    def run(self) -> None:
        """Learn from everything that is vouched for in the session."""
        model, teaching = self._session.model, find_teaching(self._session, self._segment)
        if model is None or not self.validate():
            return
        arrays, samples, channels = teaching.take()
        settings = FinetuneSettings(seconds=float(self.seconds.value), device=self._session.device)
        segment = self._segment.settings(channels, invert=teaching.invert)
        self._old = Forerunner(model.card.name, model.reference)
        self._start(
            "finetune",
            self.broken_off.begin(),
            arrays=arrays,
            model=model.reference,
            name=model.card.name,
            regions=teaching.regions,
            samples=samples,
            settings=settings.model_dump(mode="json"),
            segment=segment.model_dump(mode="json"),
        )

    def go_on(self) -> None:
        """Go on with the training that was broken off."""
        training = self.broken_off.take_up()
        if training is not None:
            self._old = None
            self._start("go_on", training)

    def go_back(self) -> None:
        """Use the model before this one."""
        model = self._session.model
        parent = None if model is None else parent_of(model.path, model.card)
        if parent is None:
            return
        if parent.path is None:
            self._session.tell(f"The file of {parent.name} was removed. See Versions… for others.")
        else:
            self._use(parent.path)

    def show_outcome(self) -> None:
        """Show before and after once more."""
        result, new, old = self._result, self._candidate, self._old
        if result is None or new is None or old is None:
            return
        names = (old.name, new.card.name)
        comparison = None
        if old.reference is not None:
            comparison = Comparison(
                self._session, self._segment, old.reference, new.reference, names
            )
        dialog = OutcomeDialog(result, names, self._used(names), comparison, self._window())
        dialog.used_new.connect(self._take_candidate)
        dialog.went_back.connect(lambda: self._load(old.reference or ""))
        self._show(dialog)

    def show_versions(self) -> VersionsDialog | None:
        """Show all versions of the model in use."""
        model = self._session.model
        if model is None:
            return None
        dialog = VersionsDialog(
            list_versions(model.path, model.card), model.path, self._compare, self._window()
        )
        dialog.used.connect(self._use)
        dialog.removed.connect(lambda path: self._delete(path, dialog))
        self._show(dialog)
        return dialog

    # -- private: a training ------------------------------------------------------------------

    def _problem(self, teaching: Teaching) -> str | None:
        if teaching.pairs:
            return None
        if self._session.labels is None:
            return "Segment an image first."
        if self._session.annotation(self._session.labels).planes():
            return "Choose under Segment the image these labels belong to."
        return "Mark a region you have checked first (section Correct)."

    def _start(self, job: str, training: Path, **parameters: Any) -> None:
        """Ask for a training and follow it."""
        self._close_dialog()
        self.curve.clear()
        self._result, self.result.value = None, ""
        self.use_candidate.visible = self.details.visible = self._is_stopping = False
        running = self._session.start(
            "Retraining", job, self._on_trained, training=str(training), **parameters
        )
        if running is None:
            self.broken_off.end(is_unwanted=job == "finetune")
            return
        self.stop.enabled = True
        running.progressed.connect(self._on_progress)
        running.cancelled.connect(lambda: self.broken_off.end(is_unwanted=True))
        running.finished.connect(self._on_finished)

    def _on_stop(self) -> None:
        if self._session.job is not None:
            self.stop.enabled = False
            self._is_stopping = True
            self._session.job.stop()
            self._session.tell("Stopping; what was learned so far is being judged…")

    def _on_progress(self, progress: Any) -> None:
        if progress.kind == "before":
            self.curve.begin(progress.held_out)
        elif progress.kind == "step":
            self.curve.add(progress.fraction, progress.loss, progress.held_out)
            self.curve.tell_time_left(progress.seconds_left)

    def _on_finished(self) -> None:
        self.stop.enabled = False
        self.curve.tell_time_left(None)
        ran = self.broken_off.end(was_stopped=self._is_stopping)
        self.broken_off.refresh()
        offered = self.broken_off.offered
        if offered is not None and offered.folder == ran and not self._is_stopping:
            self._session.tell(
                "The training was broken off; your labels are untouched. Go on, under Retrain, "
                "takes it up where it was."
            )

    def _on_trained(self, result: dict[str, Any]) -> None:
        """Show before and after; a better model is taken, any other waits to be asked for."""
        card = Card.model_validate(result["card"])
        model = self._session.model
        facts = {**(model.facts if model else {}), "sha256": None, **result.get("facts", {})}
        self._result = result
        after = main_score(result["after"] or {})
        if after is not None:
            self.curve.end(after)
        self._candidate = LoadedModel(card, Path(result["model"]), facts)
        old = self._old = self._old or self._forerunner(self._candidate)
        self.details.visible = True
        scroll_to(self.details)
        if result["outcome"] == "better":
            self._session.use_model(self._candidate)
            self._session.tell(f"{card.name} is in use.")
        else:
            self._session.tell(f"Retrained. {old.name} stays in use.")
        self._tell_outcome()
        self.show_outcome()

    def _tell_outcome(self, _: Any = None) -> None:
        """Say what came of the last training, and which model is in use by now."""
        result, new, old = self._result, self._candidate, self._old
        if result is None or new is None or old is None:
            return
        names = (old.name, new.card.name)
        used = self._used(names)
        self.result.value = headline(result["outcome"], names, used)
        self.use_candidate.visible = result["outcome"] != "better" and used != new.card.name
        if isinstance(self._dialog, OutcomeDialog):
            self._dialog.tell_used(used)

    def _used(self, names: tuple[str, str]) -> str:
        """Name the model in use; the old one where there is none."""
        model = self._session.model
        return names[0] if model is None else model.card.name

    def _forerunner(self, new: LoadedModel) -> Forerunner:
        """Find the model that learned in an earlier session."""
        parent = parent_of(new.path, new.card)
        if parent is None:
            return Forerunner(new.card.parent or "the old model", None)
        return Forerunner(parent.name, None if parent.path is None else str(parent.path))

    # -- private: versions --------------------------------------------------------------------

    def _take_candidate(self) -> None:
        """Make the retrained model the one in use, though it is not known to be better."""
        if self._candidate is not None:
            self._use(self._candidate.path)

    def _use(self, path: Path) -> None:
        """Make a version the one in use; one that was set aside comes back."""
        try:
            back = take_back(path)
        except UnetError as error:
            self._session.tell(str(error), warn=True)
            return
        if self._candidate is not None and self._candidate.path == path:
            self._candidate = replace(self._candidate, path=back)
        self._load(str(back))

    def _delete(self, path: Path, dialog: VersionsDialog) -> None:
        model = self._session.model
        try:
            delete_set_aside(path)
        except UnetError as error:
            self._session.tell(str(error), warn=True)
        if model is not None:
            dialog.fill(list_versions(model.path, model.card))

    def _compare(self, old: Version, new: Version) -> Comparison:
        """Make the comparison of two versions that are there."""
        return Comparison(
            self._session, self._segment, str(old.path), str(new.path), (old.name, new.name)
        )

    # -- private: dialogs ---------------------------------------------------------------------

    def _window(self) -> Any:
        return self.container.native.window()

    def _show(self, dialog: OutcomeDialog | VersionsDialog) -> None:
        """Show a dialog beside the dock, so that image and dock can be used with it."""
        self._close_dialog()
        self._dialog = dialog
        dialog.destroyed.connect(lambda: self._forget(dialog))
        dialog.adjustSize()
        dock = self.container.native.mapToGlobal(self.container.native.rect().topLeft())
        window = self._window().geometry()
        dialog.move(
            max(window.left(), dock.x() - dialog.width() - GAP_PX),
            max(window.top(), window.bottom() - dialog.height() - 4 * GAP_PX),
        )
        dialog.show()

    def _forget(self, dialog: OutcomeDialog | VersionsDialog) -> None:
        if self._dialog is dialog:
            self._dialog = None

    def _close_dialog(self) -> None:
        dialog, self._dialog = self._dialog, None
        if dialog is not None:
            dialog.close()
