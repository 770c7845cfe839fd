"""The dock "U-Net": five sections that read as the loop, over one engine.

Model, Segment, Correct, Retrain, Export. The dock only joins: each section is a panel of its
own, what they share is the :class:`~napari_unet.widget.session.Session`, and all computing is
in the engine's process. Nothing here, or below, imports torch.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QApplication, QFrame, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_unet.widget.collector import QuietCollector
from napari_unet.widget.correct_panel import CorrectPanel
from napari_unet.widget.drops import DropWatch
from napari_unet.widget.engine import Engine
from napari_unet.widget.export_panel import ExportPanel
from napari_unet.widget.model_panel import ModelPanel
from napari_unet.widget.preferences import Preferences
from napari_unet.widget.retrain_panel import RetrainPanel
from napari_unet.widget.segment_panel import SegmentPanel
from napari_unet.widget.session import Session
from napari_unet.widget.status import StatusFoot
from napari_unet.widget.warm_up import warm_up

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent

WIDTH_PX = 330
SECTION_STYLE = """
QPushButton, QPushButton:checked {
    text-align: left; font-weight: bold; padding: 4px 2px;
    background: transparent; border: 0; border-bottom: 1px solid palette(mid); border-radius: 0;
}
"""


class UnetDock(QWidget):
    """Segment an image, correct, retrain, export.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer the dock belongs to.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.setObjectName("unet_dock")
        self.setAcceptDrops(True)
        self._had_parent = self._is_closed = False
        self.drops = DropWatch(self.load_model_file, self)
        self._placed = QTimer(self, singleShot=True, interval=0)  # when it is in its window
        self._placed.timeout.connect(lambda: self.drops.watch(self.window()))
        self.preferences = Preferences()
        self.engine = Engine(self)
        self.session = Session(
            napari_viewer, self.engine, self.preferences.get("compute.device", "auto"), self
        )
        self.segment_panel = SegmentPanel(self.session)
        self.model_panel = ModelPanel(self.session, self.segment_panel)
        self.correct_panel = CorrectPanel(self.session, self.segment_panel.instance_settings)
        self.retrain_panel = RetrainPanel(self.session, self.segment_panel, self.model_panel.load)
        self.export_panel = ExportPanel(self.session)
        self.foot = StatusFoot(self.session)
        self._lay_out()
        self._recall()
        # A running job tells by itself that its process ended: one line is enough.
        self.engine.notice.connect(
            lambda text: self.session.tell(text, warn=not self.session.is_busy)
        )
        self.engine.status_changed.connect(self._on_engine)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close_session)
        self.collector = QuietCollector(self)
        self.collector.hold()  # until the engine is ready
        self.session.busy_changed.connect(self.collector.follow)
        self.engine.start()
        warm_up()
        self.model_panel.load_first(self.preferences.get("dock.model", ""))

    def load_model_file(self, path: str | Path) -> None:
        """Use weights of any format, e.g. a file that was dropped on the viewer."""
        self.model_panel.load(path)

    def close_session(self) -> None:
        """End the engine and forget the layers; called when the dock goes away."""
        if not self._is_closed:
            self._is_closed = True
            self._placed.stop()
            self.drops.stop()
            self._remember()
            self.session.close()
            self.collector.close()

    # -- Qt's events --------------------------------------------------------------------------

    def closeEvent(self, event: QCloseEvent) -> None:
        """End the engine with the window."""
        self.close_session()
        super().closeEvent(event)

    def event(self, event: QEvent) -> bool:
        """Notice that napari took the widget out of its dock: there is no signal for it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._had_parent = True
                self._placed.start()
            elif self._had_parent:
                self.close_session()
                self.deleteLater()
        return super().event(event)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Accept a file or folder of weights."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Load the dropped weights, whatever their format."""
        for url in event.mimeData().urls()[:1]:
            self.load_model_file(url.toLocalFile())

    # -- private ------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Stack the five sections in a scroll area, with the foot below."""
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(2, 2, 2, 2)
        column.setSpacing(2)
        advanced = _section("Advanced", self.segment_panel.advanced.native, is_open=False)
        for title, widgets in (
            ("Model", [self.model_panel.container.native]),
            ("Segment", [self.segment_panel.container.native, advanced]),
            ("Correct", [self.correct_panel.container.native]),
            (
                "Retrain",
                [
                    self.retrain_panel.container.native,
                    self.retrain_panel.curve,
                    self.retrain_panel.outcome.native,
                ],
            ),
            ("Export", [self.export_panel.container.native]),
        ):
            column.addWidget(_section(title, *widgets))
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.foot)
        self.setMinimumWidth(WIDTH_PX)
        _order_tabs([inner, self.foot])

    def _recall(self) -> None:
        """Set the fields to what they were in the last session."""
        self.retrain_panel.seconds.value = int(self.preferences.get("retrain.seconds", 60))
        self.segment_panel.tile_px.value = int(self.preferences.get("compute.tile_px", 0))
        kept = self.preferences.get("dock.export_format", "")
        if kept in self.export_panel.format.choices:
            self.export_panel.format.value = kept

    def _remember(self) -> None:
        """Keep the fields for the next session."""
        self.preferences.set("retrain.seconds", int(self.retrain_panel.seconds.value))
        self.preferences.set("compute.tile_px", int(self.segment_panel.tile_px.value))
        self.preferences.set("dock.export_format", self.export_panel.format.value)
        if self.session.model is not None:
            self.preferences.set("dock.model", self.session.model.reference)

    def _on_engine(self, status: str) -> None:
        if status == "ready" and not self.session.is_busy:
            self.collector.release()
            self.session.tell(f"Ready on {self.engine.device}.")


def _order_tabs(widgets: list[QWidget]) -> None:
    """Let the tab key walk the controls as they are read, from top to bottom."""
    stops = [
        child
        for widget in widgets
        for child in widget.findChildren(QWidget)
        if child.focusPolicy() & Qt.FocusPolicy.TabFocus and child.window() is widget.window()
    ]
    stops.sort(key=_reading_order)
    for before, after in itertools.pairwise(stops):
        QWidget.setTabOrder(before, after)


def _reading_order(widget: QWidget) -> list[int]:
    """Return where a widget stands: its place in each layout around it, outermost first."""
    places: list[int] = []
    parent = widget.parentWidget()
    while parent is not None:
        places.append(_place_in(parent, widget))
        widget, parent = parent, parent.parentWidget()
    return places[::-1]


def _place_in(parent: QWidget, child: QWidget) -> int:
    """Return the place of a child in its parent's layout, or 0 if it has none."""
    layout = parent.layout()
    return max(0, layout.indexOf(child)) if layout is not None else 0


def _section(title: str, *widgets: QWidget, is_open: bool = True) -> QCollapsible:
    """Build a section that folds."""
    section = QCollapsible(title)
    section.setObjectName(f"section_{title.lower()}")
    section.setDuration(0)
    section.layout().setContentsMargins(0, 0, 0, 0)
    section.content().layout().setContentsMargins(0, 0, 0, 0)
    section.toggleButton().setStyleSheet(SECTION_STYLE)
    for widget in widgets:
        section.addWidget(widget)
    if is_open:
        section.expand(animate=False)
    return section
