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
