import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unet.errors import ModelError, WorkerError
from napari_unet.models import library
from napari_unet.models import model as model_module
from napari_unet.models.card import Card
from napari_unet.models.model import Model, save_model
from napari_unet.runs import fitted
from napari_unet.runs.predict import segment as segment_plainly
from napari_unet.runs.progress import Note, StepDone, TileDone
from napari_unet.settings import InstanceSettings, SegmentSettings
from napari_unet.worker import jobs, protocol
from napari_unet.worker.__main__ import Call


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other make small networks slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model_path(tmp_path, tiny_unet):
    card = Card(name="tiny", architecture=tiny_unet.architecture)
    return str(save_model(Model(tiny_unet, card), tmp_path / "tiny.safetensors"))


@pytest.fixture
def call(tmp_path):
    """Return what makes a call with arrays."""
    count = iter(range(100))

    def make(**arrays):
        folder = tmp_path / f"call {next(count)}"
        folder.mkdir()
        return Call(arrays, folder, threading.Event().is_set)

    return make


def settings(**changes):
    return SegmentSettings(**changes).model_dump(mode="json")


def test_tiles_that_fitted_once_are_forgotten(call, model_path, run_to_end, monkeypatch, tmp_path):
    monkeypatch.setattr(fitted, "_of_this_process", {})
    monkeypatch.setattr(fitted, "user_state_path", lambda *_, **__: tmp_path / "state")
    known = jobs._models.get(model_path).net, torch.device("cpu"), torch.float32
    fitted.remember(*known, 64, 1)
    assert run_to_end(jobs.forget_tiles(call()))[1] == {}
    assert fitted.recall(*known) is None


def test_a_loaded_model_is_described_and_kept(call, model_path, run_to_end):
    values = run_to_end(jobs.load(call(), model=model_path))[1]
    assert values["path"] == Path(model_path).resolve()
    assert (values["stride"], values["exact"]) == (4, True)
    assert values["parameters"] > 1000
    assert jobs._models.get(model_path) is jobs._models.get(model_path)


def test_a_model_whose_file_has_changed_is_loaded_again(model_path, tiny_unet):
    before = jobs._models.get(model_path)
    card = before.card.replace(name="another")
    save_model(Model(tiny_unet, card), model_path)
    assert jobs._models.get(model_path).card.name == "another"


def test_segment_gives_what_the_plain_function_gives(call, model_path, blobs, run_to_end):
    stack = np.stack([blobs.image, blobs.image.T[:96, :96].repeat(2, 1)[:, :128]])
    request = call(image=stack)
    chosen = SegmentSettings(tile_px=64, instances=InstanceSettings(min_size=1))
    progress, values = run_to_end(
        jobs.segment(request, model=model_path, axes="ZYX", settings=chosen.model_dump())
    )
    plain = segment_plainly(jobs._models.get(model_path), stack, "ZYX", chosen)
    np.testing.assert_array_equal(values["labels"], plain)
    assert values["labels"].max() > 0
    assert values["probability"].shape == (1, 2, 96, 128)
    assert (values["axes"], values["notes"]) == ("ZYX", [])
    assert values["token"].parent == request.folder
    tiles = [event for event in progress if isinstance(event, TileDone)]
    assert [event.done for event in tiles] == list(range(1, len(tiles) + 1))
    assert {event.total for event in tiles} == {len(tiles)}


def test_notes_are_passed_on_and_kept(call, model_path, blobs, run_to_end):
    chosen = settings(tile_px=64, halo_px=4)
    progress, values = run_to_end(
        jobs.segment(call(image=blobs.image), model=model_path, axes="YX", settings=chosen)
    )
    texts = [event.text for event in progress if isinstance(event, Note)]
    assert any("approximate" in text for text in texts)
    assert values["notes"] == texts


def test_another_threshold_needs_the_token_only(call, model_path, blobs, run_to_end):
    _, values = run_to_end(
        jobs.segment(call(image=blobs.image), model=model_path, axes="YX", settings=settings())
    )
    for threshold in (0.4, 0.5, 0.6):
        chosen = InstanceSettings(threshold=threshold, min_size=1)
        _, again = run_to_end(
            jobs.label(call(), token=str(values["token"]), settings=chosen.model_dump())
        )
        _, sent = run_to_end(
            jobs.label(
                call(probability=np.array(values["probability"])),
                model=model_path,
                axes="YX",
                settings=chosen.model_dump(),
            )
        )
        plain = segment_plainly(
            jobs._models.get(model_path), blobs.image, "YX", SegmentSettings(instances=chosen)
        )
        np.testing.assert_array_equal(again["labels"], plain)
        np.testing.assert_array_equal(sent["labels"], plain)


def test_a_token_whose_file_has_gone_is_told(call, tmp_path, run_to_end):
    job = jobs.label(call(), token=str(tmp_path / "gone.npy"), settings={})
    with pytest.raises(WorkerError, match="Press Segment again"):
        run_to_end(job)


def test_the_doubtful_spot_is_the_one_not_vouched_for(call, run_to_end, model_path):
    probability = np.zeros((1, 160, 160), np.float32)
    probability[0, 20:60, 20:60] = 0.5
    probability[0, 100:140, 100:140] = 0.6
    vouched = np.zeros((160, 160), bool)
    first = jobs.uncertain(call(probability=probability), model=model_path, axes="YX")
    y, x = run_to_end(first)[1]["position"]
    assert (y // 80, x // 80) == (0, 0)
    vouched[:80] = True
    second = jobs.uncertain(
        call(probability=probability, vouched=vouched), model=model_path, axes="YX"
    )
    y, x = run_to_end(second)[1]["position"]
    assert (y // 80, x // 80) == (1, 1)
    vouched[:] = True
    third = jobs.uncertain(
        call(probability=probability, vouched=vouched), model=model_path, axes="YX"
    )
    assert run_to_end(third)[1]["position"] is None


def test_a_model_learns_from_named_samples_and_is_saved(call, model_path, blobs, run_to_end):
    checked = np.ones(blobs.labels.shape, bool)
    arrays = {"a": np.stack([blobs.image] * 2, axis=-1), "b": blobs.labels, "c": checked}
    request = call(**arrays)
    progress, values = run_to_end(
        jobs.finetune(
            request,
            model=model_path,
            samples=[{"image": "a", "axes": "YXC", "labels": "b", "labelled": "c"}],
            settings={"steps": 3, "seconds": None, "batch": 1, "crop_px": 32},
            name="mine",
        )
    )
    assert any(isinstance(event, StepDone) for event in progress)
    assert values["report"]["training"]["steps"] == 3
    assert values["outcome"] in {"better", "not better", "cannot judge"}
    assert values["verdict"]
    assert values["model"].parent == request.folder
    new = jobs._models.get(str(values["model"]))
    assert (new.card.name, new.card.parent) == ("mine", "tiny")
    assert json.loads(protocol.encode(protocol.Done(1, values)))["values"]["report"]


def test_a_model_is_saved_where_it_was_asked_for(call, model_path, tmp_path, run_to_end):
    destination = tmp_path / "mine.safetensors"
    _, values = run_to_end(jobs.save(call(), model=model_path, destination=str(destination)))
    assert values["path"] == destination
    assert jobs._models.get(str(destination)).card.name == "tiny"


def test_evaluate_gives_plain_numbers(call, blobs, run_to_end):
    _, values = run_to_end(jobs.evaluate(call(labels=blobs.labels, truth=blobs.labels)))
    assert values["ap50"] == 1.0
    json.dumps(values)


def test_every_result_can_be_sent(call, model_path, blobs, run_to_end):
    for job in (
        jobs.load(call(), model=model_path),
        jobs.segment(call(image=blobs.image), model=model_path, axes="YX", settings=settings()),
    ):
        values = run_to_end(job)[1]
        plain = {k: v for k, v in values.items() if not isinstance(v, np.ndarray)}
        assert protocol.decode_event(protocol.encode(protocol.Done(1, plain))) is not None


def test_memory_errors_are_explained_and_defects_are_not():
    assert "memory" in jobs.explain(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert jobs.explain(RuntimeError("shapes differ")) is None


@pytest.fixture
def foreign_path(tmp_path, tiny_unet):
    """Save the bare weights of a network, which can be read in several ways."""
    torch.save(tiny_unet.state_dict(), tmp_path / "bare.pth")
    return str(tmp_path / "bare.pth")


def test_weights_from_elsewhere_are_loaded_with_their_readings(call, foreign_path, run_to_end):
    values = run_to_end(jobs.load(call(), model=foreign_path))[1]
    assert values["card"].source == "bare.pth, PyTorch weights"
    assert values["reading"] == 0
    assert len(values["readings"]) > 1
    assert values["receptive_field"] > 20
    assert values["sha256"] == values["card"].source_sha256
    again = run_to_end(jobs.load(call(), model=f"{foreign_path}#2"))[1]
    assert again["reading"] == 1
    assert again["card"] != values["card"] or again["readings"] == values["readings"]
    with pytest.raises(ModelError, match="no number 99"):
        run_to_end(jobs.load(call(), model=f"{foreign_path}#99"))


def test_what_was_loaded_is_remembered_with_its_reading(call, foreign_path, run_to_end):
    run_to_end(jobs.load(call(), model=f"{foreign_path}#2"))
    assert library.recent_models()[0] == (Path(foreign_path), 1)


def test_readings_and_cards_are_tried_side_by_side(call, foreign_path, blobs, run_to_end):
    trials = [
        {"reading": 0},
        {"reading": 0, "card": {"normalization": {"kind": "mean-std"}}},
        {"reading": 99},
    ]
    _, values = run_to_end(
        jobs.try_models(
            call(image=blobs.image), model=foreign_path, axes="YX", settings={}, trials=trials
        )
    )
    assert values["probability_0"].shape == (1, 96, 128)
    assert not np.array_equal(values["probability_0"], values["probability_1"])
    assert values["cards"]["1"].normalization.kind == "mean-std"
    assert "no number 100" in values["problems"]["2"]
    assert "probability_2" not in values


def test_a_changed_card_is_kept_and_what_was_changed_is_no_longer_assumed(
    call, foreign_path, tmp_path, monkeypatch, run_to_end
):
    monkeypatch.setattr(library, "user_folder", lambda: tmp_path / "mine")
    monkeypatch.setattr(model_module, "user_folder", lambda: tmp_path / "mine")
    before = Path(foreign_path).read_bytes()
    changes = {"name": "my cells", "normalization": {"kind": "min-max"}}
    _, values = run_to_end(jobs.edit_card(call(), model=foreign_path, card=changes))
    first = values["path"]
    assert first == (tmp_path / "mine" / "my cells.safetensors").resolve()
    assert values["card"].normalization.kind == "min-max"
    assert "normalization" not in values["card"].assumed
    assert "activation" in values["card"].assumed
    assert values["card"].source == "bare.pth, PyTorch weights"
    assert Path(foreign_path).read_bytes() == before, "the file of somebody else stays"
    _, again = run_to_end(jobs.edit_card(call(), model=str(first), card={"name": "our cells"}))
    assert again["path"].name == "our cells.safetensors"
    assert not first.exists(), "the person's own file is renamed, not copied"
    wanted, got = jobs._models.get(foreign_path), jobs._models.get(str(again["path"]))
    for key, tensor in wanted.net.state_dict().items():
        assert torch.equal(got.net.state_dict()[key], tensor)


def test_a_model_is_written_in_another_format(call, model_path, tmp_path, run_to_end):
    target = str(tmp_path / "out.pth")
    _, values = run_to_end(
        jobs.save(call(), model=model_path, destination=target, format="state-dict")
    )
    assert values["path"] == Path(target)
    assert len(torch.load(target, weights_only=True)) > 0
