"""Studies: what is drawn once, what each field adds, and which plane is called the best."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.labels import Modality, Organelle
from simulation.microscope import Setting
from simulation.study import CHALLENGE_LABELS, Field, bin_pixels, draw_foci, draw_study, render

CHALLENGE_DIGEST, LOW_DIGEST = "8a7d731e08355f93", "10d8f2b758786114"


def drawn_values(modality: Modality, setting: Setting) -> list[float]:
    """A few values of three studies, the last ones that each part draws, rounded against other numerical libraries."""
    values = []
    for seed in range(3):
        study = draw_study(np.random.default_rng(seed), modality, setting)
        scope, camera, params = study.microscope, study.camera, study.params
        values += [scope.emission_um[3], params.diffuse[Organelle.ACTIN], params.membrane, params.round_radius_um[1]]
        values += [camera.background_electrons, camera.vignetting, study.fluorescence_camera.pattern_seed]
    return [round(float(value), 6) for value in values]


def field(seed: int, modality: Modality, setting: Setting = "challenge", size: int = 31, planes: int = 2) -> Field:
    study = draw_study(np.random.default_rng([seed, 0]), modality, setting)
    return render(np.random.default_rng([seed, 1]), study, size, planes)


@pytest.mark.parametrize("setting", ["challenge", "low", "ordinary"])
@pytest.mark.parametrize("modality", Modality)
def test_a_field_has_its_planes_and_all_four_truths(modality: Modality, setting: Setting) -> None:
    rendered = field(3, modality, setting, size=37, planes=3)
    assert rendered.planes.shape == (3, 37, 37)
    assert rendered.planes.dtype == np.uint16
    assert set(rendered.truths) == set(Organelle)
    for truth in rendered.truths.values():
        assert truth.shape == (37, 37)
        assert truth.dtype == np.uint16
    assert rendered.planes.std() > 0


def test_the_smallest_field_is_one_pixel_at_one_plane() -> None:
    rendered = field(0, Modality.BF, size=1, planes=1)
    assert rendered.planes.shape == (1, 1, 1)
    assert rendered.best_plane == 0


def test_bytes_follow_from_the_seed_alone() -> None:
    one, two, other = (field(seed, Modality.PC) for seed in (1, 1, 2))
    assert one.planes.tobytes() == two.planes.tobytes()
    assert one.planes.tobytes() != other.planes.tobytes()
    assert all(one.truths[organelle].tobytes() == two.truths[organelle].tobytes() for organelle in Organelle)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), planes=st.integers(1, 13), near=st.floats(0.4, 3), ratio=st.floats(1.1, 15))
def test_foci_rise_within_range_and_one_is_in_focus(seed: int, planes: int, near: float, ratio: float) -> None:
    foci = draw_foci(np.random.default_rng(seed), planes, (near, near * ratio))
    assert foci.shape == (planes,)
    assert (np.diff(foci) >= 0).all()
    assert np.abs(foci).max() <= max(near * ratio, 0.35) + 1e-9
    assert (np.abs(foci) <= 0.3).sum() == 1, "the best plane is unambiguous"


def test_the_best_plane_is_the_one_nearest_to_focus() -> None:
    study = draw_study(np.random.default_rng(0), Modality.BF, "low")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rendered = render(rng, study, 16, 4)
        assert 0 <= rendered.best_plane < 4
    best = {render(np.random.default_rng(seed), study, 8, 4).best_plane for seed in range(8)}
    assert len(best) > 1, "it is not always the same index"


def test_challenge_labels_are_those_of_the_challenge() -> None:
    assert set(CHALLENGE_LABELS) == set(Modality)
    assert not any(Organelle.ACTIN in labels for labels in CHALLENGE_LABELS[Modality.DIC])
    for sets in CHALLENGE_LABELS.values():
        assert all(sets), "every field has a label"
    assert frozenset.union(*(labels for sets in CHALLENGE_LABELS.values() for labels in sets)) == set(Organelle)


@pytest.mark.parametrize("modality", Modality)
def test_instruments_of_studies_keep_to_their_setting(modality: Modality) -> None:
    for seed in range(10):
        challenge, low = (draw_study(np.random.default_rng(seed), modality, s) for s in ("challenge", "low"))
        assert 0.06 <= challenge.microscope.pixel_size_um <= 0.16
        assert 0.6 <= challenge.microscope.numerical_aperture <= 1.43
        assert 0.25 <= low.microscope.pixel_size_um <= 0.35
        assert challenge.microscope.modality is low.microscope.modality is modality
        assert set(challenge.stain.photons) == set(Organelle)


@pytest.mark.parametrize("modality", Modality)
def test_ordinary_studies_span_magnifications_contrasts_and_cameras(modality: Modality) -> None:
    studies = [draw_study(np.random.default_rng(seed), modality, "ordinary") for seed in range(150)]
    pixels = np.array([study.pixel_size_um for study in studies])
    assert 0.06 <= pixels.min() < 0.1 and 0.5 < pixels.max() <= 0.7
    factors = np.array([study.path_factor for study in studies])
    assert 0.15 <= factors.min() < 0.65 and 0.9 < factors.max() <= 1
    cameras = [study.camera for study in studies]
    assert min(camera.background_electrons for camera in cameras) < 6_500
    assert {camera.export_bits for camera in cameras} == {8, 16}
    assert any(camera.field_stop for camera in cameras) and any(camera.scratches for camera in cameras)
    crowds = np.mean([study.params.round_density > 0.4 for study in studies])
    assert 0.02 < crowds < 0.3, "crowds are one case among many"
    assert {study.params.epithelial for study in studies} == {True, False}
    if modality is Modality.PC:
        signs = np.array([np.sign(study.microscope.ring_phase_rad) for study in studies])
        assert 0.2 < np.mean(signs > 0) < 0.5, "a third in negative contrast"


def test_an_empty_dish_has_no_cells() -> None:
    study = draw_study(np.random.default_rng(1), Modality.PC, "empty")
    study = replace(study, params=replace(study.params, debris_density=0.0))
    rendered = render(np.random.default_rng(2), study, 24, 1)
    assert rendered.planes.std() > 0, "but noise"
    for organelle in Organelle:
        truth = rendered.truths[organelle].astype(np.float64)
        noise = np.abs(truth - np.median(truth)).max() / max(truth.std(), 1e-9)
        assert noise < 6, "nothing stands out of the noise"


@pytest.mark.parametrize(("setting", "digest"), [("challenge", CHALLENGE_DIGEST), ("low", LOW_DIGEST)])
def test_the_studies_of_a_seed_stay_the_same(setting: Setting, digest: str) -> None:
    # Data sets in use are named by setting and seed: what is added to the simulator must not redraw them.
    drawn = "".join(repr(drawn_values(m, setting)) for m in Modality)
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == digest


def test_larger_pixels_collect_the_light_of_all_they_cover() -> None:
    image = np.arange(42, dtype=np.float32).reshape(6, 7)
    assert bin_pixels(image, 1) is image
    np.testing.assert_allclose(bin_pixels(image, 3), [[8.0, 11.0], [29.0, 32.0]])
