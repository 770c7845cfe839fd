"""How many checked regions are told to have labels that cannot be right, rightly and wrongly.

A simulated person (``simulated_person.py``) checks a region of 256 x 256 pixels, well or
carelessly, on images of each domain (``domains.py``). Counted are the regions that
``napari_unet.runs.misfits`` calls wrong: of those checked well none should be, of those whose
labels were moved, or whose objects and background were changed round, as many as can be told for
sure. Labels of another picture, that lack objects or join them are not looked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from common import common_options, markdown, write_json
from domains import READERS, read_domain
from simulated_person import CARELESS, Place, choose_settings, draw_places, labels_for

from napari_unet import Sample, load_model
from napari_unet.errors import LabelsError
from napari_unet.runs.misfits import find_misfits
from napari_unet.runs.sample_checks import check_samples
from napari_unet.runs.samples import prepare_plane
from napari_unet.runs.zoom import choose_zoom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domains import Domain, Picture

    from napari_unet import Model

DOMAINS = [name for name in READERS if name != "generated"]
SEEDS, FIRST_SEED = 20, 1000
CROP_PX = 128


def count_misfits(model: Model, domain: Domain, kind: str, seeds: range) -> tuple[int, int, int]:
    """Check a region for each seed; how many are called wrong, refused before that, and all."""
    found = refused = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        places = draw_places(domain.pool, 1, random)
        settings = choose_settings(model.card, domain.pool, places)
        sample = check(domain.pool, places[0], kind, random)
        try:
            check_samples([sample], model.card)
        except LabelsError:
            refused += 1
            continue
        plane = prepare_plane(sample, model.card, settings, CROP_PX, model.net.stride)
        found += bool(find_misfits([plane], choose_zoom(model.card, settings)))
    return found, refused, len(seeds)


def check(pool: Sequence[Picture], place: Place, kind: str, random: np.random.Generator) -> Sample:
    """Check one region of a picture; nothing is known of the rest."""
    image, truth = pool[place.picture].image, pool[place.picture].labels
    labels, labelled = np.zeros(truth.shape, np.int64), np.zeros(truth.shape, bool)
    labels[place.box], seen = labels_for(pool, place, kind, random)
    labelled[place.box][seen] = True
    return Sample(image, labels, labelled)


def main() -> None:
    """Read the options, check, print the table."""
    parser = common_options(__doc__)
    parser.add_argument("--domains", nargs="+", choices=list(READERS), default=DOMAINS)
    parser.add_argument("--seeds", type=int, help="regions of each kind in each domain")
    options = parser.parse_args()
    count = options.seeds or (2 if options.quick else SEEDS)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    model = load_model("nuclei")
    rows = []
    domains = [read_domain(name) for name in (["generated"] if options.quick else options.domains)]
    for kind in CARELESS:
        counts = [count_misfits(model, domain, kind, seeds) for domain in domains]
        told = [f"{found}" + f" + {no} refused" * bool(no) for found, no, _ in counts]
        seen, every = sum(a + b for a, b, _ in counts), sum(c for *_, c in counts)
        rows.append((kind, *told, f"{seen} of {every}"))
        print(*rows[-1], sep="  ", flush=True)
    print(f"\nRegions called wrong, of {count} in each domain\n")
    print(markdown(("labels", *(domain.name for domain in domains), "in all"), rows))
    write_json(options.json, seeds=count, rows=rows)


if __name__ == "__main__":
    main()
