"""Images to try the plugin on, without a download: generated ones, whose truth is known, and real.

The generated images follow the way a microscope makes them: objects with an uneven outline are
laid out, some of them touching; each has its brightness and texture; the optics blur them and
add haze; photons are counted (Poisson) and the camera adds its offset and read noise. The same
seed gives the same image.

The real images are those that come with scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.errors import ImageError
from napari_unet.sample_data.fluorescence import nuclei, stack
from napari_unet.sample_data.stained import tissue

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_unet.sample_data.layout import Labels

__all__ = ["SAMPLES", "Sample", "nuclei", "sample", "stack", "tissue"]

PIXEL_SIZE_UM = 0.5
STACK_PIXEL_SIZE_UM = (1.0, 0.5, 0.5)


@dataclass(frozen=True)
class Sample:
    """An image to try, and its true labels where they are known.

    ``pixel_size_um`` has one value per spatial axis (Z first) or is None when unknown.
    """

    name: str
    image: NDArray[np.uint8] | NDArray[np.uint16]
    labels: Labels | None
    axes: str
    pixel_size_um: tuple[float, ...] | None


def sample(name: str) -> Sample:
    """Return one of the samples by its name.

    Parameters
    ----------
    name : str
        One of :data:`SAMPLES`.

    Returns
    -------
    Sample
        Made anew on each call.

    Raises
    ------
    ImageError
        If there is no sample of that name.
    """
    if name not in SAMPLES:
        raise ImageError(f"There is no sample {name!r}. Choose one of: {', '.join(SAMPLES)}.")
    return SAMPLES[name]()


def _sample_nuclei() -> Sample:
    image, labels = nuclei()
    return Sample("nuclei", image, labels, "YX", (PIXEL_SIZE_UM, PIXEL_SIZE_UM))


def _sample_tissue() -> Sample:
    image, labels = tissue()
    return Sample("tissue", image, labels, "YX", (PIXEL_SIZE_UM, PIXEL_SIZE_UM))


def _sample_stack() -> Sample:
    image, labels = stack()
    return Sample("stack", image, labels, "ZYX", STACK_PIXEL_SIZE_UM)


def _sample_cell() -> Sample:
    from skimage import data

    return Sample("cell", data.cell(), None, "YX", None)


def _sample_coins() -> Sample:
    from skimage import data

    return Sample("coins", data.coins(), None, "YX", None)


def _sample_histology() -> Sample:
    from skimage import data

    return Sample("histology", data.immunohistochemistry(), None, "YXC", None)


SAMPLES: dict[str, Callable[[], Sample]] = {
    "nuclei": _sample_nuclei,
    "tissue": _sample_tissue,
    "stack": _sample_stack,
    "cell": _sample_cell,
    "coins": _sample_coins,
    "histology": _sample_histology,
}
