"""Model: choose a network, see what it eats and gives, open or save a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicgui.widgets import Container, PushButton
from qtpy.QtWidgets import QFileDialog

from napari_unet.errors import UnetError
from napari_unet.models.card import Card
from napari_unet.models.library import list_models, user_folder
from napari_unet.widget.fields import choice, column, named, row, text_line
from napari_unet.widget.session import LoadedModel, Session

WEIGHTS_FILTER = "U-Net weights (*.safetensors);;All files (*)"


class ModelPanel:
    """The first section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._extra: list[tuple[str, str]] = []
        self.model = choice(
            "model", "Model", "The network that labels the image.", self._model_choices
        )
        self.open_model = named(
            PushButton(text="Open weights…"),
            "open_model",
            "Use a weights file from disk. It can also be dropped here or on the viewer.",
        )
        self.save_model = named(
            PushButton(text="Save model as…", enabled=False),
            "save_model",
            "Write the model in use, with its card, to one file you can share.",
        )
        self.summary = text_line("model_summary", "No model is loaded yet.")
        self.container: Container = column(
            self.model, self.summary, row(self.open_model, self.save_model)
        )
        self.model.changed.connect(self._on_chosen)
        self.open_model.changed.connect(self._on_open)
        self.save_model.changed.connect(self._on_save)
        session.model_changed.connect(self._show_model)
        session.busy_changed.connect(self._on_busy)

    def load(self, path: str | Path) -> None:
        """Load a model by name or file and make it the one in use."""
        self._session.start(
            "Loading the model", "load", self._on_loaded, quiet=True, model=str(path)
        )

    def load_first(self, remembered: str = "") -> None:
        """Load the model used last, else the first of the list."""
        self.model.reset_choices()
        known = [path for _, path in self._model_choices()]
        if known:
            self.load(remembered if remembered in known else known[0])

    def _model_choices(self) -> list[tuple[str, str]]:
        """List (name, path) of the known models: bundled, the user's own, opened files."""
        try:
            known = [(entry.name, str(entry.path)) for entry in list_models()]
        except UnetError as error:
            self._session.tell(str(error), warn=True)
            known = []
        known += [item for item in self._extra if item[1] not in {p for _, p in known}]
        names = [name for name, _ in known]
        return [
            (f"{name} ({Path(path).name})" if name in names[:i] else name, path)
            for i, (name, path) in enumerate(known)
        ]

    def _on_chosen(self, path: str | None) -> None:
        current = self._session.model
        if path and (current is None or str(current.path) != path):
            self.load(path)

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self.container.native, "Open U-Net weights", str(Path.home()), WEIGHTS_FILTER
        )
        if path:
            self.load(path)

    def _on_save(self) -> None:
        model = self._session.model
        if model is None:
            return
        proposal = user_folder().parent / f"{model.card.name}.safetensors"
        path, _ = QFileDialog.getSaveFileName(
            self.container.native, "Save model", str(proposal), WEIGHTS_FILTER
        )
        if path:
            self._session.start(
                "Saving the model",
                "save_model",
                lambda result: self._session.tell(f"Model saved to {result['path']}."),
                quiet=True,
                model=str(model.path),
                destination=path,
            )

    def _on_loaded(self, result: dict[str, Any]) -> None:
        card = Card.model_validate(result["card"])
        self._session.use_model(LoadedModel(card, Path(result["path"]), result))
        self._session.tell(f"{card.name} is ready.")

    def _show_model(self) -> None:
        model = self._session.model
        if model is None:
            return
        path = str(model.path)
        if path not in {p for _, p in self._model_choices()}:
            self._extra.append((model.card.name, path))
        with self.model.changed.blocked():
            self.model.reset_choices()
            self.model.value = path
        self.summary.value = summarize(model)
        self.summary.tooltip = describe_card(model.card)
        self._on_busy(self._session.is_busy)

    def _on_busy(self, busy: bool) -> None:
        self.model.enabled = self.open_model.enabled = not busy
        self.save_model.enabled = not busy and self._session.model is not None


def summarize(model: LoadedModel) -> str:
    """Say in two lines what a model is and what it needs."""
    card, facts = model.card, model.facts
    inputs = len(card.input_channels)
    size = f", objects about {card.object_size_px:.0f} px" if card.object_size_px else ""
    exact = "" if facts.get("exact", True) else "; tiles are approximate"
    dims = "3D" if card.architecture.spatial_dims == 3 else "2D"
    return (
        f"{card.segments[:1].upper()}{card.segments[1:].rstrip('.')}{size}. "
        f"{dims}, {inputs} channel{'s' * (inputs != 1)}, "
        f"{facts['parameters'] / 1e6:.1f} M parameters{exact}. Runs on {facts['device']}."
    )


def describe_card(card: Card) -> str:
    """Return the card as text, for the tooltip."""
    scores = ", ".join(f"{name}: {value:.3f}" for name, value in card.scores.items())
    lines = [
        f"Name: {card.name}",
        f"Segments: {card.segments}",
        f"Inputs: {', '.join(card.input_channels)}",
        f"Outputs: {', '.join(card.outputs)}",
        f"Normalisation: {card.normalization.kind}",
        f"Training data: {card.training_data}",
        f"Scores: {scores or 'unknown'}",
        f"Licence: {card.licence}",
        f"Made from: {card.parent or 'random weights'}",
        f"Made on: {card.created or 'unknown'}",
    ]
    return "\n".join(lines)
