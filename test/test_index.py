"""Scan, check and split of a data directory in the challenge's layout."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.images import read_image, write_plane
from model.labels import Modality, Organelle
from model.normalization import InputNormalization
from model.preprocessing import Preprocessing
from training.check import check
from training.index import Field, Index, hold_out, split
from training.scan import read_file_lists, scan

AS_IT_IS = Preprocessing(InputNormalization.LINEAR)
FILE_LISTS = Path(__file__).parents[2] / "shared" / "lmc-filelists"


def write(path: Path, shape: tuple[int, ...] = (8, 8), dtype: type = np.uint16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.ones(shape, dtype), metadata=None, ome=False)  # pixels come last


def damage(path: Path) -> None:
    """Spoil compressed pixels: the headers stay sound."""
    noise = np.random.default_rng(0).integers(0, 60000, (64, 64)).astype(np.uint16)
    tifffile.imwrite(path, noise, compression="zlib", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start + 5 : start + 300] = b"\xff" * 295
    path.write_bytes(content)


def reasons(index: Index) -> dict[str, str]:
    return {Path(s.name).name: s.reason for s in index.skipped}


def test_fields_planes_and_labels(tmp_path: Path) -> None:
    for name in ("image_3_BF_z0", "image_3_BF_z10", "image_3_BF_z2", "image_3_Nucleus", "image_3_Actin"):
        write(tmp_path / "Study_7" / f"{name}.ome.tiff")
    (tmp_path / "Study_7" / "notes.txt").write_text("stray")
    (field,) = check(scan([tmp_path]), AS_IT_IS).fields
    assert (field.study, field.image, field.modality, field.shape) == ("Study_7", 3, Modality.BF, (8, 8))
    assert list(field.planes) == [0, 2, 10]
    assert list(field.labels) == [Organelle.NUCLEUS, Organelle.ACTIN]


def test_flat_folder_and_two_roots_keep_their_cells_apart(tmp_path: Path) -> None:
    for root in ("a/set", "b/set"):
        for name in ("image_1_PC_z0", "image_1_Tubulin"):
            write(tmp_path / root / f"{name}.ome.tiff")
            write(tmp_path / root / "Study_1" / f"{name}.ome.tiff")
    flat = scan([tmp_path / "a/set"])
    assert flat.studies == ("Study_1", "set")
    both = scan([tmp_path / "a/set", tmp_path / "b/set"])
    assert len(both.fields) == 4 and not both.duplicates


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda path: path.write_bytes(b""), None),
        (lambda path: path.write_bytes(b"not an image"), None),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), None),
        (lambda path: damage(path), None),  # only decoding tells
        (lambda path: write(path, (2, 8, 8)), None),
        (lambda path: write(path, dtype=np.complex64), None),
        (lambda path: tifffile.imwrite(path, np.ones((8, 8), np.uint16), photometric="miniswhite"), None),
        (lambda path: write(path, (8, 9)), "is (8, 9), its inputs are (8, 8)"),
        (lambda path: write_plane(path, np.ones((8, 8), np.uint16), channel="x", pixel_size_um=None,
                                  provenance={"checkpoint": "c"}), "found a prediction of this program"),
    ],
)  # fmt: skip
def test_broken_target_is_left_out_alone_and_named(tmp_path: Path, break_it, reason: str | None) -> None:
    """A reason of None: the sentence with which the reader refuses the file."""
    for name in ("image_1_BF_z0", "image_1_Nucleus", "image_1_Actin"):
        write(tmp_path / f"{name}.ome.tiff")
    broken = tmp_path / "image_1_Actin.ome.tiff"
    break_it(broken)
    if reason is None:
        with pytest.raises(UserError) as refused:
            read_image(broken)
        reason = str(refused.value).removeprefix(f"{broken}: ").rstrip(".")
    index = check(scan([tmp_path]), AS_IT_IS)
    assert list(index.fields[0].labels) == [Organelle.NUCLEUS]
    assert reason in reasons(index)["image_1_Actin.ome.tiff"]


def test_field_without_a_usable_target_or_plane_goes(tmp_path: Path) -> None:
    for name in (
        "image_1_BF_z0",
        "image_1_Nucleus",
        "image_2_BF_z0",
        "image_2_Nucleus",
        "image_3_BF_z0",
        "image_4_Actin",
    ):
        write(tmp_path / f"{name}.ome.tiff")
    (tmp_path / "image_1_Nucleus.ome.tiff").write_bytes(b"")
    (tmp_path / "image_2_BF_z0.ome.tiff").write_bytes(b"")
    index = check(scan([tmp_path]), AS_IT_IS)
    assert not index.fields
    text = index.summary()
    for expected in ("no readable target", "no readable input", "inputs but no target", "targets but no input"):
        assert expected in text


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_nothing_to_learn_from_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name):
        scan([tmp_path / name])


FIELDS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.sampled_from(list(Modality))), unique=True, min_size=1
)


@settings(max_examples=60, deadline=None)
@given(FIELDS, st.sampled_from(["field", "study"]), st.floats(0, 0.9), st.integers(0, 9))
def test_split_is_a_partition_that_cuts_no_unit(keys, by: str, fraction: float, seed: int) -> None:
    fields = tuple(Field(f"Study_{s}", i, m, {0: Path("x")}, {}) for s, i, m in sorted(keys))
    training, validation = split(Index(fields), by=by, fraction=fraction, seed=seed)
    assert sorted(training.fields + validation.fields, key=repr) == sorted(fields, key=repr)
    units = [{f.position if by == "field" else f.study for f in part.fields} for part in (training, validation)]
    assert not units[0] & units[1]
    assert (training, validation) == split(Index(fields), by=by, fraction=fraction, seed=seed)


def test_split_holds_out_about_the_fraction_of_each_modality() -> None:
    fields = tuple(Field("S", i, m, {}, {}) for j, m in enumerate(Modality) for i in range(100 * j, 100 * j + 20))
    _, validation = split(Index(fields), by="field", fraction=0.1, seed=1)
    assert [sum(f.modality is m for f in validation.fields) for m in Modality] == [2, 2, 2]
    assert split(Index(fields), by="field", fraction=0.1, seed=2)[1] != validation


def test_named_studies_are_held_out_of_every_modality() -> None:
    fields = tuple(Field(f"Study_{s}", 0, m, {}, {}) for s in range(1, 5) for m in Modality)
    training, validation = hold_out(Index(fields), ("Study_2", "Study_4"))
    assert validation.fields == fields[3:6] + fields[9:] and training.fields == fields[:3] + fields[6:9]


@pytest.mark.skipif(not FILE_LISTS.is_dir(), reason="the challenge's file lists are not at hand")
def test_counts_of_the_real_data_set() -> None:
    index = read_file_lists(sorted(FILE_LISTS.glob("Study*.tsv")))
    assert (len(index.studies), len(index.fields), index.inputs(), index.targets()) == (30, 2574, 52382, 4599)
    assert len(index.duplicates) == 41
    assert index.inputs() + index.targets() + len(index.duplicates) == 57022 and not index.skipped
    by_modality = {m: sum(f.modality is m for f in index.fields) for m in Modality}
    assert by_modality == {Modality.BF: 1987, Modality.PC: 301, Modality.DIC: 286}
    assert Organelle.ACTIN not in index.labelled()[Modality.DIC]


@pytest.mark.parametrize("how", ["nested", "linked folder", "linked files", "twice"])
def test_a_file_that_several_ways_lead_to_is_counted_once(tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    for image in range(8):
        for name in (f"image_{image}_BF_z0", f"image_{image}_Nucleus"):
            write(data / "Study_1" / f"{name}.ome.tiff")
    other = data / "Study_1" if how == "nested" else data if how == "twice" else tmp_path / "other"
    if how == "linked folder":
        other.symlink_to(data)
    if how == "linked files":
        other.mkdir()
        for path in (data / "Study_1").iterdir():
            (other / path.name).hardlink_to(path)
    index = check(scan([data, other]), AS_IT_IS)
    assert len(index.fields) == 8 and len(index.duplicates) == 16
    assert "16 files are there twice and counted once" in index.summary()
    training, held_out = split(index, by="field", fraction=0.25, seed=0)
    paths = [{path for f in part.fields for path in f.planes.values()} for part in (training, held_out)]
    assert len(paths[0]) == 6 and len(paths[1]) == 2
    assert not {p.stat().st_ino for p in paths[0]} & {p.stat().st_ino for p in paths[1]}


def test_studies_that_are_links_are_learned_from_once_and_snapshots_never(tmp_path: Path) -> None:
    for folder in ("elsewhere", "data/Study_1", "data/.snapshot/Study_1"):
        for name in ("image_1_BF_z0", "image_1_Nucleus"):
            write(tmp_path / folder / f"{name}.ome.tiff")
    data = tmp_path / "data"
    (data / "Study_2").symlink_to(tmp_path / "elsewhere")
    (data / "A_latest").symlink_to(data / "Study_1")
    (data / "Study_1" / "up").symlink_to(data)
    (data / "Study_1" / "above").symlink_to("../..")  # where other data may lie, such as those to test on
    (data / "gone").symlink_to(tmp_path / "nowhere")
    index = check(scan([data]), AS_IT_IS)
    assert [field.study for field in index.fields] == ["Study_1", "Study_2"]
    told = "leads to a folder that is counted already, or above"
    assert reasons(index) == dict.fromkeys(("A_latest", "above", "up"), told)


def test_planes_without_a_plausible_pixel_size_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plane = np.random.default_rng(0).integers(0, 60000, (8, 8)).astype(np.uint16)
    for image, size in enumerate((0.1, None, 10.0, None)):
        pixel_size_um = None if size is None else (size, size)
        write_plane(tmp_path / f"image_{image}_BF_z0.tif", plane, channel="BF", pixel_size_um=pixel_size_um)
        write_plane(tmp_path / f"image_{image}_Nucleus.tif", plane, channel="x", pixel_size_um=None)
    check(scan([tmp_path]), AS_IT_IS)
    assert not caplog.messages
    check(scan([tmp_path]), Preprocessing(InputNormalization.LINEAR, (0.25, 0.35)))
    assert caplog.messages == [
        f"{tmp_path / 'image_1_BF_z0.tif'} and 1 more: no pixel size, taken as it is (learned: 0.25 to 0.35 µm).",
        f"{tmp_path / 'image_2_BF_z0.tif'}: implausible pixel size 10 x 10 µm, taken as it is "
        "(learned: 0.25 to 0.35 µm).",
    ]


def test_what_would_be_learned_otherwise_than_expected_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plane = np.random.default_rng(0).integers(0, 60000, (8, 8)).astype(np.uint16)
    for image, (channel, target) in enumerate([("BF", plane), ("PC", plane), ("BF", plane // 60000), ("PC", plane)]):
        write_plane(tmp_path / f"image_{image}_BF_z0.tif", plane, channel=channel, pixel_size_um=(0.1, 0.1))
        write_plane(tmp_path / f"image_{image}_Nucleus.tif", target, channel="x", pixel_size_um=None)
    rgb = np.stack([plane >> 8] * 3, -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "image_0_Nucleus.tif", rgb, photometric="rgb")
    assert len(check(scan([tmp_path]), AS_IT_IS).fields) == 4
    assert caplog.messages == [
        f"{tmp_path / 'image_0_Nucleus.tif'}: its colours are taken as grey (luminance).",
        f"{tmp_path / 'image_1_BF_z0.tif'} and 1 more: learned from as BF by its name; prediction takes it as PC.",
        f"{tmp_path / 'image_2_Nucleus.tif'}: no contrast (grey value 0 throughout).",
    ]


def test_a_folder_of_near_misses_names_one(tmp_path: Path) -> None:
    write(tmp_path / "image-1_BF_z0.tif")
    with pytest.raises(UserError, match=r"found no file named like .* but .*image-1_BF_z0\.tif, expected"):
        scan([tmp_path])


def test_names_that_mean_the_same_and_names_that_mean_nothing_are_told(tmp_path: Path) -> None:
    for name in ("image_1_BF_z0", "image_01_bf", "image_1_nucleus", "image_1_Nuclei", "image-2_BF_z0", "notes"):
        write(tmp_path / f"{name}.ome.tiff")
    index = check(scan([tmp_path]), AS_IT_IS)
    (field,) = index.fields
    assert list(field.planes) == [0] and list(field.labels) == [Organelle.NUCLEUS]
    told = reasons(index)
    assert "is not named as in the challenge" in told["image_1_Nuclei.ome.tiff"]
    assert "is not named as in the challenge" in told["image-2_BF_z0.ome.tiff"]
    assert told["image_1_BF_z0.ome.tiff"] == "its name means the same as that of image_01_bf.ome.tiff"
    assert "notes.ome.tiff" not in told


def test_folders_of_predictions_are_not_learned_from(tmp_path: Path) -> None:
    for folder in ("Study_1", "images/nucleus-fluorescence-ome-tiff/Study_1", "day1-ome-tiff"):
        for name in ("image_1_BF_z0", "image_1_Nucleus"):
            write(tmp_path / folder / f"{name}.ome.tiff")
    assert check(scan([tmp_path]), AS_IT_IS).studies == ("Study_1", "day1-ome-tiff")


def test_mha_inputs_and_targets(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name in ("image_1_BF_z0", "image_1_Nucleus"):
        image = SimpleITK.GetImageFromArray(pixels)
        image.SetSpacing((0.0003, 0.0003))
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}.mha"))
    (field,) = check(scan([tmp_path]), AS_IT_IS).fields
    assert field.shape == (8, 8) and (read_image(field.labels[Organelle.NUCLEUS]).pixels == pixels).all()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for folder in ("Study_1", "lost+found"):
        for name in ("image_1_BF_z0", "image_1_Nucleus"):
            write(tmp_path / folder / f"{name}.ome.tiff")
    (tmp_path / "lost+found").chmod(0)
    index = scan([tmp_path])
    (tmp_path / "lost+found").chmod(0o700)
    assert len(index.fields) == 1 and "cannot be read" in reasons(index)["lost+found"]


def test_the_summary_of_many_skipped_files_is_short(tmp_path: Path) -> None:
    for image in range(50):
        write(tmp_path / f"image_{image}_Nuclei.tif")
    write(tmp_path / "image_1_BF_z0.tif")
    write(tmp_path / "image_1_Nucleus.tif")
    assert "and 20 more are skipped" in scan([tmp_path]).summary()
