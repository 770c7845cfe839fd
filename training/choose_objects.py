"""Choose anew how the objects of a trained model are found, and judge it.

    python training/choose_objects.py --model nuclei --data DIR --out nuclei.safetensors
        [--modalities fluorescence]

The weights stay as they are. Threshold and smallest object are those with the best AP on the
train split, which the model has learned from; the val split gives the scores on the card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from objects import finish
from planes import read_planes

from napari_unet.models.model import load_model


def main() -> None:
    """Read the options, choose, judge, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="nuclei", help="name or file, default %(default)s")
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    parser.add_argument("--modalities", nargs="+", default=["fluorescence"], help="of the images")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    options = parser.parse_args()
    planes, val = (
        read_planes(options.data, options.modalities, split) for split in ("train", "val")
    )
    finish(
        load_model(options.model), planes, val, options.out, f"DSB2018 val {options.modalities[0]}"
    )


if __name__ == "__main__":
    main()
