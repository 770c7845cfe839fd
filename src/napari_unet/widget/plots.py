"""The learning curve, painted by Qt itself: no plotting library, no theme to fight."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

LOSS_COLOR = QColor("#e69f00")
SCORE_COLOR = QColor("#56b4e9")
MARGIN_PX = 6
CAPTION_PX = 16


class LearningCurve(QWidget):
    """Loss and held-out score over the used part of the budget.

    The loss (orange) is drawn from its own smallest to largest value, the score (blue) from 0
    to 1; both captions name the latest value.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.loss: list[tuple[float, float]] = []
        self.score: list[tuple[float, float]] = []

    def sizeHint(self) -> QSize:
        """Return the size the curve likes to have, in pixels."""
        return QSize(240, 110)

    def clear(self) -> None:
        """Forget both curves."""
        self.loss, self.score = [], []
        self.update()

    def add(self, fraction: float, loss: float | None, score: float | None) -> None:
        """Add a point at a part of the budget (0..1); either value may be missing."""
        if loss is not None:
            self.loss.append((fraction, loss))
        if score is not None:
            self.score.append((fraction, score))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw frame, curves and captions."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        plot = QRectF(self.rect()).adjusted(
            MARGIN_PX, MARGIN_PX + CAPTION_PX, -MARGIN_PX, -MARGIN_PX
        )
        text = self.palette().color(self.foregroundRole())
        faint = QColor(text)
        faint.setAlpha(60)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(plot)
        if not self.loss:
            painter.setPen(text)
            painter.drawText(plot, Qt.AlignmentFlag.AlignCenter, "The learning curve appears here.")
        losses = [value for _, value in self.loss]
        low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
        self._draw(painter, plot, self.loss, low, high, LOSS_COLOR, "loss", left=True)
        self._draw(painter, plot, self.score, 0.0, 1.0, SCORE_COLOR, "held-out score", left=False)
        painter.end()

    def _draw(
        self,
        painter: QPainter,
        plot: QRectF,
        points: list[tuple[float, float]],
        low: float,
        high: float,
        color: QColor,
        caption: str,
        *,
        left: bool,
    ) -> None:
        """Draw one curve and, above the frame, its caption."""
        if not points:
            return
        span = max(high - low, 1e-9)
        line = [
            QPointF(
                plot.left() + plot.width() * min(x, 1.0),
                plot.bottom() - plot.height() * (min(max(y, low), high) - low) / span,
            )
            for x, y in points
        ]
        painter.setPen(QPen(color, 2))
        painter.drawPolyline(QPolygonF(line))
        painter.drawEllipse(line[-1], 2, 2)
        side = Qt.AlignmentFlag.AlignLeft if left else Qt.AlignmentFlag.AlignRight
        box = QRectF(plot.left(), MARGIN_PX - 4, plot.width(), CAPTION_PX)
        painter.drawText(box, side, f"{caption} {points[-1][1]:.3f}")
