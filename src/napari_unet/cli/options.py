"""Options of the command line made from the fields of the settings, so each text stands once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from napari_unet.settings import InstanceSettings, SegmentSettings, Settings, checked

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from napari_unet.models.card import Card


INSTANCE_FIELDS = ("threshold", "min_size", "split", "fill_holes")
SEGMENT_FIELDS = ("channels", "invert", "object_size_px", "tile_px", "halo_px", "device")

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
        parser.add_argument(
            option, dest=name, default=None, help=text.replace("%", "%%"), **_form(field)
        )


def given(options: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
    """Return the fields of some settings that were given on the command line."""
    values = vars(options)
    return {name: values[name] for name in kind.model_fields if values.get(name) is not None}


def segment_settings(options: argparse.Namespace, card: Card) -> SegmentSettings:
    """Build the settings of a segmentation: the options, and for the rest the model's own.

    Raises
    ------
    SettingError
        If a value is out of its range.
    """
    instances = card.instances.replace(**given(options, InstanceSettings))
    return checked(SegmentSettings, {**given(options, SegmentSettings), "instances": instances})


def _form(field: FieldInfo) -> dict[str, Any]:
    """Say how the value of a field is written."""
    kinds = _kinds(field.annotation)
    if bool in kinds:
        return {"action": argparse.BooleanOptionalAction}
    choices = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if choices:
        return {"choices": choices}
    if any(get_origin(kind) is tuple for kind in kinds):
        return {"type": lambda text: text.split(","), "metavar": "N[,N...]"}
    return {"metavar": "N"}


def _range(field: FieldInfo) -> str:
    """Say the limits of a field, unless its text does."""
    limits = {"ge": "from {:g}", "gt": "above {:g}", "le": "up to {:g}", "lt": "below {:g}"}
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
