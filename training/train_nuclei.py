"""Train the bundled model ``nuclei`` on the fluorescence images of the Data Science Bowl 2018.

    python training/train_nuclei.py --data DIR --out nuclei.safetensors --compile [--start MODEL]

The data and the recipe are described in ``training/README.md``. The network learns from the
train split only; the val split gives the scores on the card, and nothing is chosen by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crops import CropSettings
from objects import DATA_SCIENCE_BOWL, finish, make_card, make_crops, score, told
from planes import Plane, count_objects, read_planes
from trainer import Recipe, Trainer, common_options, train

from napari_unet.arrays.metrics import pooled
from napari_unet.models.model import load_model
from napari_unet.settings import Architecture

if TYPE_CHECKING:
    from napari_unet.models.card import Card

MODALITIES = ("fluorescence",)
ARCHITECTURE = Architecture(widths=(16, 32, 64, 128, 256), norm="batch", bias=False, classes=2)
CROPS = CropSettings(zoom=(0.5, 2.0), inverted=0.1)  # nuclei of 10 px and of 80 px
RECIPE = Recipe(learning_rate=1.5e-3)
STEPS = 2400


def main() -> None:
    """Read the options, train, judge, and write the model."""
    parser = common_options(__doc__.partition("\n")[0], STEPS)
    parser.add_argument("--start", help="model to go on from; random weights if not given")
    options = parser.parse_args()
    planes, val = (read_planes(options.data, MODALITIES, split) for split in ("train", "val"))
    card = describe(planes)
    trainer = Trainer(
        card,
        make_crops(planes, card, CROPS, options.seed),
        RECIPE,
        steps=options.steps,
        seed=options.seed,
        start=load_model(options.start).net if options.start else None,
        compiled=options.compile,
    )
    model = train(trainer, options, lambda model: told(pooled(score(model, val).values())))
    finish(model, planes, val, options.out, "DSB2018 val fluorescence")


def describe(planes: list[Plane]) -> Card:
    """Say what the model is and what it learns from."""
    return make_card(
        planes,
        name="nuclei",
        segments="Nuclei in fluorescence images (DNA stains such as DAPI or Hoechst), one label "
        "per nucleus.",
        architecture=ARCHITECTURE,
        input_channels=("nuclear stain, bright on dark",),
        training_data=(
            f"{len(planes)} fluorescence images with {count_objects(planes):,} nuclei of the "
            f"{DATA_SCIENCE_BOWL} Pixel size not given; magnified 0.5 to 2 times in training, one "
            "in ten shown dark on bright. No stained tissue."
        ),
    )


if __name__ == "__main__":
    main()
