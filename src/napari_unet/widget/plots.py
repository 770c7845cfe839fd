"""The learning curve, painted by Qt itself: no plotting library, no theme to fight."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

LOSS_COLOR = QColor("#e69f00")
SCORE_COLOR = QColor("#56b4e9")
MARGIN_PX = 6
CAPTION_PX = 16
SMOOTHED_OVER = 8
"""Points of the loss that are averaged: single crops differ more than the loss falls."""

Points = list[tuple[float, float]]


class LearningCurve(QWidget):
    """Loss and held-out score over the used part of the budget.

    The loss (orange) is drawn from its own smallest to largest value, thin as it is and thick on
    average; the score (blue) from 0 to 1, with a dashed line where the model before stands. Its
    last point is the score of what came out, as the table shows it. The captions above name the
    latest values, the one below the time left.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Orange: the loss on what is learned from. Blue: the score on held-out labels, "
            "0 at the foot and 1 at the top; dashed where the model before stands. The last point, "
            "drawn at the end, is the score in the table."
        )
        self.loss: Points = []
        self.score: Points = []
        self.before: float | None = None
        self._seconds_left: float | None = None

    def sizeHint(self) -> QSize:
        """Return the size the curve likes to have, in pixels."""
        return QSize(240, 130)

    def clear(self) -> None:
        """Forget both curves."""
        self.loss, self.score, self.before = [], [], None
        self._seconds_left = None
        self.update()

    def begin(self, before: float) -> None:
        """Take the score (0..1) of the model before, which the dashed line shows."""
        self.before = before
        self.update()

    def add(self, fraction: float, loss: float | None, score: float | None) -> None:
        """Add a point at a part of the budget (0..1); either value may be missing."""
        if loss is not None:
            self.loss.append((fraction, loss))
        if score is not None:
            self.score.append((fraction, score))
        self.update()

    def end(self, after: float) -> None:
        """Take the score (0..1) of what came out, the last point of the curve."""
        at = self.loss[-1][0] if self.loss else 1.0
        self.score.append((at, after))
        self.update()

    def tell_time_left(self, seconds: float | None) -> None:
        """Write below the curve how long it will take; None when it is over."""
        self._seconds_left = seconds
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw frame, curves and captions."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        plot = QRectF(self.rect()).adjusted(
            MARGIN_PX, MARGIN_PX + CAPTION_PX, -MARGIN_PX, -MARGIN_PX - CAPTION_PX
        )
        text = self.palette().color(self.foregroundRole())
        painter.setPen(QPen(_faint(text, 60), 1))
        painter.drawRect(plot)
        painter.setPen(text)
        if not self.loss:
            painter.drawText(plot, Qt.AlignmentFlag.AlignCenter, "The learning curve appears here.")
        below = QRectF(plot.left(), plot.bottom() + 2, plot.width(), CAPTION_PX)
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, self.time_left)
        self._draw_loss(painter, plot)
        self._draw_score(painter, plot)
        painter.end()

    @property
    def time_left(self) -> str:
        """What stands below the curve while a training runs."""
        if self._seconds_left is None:
            return ""
        whole = max(0, round(self._seconds_left))
        if whole == 0:
            return "judging the result…"
        minutes, seconds = divmod(whole, 60)
        return f"{minutes} min {seconds:02} s left" if minutes else f"{seconds} s left"

    def _draw_loss(self, painter: QPainter, plot: QRectF) -> None:
        if not self.loss:
            return
        values = [value for _, value in self.loss]
        low, high = min(values), max(values)
        painter.setPen(QPen(_faint(LOSS_COLOR, 90), 1))
        painter.drawPolyline(QPolygonF(_placed(plot, self.loss, low, high)))
        smooth = smoothed(self.loss)
        painter.setPen(QPen(LOSS_COLOR, 2))
        painter.drawPolyline(QPolygonF(_placed(plot, smooth, low, high)))
        self._caption(painter, plot, f"loss {smooth[-1][1]:.3f}", Qt.AlignmentFlag.AlignLeft)

    def _draw_score(self, painter: QPainter, plot: QRectF) -> None:
        if self.before is not None and self.loss:
            (start,) = _placed(plot, [(0.0, self.before)], 0.0, 1.0)
            painter.setPen(QPen(_faint(SCORE_COLOR, 160), 1, Qt.PenStyle.DashLine))
            painter.drawLine(start, QPointF(plot.right(), start.y()))
        if not self.score:
            return
        line = _placed(plot, self.score, 0.0, 1.0)
        painter.setPen(QPen(SCORE_COLOR, 2))
        painter.drawPolyline(QPolygonF(line))
        for point in line:
            painter.drawEllipse(point, 2, 2)
        latest = f"held-out {self.score[-1][1]:.2f}"
        if self.before is not None:
            latest += f", before {self.before:.2f}"
        self._caption(painter, plot, latest, Qt.AlignmentFlag.AlignRight)

    def _caption(self, painter: QPainter, plot: QRectF, text: str, side: Qt.AlignmentFlag) -> None:
        """Write a caption above the frame, in the colour of the pen."""
        painter.drawText(QRectF(plot.left(), MARGIN_PX - 4, plot.width(), CAPTION_PX), side, text)


def smoothed(points: Points) -> Points:
    """Average each value with those before it.

    Parameters
    ----------
    points : list of (float, float)
        Part of the budget (0..1) and value.

    Returns
    -------
    list of (float, float)
        The same parts of the budget.
    """
    values = [value for _, value in points]
    means = []
    for at in range(len(values)):
        last = values[max(0, at + 1 - SMOOTHED_OVER) : at + 1]
        means.append(sum(last) / len(last))
    return [(fraction, mean) for (fraction, _), mean in zip(points, means, strict=True)]


def _placed(plot: QRectF, points: Points, low: float, high: float) -> list[QPointF]:
    """Place points in the frame."""
    span = max(high - low, 1e-9)
    return [
        QPointF(
            plot.left() + plot.width() * min(x, 1.0),
            plot.bottom() - plot.height() * (min(max(y, low), high) - low) / span,
        )
        for x, y in points
    ]


def _faint(color: QColor, alpha: int) -> QColor:
    faint = QColor(color)
    faint.setAlpha(alpha)
    return faint
