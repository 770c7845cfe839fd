"""A dock over an engine that computes nothing, in a hidden or a shown window."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from tests.widget.fake_engine import FakeEngine, loaded


@pytest.fixture
def make_dock(make_napari_viewer, monkeypatch):
    """Return a function that opens a dock with a model loaded; they are closed after the test."""
    from napari_unet.widget import dock as module

    monkeypatch.setattr(module, "Engine", FakeEngine)
    for name, value in {"retrain.seconds": 60, "dock.export_format": "OME-TIFF"}.items():
        module.Preferences().set(name, value)  # kept from an earlier test, or an earlier run
    opened = []  # weakly: a test may want to see a dock go

    def make(viewer=None, *, show: bool = False):
        if viewer is None:
            viewer = make_napari_viewer(show=show)
            viewer.add_image(
                np.zeros((64, 80), np.uint16), name="cells", scale=(0.5, 0.5), units=("um", "um")
            )
        made = module.UnetDock(viewer)
        viewer.window.add_dock_widget(made, name="U-Net")
        if not made.engine.jobs:  # no model is bundled in this checkout
            made.load_model_file("nuclei")
        made.engine.last.answer(**loaded())
        opened.append(weakref.ref(made))
        return made

    yield make
    for made in filter(None, (reference() for reference in opened)):
        made.close_session()


@pytest.fixture
def dock(make_dock):
    """A dock in a viewer that shows one image, with a model loaded."""
    return make_dock()
