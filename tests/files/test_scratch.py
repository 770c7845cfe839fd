"""An array on disk is an array, and is gone afterwards."""

import numpy as np
import pytest

from napari_unet.errors import FileError
from napari_unet.files import scratch
from napari_unet.files.scratch import ScratchArray


def test_what_is_written_is_read_and_the_rest_is_zero():
    with ScratchArray((2, 30, 40), np.float32) as array:
        array[:, 3:5, 7:9] = 4
        assert array.shape == (2, 30, 40)
        assert len(array) == 2
        assert array[1, 3, 7] == 4
        assert array[:, :, :].sum() == 4 * 8
        part = array[0, 3:5]
        part[:] = 9  # a copy
        assert array[0].max() == 4


def test_a_full_disk_is_told_in_a_sentence(monkeypatch):
    class Full:
        def truncate(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(FileError, match=r"no room for 0\.0 GiB .*TMPDIR"):
        ScratchArray((10, 10), np.float32)
