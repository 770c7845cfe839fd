"""``models`` and ``info`` show the cards."""

from __future__ import annotations

from napari_unet.models import library


def test_models_and_info_tell_the_card(run, threshold_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(library, "user_folder", lambda: threshold_model.parent)
    assert "bright things" in run("models").out
    (listed,) = [m for m in run("models", "--json").json["models"] if m["name"] == "threshold"]
    assert listed["card"]["segments"] == "bright things"
    assert "bright things" in run("info", "threshold").out
    assert run("info", threshold_model, "--json").json["card"] == listed["card"]


def test_a_damaged_file_is_told_and_does_not_hide_the_others(
    run, threshold_model, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(library, "user_folder", lambda: tmp_path)
    (tmp_path / "good.safetensors").write_bytes(threshold_model.read_bytes())
    (tmp_path / "bad.safetensors").write_bytes(threshold_model.read_bytes()[:50])
    listed = run("models", "--json")
    assert listed.status == 0
    assert "good" in {entry["name"] for entry in listed.json["models"]}
    assert [damaged["path"] for damaged in listed.json["damaged"]] == [
        str(tmp_path / "bad.safetensors")
    ]


def test_what_the_card_does_not_know_is_said_to_be_unknown(run, threshold_model) -> None:
    shown = run("info", threshold_model).out
    assert "object size" in shown
    assert "unknown" in shown
    assert "random weights" in shown


def test_info_tells_of_weights_of_others_what_was_assumed(run, tmp_path, tiny_unet) -> None:
    import torch

    path = tmp_path / "bare.pth"
    torch.save(tiny_unet.state_dict(), path)
    shown = run("info", path)
    assert shown.status == 0, shown.err
    for text in ("PyTorch weights", "receptive field", "parameters", "SHA-256", "assumed: "):
        assert text in shown.out, text
    assert "bare.pth#2" in shown.out, "how the second reading is asked for"
    told = run("info", f"{path}#2", "--json").json
    assert told["reading"] == 2
    assert len(told["readings"]) > 1
    assert told["card"]["source"] == "bare.pth, PyTorch weights"


def test_info_says_that_a_model_with_one_reading_has_no_second(run, threshold_model) -> None:
    told = run("info", f"{threshold_model}#2")
    assert told.status == 1
    assert "in 1 way, there is no number 2. Leave the number away." in told.err


def test_info_refuses_what_is_no_weights_with_the_reason(run, tmp_path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n")
    refused = run("info", path)
    assert refused.status == 1
    assert "git lfs pull" in refused.err


def test_models_lists_weights_of_others_by_what_they_are(run, tmp_path, monkeypatch) -> None:
    import pickle

    monkeypatch.setattr(library, "user_folder", lambda: tmp_path)
    (tmp_path / "net.pth").write_bytes(pickle.dumps({}))
    assert "PyTorch weights" in run("models").out
    (listed,) = [m for m in run("models", "--json").json["models"] if m["origin"] == "user"]
    assert (listed["name"], listed["format"], listed["card"]) == (
        "net.pth",
        "PyTorch weights",
        None,
    )
