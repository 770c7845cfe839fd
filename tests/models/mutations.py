"""How many damaged copies of a file a test makes."""

from __future__ import annotations

import os

FACTOR_VARIABLE = "NAPARI_UNET_MUTATIONS"


def mutations(usual: int) -> int:
    """Return how many damaged copies to make: the usual number, or as many times more as is asked.

    ``NAPARI_UNET_MUTATIONS=20 pytest -m slow tests/models -k damaged`` tries thousands of each
    format, and takes an hour.
    """
    return max(1, int(usual * float(os.environ.get(FACTOR_VARIABLE, "1"))))
