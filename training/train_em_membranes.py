"""Train the bundled model ``em-membranes`` on the sections of the ISBI 2012 challenge.

    python training/train_em_membranes.py --data DIR --out em-membranes.safetensors --compile
    python training/train_em_membranes.py --data DIR --out paper.safetensors --paper --steps 60

Loss and augmentation are those of the paper; with ``--paper`` the network and the optimiser, too.
The network learns from sections 0 to 19. Sections 20 to 23 only judge, as the challenge does; the
threshold of the labels is chosen on sections 0 to 19. What was published, what the
files are and how this is judged is told in ``training/README.md``.

References
----------
Ronneberger, Fischer, Brox (2015), U-Net, doi:10.1007/978-3-319-24574-4_28.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import tifffile
from challenge import THRESHOLDS, pixel_error, rand_error
from crops import Crops, CropSettings, make_lesson
from objects import AUTHORS, choose_instances, score, told
from planes import Plane, count_objects, object_size_px
from scipy import ndimage
from trainer import Recipe, Trainer, common_options, say, train

from napari_unet.arrays.metrics import pooled
from napari_unet.arrays.targets import separation_weights
from napari_unet.models.card import FOREGROUND, Card
from napari_unet.models.model import Model, save_model
from napari_unet.network.presets import find_preset
from napari_unet.runs.predict import predict
from napari_unet.settings import Architecture, InstanceSettings, Normalization, SegmentSettings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

TRAINED, JUDGED = range(20), range(20, 24)  # sections
ARCHITECTURE = Architecture(widths=(16, 48, 96, 192, 256), norm="batch", bias=False, classes=2)
OUTPUTS = ("membrane", FOREGROUND)
CELL = OUTPUTS.index(FOREGROUND)
CROPS = CropSettings(
    zoom=(0.8, 1.25),
    rotation_degrees=30,
    elastic_px=10,  # as in the paper
    grey_values=0.4,
    blurred=0.2,
    blur_sigma_px=(0.4, 1.2),
)
RECIPE = Recipe(learning_rate=2e-3, batch=4, loss="cross-entropy")
STEPS = 2200
PAPER_CROPS = CropSettings(
    crop_px=316, elastic_px=10, rotation_degrees=30, grey_values=0.4, blurred=0, noisy=0
)
PAPER_RECIPE = Recipe(
    learning_rate=1e-3,
    weight_decay=0,
    batch=1,
    loss="cross-entropy",
    average_steps=20,
    optimizer="sgd",
)


def main() -> None:
    """Read the options, train, judge, and write the model."""
    parser = common_options(__doc__.partition("\n")[0], STEPS)
    parser.add_argument("--paper", action="store_true", help="train ronneberger2015 as published")
    options = parser.parse_args()
    planes = read_sections(options.data, TRAINED)
    architecture = find_preset("ronneberger2015") if options.paper else ARCHITECTURE
    card = make_card(planes, architecture)
    lessons = [
        make_lesson(plane, card, separation_weights(plane.labels, balance=True)) for plane in planes
    ]
    crops, recipe = (PAPER_CROPS, PAPER_RECIPE) if options.paper else (CROPS, RECIPE)
    trainer = Trainer(
        card,
        Crops(lessons, crops, seed=options.seed),
        recipe,
        steps=options.steps,
        seed=options.seed,
        compiled=options.compile,
    )
    unseen = read_sections(options.data, JUDGED)
    model = train(trainer, options, lambda model: told(judge(model, unseen)))
    if options.paper:
        say(told(judge(model, unseen)))
        save_model(model, options.out)
    else:
        finish(model, planes, unseen, options.out)


def read_sections(folder: Path, sections: range) -> list[Plane]:
    """Read some sections; the cells are the connected parts between the membranes."""
    images = tifffile.imread(folder / "images.tif")
    membranes = tifffile.imread(folder / "labels.tif")
    return [
        Plane(f"section {at}", str(at), images[at][None], ndimage.label(membranes[at] == 0)[0])
        for at in sections
    ]


def finish(model: Model, planes: list[Plane], unseen: list[Plane], out: Path) -> None:
    """Choose how cells are cut out, score the unseen sections with and without turns, and save."""
    instances = choose_instances(model, planes)
    model = Model(model.net, model.card.replace(instances=instances))
    plain = judge(model, unseen)
    turned = judge(model, unseen, SegmentSettings(augment=True))
    say(f"sections {JUDGED.start} to {JUDGED.stop - 1}: {told(plain)}")
    say(f"the same, mean of 8 turns: {told(turned)}")
    found = pooled(score(model, unseen).values())["ap50"]
    say(f"cells as they are labelled: AP50 {found:.4f}")
    where = f"ISBI 2012 sections {JUDGED.start}-{JUDGED.stop - 1}"
    scores = {f"{name}, {where}": value for name, value in plain.items()}
    scores |= {f"{name}, {where}, mean of 8 turns": value for name, value in turned.items()}
    scores[f"AP50 of the cells, pooled, {where}"] = found
    card = model.card.replace(scores={name: round(value, 4) for name, value in scores.items()})
    say(str(save_model(Model(model.net, card), out, half=True)))


def judge(
    model: Model, planes: list[Plane], settings: SegmentSettings | None = None
) -> dict[str, float]:
    """Score a model as the challenge does."""
    probabilities = [cells(model, plane, settings) for plane in planes]
    truths = [plane.labels for plane in planes]
    return {
        "adapted Rand error at the best threshold": rand_error(probabilities, truths, THRESHOLDS),
        "pixel error at the best threshold": pixel_error(probabilities, truths, THRESHOLDS),
    }


def cells(
    model: Model, plane: Plane, settings: SegmentSettings | None = None
) -> NDArray[np.float32]:
    """Compute the probability of not being membrane, shape (Y, X)."""
    probability: NDArray[Any] = predict(model, plane.image, "CYX", settings)
    return probability[CELL]


def make_card(planes: list[Plane], architecture: Architecture) -> Card:
    """Say what the model is and what it learns from."""
    return Card(
        name="em-membranes",
        segments="Cells (neurites) between their membranes in electron microscopy of nervous "
        "tissue: one label per cell, 0 on the membranes. The first channel of the probability is "
        "the membrane itself.",
        architecture=architecture,
        input_channels=("electron microscopy, membranes dark",),
        normalization=Normalization(kind="percentile", low=1.0, high=99.8),
        outputs=OUTPUTS,
        activation="softmax",
        # Cells have any shape: only a membrane parts them, never a narrow place.
        instances=InstanceSettings(split=False, min_size=50, fill_holes=True),
        pixel_size_um=0.004,
        object_size_px=object_size_px(planes),
        training_data=(
            f"Sections {TRAINED.start}-{TRAINED.stop - 1} ({count_objects(planes):,} cells) of the "
            "serial section transmission electron microscopy of the ventral nerve cord of a "
            "Drosophila first instar larva, 4 x 4 x 50 nm, of the ISBI 2012 challenge (training "
            "part, public for research with citation); no image is part of this file."
        ),
        licence="BSD-3-Clause",
        authors=AUTHORS,
        cite=(
            "Cardona et al. (2010), PLoS Biology, doi:10.1371/journal.pbio.1000502 (images)",
            "Arganda-Carreras et al. (2015), Frontiers in Neuroanatomy, "
            "doi:10.3389/fnana.2015.00142 (challenge)",
            "Ronneberger, Fischer, Brox (2015), U-Net, doi:10.1007/978-3-319-24574-4_28",
        ),
        created=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    )


if __name__ == "__main__":
    main()
