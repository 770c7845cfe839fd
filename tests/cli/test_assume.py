"""What weights leave open is listed by ``info`` and told by ``--assume`` wherever they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_unet.models.own_file import read_card
from tests.models.recognise import nets
from tests.models.recognise.tutorials import Kaggle


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Save the weights of somebody's network with ELU, whose file does not tell it."""
    path = tmp_path / "somebody.pth"
    torch.save(nets.shaken(Kaggle(1, 1, 4, 2)).state_dict(), path)
    return path


def test_info_tells_each_assumption_its_name_and_what_else_it_may_be(run, weights) -> None:
    said = " ".join(run("info", weights).out.split())
    assert "--assume activation relu; else leaky_relu, elu, gelu" in said
    assert "--assume skip_order upsampled-first; else skip-first" in said
    assert "norm none" in said
    lines = run("info", weights).out.splitlines()
    at = lines.index("assumed: activation of the layers")
    assert lines[at + 1].startswith(f"{'':27}The layers are activated by ReLU.")
    told = run("info", weights, "--assume", "activation=elu", "--json").json
    (activation,) = [one for one in told["assumptions"] if one["name"] == "activation"]
    assert (activation["value"], activation["told_by"]) == ("elu", "you")
    assert "ELU" in told["card"]["told"]["activation of the layers"]
    assert "activation of the layers" not in told["card"]["assumed"]


def test_info_says_who_tells_what_nobody_assumed(run, tmp_path) -> None:
    bare = tmp_path / "bare.pth"
    torch.save(nets.shaken(nets.Light(1, 1, 4)).state_dict(), bare)
    makers = ("--author", "Ada", "--licence", "MIT", "--description", "Nuclei in tests")
    tellers = {bare: "light-bn"}
    for name, teller in (("a.pth", "the card"), ("a.onnx", "the file"), ("a.zip", "the package")):
        run("convert", bare, tmp_path / name, *makers)
        tellers[tmp_path / name] = teller
    for path, teller in tellers.items():
        output, normalization = run("info", path, "--json").json["assumptions"][-2:]
        assert (output["told_by"], normalization["told_by"]) == (teller, ""), path.name
    told = run("info", tmp_path / "a.zip", "--json", "--assume", "output=softmax").json
    assert told["assumptions"][-2]["told_by"] == "you"


def test_what_is_assumed_changes_the_masks_and_goes_along_when_converted(
    run, weights, tmp_path
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image)
    common = ("segment", tmp_path / "a.tif", "--probability", "--min-size", "0")
    elu = ("--assume", "activation=elu", "--assume", "output=sigmoid")
    run(*common, "--model", weights, "--out", tmp_path / "relu")
    run(*common, "--model", weights, "--out", tmp_path / "elu", *elu)
    made = tmp_path / "made.safetensors"
    run("convert", weights, made, *elu)
    run(*common, "--model", made, "--out", tmp_path / "again")
    relu, told, again = (
        tifffile.imread(tmp_path / name / "a_probability.tif") for name in ("relu", "elu", "again")
    )
    assert np.abs(relu - told).max() > 0.01
    np.testing.assert_allclose(told, again, atol=1e-5)
    assert read_card(made).told.keys() == {"activation of the layers", "activation"}


@pytest.mark.parametrize(
    ("told", "status", "sentence"),
    [
        ("activation", 2, "Write a name and a value, e.g. activation=elu"),
        ("activation=swish", 1, "Choose relu, leaky_relu, elu"),
        ("colour=red", 1, "What can be told is skip_order, upsampling_activation"),
    ],
)
def test_what_cannot_be_assumed_is_told_with_what_can(run, weights, told, status, sentence) -> None:
    result = run("info", weights, "--assume", told)
    assert result.status == status
    assert sentence in " ".join(result.err.split())
