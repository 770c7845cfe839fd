"""Model: choose a network, see and change its card, open weights of any format, save them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from magicgui.widgets import Container, PushButton
from qtpy.QtWidgets import QFileDialog, QSizePolicy

from napari_unet.errors import UnetError
from napari_unet.models.card import Card
from napari_unet.models.description import describe, introduce
from napari_unet.models.library import Entry, list_models, misfit, user_folder
from napari_unet.widget.card_dialog import CardDialog
from napari_unet.widget.card_trial import CardTrial
from napari_unet.widget.channels import MEAN, list_sources
from napari_unet.widget.engine import Job
from napari_unet.widget.fields import choice, column, named, row, text_line
from napari_unet.widget.model_menu import ModelMenu
from napari_unet.widget.readings import Readings
from napari_unet.widget.segment_panel import SegmentPanel
from napari_unet.widget.session import LoadedModel, Session

ENDINGS = "*.safetensors *.pth *.pt *.ckpt *.onnx *.h5 *.hdf5 *.keras *.zip *.yaml *.yml"
OPEN_FILTER = f"Weights of a U-Net ({ENDINGS});;All files (*)"
SAVE_FORMATS = {
    "This plugin, with the card (*.safetensors)": ("safetensors", ".safetensors"),
    "PyTorch state dict (*.pth)": ("state-dict", ".pth"),
    "TorchScript (*.pt)": ("torchscript", ".pt"),
    "ONNX (*.onnx)": ("onnx", ".onnx"),
    "bioimage.io package (*.zip)": ("bioimageio", ".zip"),
}


class ModelPanel:
    """The first section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Knows the image that models are to fit.
    """

    def __init__(self, session: Session, segment: SegmentPanel) -> None:
        self._session, self._segment = session, segment
        self._known: list[Entry] = []
        self._extra: list[tuple[str, str, Card]] = []
        self._opened: dict[str, Card] = {}
        """By reference; the list of files does not know the cards of weights from elsewhere."""
        self._loading: Job | None = None
        self.model = choice(
            "model",
            "Model",
            "The network that labels the image; those that fit the open image come first.",
            self._model_choices,
        )
        self.open_model = named(
            PushButton(text="Open weights…"),
            "open_model",
            "Use weights from disk, whatever their format. They can also be dropped here or on "
            "the viewer.",
        )
        self.save_model = named(
            PushButton(text="Save as…", enabled=False),
            "save_model",
            "Write the model in use to a file: ours with its card, PyTorch, TorchScript, ONNX or "
            "bioimage.io.",
        )
        self.card = named(
            PushButton(text="Card…", enabled=False),
            "edit_card",
            "See all that is known of the model, and change what its file could not tell.",
        )
        self.more = named(PushButton(text="More"), "more_model", "What is done with files.")
        self.menu = ModelMenu(session, self.load, self.refresh, self.more.native)
        self.more.native.setMenu(self.menu)
        self.summary = text_line("model_summary", "No model is loaded yet.")
        self.readings = Readings(
            session,
            segment,
            load=self.load,
            change_card=self.change_card,
            show_card=self.show_card,
        )
        self.card.native.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        chosen = row(self.model, self.card)
        chosen.label = "Model"
        self.container: Container = column(
            chosen,
            self.summary,
            self.readings.container,
            row(self.open_model, self.save_model, self.more),
        )
        self._connect()

    def _connect(self) -> None:
        session = self._session
        self.model.changed.connect(self._on_chosen)
        self.open_model.changed.connect(self._on_open)
        self.save_model.changed.connect(self._on_save)
        self.card.changed.connect(lambda _: self.show_card())
        session.model_changed.connect(self._show_model)
        session.busy_changed.connect(self._on_busy)
        session.layers_changed.connect(self._refit)
        self._segment.image.changed.connect(self._refit)
        self._segment.axes.changed.connect(self._refit)

    # -- actions ------------------------------------------------------------------------------

    def load(self, path: str | Path) -> None:
        """Load a model by name or file and make it the one in use.

        Of several that are asked for in a row, as when a window opens with one or a file is dropped
        on it at once, the last is used.
        """
        before = self._loading
        if before is not None and before.is_running:
            before.finished.connect(partial(self._load_after, path))
            return
        self._loading = self._session.start(
            "Loading the model", "load", self._on_loaded, quiet=True, model=str(path)
        )

    def _load_after(self, path: str | Path) -> None:
        """Load what was asked for meanwhile, unless the window was closed meanwhile."""
        if self._session.engine.status != "closed":
            self.load(path)

    def load_first(self, remembered: str = "") -> None:
        """Load the model used last, else the first of the list."""
        self.refresh()
        known = [path for _, path in self._model_choices()]
        if known:
            self.load(remembered if remembered in known else known[0])

    def refresh(self) -> None:
        """Look again which models there are."""
        try:
            self._known = list_models()
        except UnetError as error:
            self._session.tell(str(error), warn=True)
        self._refit()

    def show_card(
        self, model: LoadedModel | None = None, preset: dict[str, Any] | None = None
    ) -> CardDialog | None:
        """Open the card of the model in use, or of another reading of its file.

        Parameters
        ----------
        model : LoadedModel, optional
            The one in use if not given.
        preset : dict, optional
            Fields of the card that are set already, as plain values.

        Returns
        -------
        CardDialog or None
            None if there is no model.
        """
        shown = model or self._session.model
        if shown is None:
            return None
        dialog = CardDialog(
            shown,
            can_try=self._segment.subject() is not None,
            preset=preset,
            parent=self.container.native.window(),
        )
        trial = CardTrial(self._session, self._segment, shown, dialog)
        dialog.saved.connect(
            lambda changes, told: trial.then(lambda: self.change_card(shown, changes, told))
        )
        dialog.tried.connect(trial.ask)
        dialog.open()
        return dialog

    # -- private ------------------------------------------------------------------------------

    def _model_choices(self) -> list[tuple[str, str]]:
        """List (name, reference) of the models: those that fit the image first."""
        fitting: list[tuple[str, str]] = []
        other: list[tuple[str, str]] = []
        for name, reference, card in self._all_models():
            why = self._misfit(card)
            text = name if why is None else f"{name} ({why})"
            (fitting if why is None else other).append((text, reference))
        return fitting + other

    def _all_models(self) -> list[tuple[str, str, Card | None]]:
        """List name, reference and card of the known models, each with a name of its own."""
        known: list[tuple[str, str, Card | None]] = [
            (e.path.name if e.origin == "recent" else e.name, e.reference, e.card)
            for e in self._known
        ]
        listed = {reference for _, reference, _ in known}
        known += [extra for extra in self._extra if extra[1] not in listed]
        names = [name for name, _, _ in known]
        return [
            (
                f"{name} ({_place(reference)})" if name in names[:i] else name,
                reference,
                card or self._opened.get(reference),
            )
            for i, (name, reference, card) in enumerate(known)
        ]

    def _misfit(self, card: Card | None) -> str | None:
        """Say why a model does not fit the image; one that was never opened may."""
        image, axes = self._segment.image.value, self._segment.axes.value
        if card is None or image is None or not axes:
            return None
        others = [layer for layer in self._segment.images() if layer is not image]
        sources = list_sources(image, axes, others)
        return misfit(card, axes, sum(source.index != MEAN for source in sources))

    def _refit(self, _: Any = None) -> None:
        """List the models anew, as they fit the image now; the choice stays."""
        model = self._session.model
        with self.model.changed.blocked():
            self.model.native.clear()  # what stays would keep its place in the list
            self.model.reset_choices()
            if model is not None and model.reference in self.model.choices:
                self.model.value = model.reference

    def _on_chosen(self, reference: str | None) -> None:
        current = self._session.model
        if reference and (current is None or current.reference != reference):
            self.load(reference)

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self.container.native, "Open weights of a U-Net", str(self._folder()), OPEN_FILTER
        )
        if path:
            self.load(path)

    def _on_save(self) -> None:
        model = self._session.model
        if model is None:
            return
        proposal = self._folder() / f"{model.card.name}.safetensors"
        path, chosen = QFileDialog.getSaveFileName(
            self.container.native, "Save model", str(proposal), ";;".join(SAVE_FORMATS)
        )
        if path:
            format, ending = SAVE_FORMATS.get(chosen, next(iter(SAVE_FORMATS.values())))
            self.save_to(_with_ending(path, ending), format)

    def save_to(self, path: str | Path, format: str = "safetensors") -> None:
        """Write the model in use to a file.

        Parameters
        ----------
        path : str or Path
            With the ending of the format.
        format : str
            One of the formats of :data:`SAVE_FORMATS`.
        """
        model = self._session.model
        if model is None:
            return
        missing = _missing(model.card) if format == "bioimageio" else []
        if missing:
            self._session.tell(
                f"bioimage.io wants to know: {', '.join(missing)}. Fill it in under Card… first.",
                warn=True,
            )
        else:
            self._session.start(
                "Saving the model",
                "save_model",
                lambda result: self._session.tell(f"Model saved to {result['path']}."),
                model=model.reference,
                destination=str(path),
                format=format,
            )

    def _folder(self) -> Path:
        """Return where a person looks for files: beside the model in use, else at home."""
        model = self._session.model
        is_elsewhere = model is not None and model.card.source is not None
        return model.path.parent if model and is_elsewhere else user_folder().parent

    def change_card(
        self, model: LoadedModel, changes: dict[str, Any], told: dict[str, str] | None = None
    ) -> None:
        """Save a model with a changed card, and use it.

        Parameters
        ----------
        model : LoadedModel
            The one in use, or another reading of its file.
        changes : dict
            Fields of the card, as plain values.
        told : dict of str to str, optional
            What a person says of assumptions, by their names.
        """
        self._session.start(
            "Saving the card",
            "edit_card",
            self._on_loaded,
            quiet=True,
            model=model.reference,
            card=changes,
            assume=told or {},
        )

    def _on_loaded(self, result: dict[str, Any]) -> None:
        card = Card.model_validate(result["card"])
        model = LoadedModel(
            card,
            Path(result["path"]),
            result,
            int(result.get("reading", 0)),
            tuple(result.get("readings", ("",))),
        )
        self._session.use_model(model)
        self._session.tell(introduce(card, result))

    def _show_model(self) -> None:
        model = self._session.model
        if model is None:
            return
        reference = model.reference
        self._opened[reference] = model.card
        self.refresh()
        if reference not in {path for _, path in self._model_choices()}:
            self._extra.append((_short_name(model), reference, model.card))
            self._refit()
        self.readings.show_model(model)
        self.summary.value = summarize(model)
        self.summary.tooltip = describe_card(model)
        self._on_busy(self._session.is_busy)

    def _on_busy(self, busy: bool) -> None:
        has_model = self._session.model is not None
        self.model.enabled = self.open_model.enabled = not busy
        self.save_model.enabled = self.card.enabled = not busy and has_model
        self.readings.set_busy(busy)


def summarize(model: LoadedModel) -> str:
    """Say in two lines what a model is and what it needs."""
    card, facts = model.card, model.facts
    inputs = len(card.input_channels)
    size = f", objects about {card.object_size_px:.0f} px" if card.object_size_px else ""
    exact = "" if facts.get("exact", True) else "; tiles are approximate"
    dims = "3D" if card.architecture.spatial_dims == 3 else "2D"
    what = "It is not known what it segments" if card.segments == "unknown" else card.segments
    doubt = f" {len(card.assumed)} things were assumed: see Card…" if card.assumed else ""
    return (
        f"{what[:1].upper()}{what[1:].rstrip('.')}{size}. "
        f"{dims}, {inputs} channel{'s' * (inputs != 1)}, "
        f"{facts['parameters'] / 1e6:.1f} M parameters{exact}. Runs on {facts['device']}.{doubt}"
    )


def describe_card(model: LoadedModel) -> str:
    """Return the card as text, for the tooltip."""
    return "\n".join(f"{name}: {text}" for name, text in describe(model.card, model.facts))


def _missing(card: Card) -> list[str]:
    """Name what a bioimage.io package must tell and the card does not."""
    return [
        *(["Authors"] if not card.authors else []),
        *(["Licence"] if card.licence == "unknown" else []),
        *(["Segments"] if card.segments == "unknown" else []),
    ]


def _short_name(model: LoadedModel) -> str:
    """Name a model that is not in the list."""
    return model.path.name if model.card.source is not None else model.card.name


def _place(reference: str) -> str:
    """Say where a file is, to tell two of the same name apart."""
    path = Path(reference)
    return f"{path.parent.name}/{path.name}"


def _with_ending(path: str, ending: str) -> str:
    """Give a path the ending of its format, in the place of another format's."""
    plain = Path(path)
    if plain.suffix.lower() == ending:
        return path
    known = {known_ending for _, known_ending in SAVE_FORMATS.values()}
    if plain.suffix.lower() in known:
        return str(plain.with_suffix(ending))
    return path + ending
