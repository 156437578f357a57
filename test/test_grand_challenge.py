"""Which images are found, and where their outputs go."""

import json
from pathlib import Path

import pytest

from model.discovery import discover
from model.errors import UserError
from model.grand_challenge import INPUT_SLUG
from model.labels import Organelle

OUT = Path("/somewhere/output")


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pixels")
    return path


def names(folder: Path, output: Path = OUT) -> list[str]:
    return [str(case.source.relative_to(folder)) for case in discover(folder, output)]


@pytest.fixture
def platform(tmp_path):
    return tmp_path / "images" / INPUT_SLUG


@pytest.mark.parametrize("suffix", [".tiff", ".tif", ".mha"])
def test_a_platform_case_without_inputs_json(tmp_path, platform, suffix):
    source = put(platform / f"0b7e{suffix}")
    put(tmp_path / "stray.tiff")
    (case,) = discover(tmp_path, OUT)
    assert case.source == source and case.original_name is None
    assert case.outputs == {
        organelle: OUT / "images" / f"{organelle}-fluorescence-ome-tiff" / "0b7e.tiff" for organelle in Organelle
    }


@pytest.mark.parametrize(
    "entry",
    [
        {
            "socket": {"slug": INPUT_SLUG, "relative_path": f"images/{INPUT_SLUG}"},
            "image": {"name": "image_1_BF_z0.tif"},
        },
        {"interface": {"slug": INPUT_SLUG}, "image": {"pk": "0b7e", "name": "image_1_BF_z0.tif"}},
    ],
)
def test_inputs_json_of_both_shapes_tells_the_original_name(tmp_path, platform, entry):
    put(platform / "0b7e.tiff")
    other = {"socket": {"slug": "something-else"}, "image": None, "value": 3}
    (tmp_path / "inputs.json").write_text("\ufeff" + json.dumps([other, entry]), encoding="utf-8")
    (case,) = discover(tmp_path, OUT)
    assert case.original_name == "image_1_BF_z0.tif"
    assert case.outputs[Organelle.ACTIN].name == "0b7e.tiff"


def test_several_platform_images_are_all_taken_and_told_apart_by_their_key(tmp_path, platform):
    for key in "abc":
        put(platform / f"{key}.tiff")
    entries = [{"interface": {"slug": INPUT_SLUG}, "image": {"pk": key, "name": f"{key}_DIC_.tif"}} for key in "ba"]
    (tmp_path / "inputs.json").write_text(json.dumps(entries))
    assert [case.original_name for case in discover(tmp_path, OUT)] == ["a_DIC_.tif", "b_DIC_.tif", None]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "{}",
        "3",
        "[3]",
        "[{}]",
        '[{"socket": null}]',
        '[{"socket": {"slug": 3}}]',
        f'[{{"socket": {{"slug": "{INPUT_SLUG}"}}}}]',
        f'[{{"socket": {{"slug": "{INPUT_SLUG}"}}, "image": {{"name": null}}}}]',
        "[" * 100_000,
    ],
)
def test_malformed_inputs_json_is_named(tmp_path, platform, content):
    put(platform / "a.tiff")
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(UserError, match=r"inputs\.json: found .*, expected [^\n]*\.$"):
        discover(tmp_path, OUT)


def test_a_batch_takes_images_and_passes_over_the_rest(tmp_path):
    for name in ("b.tif", "a.ome.tiff", "sub/a.ome.tiff", "sub/deep/c.MHA"):
        put(tmp_path / name)
    for name in ("focus.csv", "._a.tiff", ".hidden/a.tiff", "notes.txt", "a.png", "image_1_Nucleus.ome.tiff"):
        put(tmp_path / name)
    (tmp_path / "inputs.json").write_text("not of this folder's concern")
    assert names(tmp_path) == ["a.ome.tiff", "b.tif", "sub/a.ome.tiff", "sub/deep/c.MHA"]
    cases = discover(tmp_path, OUT)
    nucleus = OUT / "images" / "nucleus-fluorescence-ome-tiff"
    assert [case.outputs[Organelle.NUCLEUS] for case in cases] == [
        nucleus / "a.tiff", nucleus / "b.tiff", nucleus / "sub" / "a.tiff", nucleus / "sub" / "deep" / "c.tiff",
    ]  # fmt: skip


def test_predictions_below_the_input_folder_are_not_predicted_again(tmp_path):
    put(tmp_path / "a.tif")
    for output in (tmp_path, tmp_path / "predicted"):
        for path in discover(tmp_path, output)[0].outputs.values():
            put(path)
        assert names(tmp_path, output)[0] == "a.tif" and len(discover(tmp_path, output)) == 1
        for path in discover(tmp_path, output)[0].outputs.values():
            path.unlink()


def test_missing_and_empty_folders_are_named(tmp_path, platform):
    with pytest.raises(UserError, match="missing"):
        discover(tmp_path / "missing", OUT)
    with pytest.raises(UserError, match="a file"):
        discover(put(tmp_path / "file.txt"), OUT)
    with pytest.raises(UserError, match="no image"):
        discover(tmp_path, OUT)
    put(tmp_path / "image_1_Actin.ome.tiff")
    with pytest.raises(UserError, match="no image"):
        discover(tmp_path, OUT)
    platform.mkdir(parents=True)
    with pytest.raises(UserError, match=INPUT_SLUG):
        discover(tmp_path, OUT)


def test_links_within_the_folder_are_taken_and_those_out_of_it_refused(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    put(inside / "a.tif")
    put(outside / "secret.tif")
    (inside / "b.tif").symlink_to("a.tif")
    (inside / "loop").symlink_to(".")
    assert names(inside) == ["a.tif", "b.tif"]
    for name, target in (("c.tif", outside / "secret.tif"), ("folder", outside)):
        (inside / name).symlink_to(target)
        with pytest.raises(UserError, match=f"{name}.*link"):
            discover(inside, OUT)
        (inside / name).unlink()
    (inside / "round.tif").symlink_to("round.tif")
    assert "round.tif" in names(inside)  # the reader will say what is wrong with it


def test_nothing_is_predicted_into_one_file_or_over_an_input(tmp_path):
    put(tmp_path / "a.tif")
    put(tmp_path / "a.ome.tiff")
    with pytest.raises(UserError, match="same file"):
        discover(tmp_path, OUT)
    folder = tmp_path / "images" / "actin-fluorescence-ome-tiff"
    put(folder / "b.tiff")
    with pytest.raises(UserError, match="an input where an output goes"):
        discover(folder, tmp_path)
