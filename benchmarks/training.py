"""What a training step costs: beside a bare PyTorch loop, in half precision, and to change crops.

1. The whole of our loop (drawing, changing and copying crops, clipping, the average of the weights,
   progress, a thread of its own) against the loop of a PyTorch tutorial, which is given the same
   batches ready made. Both have the same network, loss and optimiser.
2. The step of our loop in bfloat16 against that in float32, where the processor is made for it.
3. The elastic deformation of a batch against MONAI's and kornia's.
"""

from __future__ import annotations

import copy
import statistics
from typing import TYPE_CHECKING

import numpy as np
import torch
from common import (
    Others,
    alternate,
    common_options,
    keep_memory,
    machine,
    make_image,
    make_model,
    markdown,
    write_json,
)

from napari_unet import FinetuneSettings, Model
from napari_unet.network.augment import draw_changes
from napari_unet.network.losses import masked_loss
from napari_unet.runs.background import Background
from napari_unet.runs.crops import Crops
from napari_unet.runs.learner import Learner
from napari_unet.runs.optimizer import is_fast_in_half
from napari_unet.runs.samples import Plane
from napari_unet.runs.team import Team
from napari_unet.sample_data import nuclei

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Batch = tuple[Tensor, Tensor, Tensor]

PLANE_PX = 512
RUNS = 7
CASES = {  # network, crops at once, side of a crop, steps in a run
    "light-bn, 8 x 256²": ("light-bn", 8, 256, 3),
    "light-bn, 4 x 128²": ("light-bn", 4, 128, 16),
    "nuclei, 4 x 128²": ("nuclei", 4, 128, 8),
}
QUICK_CASES = {"light-bn, 2 x 64²": ("light-bn", 2, 64, 4)}
LOOPS = ("ours, float32", "bare, float32", "ours, half", "bare, half")
COMPARED = (  # turn by turn
    ("ours, float32", "bare, float32"),
    ("ours, half", "bare, half"),
    ("ours, half", "ours, float32"),
)
ELASTIC = (8, 256)  # crops, side
SPACING = (127, 127)  # of MONAI's grid: three nodes along 256 pixels
BENT_PX = 10.0


# ------------------------------------------------------------------------------------ the loops


def make_crops(model: Model, crop_px: int) -> Crops:
    """Make crops of a generated image, all of it vouched for."""
    image = make_image(PLANE_PX, model.card.architecture.in_channels)
    truth = nuclei((PLANE_PX, PLANE_PX), seed=0)[1]
    nothing = np.zeros(truth.shape, bool)
    plane = Plane(image, truth, ~nothing, nothing, nothing)
    return Crops([plane], [nothing], model.card, crop_px, model.net.margin)


def our_loop(learner: Learner, crops: Crops, steps: int) -> None:
    """Take steps as a fine-tuning takes them: in a thread, with progress."""
    with Background() as background, Team(learner.settings) as team:
        for _ in range(steps):
            for _ in background.run(team.step, learner, crops, 0.5):
                pass
            if learner.is_report_due:
                learner.mean_loss()


def bare_loop(
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[Batch],
    activation: str,
    half: torch.dtype | None,
) -> None:
    """Take steps as a tutorial takes them: forward, loss, backward, step."""
    for images, targets, weights in batches:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, half, enabled=half is not None):
            answer = net(images)
        masked_loss(answer, targets, weights, activation).backward()
        optimizer.step()


def make_loops(name: str, batch: int, crop_px: int, steps: int, device: str) -> dict[str, Callable]:
    """Make both loops, on the same batches, in the precisions that the processor is made for."""
    model = make_model(name)
    crops = make_crops(model, crop_px)
    loops: dict[str, Callable[[], None]] = {}
    for precision in ("float32", "half") if is_fast_in_half(torch.device(device)) else ("float32",):
        settings = FinetuneSettings(
            batch=batch, crop_px=crop_px, device=device, precision=precision, batch_norm="adapt"
        )
        drawn = Learner(model, settings)
        batches = [drawn.draw_batch(crops) for _ in range(steps)]
        net = copy.deepcopy(model.net).to(drawn.device).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, fused=True)
        learner, half = Learner(model, settings), drawn.half
        loops[f"ours, {precision}"] = lambda learner=learner: our_loop(learner, crops, steps)
        loops[f"bare, {precision}"] = (
            lambda each=(net, optimizer, batches, model.card.activation, half): bare_loop(*each)
        )
    return loops


def synchronised(variants: dict[str, Callable], device: str) -> dict[str, Callable]:
    """Let each variant wait for the GPU."""
    if device == "cpu":
        return variants

    def waiting(function: Callable) -> Callable[[], None]:
        def run() -> None:
            function()
            torch.cuda.synchronize()

        return run

    return {name: waiting(function) for name, function in variants.items()}


def measure_loops(cases: dict, device: str, runs: int) -> list[tuple[str, ...]]:
    """Time the loops of all cases; milliseconds a step and their ratios."""
    rows = []
    for title, case in cases.items():
        variants = synchronised(make_loops(*case, device), device)
        for run in variants.values():  # once without counting
            run()
        seconds = alternate(variants, runs)
        ms = (_milliseconds(seconds.get(name), case[-1]) for name in LOOPS)
        ratios = (_ratio(seconds.get(one), seconds.get(two)) for one, two in COMPARED)
        rows.append((title, *ms, *ratios))
    return rows


def _milliseconds(seconds: list[float] | None, steps: int) -> str:
    """Say how long a step takes, if it was timed."""
    return f"{1000 * statistics.median(seconds) / steps:.1f}" if seconds else "-"


def _ratio(one: list[float] | None, other: list[float] | None) -> str:
    """Say how many times as long one takes as the other in the same turn, if both were timed."""
    if not one or not other:
        return "-"
    return f"{statistics.median(a / b for a, b in zip(one, other, strict=True)):.2f}"


# ----------------------------------------------------------------------------- the deformation


def make_deformations(count: int, side: int, device: str) -> dict[str, Callable[[], object]]:
    """Make each program's elastic deformation of a batch of images with their masks."""
    images = torch.rand(count, 1, side, side, device=device)
    masks = (torch.rand(count, 1, side, side, device=device) > 0.5).float()
    known = torch.ones_like(masks)
    size = (side, side)

    def ours() -> None:
        changes = draw_changes(count, 1, size, flips=False, grey_values=0, elastic_px=BENT_PX)
        changes.apply(images, masks, known)

    variants: dict[str, Callable[[], object]] = {"ours": ours}
    try:
        from monai.transforms import Rand2DElasticd
    except ImportError:
        pass
    else:
        bend = Rand2DElasticd(
            ["image", "mask", "known"],
            spacing=SPACING,
            magnitude_range=(BENT_PX, BENT_PX),
            prob=1.0,
            mode=["bilinear", "nearest", "nearest"],
            padding_mode=["reflection", "zeros", "zeros"],
            device=torch.device(device),
        )

        def monai() -> None:
            for image, mask, weight in zip(images, masks, known, strict=True):
                bend({"image": image, "mask": mask, "known": weight})

        variants["MONAI, Rand2DElasticd"] = monai
    try:
        from kornia.augmentation import AugmentationSequential, RandomElasticTransform
    except ImportError:
        pass
    else:
        turn = RandomElasticTransform(kernel_size=(63, 63), sigma=(32.0, 32.0), p=1.0)
        chain = AugmentationSequential(turn, data_keys=["input", "mask", "mask"])

        def kornia() -> None:
            chain(images, masks, known)

        variants["kornia, RandomElasticTransform"] = kornia
    return variants


def measure_deformations(count: int, side: int, device: str, runs: int) -> list[tuple[str, ...]]:
    """Time the deformations; milliseconds a batch, and how many times ours."""
    variants = synchronised(make_deformations(count, side, device), device)
    for run in variants.values():
        run()
    seconds = alternate(variants, runs)
    ours = statistics.median(seconds["ours"])
    return [
        (name, f"{1000 * statistics.median(each):.1f}", f"{statistics.median(each) / ours:.1f}")
        for name, each in seconds.items()
    ]


def main() -> None:
    """Read the options, measure, print the tables."""
    parser = common_options(__doc__)
    parser.add_argument("--runs", type=int, help="timed runs of each variant")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=("loops", "elastic"), help="one of the tables")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_memory()
    runs, cases = (2, QUICK_CASES) if options.quick else (options.runs or RUNS, CASES)
    where = machine(options.threads, ("monai", "kornia"), options.device)
    print(f"\n{where}; {runs} runs")
    tables: dict[str, list[tuple[str, ...]]] = {}
    if options.only != "elastic":
        others = Others()
        tables["loops"] = measure_loops(cases, options.device, runs)
        columns = ("", *LOOPS)
        ratios = ("ours / bare, float32", "ours / bare, half", "half / float32, ours")
        print(
            f"\nMilliseconds a step; {others}:\n\n{markdown((*columns, *ratios), tables['loops'])}"
        )
    if options.only != "loops":
        others = Others()
        count, side = (2, 64) if options.quick else ELASTIC
        tables["elastic"] = measure_deformations(count, side, options.device, runs)
        title = f"\n{count} images of {side} x {side} with mask and weights; {others}:\n"
        print(f"{title}\n{markdown(('', 'ms', 'times ours'), tables['elastic'])}")
    write_json(options.json, machine=where, **tables)


if __name__ == "__main__":
    main()
