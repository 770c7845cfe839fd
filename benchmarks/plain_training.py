"""The fine-tuning that everybody writes first, to hold ours against.

All weights learn, by AdamW with a weight decay of 0.1 and one learning rate from beginning to
end, from crops at random, mirrored and turned by quarters, with the cross-entropy over what was
vouched for. Nothing is kept aside, nothing is averaged, the last weights are the result.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_unet import Model, Sample, SegmentSettings
from napari_unet.arrays.targets import make_targets
from napari_unet.network.build import build_network
from napari_unet.runs.samples import prepare_plane

if TYPE_CHECKING:
    from collections.abc import Sequence

WEIGHT_DECAY = 0.1
BATCH, CROP_PX = 4, 128

Arrays = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def train_plainly(
    model: Model,
    samples: Sequence[Sample],
    settings: SegmentSettings,
    rate: float,
    seconds: float,
    steps: int | None = None,
    seed: int = 0,
    *,
    from_scratch: bool = False,
) -> tuple[Model, int]:
    """Train a copy of a model, or a new one like it; returns it and the steps it took."""
    began = time.monotonic()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    net = build_network(model.card.architecture) if from_scratch else copy.deepcopy(model.net)
    net.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    planes = _prepare(model, samples, settings)
    done = 0
    while done < steps if steps else time.monotonic() - began < seconds:
        crops = [_draw(planes, random) for _ in range(BATCH)]
        images, targets, known = (torch.stack(parts) for parts in zip(*crops, strict=True))
        loss = functional.binary_cross_entropy_with_logits(net(images), targets, reduction="none")
        loss = (loss.mean(dim=1, keepdim=True) * known).sum() / known.sum().clamp_min(1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1
    return Model(net.eval(), model.card), done


def _prepare(model: Model, samples: Sequence[Sample], settings: SegmentSettings) -> list[Arrays]:
    """Scale the samples as they are segmented, and make targets of their labels."""
    prepared = []
    for sample in samples:
        plane = prepare_plane(sample, model.card, settings, CROP_PX, model.net.stride)
        if plane is not None:
            maps = (plane.image, make_targets(plane.truth, model.card.outputs), plane.vouched[None])
            pad = [(0, 0), *[(0, max(0, CROP_PX - side)) for side in plane.truth.shape]]
            image = np.pad(maps[0], pad, mode="symmetric")
            prepared.append((image, *(np.pad(each, pad) for each in maps[1:])))
    return [tuple(torch.from_numpy(each).float() for each in plane) for plane in prepared]


def _draw(planes: list[Arrays], random: np.random.Generator) -> Arrays:
    """Cut a crop around a vouched pixel; mirror and turn it."""
    areas = np.array([float(known.sum()) for *_, known in planes])
    plane = planes[int(random.choice(len(planes), p=areas / areas.sum()))]
    known = plane[2][0]
    pixel = torch.nonzero(known)[int(random.integers(int(known.sum())))].tolist()
    starts = [
        min(max(0, at - int(random.integers(CROP_PX))), side - CROP_PX)
        for at, side in zip(pixel, known.shape, strict=True)
    ]
    at = (slice(None), *(slice(start, start + CROP_PX) for start in starts))
    turns, mirror = int(random.integers(4)), bool(random.integers(2))
    cut = [torch.rot90(each[at], turns, (1, 2)) for each in plane]
    image, targets, vouched = (each.flip(2) if mirror else each for each in cut)
    return image, targets, vouched
