"""Make the pictures of the README anew: the loop by hand, with a screenshot of each step.

    make pictures

The steps are those of ``tests/test_loop.py``, so a picture cannot show what does not work. They
use images of the Data Science Bowl 2018 (CC0); where their folder is, is told by
NAPARI_UNET_TEST_DATA. With the usual budget of 60 s the retrained model must be taken, or no
picture is complete: on a machine that is busy meanwhile it may learn too little for that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LOOP = HERE.parent / "tests" / "test_loop.py"


def main() -> int:
    """Run the loop with pictures; returns pytest's exit status."""
    os.environ["NAPARI_UNET_PICTURES"] = str(HERE / "pictures")
    os.environ.setdefault("NAPARI_UNET_REQUIRE_DATA", "1")
    os.environ.setdefault("NAPARI_UNET_LOOP_SECONDS", "60")
    os.chdir(HERE.parent)
    return int(pytest.main(["--no-xvfb", "-m", "slow", "-k", "whole_loop", str(LOOP)]))


if __name__ == "__main__":
    sys.exit(main())
