"""How the ISBI 2012 challenge judged segmentations of electron microscopy.

From the network comes, for each pixel, the probability of being cell and not membrane. For each
threshold the pixels above it are cells, cells that do not meet are different ones (no diagonals),
and the error is that of the best threshold, the same one for all sections:

Pixel error
    One minus the F-score of the pixels that are cell, in answer and truth.
Adapted Rand error
    One minus the F-score of pairs of pixels that belong together, as
    :func:`skimage.metrics.adapted_rand_error`: only pixels count that are cell in the truth
    ("foreground-restricted"). The truth has wide membranes and a threshold leaves membranes of
    any width, so those of the answer are first thinned to nothing: cells grow, by watershed on the
    probability, until they meet ("border thinning"). Averaged over the sections.

The published figures of the U-Net (Rand error 0.0382, pixel error 0.0611) are those of the ten
hidden sections of the challenge with the mean of seven turns; ours are those of public sections.

References
----------
Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms for
connectomics, doi:10.3389/fnana.2015.00142.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.metrics import adapted_rand_error
from skimage.segmentation import watershed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Maps = Sequence[NDArray[Any]]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(4, 20))


def pixel_error(probabilities: Maps, truths: Maps, thresholds: Sequence[float]) -> float:
    """One minus the F-score of cell pixels over all sections, at the best threshold.

    ``probabilities`` are those of being cell, shape (Y, X) each; ``truths`` are labels of the
    same shape, 0 on the membranes.
    """
    answer, cell = np.concatenate(probabilities), np.concatenate(truths) > 0
    return min(_f_error(answer > threshold, cell) for threshold in thresholds)


def rand_error(probabilities: Maps, truths: Maps, thresholds: Sequence[float]) -> float:
    """Adapted Rand error, mean over the sections, at the best threshold."""
    return min(
        float(
            np.mean(
                [
                    adapted_rand_error(truth, thin_borders(probability, threshold))[0]
                    for probability, truth in zip(probabilities, truths, strict=True)
                ]
            )
        )
        for threshold in thresholds
    )


def thin_borders(probability: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Label the cells above a threshold and let them grow until they meet."""
    seeds, _ = ndimage.label(probability > threshold)
    return watershed(-probability, seeds)


def _f_error(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """One minus the F-score of two masks; 0 if both are empty."""
    together = np.count_nonzero(answer) + np.count_nonzero(truth)
    return 1 - 2 * np.count_nonzero(answer & truth) / together if together else 0.0
