"""An array on disk for what does not fit into memory and nobody keeps."""

from __future__ import annotations

import math
import tempfile
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_unet.errors import FileError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ScratchArray:
    """An array in a temporary file; used in a ``with``, at whose end the file is gone.

    Only what is read or written at a moment is in memory: the file is mapped for each access
    anew, as the pages of a map that stays open count as memory of the program.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : dtype
        Of its values, which are 0 until they are written.

    Raises
    ------
    FileError
        If the disk has no room.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        size = math.prod(shape) * self.dtype.itemsize
        self._file = tempfile.TemporaryFile(prefix="napari-unet-")
        try:
            self._file.truncate(size)
        except OSError as error:
            self._file.close()
            raise FileError(
                f"The folder of temporary files {tempfile.gettempdir()} has no room for "
                f"{size / 2**30:.1f} GiB ({error.strerror}). Make room there, or choose another "
                "folder by the environment variable TMPDIR."
            ) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the file."""
        self._file.close()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> NDArray[Any]:
        return np.array(self._mapped("r")[at])

    def __setitem__(self, at: Any, values: Any) -> None:
        self._mapped("r+")[at] = values

    def _mapped(self, mode: Any) -> NDArray[Any]:
        """Map the file for one access."""
        return np.memmap(self._file, self.dtype, mode, shape=self.shape)
