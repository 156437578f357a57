"""Which images are found, and where their outputs go."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from model.discovery import discover
from model.errors import UserError
from model.grand_challenge import INPUT_SLUG
from model.images import write_plane
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


def test_files_of_other_formats_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("a.png", "sub/b.PNG", "c.jpeg", ".hidden.png", "notes.txt"):
        put(tmp_path / name)
    with pytest.raises(UserError, match=r"found no image to predict but 2 \.png files, 1 \.jpeg file, expected"):
        discover(tmp_path, OUT)
    put(tmp_path / "a.tif")
    assert names(tmp_path) == ["a.tif"]
    assert "Skipped 2 .png files, 1 .jpeg file, which are not read." in caplog.text


@pytest.mark.parametrize("below", [".", "predicted", "2024/run 3", "images/images"])
def test_folders_of_former_predictions_are_skipped_wherever_they_lie(tmp_path, below, caplog):
    caplog.set_level("INFO")
    put(tmp_path / "cells_BF_1.ome.tif")
    for path in discover(tmp_path, tmp_path / below)[0].outputs.values():
        put(path)
        put(path.parent / "sub" / "other.tiff")
    for output in (tmp_path, tmp_path / below, OUT):
        assert names(tmp_path, output) == ["cells_BF_1.ome.tif"]
    assert "Skipped 4 folders of predictions, such as " in caplog.text


def test_a_study_named_almost_as_an_output_is_an_input(tmp_path):
    put(tmp_path / "day1-ome-tiff" / "a.tif")
    put(tmp_path / "nucleus-fluorescence" / "b.tif")
    assert names(tmp_path) == ["day1-ome-tiff/a.tif", "nucleus-fluorescence/b.tif"]


def predict(path: Path, key: str = "checkpoint") -> Path:
    pixels = np.zeros((8, 8), np.uint16)
    write_plane(path, pixels, channel="Nucleus", pixel_size_um=None, provenance={key: "pix2pix-bf"})
    return path


@pytest.mark.parametrize(("prediction", "image"), [("a.tiff", "a.ome.tif"), ("a.ome.tif", "a.tiff")])
def test_a_prediction_beside_its_input_is_no_second_input(tmp_path, prediction, image):
    predict(tmp_path / "sub" / prediction)
    put(tmp_path / "sub" / image)
    assert names(tmp_path) == [f"sub/{image}"]


def test_simulated_images_of_one_name_are_two_inputs(tmp_path):
    predict(tmp_path / "a.tiff", key="origin")
    put(tmp_path / "a.ome.tif")
    with pytest.raises(UserError, match="same file"):
        discover(tmp_path, OUT)


def test_an_unreadable_folder_is_named_and_skipped(tmp_path, monkeypatch, caplog):
    put(tmp_path / "a.tif")
    put(tmp_path / "lost+found" / "b.tif")
    scandir = os.scandir

    def forbidden(path):
        if Path(path).name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert names(tmp_path) == ["a.tif"]
    sentence = f"{tmp_path}/lost+found: skipped, the folder cannot be read (Permission denied)."
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", sentence)]
    with pytest.raises(UserError, match="cannot be read"):
        discover(tmp_path / "lost+found", OUT)


def test_what_is_no_regular_file_is_named_and_skipped(tmp_path, caplog):
    put(tmp_path / "a.tif")
    os.mkfifo(tmp_path / "pipe.tif")  # reading it would wait for a writer
    assert names(tmp_path) == ["a.tif"]
    assert "pipe.tif: skipped, it is not a regular file." in caplog.text


def test_targets_in_other_spellings_are_no_inputs_and_doubtful_names_are_told(tmp_path, caplog):
    for name in ("image_1_BF_z0.tif", "image_1_nucleus.tif", "image_01_Tubulin.tif", "image_0001.tif"):
        put(tmp_path / name)
    assert names(tmp_path) == ["image_0001.tif", "image_1_BF_z0.tif"]
    assert not caplog.records
    put(tmp_path / "image_1_Nuclei.tif")
    put(tmp_path / "image_1_Actin_z0.tif")
    assert len(names(tmp_path)) == 4
    (warning,) = caplog.records
    assert "image_1_Actin_z0.tif and 1 more: the name resembles that of a fluorescent target" in warning.getMessage()


def test_the_order_is_that_of_paths(tmp_path):
    for name in ("b.tif", "a.d/z.tif", "a/z.tif", "a.tif", "a-b/y.tif", "B.tif", "a/b/c.tif"):
        put(tmp_path / name)
    assert names(tmp_path) == [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.tif"))]


@pytest.mark.parametrize("folder", [".", "./", "study", "study/"])
def test_relative_folders(tmp_path, monkeypatch, folder):
    put(tmp_path / folder / "sub" / "a.tif")
    put(tmp_path / folder / "b.tif")
    monkeypatch.chdir(tmp_path)
    cases = discover(Path(folder), Path("out"))
    assert [case.source for case in cases] == [Path(folder) / "b.tif", Path(folder) / "sub/a.tif"]
    assert cases[1].outputs[Organelle.ACTIN] == Path("out/images/actin-fluorescence-ome-tiff/sub/a.tiff")


def test_an_output_folder_that_leads_into_the_input_is_refused(tmp_path):
    put(tmp_path / "in" / "sub" / "a.tiff")
    folder = tmp_path / "out" / "images" / "actin-fluorescence-ome-tiff"
    folder.mkdir(parents=True)
    (folder / "sub").symlink_to(tmp_path / "in" / "sub")
    with pytest.raises(UserError, match="an input where an output goes"):
        discover(tmp_path / "in", tmp_path / "out")


@pytest.mark.slow
def test_discovery_resolves_links_alone(tmp_path, monkeypatch):
    for number in range(50):
        put(tmp_path / f"{number:02d}.tif")
    calls = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **options: (calls.append(path), realpath(path, **options))[1])
    assert len(discover(tmp_path, OUT)) == 50
    few = len(calls)
    for number in range(50, 100):
        put(tmp_path / f"{number:02d}.tif")
    calls.clear()
    discover(tmp_path, OUT)
    assert len(calls) == few


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


def put_group(path: Path, version: str = "0.4", **metadata: object) -> Path:
    """A Zarr group with these OME metadata."""
    path.mkdir(parents=True)
    if version == "0.5":
        (path / "zarr.json").write_text(json.dumps({"attributes": {"ome": {"version": "0.5", **metadata}}}))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(metadata))
    return path


def put_plate(path: Path, version: str = "0.4") -> Path:
    """Wells A/1 with fields 0 and 1, A/2 with field 0, and B/1, of which there is nothing yet."""
    put_group(path, version, plate={"wells": [{"path": well} for well in ("A/1", "A/2", "B/1")]})
    for well, fields in (("A/1", "01"), ("A/2", "0")):
        put_group(path / well, version, well={"images": [{"path": field} for field in fields]})
        for field in fields:
            put_group(path / well / field, version, multiscales=[{}])
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_fields_of_a_plate(tmp_path, version):
    plate = put_plate(tmp_path / "in/p.ome.zarr", version)
    fields = ["A/1/0", "A/1/1", "A/2/0", "B/1"]
    assert names(tmp_path / "in") == [f"p.ome.zarr/{field}" for field in fields]
    assert names(plate) == fields and names(plate / "A/1") == ["0", "1"]
    first = discover(tmp_path / "in", OUT)[0]
    assert first.name == "p/A/1/0.tiff" and first.title == "p.ome.zarr/A/1/0"
    assert discover(plate / "A/1", OUT)[0].name == "0.tiff"
    with pytest.raises(UserError, match="found an OME-Zarr image, expected the folder that holds it"):
        discover(plate / "A/1/0", OUT)


def test_the_series_of_bioformats2raw(tmp_path):
    put_group(tmp_path / "a.zarr", **{"bioformats2raw.layout": 3})
    for series in ("0", "1", "10", "OME"):
        put_group(tmp_path / "a.zarr" / series, multiscales=[{}])
        assert names(tmp_path) == {"0": ["a.zarr"]}.get(
            series, ["a.zarr/0", "a.zarr/1", "a.zarr/10"][: 2 if series == "1" else 3]
        )


def test_ome_zarr_is_known_without_its_suffix(tmp_path):
    put_group(tmp_path / "image", multiscales=[{}])
    put_group(tmp_path / "notes", spatialdata={})  # another kind of Zarr, which may hold images
    put_group(tmp_path / "notes/images/cells", "0.5", multiscales=[{}])
    put(tmp_path / "notes/a.tif")
    found = ["image", "notes/a.tif", "notes/images/cells"]
    assert names(tmp_path) == found
    (tmp_path / "notes/.zattrs").unlink()  # of which a group need have none
    assert names(tmp_path) == found
    (tmp_path / "notes/.zattrs").write_text("[]")
    assert names(tmp_path) == found
    (tmp_path / "notes").rename(tmp_path / "notes.zarr")
    assert names(tmp_path) == ["image", "notes.zarr/a.tif", "notes.zarr/images/cells"]
    (tmp_path / "empty.zarr").mkdir()
    assert names(tmp_path)[0] == "empty.zarr"


@pytest.mark.parametrize("path", ["../b", "/etc", "A/../../b", ".", "", "A\0", "\ud800"])
def test_a_plate_that_names_a_group_outside_of_it_is_left_to_the_reader(tmp_path, path):
    put_group(tmp_path / "p.zarr", plate={"wells": [{"path": path}]})
    assert names(tmp_path) == ["p.zarr"]


def test_wells_that_are_named_twice_or_with_a_slash_count_once(tmp_path):
    plate = put_plate(tmp_path / "p.zarr")
    (plate / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "A/1/"}, {"path": "A/1"}] * 3}}))
    (plate / "A/1/.zattrs").write_text(json.dumps({"well": {"images": [{"path": "0"}] * 3}}))
    assert names(tmp_path) == ["p.zarr/A/1/0"]


def test_a_plate_that_holds_a_link_to_elsewhere_is_refused_and_to_itself_ends(tmp_path):
    plate = put_group(tmp_path / "in/p.zarr", plate={"wells": [{"path": "A"}]})
    put_group(tmp_path / "elsewhere", multiscales=[{}])
    (plate / "A").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a link that leads out of"):
        discover(tmp_path / "in", OUT)
    (plate / "A").unlink()
    (plate / "A").symlink_to(".")
    assert names(tmp_path / "in") == ["p.zarr/A/A"]
    (tmp_path / "in/q.zarr").symlink_to("p.zarr")
    assert names(tmp_path / "in") == ["p.zarr/A/A", "q.zarr/A/A"]


@pytest.mark.parametrize("content", ["", '{"plate": 3}', '{"plate": {"wells": [3]}}', "[" * 100_000])
def test_damaged_metadata_of_a_group_are_left_to_the_reader(tmp_path, content):
    put_group(tmp_path / "p.zarr")
    (tmp_path / "p.zarr/.zattrs").write_text(content)
    assert names(tmp_path) == ["p.zarr"]


def test_nothing_is_predicted_into_one_file_or_over_an_input(tmp_path):
    put(tmp_path / "a.tif")
    put(tmp_path / "a.ome.tiff")
    with pytest.raises(UserError, match="same file"):
        discover(tmp_path, OUT)
    folder = tmp_path / "images" / "actin-fluorescence-ome-tiff"
    put(folder / "b.tiff")
    with pytest.raises(UserError, match="an input where an output goes"):
        discover(folder, tmp_path)
