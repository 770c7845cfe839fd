"""Train the model ``nuclei-histology`` on stained tissue of the Data Science Bowl 2018.

    python training/train_nuclei_histology.py --data DIR --out histology.safetensors --compile

It starts from the bundled model ``cells``, which itself never learns from these images: the first
convolution, which there sees one channel, is given to red, green and blue alike with the sign
turned round, as most of what ``cells`` has seen is bright on dark and the nuclei are dark here. The
network learns from the train split only; the val split gives the scores on the card, and nothing is
chosen by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crops import CropSettings
from objects import DATA_SCIENCE_BOWL, finish, make_card, make_crops, score, told
from planes import Plane, count_objects, read_planes
from trainer import Recipe, Trainer, common_options, train

from napari_unet.arrays.metrics import pooled
from napari_unet.models.model import load_model
from napari_unet.network.unet import UNet

if TYPE_CHECKING:
    from napari_unet.models.card import Card

MODALITIES = ("purple_on_white", "purple_on_purple")
START = "cells"
COLOURS = ("red", "green", "blue")
CROPS = CropSettings(crop_px=160, zoom=(0.5, 2.0), grey_values=0.4)
RECIPE = Recipe(learning_rate=1.5e-3, average_steps=200)
STEPS = 1600


def main() -> None:
    """Read the options, train, judge, and write the model."""
    parser = common_options(__doc__.partition("\n")[0], STEPS)
    parser.add_argument("--start", default=START, help="model to go on from")
    options = parser.parse_args()
    planes, val = (read_planes(options.data, MODALITIES, split) for split in ("train", "val"))
    net = see_colours(load_model(options.start).net)
    card = describe(planes, net)
    trainer = Trainer(
        card,
        make_crops(planes, card, CROPS, options.seed),
        RECIPE,
        steps=options.steps,
        seed=options.seed,
        start=net,
        compiled=options.compile,
    )
    model = train(trainer, options, lambda model: told(pooled(score(model, val).values())))
    finish(model, planes, val, options.out, "DSB2018 val stained tissue")


def see_colours(net: UNet) -> UNet:
    """Let a network that sees bright objects in one channel see dark ones in three colours."""
    colours = len(COLOURS)
    widened = UNet(net.architecture.replace(in_channels=colours))
    weights = net.state_dict()
    first = next(key for key, value in weights.items() if value.ndim > 1)
    weights[first] = -weights[first].expand(-1, colours, -1, -1) / colours
    widened.load_state_dict(weights)
    return widened


def describe(planes: list[Plane], net: UNet) -> Card:
    """Say what the model is and what it learns from."""
    return make_card(
        planes,
        name="nuclei-histology",
        segments="Nuclei in stained tissue (haematoxylin and eosin, and the like) in transmitted "
        "light, one label per nucleus.",
        architecture=net.architecture,
        input_channels=COLOURS,
        training_data=(
            f"{len(planes)} images of stained tissue with {count_objects(planes):,} nuclei (purple "
            "on white and purple on purple, few fields of few slides) of the "
            f"{DATA_SCIENCE_BOWL} Pixel size not given; magnified 0.5 to 2 times in training. "
            "Started from the weights of the bundled model cells."
        ),
        parent=START,
    )


if __name__ == "__main__":
    main()
