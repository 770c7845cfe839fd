"""``convert`` writes what the ending says, from any weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet import load_model


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".onnx", ".zip"])
def test_convert_writes_what_can_be_opened_again(run, threshold_model, tmp_path, ending) -> None:
    target = tmp_path / f"net{ending}"
    done = run(
        *("convert", threshold_model, target, "--json"),
        *("--author", "Ada Lovelace", "--licence", "MIT", "--description", "Bright things"),
    )
    assert done.status == 0, done.err
    assert done.json["path"] == str(target)
    assert done.json["bytes"] == target.stat().st_size
    image = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        before, after = load_model(threshold_model), load_model(target)
        np.testing.assert_allclose(
            before.activate(before.net(image)), after.activate(after.net(image)), atol=1e-5
        )


def test_the_format_may_be_named_whatever_the_ending(run, threshold_model, tmp_path) -> None:
    target = tmp_path / "weights.bin"
    assert run("convert", threshold_model, target, "--format", "state-dict").status == 0
    assert set(torch.load(target, weights_only=True)["state_dict"]) == set(
        load_model(threshold_model).net.state_dict()
    )


def test_convert_tells_what_is_wrong_in_a_sentence(run, threshold_model, tmp_path) -> None:
    unknown = run("convert", threshold_model, tmp_path / "net.foo")
    assert unknown.status == 1
    assert "ends in .foo" in unknown.err
    asked = run("convert", threshold_model, tmp_path / "net.zip")
    assert asked.status == 1
    assert "--author" in asked.err
    missing = run("convert", "none.pth", tmp_path / "net.onnx")
    assert missing.status == 1
    assert "none.pth" in missing.err
    assert list(tmp_path.iterdir()) == []
