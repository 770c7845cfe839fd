"""Options of the command line made from the fields of the settings, so each text stands once."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from napari_unet.errors import SettingError
from napari_unet.settings import (
    FinetuneSettings,
    InstanceSettings,
    SegmentSettings,
    Settings,
    checked,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

    from napari_unet.models.card import Card


INSTANCE_FIELDS = ("threshold", "min_size", "split", "split_level", "fill_holes")
SEGMENT_FIELDS = (
    "channels",
    "invert",
    "object_size_px",
    "tile_px",
    "halo_px",
    "device",
    "precision",
    "augment",
)

_NAMED = re.compile(r"^Setting [\w.]+ = .+?: ")

Parser = argparse.ArgumentParser | argparse._ArgumentGroup


def add_fields(
    parser: Parser, kind: type[Settings], *names: str, default: str | None = None
) -> None:
    """Add an option for each named field of some settings.

    Parameters
    ----------
    parser : ArgumentParser or group
        What gets the options.
    kind : type of Settings
        Holds the fields.
    *names : str
        Names of the fields; ``tile_px`` becomes ``--tile-px``.
    default : str, optional
        What to say about the default, instead of the field's.
    """
    for name in names:
        field = kind.model_fields[name]
        option = "--" + name.replace("_", "-")
        said = default or _said(field.default)
        text = f"{field.description}{_range(field)} Default: {said}."
        form = _form(field, kind, name)
        parser.add_argument(option, dest=name, default=None, help=text.replace("%", "%%"), **form)


def given(options: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
    """Return the fields of some settings that were given on the command line."""
    values = vars(options)
    return {name: values[name] for name in kind.model_fields if values.get(name) is not None}


def segment_settings(options: argparse.Namespace, card: Card) -> SegmentSettings:
    """Build the settings of a segmentation.

    What the command line says comes first, then what a replayed run had (``--settings``), then
    the model's own.

    Raises
    ------
    FileError
        If the report to be replayed cannot be read.
    """
    _, replayed = _replayed(options)
    own = given(options, SegmentSettings)
    usual = card.instances_at(own.get("object_size_px"))
    base = replayed or SegmentSettings(instances=usual)
    instances = base.instances.replace(**given(options, InstanceSettings))
    return base.replace(**{**own, "instances": instances})


def finetune_settings(
    options: argparse.Namespace, usual: FinetuneSettings | None = None
) -> FinetuneSettings:
    """Build the settings of a training: the command line, then a replayed run, then the usual.

    Parameters
    ----------
    options : Namespace
        The command line.
    usual : FinetuneSettings, optional
        What holds where nothing is said; if not given, the defaults.

    Raises
    ------
    FileError
        If the report to be replayed cannot be read.
    """
    replayed, _ = _replayed(options)
    values = given(options, FinetuneSettings)
    budget = {"steps": "seconds", "seconds": "steps"}  # one replaces the other
    values.update({budget[name]: None for name in budget if name in values})
    return (replayed or usual or FinetuneSettings()).replace(**values)


def _replayed(
    options: argparse.Namespace,
) -> tuple[FinetuneSettings | None, SegmentSettings | None]:
    """Read the settings of the run whose report was named."""
    if getattr(options, "settings", None) is None:
        return None, None
    from napari_unet.runs.report import read_settings

    return read_settings(options.settings)


def _form(field: FieldInfo, kind: type[Settings], name: str) -> dict[str, Any]:
    """Say how the value of a field is written."""
    kinds = _kinds(field.annotation)
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    choices = [value for one in kinds if get_origin(one) is Literal for value in get_args(one)]
    if choices:
        return {"choices": choices}
    if any(get_origin(one) is tuple for one in kinds):
        return {"type": _reader(kind, name, several=True), "metavar": "N[,N...]"}
    return {"type": _reader(kind, name), "metavar": "N"}


def _reader(kind: type[Settings], name: str, *, several: bool = False) -> Callable[[str], Any]:
    """Return what reads the value of a field, so that argparse tells what is wrong with it."""

    def read(text: str) -> Any:
        value = text.split(",") if several else text
        try:
            return getattr(checked(kind, {name: value}), name)
        except SettingError as error:
            reason = _NAMED.sub("", str(error))  # argparse names the option
            raise argparse.ArgumentTypeError(f"{text!r}: {reason}") from error

    return read


def _range(field: FieldInfo) -> str:
    """Say the limits of a field, unless its text does."""
    limits = {"ge": "from {}", "gt": "above {}", "le": "up to {}", "lt": "below {}"}
    said = [
        text.format(getattr(bound, name))
        for bound in field.metadata
        for name, text in limits.items()
        if hasattr(bound, name)
    ]
    return f" Range: {', '.join(said)}." if said and ".." not in (field.description or "") else ""


def _kinds(annotation: Any) -> list[Any]:
    """List the alternatives of an annotation, None left out."""
    if get_origin(annotation) in (None, Literal, tuple):
        return [annotation]
    return [kind for kind in get_args(annotation) if kind is not type(None)]


def _said(default: Any) -> str:
    """Say a default."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(default)
