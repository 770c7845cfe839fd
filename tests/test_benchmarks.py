"""The scripts of benchmarks/ run, and compare what can be compared."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DATA_VARIABLE, ROOT

pytestmark = pytest.mark.slow


def run(script: str, *options: str) -> str:
    """Run a script of benchmarks/ and return what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_ways_to_run_a_network_give_the_same_but_for_the_blended_ones(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ("--nets", "light-bn", "--sizes", "512", "--runs", "1", "--json", str(figures))
    table = run("inference.py", *options)
    (measured,) = json.loads(figures.read_text(encoding="utf-8"))["tables"]
    errors = {row["name"]: row["max_error"] for row in measured["rows"]}
    assert errors["whole image, as it is"] == 0
    assert 0 < errors["whole image, same levers"] < 1e-4
    assert 0 < errors["this engine"] < 1e-4
    blended = [error for name, error in errors.items() if name.startswith("MONAI")]
    assert all(error > 1e-2 for error in blended)
    assert "| this engine |" in table


def test_a_benchmark_goes_on_where_its_time_was_over_or_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import slices

    path = tmp_path / "figures.jsonl"
    first = slices.Figures(path)
    first.add(kind="round", side=512, seconds=1.5)
    first.add(kind="round", side=1024, seconds=6.0)
    path.write_bytes(path.read_bytes() + b'{"kind": "round", "si')  # it was killed here
    second = slices.Figures(path)
    second.add(kind="round", side=512, seconds=1.4)
    found = slices.Figures(path).find(kind="round", side=512)
    assert [each["seconds"] for each in found] == [1.5, 1.4]
    assert slices.Figures(path).find(kind="round", side=2048) == []
    left = slices.Slice(time.perf_counter() - slices._START + 50)
    assert left.has(20)
    assert not left.has(60)
    assert not left.has(1)  # what would still fit must not be measured out of turn
    assert slices.Slice(None).has(1e9)


def test_the_labels_benchmark_finds_the_nuclei_that_it_made(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    run("labels.py", "--quick", "--runs", "1", "--json", str(figures))
    measured = json.loads(figures.read_text(encoding="utf-8"))
    found = measured["objects"]["labels from foreground and distance"]
    assert found == pytest.approx(measured["nuclei"], rel=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells about a process")
def test_the_memory_benchmark_sees_the_memory_of_a_run() -> None:
    measured = json.loads(run("memory.py", "--case", "whole", "--side", "512"))
    features = 2 * 8 * 512**2 * 4 / 2**20  # two feature maps of the top level, MiB
    assert features < measured["MiB"] < 100 * features


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a learning curve."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_learning_curve_has_a_row_for_each_run_and_none_is_done_twice(tmp_path: Path) -> None:
    rows, plot = tmp_path / "rows.csv", tmp_path / "curve.svg"
    options = ("--quick", "--seconds", "1", "--work", "1.5", "--threads", "1", "--out", str(rows))
    run("learning_curve.py", *options, "--methods", "none", "ours")
    assert [row["method"] for row in read(rows)] == ["none", "ours"]
    first = rows.read_bytes()
    rows.write_bytes(first + b"curve,generated,plain-1e-3,1,1.0,0,0,ran")  # a crash cut it off
    methods = ("none", "ours", "plain-1e-3", "ceiling")
    table = run("learning_curve.py", *options, "--methods", *methods, "--plot", str(plot))
    assert rows.read_bytes().startswith(first)
    whole = [row for row in read(rows) if row["ended"]]
    assert [row["method"] for row in whole] == list(methods)
    before = {float(row["ap_before"]) for row in whole if row["method"] != "ceiling"}
    assert len(before) == 1
    assert before == {float(row["ap_after"]) for row in whole if row["method"] == "none"}
    assert "| domain | before | ours | plain-1e-3 | ceiling | ours / ceiling |" in table
    assert plot.read_text(encoding="utf-8").count("<polyline") == 2


def test_the_guard_is_tried_with_good_and_careless_corrections(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    options = ("--quick", "--seconds", "0.5", "--threads", "1", "--out", str(rows))
    table = run("learning_curve.py", *options, "--guard", "4")
    kinds = {kind for row in read(rows) for kind in json.loads(row["kinds"])}
    assert "good" in kinds
    assert len(kinds) > 1
    for row in read(rows):
        compared = json.loads(row["evidence"])
        assert bool(compared) == bool(row["held_after"])
        assert all(0 <= each["chance"] <= 1 for each in compared.values())
    assert "| corrections | runs | accepted |" in table


def test_a_simulated_person_changes_labels_in_the_regions_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import simulated_person as person
    from domains import read_domain

    from napari_unet import load_model, segment

    model, pool = load_model("nuclei"), read_domain("generated").pool
    places = [person.Place(1, 20, 30, 100, 120), person.Place(1, 140, 30, 100, 120)]
    settings = person.choose_settings(model.card, pool, places)
    assert settings.invert  # tissue is dark on bright
    assert settings.object_size_px == pytest.approx(21, rel=0.15)
    (sample,) = person.correct(model, pool, places, settings)
    base = segment(model, pool[1].image, "CYX", settings)
    assert sample.labelled is not None
    assert sample.labelled.sum() == 2 * 100 * 120
    assert ((sample.labels == base) | sample.labelled).all()
    for place in places:
        pairs = np.stack([sample.labels[place.box], pool[1].labels[place.box]]).reshape(2, -1)
        found = np.unique(pairs, axis=1)
        assert all(len(np.unique(side)) == found.shape[1] for side in found)  # one for one


@pytest.mark.parametrize("kind", ["shifted", "other picture", "merged", "half deleted"])
def test_careless_corrections_are_wrong(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import simulated_person as person
    from domains import read_domain

    from napari_unet import evaluate

    pool = read_domain("generated").pool
    (place,) = person.draw_places(pool, 1, np.random.default_rng(0))
    wrong = person.CARELESS[kind](pool, place, np.random.default_rng(0))
    assert wrong.shape == (place.height, place.width)
    assert evaluate(wrong, pool[place.picture].labels[place.box])["ap50"] < 0.9


@pytest.mark.parametrize(
    "name", ["purple_on_white", "purple_on_purple", "gowt1", "bacteria", "nih3t3", "isbi"]
)
def test_no_field_is_both_learnt_from_and_judged_on(
    name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(data_dir))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from domains import read_domain

    domain = read_domain(name)
    learnt, judged = ({p.group for p in part} for part in (domain.pool, domain.test))
    assert learnt
    assert judged
    assert not learnt & judged
    assert all(picture.image.shape[1:] == picture.labels.shape for picture in domain.test)


def test_regions_do_not_overlap_and_more_of_them_begin_with_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import simulated_person as person
    from domains import Picture

    labels = np.zeros((600, 900), np.int32)
    for number in range(150):
        y, x = 40 * (number // 15) + 20, 60 * (number % 15) + 20
        labels[y : y + 20, x : x + 20] = number + 1
    pool = [Picture(f"{n}", f"{n}", labels[None], labels) for n in range(2)]
    few, more = (person.draw_places(pool, n, np.random.default_rng(3)) for n in (2, 5))
    assert more[:2] == few
    covered = np.zeros((2, *labels.shape), int)
    for place in more:
        covered[(place.picture, *place.box)] += 1
    assert covered.max() == 1
    assert all(person.objects_at(pool, place) >= 2 for place in more)


def test_where_the_model_doubts_there_are_objects_and_no_place_is_proposed_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import simulated_person as person
    from domains import Picture

    from napari_unet import SegmentSettings, load_model
    from napari_unet.sample_data import nuclei

    image, labels = nuclei((512, 512), seed=1)
    pool = [Picture("nuclei", "0", image[None], labels)]
    random = np.random.default_rng(0)
    one, other = person.find_doubtful_places(
        load_model("nuclei"), pool, 2, SegmentSettings(), random
    )
    assert abs(one.y - other.y) >= 256 or abs(one.x - other.x) >= 256
    assert all(person.objects_at(pool, place) >= 2 for place in (one, other))


def test_regions_with_labels_that_cannot_be_right_are_counted() -> None:
    table = run("misfits.py", "--quick", "--threads", "1")
    for row in ("| good | 0 | 0 of 2 |", "| shifted | 2 | 2 of 2 |", "| inverted | 2 | 2 of 2 |"):
        assert row in table
