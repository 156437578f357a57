"""The challenge's file-name grammar."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.labels import Modality, Organelle
from model.naming import (
    IMAGE_SUFFIXES,
    InputName,
    TargetName,
    is_image,
    modality_token,
    parse,
    prediction_filename,
    stem,
)

names = st.builds(InputName, st.integers(0, 10**6), st.sampled_from(Modality), st.integers(0, 999)) | st.builds(
    TargetName, st.integers(0, 10**6), st.sampled_from(Organelle)
)


@settings(max_examples=50, deadline=None)
@given(names, st.sampled_from(IMAGE_SUFFIXES), st.sampled_from(["", "Study_1/", "C:\\my_BF_data\\"]))
def test_a_name_is_parsed_back_whatever_suffix_and_folder(name, suffix, folder):
    assert parse(folder + name.filename) == name
    assert parse(folder + stem(name.filename) + suffix) == name


def test_names_are_spelled_as_in_the_challenge():
    assert InputName(1, Modality.BF, 0).filename == "image_1_BF_z0.ome.tiff"
    assert TargetName(7, Organelle.NUCLEUS).filename == "image_7_Nucleus.ome.tiff"


@pytest.mark.parametrize(
    "filename",
    [
        "image_1_BF.ome.tiff",
        "image_1_BF_z.ome.tiff",
        "image_01_BF_z0.ome.tiff",
        "image_1_XX_z0.ome.tiff",
        "image_1_nucleus.ome.tiff",
        "image_1_BF_z0.ome.tiff.txt",
        "image_1_BF_z0.png",
        "image_1_BF_z0",
        "image_١_BF_z0.tiff",
        ".image_1_BF_z0.ome.tiff",
        "copy_image_1_BF_z0.ome.tiff",
        "focus.csv",
        "",
    ],
)
def test_other_names_are_none_of_the_challenge(filename):
    assert parse(filename) is None


@pytest.mark.parametrize(
    ("filename", "modality"),
    [
        ("image_1_BF_z0.ome.tiff", Modality.BF),
        ("cells_DIC_20x.tif", Modality.DIC),
        ("x_PC_.mha", Modality.PC),
        ("my_BF_data/plane.tiff", None),
        ("my_BF_data\\image_DIC_z0.tiff", Modality.DIC),
        ("a_BF_DIC_z0.tiff", None),
        ("a_BF_x_BF_y.tiff", Modality.BF),
        ("BF.tiff", None),
        ("ABFC_z0.tiff", None),
        ("a_bf_z0.tiff", None),
    ],
)
def test_the_modality_is_a_token_of_the_base_name_and_never_of_the_path(filename, modality):
    assert modality_token(filename) is modality


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("image_1_BF_z0.ome.tiff", "image_1_BF_z0.tiff"),
        ("0b7e1f0e.tif", "0b7e1f0e.tiff"),
        ("A.OME.TIF", "A.tiff"),
        ("a.mha", "a.tiff"),
        ("a.b.tiff", "a.b.tiff"),
        ("folder/a.tiff", "a.tiff"),
    ],
)
def test_a_prediction_is_named_as_its_input(filename, expected):
    assert prediction_filename(filename) == expected


def test_images_are_told_by_their_suffix():
    assert all(is_image("a" + suffix) and is_image("A" + suffix.upper()) for suffix in IMAGE_SUFFIXES)
    assert not any(is_image(name) for name in ("a.png", "tiff", "._a.tiff", ".tiff", "a.tiff.part"))
