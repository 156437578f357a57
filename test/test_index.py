"""Index, header check and split of a data directory in the challenge's layout."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.labels import Modality, Organelle
from training.index import Field, Index, check, read_file_lists, scan, split

FILE_LISTS = Path(__file__).parents[2] / "shared" / "lmc-filelists"


def write(path: Path, shape: tuple[int, ...] = (8, 8), dtype: type = np.uint16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.ones(shape, dtype), metadata=None, ome=False)  # pixels come last


def reasons(index: Index) -> dict[str, str]:
    return {Path(s.name).name: s.reason for s in index.skipped}


def test_fields_planes_and_labels(tmp_path: Path) -> None:
    for name in ("image_3_BF_z0", "image_3_BF_z10", "image_3_BF_z2", "image_3_Nucleus", "image_3_Actin"):
        write(tmp_path / "Study_7" / f"{name}.ome.tiff")
    (tmp_path / "Study_7" / "notes.txt").write_text("stray")
    (field,) = check(scan([tmp_path])).fields
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
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"not an image"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cut off"),
        (lambda path: write(path, (8, 9)), "its inputs are (8, 8)"),
        (lambda path: write(path, (2, 8, 8)), "expected one plane"),
        (lambda path: write(path, dtype=np.float32), "expected uint16"),
    ],
)
def test_broken_target_is_left_out_alone_and_named(tmp_path: Path, break_it, reason: str) -> None:
    for name in ("image_1_BF_z0", "image_1_Nucleus", "image_1_Actin"):
        write(tmp_path / f"{name}.ome.tiff")
    break_it(tmp_path / "image_1_Actin.ome.tiff")
    index = check(scan([tmp_path]))
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
    index = check(scan([tmp_path]))
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


@pytest.mark.skipif(not FILE_LISTS.is_dir(), reason="the challenge's file lists are not at hand")
def test_counts_of_the_real_data_set() -> None:
    index = read_file_lists(sorted(FILE_LISTS.glob("Study*.tsv")))
    assert (len(index.studies), len(index.fields), index.inputs(), index.targets()) == (30, 2574, 52382, 4599)
    assert len(index.duplicates) == 41
    assert index.inputs() + index.targets() + len(index.duplicates) == 57022 and not index.skipped
    by_modality = {m: sum(f.modality is m for f in index.fields) for m in Modality}
    assert by_modality == {Modality.BF: 1987, Modality.PC: 301, Modality.DIC: 286}
    assert Organelle.ACTIN not in index.labelled()[Modality.DIC]
