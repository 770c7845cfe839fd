"""Train the bundled model ``cells``, from which other images are learned, on drawn pictures too.

    python training/train_cells.py --data DIR --out cells.safetensors --compile

It starts from the bundled model ``nuclei`` and goes on with the same fluorescence images of the
Data Science Bowl 2018, every third crop turned from bright on dark to dark on bright, and more than
half of the time with drawn pictures of cells, blobs and rods (``drawn.py``). The network learns
from the train split only; the val split gives the scores on the card, and nothing is chosen by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from crops import Crops, CropSettings, make_lesson
from drawn import draw_planes
from objects import DATA_SCIENCE_BOWL, finish, make_card, score, told
from planes import Plane, count_objects, read_planes, sampling_odds
from train_nuclei import ARCHITECTURE, MODALITIES
from trainer import Recipe, Trainer, common_options, train

from napari_unet.arrays.metrics import pooled
from napari_unet.arrays.targets import separation_weights
from napari_unet.models.model import load_model

if TYPE_CHECKING:
    from napari_unet.models.card import Card

START = "nuclei"
DRAWN = 400
REAL_SHARE = 0.45  # of the crops
CROPS = CropSettings(crop_px=160, zoom=(0.5, 2.0), inverted=0.35, grey_values=0.7, noise=0.15)
RECIPE = Recipe(learning_rate=1.5e-3)
STEPS = 1600
EVERY_REAL, FIRST_DRAWN = 4, 60  # of what it learns from: for the threshold and the smallest object


def main() -> None:
    """Read the options, draw, train, judge, and write the model."""
    parser = common_options(__doc__.partition("\n")[0], STEPS)
    parser.add_argument("--start", default=START, help="model of nuclei to go on from")
    options = parser.parse_args()
    real, val = (read_planes(options.data, MODALITIES, split) for split in ("train", "val"))
    drawn = draw_planes(DRAWN, options.seed)
    card = describe(real, drawn)
    odds = [sampling_odds(real) * REAL_SHARE, np.full(DRAWN, (1 - REAL_SHARE) / DRAWN)]
    lessons = [
        make_lesson(plane, card, separation_weights(plane.labels)) for plane in (*real, *drawn)
    ]
    trainer = Trainer(
        card,
        Crops(lessons, CROPS, np.concatenate(odds), seed=options.seed),
        RECIPE,
        steps=options.steps,
        seed=options.seed,
        start=load_model(options.start).net,
        compiled=options.compile,
    )
    model = train(trainer, options, lambda model: told(pooled(score(model, val).values())))
    some = [*real[::EVERY_REAL], *drawn[:FIRST_DRAWN]]
    finish(model, some, val, options.out, "DSB2018 val fluorescence")


def describe(real: list[Plane], drawn: list[Plane]) -> Card:
    """Say what the model is and what it learns from."""
    return make_card(
        real,
        name="cells",
        segments="A start to learn other images from: cells, nuclei, bacteria and the like, "
        "brighter or darker than what lies between, one label per object.",
        architecture=ARCHITECTURE,
        input_channels=("any, bright on dark or dark on bright",),
        training_data=(
            f"{len(drawn)} drawn pictures of cells side by side, blobs and rods in any contrast, "
            f"with {count_objects(drawn):,} objects, and {len(real)} fluorescence images with "
            f"{count_objects(real):,} nuclei of the {DATA_SCIENCE_BOWL} Magnified 0.5 to 2 times "
            "in training, one crop in three with its contrast turned round. Started from the "
            "weights of the bundled model nuclei."
        ),
        parent=START,
    )


if __name__ == "__main__":
    main()
