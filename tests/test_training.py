"""The scripts of training/: what is drawn, how it is learnt and resumed, how it is judged."""

from __future__ import annotations

import argparse
import importlib
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.models.card import Card
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture, InstanceSettings
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Blobs

SCRIPTS = (
    "train_nuclei",
    "train_cells",
    "train_nuclei_histology",
    "train_em_membranes",
    "choose_objects",
)


@pytest.fixture(scope="module")
def training() -> SimpleNamespace:
    """Return the modules of training/, which find each other as when a script is started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "training"))
        names = ("planes", "crops", "trainer", "challenge", "objects", "drawn", *SCRIPTS)
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def card(**options: object) -> Card:
    architecture = Architecture(widths=(4, 8), norm="batch", classes=2, **options)
    return Card(name="tiny", architecture=architecture, outputs=("foreground", "distance"))


def make_trainer(training: SimpleNamespace, blobs: Blobs, steps: int, **options: object):
    plane = training.planes.Plane("blobs", "0", blobs.image[None], blobs.labels)
    changes = training.crops.CropSettings(crop_px=64, elastic_px=4)
    crops = training.objects.make_crops([plane], card(**options), changes, seed=3)
    recipe = training.trainer.Recipe(batch=2, average_steps=5, learning_rate=1e-2)
    return training.trainer.Trainer(card(**options), crops, recipe, steps=steps, seed=3)


def test_the_same_step_draws_the_same_crops_and_another_one_others(training, blobs):
    crops = make_trainer(training, blobs, 1)._crops
    images, targets, weights = crops.draw(3, step=5)
    assert images.shape == weights.shape == (3, 1, 64, 64)
    assert targets.shape == (3, 2, 64, 64)
    assert all(
        torch.equal(one, other)
        for one, other in zip(crops.draw(3, step=5), (images, targets, weights), strict=True)
    )
    assert not torch.equal(crops.draw(3, step=6)[0], images)


def test_image_and_truth_stay_in_register_also_where_a_crop_is_inverted(training, blobs):
    drawn = {}
    for inverted in (0.0, 1.0):
        changes = training.crops.CropSettings(crop_px=64, zoom=(0.7, 1.4), inverted=inverted)
        plane = training.planes.Plane("blobs", "0", blobs.image[None], blobs.labels)
        crops = training.objects.make_crops([plane], card(), changes, seed=0)
        images, targets, weights = crops.draw(8, step=0)
        inside, known = targets[:, 0] > 0.5, weights[:, 0] > 0
        drawn[inverted] = images[:, 0][inside & known].mean() - images[:, 0][~inside & known].mean()
    assert drawn[0.0] > 0.3
    assert drawn[1.0] < -0.3


def test_what_lies_outside_an_image_smaller_than_the_crop_teaches_nothing(training, blobs):
    plane = training.planes.Plane("small", "0", blobs.image[None, :40, :40], blobs.labels[:40, :40])
    changes = training.crops.CropSettings(crop_px=64, elastic_px=0, rotation_degrees=0)
    crops = training.objects.make_crops([plane], card(), changes, seed=0)
    known = crops.draw(1, step=0)[2] > 0
    assert known.sum() == 40 * 40


def test_many_crops_of_one_field_do_not_outweigh_the_rest(training, blobs):
    planes = [
        training.planes.Plane(str(number), group, blobs.image[None], blobs.labels)
        for number, group in enumerate("aaaab")
    ]
    odds = training.planes.sampling_odds(planes)
    assert odds.sum() == pytest.approx(1)
    assert odds[:4].sum() == pytest.approx(2 * odds[4])  # not 4 times


def test_a_training_that_was_broken_off_ends_with_the_same_weights(training, blobs, tmp_path):
    unbroken = make_trainer(training, blobs, 6, dropout=0.5)
    unbroken.run(tmp_path / "unbroken")
    broken = make_trainer(training, blobs, 6, dropout=0.5)
    for _ in range(3):
        broken.step()
    broken.save(tmp_path / "broken")
    resumed = make_trainer(training, blobs, 6, dropout=0.5)
    resumed.run(tmp_path / "broken")
    assert resumed.losses == unbroken.losses
    for one, other in zip(
        resumed.model.net.state_dict().values(),
        unbroken.model.net.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_state_of_another_training_is_refused(training, blobs, tmp_path):
    make_trainer(training, blobs, 1).run(tmp_path / "state")
    with pytest.raises(SystemExit, match="another training"):
        make_trainer(training, blobs, 1, attention=True).run(tmp_path / "state")


def test_the_loss_falls(training, blobs, tmp_path):
    trainer = make_trainer(training, blobs, 30)
    trainer.run(tmp_path / "state")
    assert np.mean(trainer.losses[-5:]) < 0.8 * np.mean(trainer.losses[:5])


def test_an_unpadded_network_learns_from_the_middle_of_its_crops(training, blobs):
    trainer = make_trainer(training, blobs, 1, padded=False)
    trainer.step()
    assert np.isfinite(trainer.losses[0])


def test_the_network_for_colours_sees_dark_where_the_other_one_sees_bright(training):
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 8), norm="batch", classes=2)).eval()
    image = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        colours = training.train_nuclei_histology.see_colours(net).eval()
        assert torch.allclose(colours(-image.expand(1, 3, 16, 16)), net(image), atol=1e-5)


@pytest.fixture(scope="module")
def drawn(training) -> list:
    return training.drawn.draw_planes(3 * len(training.drawn.KINDS), seed=1)


def test_drawn_pictures_are_the_same_for_the_same_seed(training, drawn):
    again, *_ = training.drawn.draw_planes(1, seed=1)
    other, *_ = training.drawn.draw_planes(1, seed=2)
    assert np.array_equal(again.image, drawn[0].image)
    assert np.array_equal(again.labels, drawn[0].labels)
    assert not np.array_equal(other.image, drawn[0].image)


def test_each_drawn_object_is_one_piece_of_some_size(training, drawn):
    for plane in drawn:
        assert plane.labels.shape == plane.image.shape[1:]
        assert np.isfinite(plane.image).all()
        numbers, areas = np.unique(plane.labels[plane.labels > 0], return_counts=True)
        assert len(numbers) >= 5, plane.name
        assert areas.min() >= training.drawn.LEAST_PX
        for number, window in enumerate(ndimage.find_objects(plane.labels), start=1):
            if window is not None:
                assert ndimage.label(plane.labels[window] == number)[1] == 1, plane.name


def test_drawn_cells_have_a_membrane_between_them(drawn):
    (plane, *_) = (plane for plane in drawn if "tissue" in plane.name)
    labels = plane.labels
    across = (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert (labels[:, 1:] == labels[:, :-1])[across].all()


def test_drawn_objects_are_bright_in_some_pictures_and_dark_in_others(drawn):
    inside = [plane.image[0][plane.labels > 0].mean() for plane in drawn]
    outside = [plane.image[0][plane.labels == 0].mean() for plane in drawn]
    brighter = np.greater(inside, outside)
    assert 0.2 < brighter.mean() < 0.8


def test_nuclei_never_learns_from_the_stained_tissue_it_is_tried_on(training):
    stained = set(training.train_nuclei_histology.MODALITIES)
    assert stained == {"purple_on_white", "purple_on_purple"}
    assert not stained & set(training.train_nuclei.MODALITIES)


@pytest.mark.parametrize(
    ("edge", "threshold"),
    [
        pytest.param(0.52, 0.5, id="as good from 0.5 on: one half stays"),
        pytest.param(0.47, 0.45, id="only a lower one finds whole squares"),
    ],
)
def test_the_threshold_leaves_one_half_only_for_a_gain(training, edge, threshold, monkeypatch):
    truth = np.zeros((64, 64), int)
    probability = np.full((2, 64, 64), 0.0)
    for number, (y, x) in enumerate([(4, 4), (4, 36), (36, 4), (36, 36)], start=1):
        truth[y : y + 20, x : x + 20] = number
        probability[:, y : y + 20, x : x + 20] = edge
        probability[:, y + 6 : y + 14, x + 6 : x + 14] = 0.9
    probability[:, 60:63, 60:63] = 0.9  # a speck of 9 px
    probability[:, 28:32, 60:64] = 0.9  # and one of 16 px
    monkeypatch.setattr(training.objects, "predict", lambda *_: probability)
    model = SimpleNamespace(card=card().replace(instances=InstanceSettings(min_size=1)))
    plane = training.planes.Plane("squares", "0", probability[:1], truth)
    chosen = training.objects.choose_instances(model, [plane], (5, 12, 20))
    assert (chosen.threshold, chosen.min_size) == (threshold, 20)
    kept = training.objects.choose_instances(model, [plane])
    assert (kept.threshold, kept.min_size) == (threshold, 1)


def test_the_membrane_model_is_judged_on_sections_it_never_saw(training):
    script = training.train_em_membranes
    assert not set(script.TRAINED) & set(script.JUDGED)
    assert len(script.JUDGED) == 4


def membranes() -> np.ndarray:
    """Return four square cells with membranes of two pixels between them."""
    truth = np.zeros((42, 42), int)
    for number, (y, x) in enumerate([(0, 0), (0, 22), (22, 0), (22, 22)], start=1):
        truth[y : y + 20, x : x + 20] = number
    return truth


def test_a_perfect_answer_has_no_error_and_neither_has_one_with_wider_membranes(training):
    truth = membranes()
    rand = training.challenge.rand_error
    narrow = np.array(truth > 0, float)
    assert rand([narrow], [truth], (0.5,)) == 0
    wide = np.array(truth > 0, float)
    wide[18:24] = wide[:, 18:24] = 0.2
    assert rand([wide], [truth], (0.5,)) == 0
    assert training.challenge.pixel_error([narrow], [truth], (0.5,)) == 0
    assert training.challenge.pixel_error([wide], [truth], (0.5,)) > 0.05


def test_a_gap_in_a_membrane_merges_two_cells_unless_the_threshold_is_higher(training):
    truth = membranes()
    probability = np.array(truth > 0, float)
    probability[5, 20:22] = 0.6
    error = training.challenge.rand_error([probability], [truth], (0.5,))
    # pairs together: 2 cells of 400 as they are, 2 as one; precision is 4/6, recall 1
    assert error == pytest.approx(1 - 2 * (4 / 6) / (1 + 4 / 6), abs=0.02)
    assert training.challenge.rand_error([probability], [truth], (0.5, 0.7)) == 0


def test_the_pixel_error_is_one_minus_the_f_score_of_the_cells(training):
    truth = np.zeros((10, 10), int)
    truth[:5] = 1
    answer = np.zeros((10, 10))
    answer[:4] = 1  # 40 of 50 found, none made up: F = 80 / 90
    assert training.challenge.pixel_error([answer], [truth], (0.5,)) == pytest.approx(1 / 9)


def test_the_best_threshold_is_the_same_for_all_sections(training):
    truth = membranes()
    low, high = np.where(truth > 0, 0.4, 0.0), np.where(truth > 0, 1.0, 0.6)
    apart = [training.challenge.pixel_error([one], [truth], (0.2, 0.8)) for one in (low, high)]
    assert apart == [0, 0]
    assert training.challenge.pixel_error([low, high], [truth, truth], (0.2, 0.8)) > 0.02


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_what_it_needs(training, script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        getattr(training, script).main()
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--data" in told
    assert "--out" in told


def test_a_script_asked_to_stop_says_how_to_go_on(training, blobs, tmp_path: Path, monkeypatch):
    trainer = make_trainer(training, blobs, 5)
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda: (step(), signal.raise_signal(signal.SIGTERM)))
    options = argparse.Namespace(out=tmp_path / "tiny.safetensors", check_steps=0)
    with pytest.raises(SystemExit, match=r"same command goes on from .*tiny\.training"):
        training.trainer.train(trainer, options, lambda _: "")
    assert (tmp_path / "tiny.training").exists()
    assert trainer.steps_taken == 1
