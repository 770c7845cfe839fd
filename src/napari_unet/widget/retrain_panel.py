"""Retrain: the network learns from what was checked, and the result is judged before use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from magicgui.widgets import Container, PushButton, SpinBox

from napari_unet.models.card import Card
from napari_unet.models.library import free_name
from napari_unet.settings import FinetuneSettings
from napari_unet.widget.annotation import Annotation
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
from napari_unet.widget.plots import LearningCurve
from napari_unet.widget.segment_panel import SegmentPanel
from napari_unet.widget.session import LoadedModel, Session

SHOWN_SCORES = (
    ("ap50", "AP at IoU 0.5", "{:.2f}"),
    ("iou", "Pixel IoU", "{:.2f}"),
    ("missed", "Missed", "{:.0f}"),
    ("spurious", "Spurious", "{:.0f}"),
    ("merged", "Merged", "{:.0f}"),
    ("split", "Split", "{:.0f}"),
)


class RetrainPanel:
    """The fourth section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Says which image and channels a foreign labels layer belongs to, and the settings in use.
    """

    def __init__(self, session: Session, segment: SegmentPanel) -> None:
        self._session = session
        self._segment = segment
        self._candidate: LoadedModel | None = None
        self._replaced: dict[Path, LoadedModel] = {}
        self.seconds = named(
            SpinBox(label="Budget (s)", min=5, max=86_400, value=60),
            "seconds",
            help_of(FinetuneSettings, "seconds"),
        )
        self.problem = problem_line("retrain")
        self.retrain = named(
            PushButton(text="Retrain"),
            "retrain",
            "Let the network learn from what you checked, then compare it with the one in use.",
        )
        self.stop = named(
            PushButton(text="Stop", enabled=False),
            "stop",
            "End the training now and keep what was learned so far.",
        )
        self.curve = LearningCurve()
        self.curve.setObjectName("learning_curve")
        self.result = text_line("result", "")
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
        self.container: Container = column(self.seconds, self.problem, row(self.retrain, self.stop))
        self.outcome: Container = column(self.result, self.use_candidate, self.rollback)
        self.retrain.changed.connect(self.run)
        self.stop.changed.connect(self._on_stop)
        self.rollback.changed.connect(self.go_back)
        self.use_candidate.changed.connect(self._take_candidate)
        session.labels_changed.connect(self.validate)
        session.model_changed.connect(self.validate)
        session.busy_changed.connect(self.validate)
        self.validate()

    def validate(self, _: Any = None) -> bool:
        """Say beside the button what is missing; the button follows."""
        wrong = show_problem(self.problem, self._problem())
        model, busy = self._session.model, self._session.is_busy
        self.retrain.enabled = not wrong and not busy and model is not None
        self.rollback.enabled = not busy and self._parent() is not None
        self.use_candidate.enabled = not busy
        return bool(self.retrain.enabled)

    def run(self) -> None:
        """Learn from everything that is vouched for in the labels at hand."""
        annotation, model = self._annotation(), self._session.model
        if annotation is None or model is None or not self.validate():
            return
        subject = annotation.subject or self._segment.subject()
        if subject is None:
            self._session.tell("Choose under Segment the image these labels belong to.", warn=True)
            return
        gathered = subject.gather()
        samples = annotation.samples(gathered)
        arrays = {
            f"{i}_{key}": value
            for i, sample in enumerate(samples)
            for key, value in sample.items()
            if key != "axes"
        }
        described = [
            {key: value if key == "axes" else f"{i}_{key}" for key, value in sample.items()}
            for i, sample in enumerate(samples)
        ]
        settings = FinetuneSettings(seconds=float(self.seconds.value), device=self._session.device)
        self.curve.clear()
        self.result.value = ""
        self.use_candidate.visible = False
        running = self._session.start(
            "Retraining",
            "finetune",
            self._on_trained,
            arrays=arrays,
            model=model.reference,
            name=free_name(model.card.name),
            samples=described,
            settings=settings.model_dump(mode="json"),
            segment=self._segment.settings(gathered.channels, invert=subject.invert).model_dump(
                mode="json"
            ),
        )
        if running is not None:
            self.stop.enabled = True
            running.progressed.connect(self._on_progress)
            running.finished.connect(lambda: setattr(self.stop, "enabled", False))

    def go_back(self) -> None:
        """Use the model before this one."""
        parent = self._parent()
        if parent is not None:
            self._session.use_model(parent)
            self._session.tell(f"{parent.card.name} is in use again.")

    # -- private ------------------------------------------------------------------------------

    def _annotation(self) -> Annotation | None:
        layer = self._session.labels
        return None if layer is None else self._session.annotation(layer)

    def _problem(self) -> str | None:
        if self._session.labels is None:
            return "Segment an image first."
        annotation = self._annotation()
        if annotation is None or not annotation.planes():
            return "Mark a region you have checked first (section Correct)."
        return None

    def _parent(self) -> LoadedModel | None:
        """Return the model that the present one has replaced."""
        model = self._session.model
        return None if model is None else self._replaced.get(model.path)

    def _on_stop(self) -> None:
        if self._session.job is not None:
            self.stop.enabled = False
            self._session.job.stop()
            self._session.tell("Stopping; what was learned so far is being judged…")

    def _on_progress(self, progress: Any) -> None:
        if progress.kind == "step":
            self.curve.add(progress.fraction, progress.loss, progress.held_out)

    def _on_trained(self, result: dict[str, Any]) -> None:
        """Show before and after; a better model is taken, any other waits to be asked for."""
        card = Card.model_validate(result["card"])
        model = self._session.model
        facts = {**(model.facts if model else {}), "sha256": None, **result.get("facts", {})}
        self._candidate = LoadedModel(card, Path(result["model"]), facts)
        self.result.value = _table(result)
        scroll_to(self.result)
        if result["outcome"] == "better":
            self._take_candidate()
        else:
            self.use_candidate.visible = True
            kept = f" {model.card.name} stays in use." if model else ""
            self._session.tell(f"Retrained.{kept}")

    def _take_candidate(self) -> None:
        """Keep the retrained model in the person's folder and make it the one in use."""
        candidate = self._candidate
        if candidate is not None:
            self._session.start(
                "Keeping the new model",
                "save_model",
                lambda saved: self._on_kept(candidate, Path(saved["path"])),
                quiet=True,
                model=candidate.reference,
            )

    def _on_kept(self, candidate: LoadedModel, path: Path) -> None:
        self.use_candidate.visible = False
        if self._session.model is not None:
            self._replaced[path] = self._session.model
        self._session.use_model(replace(candidate, path=path))
        self._session.tell(f"{candidate.card.name} is in use.")


def _table(result: dict[str, Any]) -> str:
    """Lay out before and after side by side."""
    before, after = result.get("before"), result.get("after")
    if not before or not after:
        return f"<p>{result['verdict']}</p>"
    rows = "".join(
        f"<tr><td>{text}&nbsp;&nbsp;</td>"
        f"<td align='right'>{form.format(before[key])}&nbsp;&nbsp;</td>"
        f"<td align='right'><b>{form.format(after[key])}</b></td></tr>"
        for key, text, form in SHOWN_SCORES
        if key in before and key in after
    )
    head = "<tr><td>on held-out labels</td><td>before&nbsp;&nbsp;</td><td><b>after</b></td></tr>"
    return f"<p>{result['verdict']}</p><table>{head}{rows}</table>"
