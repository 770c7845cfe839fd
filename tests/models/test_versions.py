"""The versions of a model: which came from which, whatever the files are called."""

from __future__ import annotations

import pytest

from napari_unet.errors import FileError
from napari_unet.models import library, versions
from napari_unet.models.card import Card, Learned
from napari_unet.models.model import Model, save_model
from napari_unet.settings import Architecture


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty folder of the person's models, with no bundled ones."""
    monkeypatch.setattr(library, "user_folder", lambda: tmp_path / "models")
    monkeypatch.setattr(versions, "user_folder", lambda: tmp_path / "models")
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")
    return tmp_path / "models"


@pytest.fixture
def save(tiny_unet, folder):
    """Return a function that saves a model, as a child of another one if that is given."""

    def make(name: str, parent=None, *, outcome: str = "better"):
        count = len(list(folder.parent.rglob("*.safetensors")))
        history = ()
        if parent is not None:
            card = library.read_card(parent)
            learned = Learned(
                parent=card.name,
                parent_weights=versions.weights_checksum(parent),
                created=f"2026-11-21T10:00:{count:02}",
                regions=2,
                planes=1,
                objects=7,
                vouched_px=900,
                changed_px=60,
                outcome=outcome,
            )
            history = (*card.history, learned)
        card = Card(name=name, architecture=Architecture(widths=(4, 8, 16)), history=history)
        path = versions.free_place(name, is_taken=outcome == "better")
        fill(tiny_unet, (count + 1) / 100)
        return save_model(Model(tiny_unet, card), path)

    return make


def fill(net, value: float) -> None:
    import torch

    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(value)


def listed(path) -> list[tuple[str, str | None, int]]:
    found = versions.list_versions(path, library.read_card(path))
    return [(version.name, version.parent, len(version.steps)) for version in found]


def test_a_model_that_never_learned_is_its_only_version(save) -> None:
    assert listed(save("mine")) == [("mine", None, 0)]


def test_all_versions_are_listed_with_their_parents_from_any_of_them(save) -> None:
    base = save("mine")
    second = save("mine 2", base)
    third = save("mine 3", second)
    aside = save("mine 4", base, outcome="not better")
    save("another")
    expected = [
        ("mine", None, 0),
        ("mine 2", "mine", 1),
        ("mine 3", "mine 2", 2),
        ("mine 4", "mine", 1),
    ]
    for path in (base, second, third, aside):
        assert listed(path) == expected
    assert versions.parent_of(third, library.read_card(third)).path == second
    assert versions.parent_of(base, library.read_card(base)) is None
    assert aside.parent == versions.set_aside_folder()
    in_the_list = {entry.name for entry in library.list_models()}
    assert in_the_list == {"another", "mine", "mine 2", "mine 3"}


def test_a_version_that_was_renamed_keeps_its_place(save) -> None:
    base = save("mine")
    second = save("mine 2", base)
    third = save("mine 3", second)
    library.report_path(second).write_text("{}")
    library.rename_model(base, "first")
    renamed = library.rename_model(second, "my best")
    assert listed(third) == [("first", None, 0), ("my best", "first", 1), ("mine 3", "my best", 2)]
    assert library.report_path(renamed).exists(), "its report goes with it"
    assert not library.report_path(second).exists()


def test_a_new_model_under_an_old_name_is_no_parent(save) -> None:
    base = save("mine")
    second = save("mine 2", base)
    library.rename_model(base, "first")
    impostor = save("mine")
    assert listed(impostor) == [("mine", None, 0)]
    assert listed(second)[0] == ("first", None, 0)


def test_a_version_that_was_removed_stays_in_the_chain_without_a_file(save) -> None:
    base = save("mine")
    second = save("mine 2", base)
    third = save("mine 3", second)
    library.report_path(second).write_text("{}")
    library.remove_model(second)
    assert not library.report_path(second).exists()
    found = versions.list_versions(third, library.read_card(third))
    gone = next(version for version in found if version.name == "mine 2")
    assert gone.path is None
    assert gone.learned is not None
    assert gone.learned.regions == 2
    assert (gone.parent, len(gone.steps)) == ("mine", 1)


def test_what_was_set_aside_comes_back_with_its_report(save) -> None:
    base = save("mine")
    aside = save("mine 2", base, outcome="not better")
    library.report_path(aside).write_text("{}")
    assert versions.free_place("mine 2", is_taken=True).stem == "mine 3"
    back = versions.take_back(aside)
    assert back == library.user_folder() / "mine 2.safetensors"
    assert library.report_path(back).exists()
    assert not aside.exists()
    assert versions.take_back(back) == back
    assert [v.is_set_aside for v in versions.list_versions(base, library.read_card(base))] == [
        False,
        False,
    ]


def test_only_what_is_set_aside_is_deleted(save) -> None:
    base = save("mine")
    aside = save("mine 2", base, outcome="not better")
    versions.delete_set_aside(aside)
    assert not aside.exists()
    with pytest.raises(FileError, match="Remove it as a model"):
        versions.delete_set_aside(base)


def test_reports_are_no_models(save) -> None:
    path = save("mine")
    library.report_path(path).write_text("{}")
    assert [entry.name for entry in library.list_models()] == ["mine"]
    assert library.list_damaged() == []
