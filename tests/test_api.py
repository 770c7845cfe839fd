"""Whoever gives the public functions something else gets a sentence, not a traceback of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import napari_unet as nu
from napari_unet.errors import (
    FileError,
    ImageError,
    LabelsError,
    ModelError,
    SettingError,
    UnetError,
)
from napari_unet.models.card import Card

GREY = np.zeros((40, 40), np.uint8)
LABELS = np.pad(np.ones((20, 20), int), 10)


@pytest.fixture
def model(tiny_unet) -> nu.Model:
    return nu.Model(tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture))


WRONG_CALLS = {
    "load_model(5)": (lambda m: nu.load_model(5), ModelError, "number 5 was given"),
    "load_model(None)": (lambda m: nu.load_model(None), ModelError, "None was given"),
    "load_model(bytes)": (lambda m: nu.load_model(b"nuclei"), ModelError, "a bytes was given"),
    "load_model(long)": (lambda m: nu.load_model("x" * 5000), ModelError, "no model and no file"),
    "load_model(~x)": (lambda m: nu.load_model("~no-one/x"), ModelError, "no model and no file"),
    "save_model(name)": (lambda m: nu.save_model("nuclei", "x"), ModelError, "'nuclei' was given"),
    "save_model(None)": (lambda m: nu.save_model(m, None), FileError, "None was given"),
    "save_model(.)": (lambda m: nu.save_model(m, "."), FileError, "is a folder"),
    "save_model(..)": (lambda m: nu.save_model(m, ".."), FileError, "is a folder"),
    "save_model('')": (lambda m: nu.save_model(m, ""), FileError, "no path"),
    "Model(net, None)": (lambda m: nu.Model(m.net, None), ModelError, "a UNet and None were"),
    "Model(net, dict)": (lambda m: nu.Model(m.net, {}), ModelError, "a UNet and a dict were"),
    "Model(path, card)": (lambda m: nu.Model("x.pth", m.card), ModelError, "the text 'x.pth' and"),
    "segment(name)": (lambda m: nu.segment("nuclei", GREY), ModelError, "'nuclei' was given"),
    "segment(dict)": (lambda m: nu.segment(m, GREY, settings={}), SettingError, "a dict was given"),
    "segment(training)": (
        lambda m: nu.segment(m, GREY, settings=nu.FinetuneSettings()),
        SettingError,
        "SegmentSettings was expected, a FinetuneSettings was given",
    ),
    "segment(axes=5)": (lambda m: nu.segment(m, GREY, axes=5), ImageError, "number 5 was given"),
    "segment(axes=[])": (lambda m: nu.segment(m, GREY, axes=["Y"]), ImageError, "a list was given"),
    "segment(progress)": (lambda m: nu.segment(m, GREY, progress=5), SettingError, "number 5"),
    "segment(cancel)": (lambda m: nu.segment(m, GREY, cancel=5), SettingError, "number 5"),
    "predict(dict)": (lambda m: nu.predict(m, GREY, settings={}), SettingError, "a dict was given"),
    "predict(name)": (lambda m: nu.predict("nuclei", GREY), ModelError, "'nuclei' was given"),
    "finetune(name)": (lambda m: nu.finetune("nuclei", []), ModelError, "'nuclei' was given"),
    "finetune(tuples)": (
        lambda m: nu.finetune(m, [(GREY[None], LABELS)]),
        LabelsError,
        "the list holds a tuple",
    ),
    "finetune(settings)": (
        lambda m: nu.finetune(m, [nu.Sample(GREY[None], LABELS)], {"steps": 1}),
        SettingError,
        r"Give FinetuneSettings\(\*\*values\)",
    ),
    "finetune(segment)": (
        lambda m: nu.finetune(m, [nu.Sample(GREY[None], LABELS)], None, {"invert": True}),
        SettingError,
        r"Give SegmentSettings\(\*\*values\)",
    ),
    "evaluate(None)": (lambda m: nu.evaluate(None, LABELS), LabelsError, "The labels are None"),
    "evaluate(number)": (lambda m: nu.evaluate(LABELS, 5), LabelsError, "truth are the number 5"),
    "evaluate(ragged)": (lambda m: nu.evaluate([[1], [1, 2]], LABELS), LabelsError, "an array"),
    "evaluate(negative)": (lambda m: nu.evaluate(-LABELS, LABELS), LabelsError, "hold -1"),
    "evaluate(float)": (lambda m: nu.evaluate(LABELS, LABELS / 2), LabelsError, "type float64"),
    "evaluate(True)": (lambda m: nu.evaluate(LABELS, LABELS, True), LabelsError, r"shape \(\)"),
    "read_image(5)": (lambda m: nu.read_image(5), FileError, "number 5 was given"),
    "read_image(array)": (lambda m: nu.read_image(GREY), FileError, "an ndarray was given"),
    "read_image(long)": (lambda m: nu.read_image("x" * 4000), FileError, "looked at|no file"),
    "export_labels(path)": (lambda m: nu.export_labels(LABELS, 5), FileError, "number 5 was given"),
    "export_labels(list)": (lambda m: nu.export_labels([[1], [1, 2]], "x"), LabelsError, "array"),
    "export_labels(image)": (
        lambda m: nu.export_labels(LABELS, "x.tif", image=5),
        LabelsError,
        "An image was expected, the number 5",
    ),
    "export_labels(axes)": (
        lambda m: nu.export_labels(LABELS, "x.tif", axes=5),
        LabelsError,
        "number 5 was given",
    ),
    "export_labels(format)": (
        lambda m: nu.export_labels(LABELS, "x.tif", format=["png"]),
        SettingError,
        "is not known",
    ),
    "export_labels(size)": (
        lambda m: nu.export_labels(LABELS, "x.tif", pixel_size_um={"X": 1}),
        SettingError,
        "positive number",
    ),
}


@pytest.mark.parametrize(("call", "error", "sentence"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_wrong_call_is_told_in_one_sentence_and_leaves_nothing(
    model, tmp_path, monkeypatch, call: Any, error: type[UnetError], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=sentence) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", ")"))
    assert not list(tmp_path.iterdir())


def test_the_public_names_are_there_and_others_are_not() -> None:
    assert all(hasattr(nu, name) for name in nu.__all__)
    assert set(nu.__all__) <= set(dir(nu))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = nu.nonsense
