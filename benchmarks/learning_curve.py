"""How much better a model gets from a few corrected regions on images it has never seen.

    python benchmarks/learning_curve.py --out rows.csv [--domains gowt1 nih3t3] [--regions 1 4]
        [--seconds 60] [--seeds 3] [--first-seed 0] [--methods ours plain-1e-3] [--model nuclei]
        [--choose random] [--set learning_rate=3e-4] [--work 1.78] [--threads 2] [--quick]
    python benchmarks/learning_curve.py --out rows.csv --guard 100
    python benchmarks/learning_curve.py --out rows.csv --table [--plot curve.svg]

A simulated person (``simulated_person.py``) corrects regions of images of a domain
(``domains.py``), the model learns from them within the budget, and is judged by AP at IoU 0.5 =
TP / (TP + FP + FN), objects pooled over images that nobody learns from. The methods:

    none        the model as it is
    ours        napari_unet.finetune with its defaults (or with --set), as the dock calls it
    random      plain training of the same network from random weights, at 1e-3
    plain-1e-3  plain fine-tuning of all weights (``plain_training.py``)
    plain-1e-5  the same with Cellpose's learning rate
    ceiling     ours, with all images of the pool corrected, for 20 minutes

All but the ceiling have the same regions and budget; the ceiling runs for the first seed alone.
Every run appends a row as it ends, and what has a row is not run again: an interrupted grid goes on
with the same command. On a busy machine a budget in seconds buys less. With --work a second of the
budget is so many seconds of the processors' work for the run, whatever else they do: two threads do
in 60 s what one does in 107 s, so --threads 1 --work 1.78 is 60 s of two idle cores, and there can
be as many runs side by side as there are cores. OMP_WAIT_POLICY=PASSIVE keeps threads that wait
from counting as work. --steps gives all methods the same number of steps.

The guard's runs are short and have good and bad corrections mixed: each region is corrected well
with a chance of one half, else carelessly in one of eight ways; an accepted model that is worse on
the unseen images by more than 0.01 is a failure of the guard.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import plain_training
import torch
from common import Others, common_options, machine, tell
from curve_table import draw_plot, lay_out_tables, read_rows
from domains import DOMAINS, READERS, Domain, read_domain
from simulated_person import (
    CARELESS,
    GOOD,
    Place,
    TooFewPlacesError,
    choose_settings,
    correct,
    draw_places,
    find_doubtful_places,
    whole_pictures,
)

from napari_unet import (
    FinetuneSettings,
    Model,
    Sample,
    SegmentSettings,
    __version__,
    evaluate,
    finetune,
    load_model,
    segment,
)
from napari_unet.arrays.metrics import pooled
from napari_unet.errors import UnetError
from napari_unet.runs import schedule

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

PLAIN = {"random": 1e-3, "plain-1e-3": 1e-3, "plain-1e-5": 1e-5}  # learning rates
METHODS = ("none", "ours", *PLAIN, "ceiling")
SECONDS, GUARD_SECONDS, CEILING_SECONDS = 60.0, 20.0, 1200.0
QUICK_SECONDS, QUICK_CEILING_SECONDS = 3.0, 5.0
WELL_CORRECTED = 0.5  # share of the guard's regions
KEPT_SCORES = ("ap50", "mean_ap", "iou", "tp", "fp", "fn", "missed", "spurious", "merged", "split")


@dataclass(frozen=True)
class Task:
    """What one run is; a run with the same values is not repeated."""

    mode: str
    """"curve" or "guard"."""
    domain: str
    method: str
    regions: int
    """How many; 0 stands for all images of the pool."""
    seconds: float
    work: float
    """Seconds of the processors' work that stand for one of the budget; 0: the clock counts."""
    steps: int
    """Instead of the seconds, if above 0."""
    seed: int
    choose: str
    """"random" or "uncertain"."""
    changed: str
    """Settings of ours that are not the defaults, as JSON."""
    model: str
    """Name and the first digits of a checksum of the weights."""

    @property
    def key(self) -> tuple[str, ...]:
        """What a row of the table says of it."""
        return tuple(str(value) for value in asdict(self).values())


@dataclass(frozen=True)
class Lesson:
    """What a person did: the corrected regions and how the images are segmented."""

    places: list[Place]
    kinds: list[str]
    samples: list[Sample]
    settings: SegmentSettings


@dataclass(frozen=True)
class Learnt:
    """What came of it."""

    model: Model
    steps: int
    outcome: str
    held_out: tuple[float | None, float | None] = (None, None)
    settings: str = "{}"
    evidence: str = "{}"
    """Of each score that was compared on what was held out: gain, chance, places, as JSON."""


# ------------------------------------------------------------------------------------------ tasks


def plan(options: argparse.Namespace, model: str) -> Iterator[Task]:
    """Name all runs, seed by seed, so that a part of the grid is balanced; the ceilings last."""
    seeds = range(options.first_seed, options.first_seed + (options.guard or options.seeds))
    cells = [(domain, count) for count in options.regions for domain in options.domains]
    usual = {"model": model, "changed": options.set, "choose": options.choose}
    usual |= {"steps": options.steps, "seconds": options.seconds or _seconds(options)}
    usual |= {"work": options.work}
    if options.guard:
        for seed in seeds:
            domain, count = cells[seed % len(cells)]
            yield Task("guard", domain, "ours", count, seed=seed, **usual)
        return
    for seed in seeds:
        for domain, count in cells:
            for method in options.methods:
                theirs = usual if method == "ours" else {**usual, "changed": "{}"}
                if method != "ceiling":
                    yield Task("curve", domain, method, count, seed=seed, **theirs)
    if "ceiling" in options.methods:
        seconds = QUICK_CEILING_SECONDS if options.quick else CEILING_SECONDS
        whole = {**usual, "choose": "all", "steps": 0, "seconds": seconds}
        for domain in options.domains:
            yield Task("curve", domain, "ceiling", 0, seed=seeds[0], **whole)


def _seconds(options: argparse.Namespace) -> float:
    """Return the budget where none is asked for."""
    if options.quick:
        return QUICK_SECONDS
    return GUARD_SECONDS if options.guard else SECONDS


def run(task: Task, model: Model, domain: Domain, judging: Judge, threads: int) -> dict[str, Any]:
    """Do one run; returns its row."""
    others = Others()
    lesson = prepare(task, model, domain)
    before = judging.before(domain, lesson.settings)
    began, worked = time.monotonic(), time.process_time()
    with budgets_in_work(task.work):
        learnt = learn(task, model, lesson)
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    after = judging.after(learnt, domain, lesson.settings)
    return {
        **asdict(task),
        "ap_before": before["ap50"],
        "ap_after": after["ap50"],
        "outcome": learnt.outcome,
        "held_before": learnt.held_out[0],
        "held_after": learnt.held_out[1],
        "steps_done": learnt.steps,
        "seconds_done": round(seconds, 1),
        "seconds_worked": round(worked, 1),
        "kinds": json.dumps(lesson.kinds),
        "places": json.dumps([tuple(asdict(place).values()) for place in lesson.places]),
        "segment": lesson.settings.model_dump_json(include={"invert", "object_size_px"}),
        "settings": learnt.settings,
        "scores_before": _in_short(before),
        "scores_after": _in_short(after),
        "evidence": learnt.evidence,
        "machine": f"{machine(threads)}; {others}",
        "version": f"{__version__} {_commit()}",
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def prepare(task: Task, model: Model, domain: Domain) -> Lesson:
    """Let the person choose places and correct them; the same for all methods."""
    random = np.random.default_rng(task.seed)
    if task.regions == 0:
        places = whole_pictures(domain.pool)
    else:
        places = draw_places(domain.pool, task.regions, random)
    settings = choose_settings(model.card, domain.pool, places)
    if task.choose == "uncertain":  # what was drawn was looked at, for the settings alone
        glance = choose_settings(model.card, domain.pool, places[:1])
        places = find_doubtful_places(model, domain.pool, task.regions, glance, random)
        settings = choose_settings(model.card, domain.pool, places)
    kinds = [GOOD] * len(places)
    if task.mode == "guard":
        careless = [kind for kind in CARELESS if kind != GOOD]
        for number in range(len(kinds)):
            if random.random() >= WELL_CORRECTED:
                kinds[number] = careless[int(random.integers(len(careless)))]
    samples = correct(model, domain.pool, places, settings, kinds, random)
    return Lesson(places, kinds, samples, settings)


def learn(task: Task, model: Model, lesson: Lesson) -> Learnt:
    """Train by the method of the task."""
    if task.method == "none":
        return Learnt(model, 0, "")
    if task.method in PLAIN:
        trained, steps = plain_training.train_plainly(
            model,
            lesson.samples,
            lesson.settings,
            PLAIN[task.method],
            task.seconds,
            task.steps or None,
            task.seed,
            from_scratch=task.method == "random",
        )
        return Learnt(trained, steps, "")
    settings = FinetuneSettings(
        seconds=task.seconds, steps=task.steps or None, seed=task.seed, device="cpu"
    ).replace(**json.loads(task.changed))
    try:
        result = finetune(model, lesson.samples, settings, lesson.settings)
    except UnetError as error:
        tell(f"  refused: {error}")
        return Learnt(model, 0, "refused", settings=settings.model_dump_json())
    scores = (None if s is None else round(s.main, 4) for s in (result.before, result.after))
    return Learnt(
        result.model,
        result.report["training"]["steps"],
        result.outcome,
        tuple(scores),
        settings.model_dump_json(),
        json.dumps(result.report["evidence"]),
    )


def judge(model: Model, domain: Domain, settings: SegmentSettings) -> dict[str, float]:
    """Score a model on the test images, as it is used: objects are found as its card says."""
    usual = model.card.instances_at(settings.object_size_px)
    settings = settings.replace(instances=usual)
    return pooled(
        evaluate(segment(model, picture.image, "CYX", settings), picture.labels)
        for picture in domain.test
    )


@contextmanager
def budgets_in_work(factor: float) -> Iterator[None]:
    """Let budgets in seconds count the work of the processors, so many seconds for one."""
    clocks = (schedule, "time"), (plain_training, "time")
    real = [getattr(*clock) for clock in clocks]
    work = SimpleNamespace(monotonic=lambda: time.process_time() / factor)
    try:
        for clock in clocks if factor else ():
            setattr(*clock, work)
        yield
    finally:
        for clock, before in zip(clocks, real, strict=True):
            setattr(*clock, before)


class Judge:
    """Scores models; the one they all start from only once for each domain and settings."""

    def __init__(self, start: Model) -> None:
        self._start = start
        self._scores: dict[tuple[str, str], dict[str, float]] = {}

    def before(self, domain: Domain, settings: SegmentSettings) -> dict[str, float]:
        """Score the model as it is."""
        key = domain.name, settings.model_dump_json()
        if key not in self._scores:
            self._scores[key] = judge(self._start, domain, settings)
        return self._scores[key]

    def after(self, learnt: Learnt, domain: Domain, settings: SegmentSettings) -> dict[str, float]:
        """Score what came of a run."""
        if learnt.model is self._start:
            return self.before(domain, settings)
        return judge(learnt.model, domain, settings)


def checksum(model: Model) -> str:
    """Return eight digits that tell these weights from any other."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.net.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _in_short(scores: dict[str, float]) -> str:
    """Write down the scores that tell what is wrong."""
    return json.dumps({name: round(scores[name], 4) for name in KEPT_SCORES})


def _commit() -> str:
    """Name the state of the sources; with a + if something is not committed."""
    command = ["git", "describe", "--always", "--dirty=+"]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


# ------------------------------------------------------------------------------------------- rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file, at once and for good; a line that a crash cut off is ended."""
    is_new = not path.exists() or path.stat().st_size == 0
    is_cut = not is_new and not path.read_bytes().endswith(b"\n")
    with path.open("a", newline="", encoding="utf-8") as file:
        if is_cut:
            file.write("\n")
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def key_of(row: dict[str, str]) -> tuple[str, ...]:
    """Return what a row says of its task."""
    return tuple(row[field.name] for field in fields(Task))


def main() -> None:
    """Read the options, do what has no row yet, lay out what there is."""
    options = read_options()
    if not options.table:
        torch.set_num_threads(options.threads)
        run_all(options)
    rows = read_rows(options.out)
    if options.table or options.quick:
        print(lay_out_tables(rows))
    if options.plot:
        options.plot.write_text(draw_plot(rows), encoding="utf-8")


def run_all(options: argparse.Namespace) -> None:
    """Do the runs that have no row yet."""
    model = load_model(options.model)
    judging = Judge(model)
    done = {key_of(row) for row in read_rows(options.out)}
    tasks = list(plan(options, f"{model.card.name} {checksum(model)}"))
    left = [task for task in tasks if task.key not in done]
    tell(f"{len(tasks)} runs, {len(tasks) - len(left)} of them done")
    domains = {name: read_domain(name) for name in {task.domain for task in left}}
    for number, task in enumerate(left, start=1):
        try:
            row = run(task, model, domains[task.domain], judging, options.threads)
        except TooFewPlacesError as error:
            tell(f"  {task.domain}, seed {task.seed} left out: {error}")
            continue
        append_row(options.out, row)
        tell(
            f"  {number}/{len(left)} {task.mode} {task.domain}, {task.method}, {task.regions} "
            f"regions, seed {task.seed}: AP {row['ap_before']:.3f} -> {row['ap_after']:.3f} "
            f"{row['outcome']} ({row['steps_done']} steps, {row['seconds_done']} s, "
            f"{row['seconds_worked']} s of all processors)"
        )


def read_options() -> argparse.Namespace:
    """Read the options."""
    parser = common_options(__doc__)
    parser.add_argument("--out", type=Path, default=Path("rows.csv"), help="file of the rows")
    parser.add_argument("--domains", nargs="+", choices=tuple(READERS), default=DOMAINS)
    parser.add_argument("--regions", nargs="+", type=int, default=(1, 4), help="how many")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seconds", type=float, help=f"budget (default {SECONDS:g})")
    parser.add_argument("--steps", type=int, default=0, help="budget in steps instead")
    parser.add_argument("--work", type=float, default=0.0, help="budgets in the processors' work")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="of the table: 0, 1, 2")
    parser.add_argument("--model", default="nuclei", help="where to start from: name or file")
    parser.add_argument("--choose", choices=("random", "uncertain"), default="random")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of ours"
    )
    parser.add_argument("--guard", type=int, default=0, metavar="N", help="so many guard runs")
    parser.add_argument("--table", action="store_true", help="lay out the rows; run nothing")
    parser.add_argument("--plot", type=Path, help="draw the rows as SVG")
    options = parser.parse_args()
    options.set = json.dumps(dict(sorted(_pair(text) for text in options.set)))
    if options.quick:
        options.domains, options.regions, options.seeds = ("generated",), (1,), 1
    return options


def _pair(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is no number, true, false or null is text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    main()
