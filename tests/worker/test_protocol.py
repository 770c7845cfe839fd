import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet.settings import SegmentSettings
from napari_unet.worker import protocol


@pytest.mark.parametrize(
    "event",
    [
        protocol.Ready("CPU, 2 cores"),
        protocol.Progress(1, "tile", fraction=0.5, seconds_left=3.5, done=1, total=2),
        protocol.Progress(1, "step", step=3, loss=float("nan"), held_out=None),
        protocol.Progress(1, "note", text="Zellkerne: größer als 10 µm\nsecond line"),
        protocol.Done(2, {"axes": "YX", "notes": []}, {"labels": "/a b/ü.npy"}),
        protocol.Failed(2, "It went wrong.", is_expected=True),
        protocol.Cancelled(3),
    ],
)
def test_an_event_comes_back_as_it_went_in_one_line(event):
    line = protocol.encode(event)
    assert line.count(b"\n") == 1
    assert repr(protocol.decode_event(line)) == repr(event)


@pytest.mark.parametrize(
    "request_",
    [
        protocol.Request(3, "segment", "/folder", {"axes": "YX"}, {"image": "a.npy"}),
        protocol.Cancel(3),
        protocol.Stop(3),
    ],
)
def test_a_request_comes_back_as_it_went(request_):
    assert protocol.decode_request(protocol.encode(request_)) == request_


def test_settings_paths_and_numpy_numbers_become_plain_values():
    values = {"settings": SegmentSettings(), "path": Path("x"), "number": np.int64(3)}
    back = protocol.decode_request(protocol.encode(protocol.Request(1, "job", "", values)))
    assert isinstance(back, protocol.Request)
    assert SegmentSettings.model_validate(back.parameters["settings"]) == SegmentSettings()
    assert (back.parameters["path"], back.parameters["number"]) == ("x", 3)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"a library says hello",
        b"{",
        b"[1, 2]",
        b"3",
        b"null",
        b"{}",
        b'{"event": "dance", "id": 1}',
        b'{"event": "ready"}',
        b'{"event": ["ready"]}',
        b'{"event": "cancelled", "id": 1, "more": 2}',
        b"\xff\xfe{}",
    ],
)
def test_garbage_is_neither_event_nor_request(line):
    assert protocol.decode_event(line) is None
    with pytest.raises(ValueError, match="No request"):
        protocol.decode_request(line)


def test_an_array_is_opened_without_being_read_or_changed(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.zeros((3, 4)))
    array = protocol.open_array(path, is_writable=True)
    array[:] = 1
    assert np.load(path).max() == 0
    with pytest.raises(ValueError, match="read-only"):
        protocol.open_array(path)[:] = 1


def test_the_protocol_and_the_engine_import_no_torch():
    script = (
        "import sys, napari_unet.worker.protocol, napari_unet.widget.engine;"
        "sys.exit(any(name.split('.')[0] in ('torch', 'napari', 'scipy') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
