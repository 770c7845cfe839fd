"""The foot of the dock: what is going on, how far it is, and the button that ends it.

Nothing here moves by itself. Whatever moves, a bar that runs to and fro or the wheel of napari's
own activity bar, lets Qt put the whole window together anew for each of its pictures; without a
graphics card that takes most of a processor, which the network then lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_unet.widget.engine import Job
    from napari_unet.widget.session import Session

STEPS = 1000
"""Resolution of the progress bar: parts of the whole."""


class StatusFoot(QWidget):
    """Status line, progress bar with the time left, Cancel.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.status = QLabel("Starting…", objectName="status", wordWrap=True)
        self.status.setAccessibleName("status")
        self.progress = QProgressBar(objectName="progress", maximum=STEPS)
        self.progress.setAccessibleName("progress")
        self.cancel = QPushButton("Cancel", objectName="cancel")
        self.cancel.setToolTip("End what is running. Nothing is changed by it.")
        bar = QHBoxLayout()
        bar.addWidget(self.progress, 1)
        bar.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.addWidget(self.status)
        layout.addLayout(bar)
        self._session = session
        self._show_running(False)
        self.cancel.clicked.connect(self._on_cancel)
        session.told.connect(self.status.setText)
        session.job_started.connect(self._on_started)

    def _on_started(self, title: str, job: Job) -> None:
        self.progress.setValue(0)
        self.progress.setFormat("")
        self._show_running(True)
        job.progressed.connect(self._on_progress)
        job.finished.connect(self._on_finished)

    def _on_progress(self, event: Any) -> None:
        if event.kind == "note":
            self.status.setText(event.text)
        if event.fraction is None:
            return
        self.progress.setValue(round(event.fraction * STEPS))
        left = "" if event.seconds_left is None else f", {_duration(event.seconds_left)} left"
        self.progress.setFormat(f"%p %{left}")

    def _on_finished(self) -> None:
        self._show_running(False)

    def _on_cancel(self) -> None:
        if self._session.job is not None:
            self.cancel.setEnabled(False)
            self.status.setText("Cancelling…")
            self._session.job.cancel()

    def _show_running(self, running: bool) -> None:
        self.progress.setVisible(running)
        self.cancel.setVisible(running)
        self.cancel.setEnabled(running)


def _duration(seconds: float) -> str:
    """Say a time as a person would: "8 s", "2 min 5 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
