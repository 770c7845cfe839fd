"""What the manifest offers, used as napari uses it."""

from __future__ import annotations

from pathlib import Path

import npe2
import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_unet.files.images import read_image
from napari_unet.widget import contributions
from napari_unet.widget.contributions import OneDock, find_dock, open_dock, show_dock
from tests.widget.fake_engine import loaded, run_segment, squares

PLUGIN = "napari-unet-interactive"


class FakeDock(QWidget):
    """A dock without an engine, which remembers what it was told to load."""

    def __init__(self, napari_viewer) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def load_model_file(self, path: str) -> None:
        self.loaded.append(path)


@pytest.fixture
def viewer(make_napari_viewer, monkeypatch: pytest.MonkeyPatch):
    """Return a viewer in which our dock is a quick one."""
    from napari_unet.widget import dock

    monkeypatch.setattr(dock, "UnetDock", FakeDock)
    return make_napari_viewer()


def docks_of(viewer) -> list[FakeDock]:
    return [w for w in viewer.window.dock_widgets.values() if isinstance(w, FakeDock)]


def open_from_the_plugins_menu(viewer) -> None:
    """Trigger the entry of napari's Plugins menu."""
    from napari._app_model import get_app_model
    from napari._qt._qplugins import _register_qt_actions

    app = get_app_model()
    if f"{PLUGIN}.dock" not in app.commands:  # the test kit registers no plugin's actions
        _register_qt_actions(npe2.PluginManager.instance().get_manifest(PLUGIN))
    app.commands.execute_command(f"{PLUGIN}.dock")


def test_opening_from_layers_segment_twice_shows_the_same_dock(viewer):
    show_dock()
    (first,) = docks_of(viewer)
    first.parent().hide()
    show_dock()
    assert docks_of(viewer) == [first]
    assert not first.parent().isHidden()


WAYS = {
    "Layers > Segment": lambda viewer: npe2.PluginManager.instance().commands.execute(
        f"{PLUGIN}.show_dock"
    ),
    "Python": open_dock,
    "command line -w": lambda viewer: viewer.window.add_plugin_dock_widget(PLUGIN, "U-Net"),
    "Plugins menu": open_from_the_plugins_menu,
}


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_whatever_the_way_there_is_one_dock(viewer, qtbot, first, second):
    WAYS[first](viewer)
    (dock,) = docks_of(viewer)
    frames = len(viewer.window.dock_widgets)
    WAYS[second](viewer)
    qtbot.waitUntil(lambda: len(viewer.window.dock_widgets) == frames, timeout=2000)
    assert docks_of(viewer) == [dock]
    assert find_dock(viewer) is dock
    if first != second:  # the menu entry pressed twice hides, as napari's entries do
        assert isinstance(dock.parent(), QDockWidget)


def test_a_closed_dock_is_made_anew(viewer):
    first = open_dock(viewer)
    viewer.window.remove_dock_widget(first)
    assert find_dock(viewer) is None
    assert open_dock(viewer) is not first


def test_two_viewers_have_a_dock_each(viewer, make_napari_viewer):
    other = make_napari_viewer()
    assert open_dock(viewer) is not open_dock(other)
    assert find_dock(other) is not find_dock(viewer)


def test_the_widget_of_the_manifest_asks_for_the_viewer_by_name(viewer):
    assert isinstance(OneDock(viewer), FakeDock)


def test_opened_from_a_menu_the_dock_knows_layers_as_the_viewer_does(make_dock):
    viewer = make_dock().session.viewer
    viewer.window.remove_dock_widget(find_dock(viewer))
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, "U-Net")
    dock.engine.last.answer(**loaded())
    run_segment(dock, squares((5, 5)))
    layer = viewer.layers["cells labels"]
    assert dock.session.labels is layer
    viewer.layers.selection.active = viewer.layers["cells"]
    viewer.layers.selection.active = layer
    assert len(dock.session.annotations()) == 1
    assert dock.session.annotation(layer).subject is not None
    dock.close_session()


def test_a_dropped_weights_file_reaches_the_dock_and_makes_no_layer(viewer, tmp_path: Path):
    weights = tmp_path / "Mine.SAFETENSORS"
    weights.write_bytes(b"")
    reader = contributions.get_model_reader([str(weights)])
    assert reader([str(weights)]) == [(None,)]
    assert docks_of(viewer)[0].loaded == [str(weights)]


def test_napari_itself_gives_weights_files_to_our_reader(viewer, tmp_path: Path):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"")
    assert viewer.open(weights, plugin=PLUGIN) == []
    assert docks_of(viewer)[0].loaded == [str(weights)]


def test_other_files_are_not_for_our_reader():
    assert contributions.get_model_reader("image.tif") is None
    assert contributions.get_model_reader(["a.safetensors", "image.tif"]) is None
    assert contributions.get_model_reader([]) is None


def labels_layer(**options):
    from napari.layers import Labels

    shape = options.pop("shape", (3, 20, 30))
    data = (np.arange(np.prod(shape)) % 6).reshape(shape)
    return Labels(data, **options)


@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif"])
def test_saving_keeps_pixel_size_and_axes(viewer, tmp_path: Path, name):
    layer = labels_layer(scale=(2000, 250, 500), units=("nm",) * 3, axis_labels=("z", "y", "x"))
    viewer.add_layer(layer)
    assert layer.save(str(tmp_path / name), plugin=PLUGIN) == [str(tmp_path / name)]
    mask = read_image(tmp_path / name)
    assert mask.axes == "ZYX"
    assert mask.pixel_size_um == pytest.approx((2, 0.25, 0.5))
    np.testing.assert_array_equal(mask.array, layer.data)


def test_saving_a_time_series_keeps_the_name_of_the_axis(tmp_path: Path):
    layer = labels_layer(axis_labels=("t", "y", "x"), scale=(1, 0.5, 0.5), units="um")
    data, meta, _ = layer.as_layer_data_tuple()
    contributions.write_mask(str(tmp_path / "m.ome.tif"), data, meta)
    mask = read_image(tmp_path / "m.ome.tif")
    assert (mask.axes, mask.pixel_size_um) == ("TYX", (0.5, 0.5))


def test_labels_without_a_length_unit_are_saved_without_a_pixel_size(tmp_path: Path):
    data, meta, _ = labels_layer(shape=(20, 30)).as_layer_data_tuple()
    contributions.write_mask(str(tmp_path / "m.tif"), data, meta)
    assert read_image(tmp_path / "m.tif").pixel_size_um is None


def test_the_single_channel_of_labels_between_other_axes_is_left_out(tmp_path: Path):
    from napari_unet.widget.layers import METADATA_KEY

    layer = labels_layer(shape=(3, 1, 20, 30), metadata={METADATA_KEY: {"axes": "TCYX"}})
    data, meta, _ = layer.as_layer_data_tuple()
    contributions.write_mask(str(tmp_path / "m.ome.tif"), data, meta)
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tif:
        assert tif.series[0].axes == "TYX"


def test_napari_offers_our_writer_for_labels():
    for name in ("m.tif", "m.png"):
        writer = npe2.PluginManager.instance().get_writer(name, ["labels"], plugin_name=PLUGIN)[0]
        assert writer is not None
        assert writer.command == f"{PLUGIN}.write_mask"


@pytest.mark.parametrize("name", ["nuclei", "tissue"])
def test_samples_open_with_their_pixel_size(viewer, name):
    (layer,) = viewer.open_sample(PLUGIN, name)
    assert layer.data.ndim == 2 or layer.rgb
    assert layer.scale[0] < 1
    assert str(layer.units[0]) in {"um", "micrometer"}
