"""The simulated camera: photon transfer, offset, bits, fixed patterns, and determinism."""

from dataclasses import replace

import numpy as np
import pytest

from simulation.camera import (
    MEAN_CODE_RANGE,
    Camera,
    Dust,
    FieldStop,
    Scratch,
    draw_camera,
    expose,
    expose_fluorescence,
)

PLAIN = Camera(
    bit_depth=16, stretched=False, full_well=20_000, background_electrons=5_000, read_noise=3, dark=0, prnu=0.01
)
FLAT = np.ones((160, 160), np.float32)


def pair(camera: Camera, level: float) -> tuple[float, float]:
    """Mean code, and variance by the difference of two frames, which cancels fixed patterns."""
    a, b = (expose(FLAT * level, camera, np.random.default_rng(seed)).astype(np.float64) for seed in (1, 2))
    return float((a + b).mean() / 2), float((a - b).var() / 2)


def test_photon_transfer_is_linear() -> None:
    levels = [pair(PLAIN, level) for level in (0.05, 0.2, 0.5, 1.0, 2.0)]
    mean, variance = np.array(levels).T
    slope, _ = np.polyfit(mean - PLAIN.offset, variance, 1)
    assert slope == pytest.approx(PLAIN.gain, rel=0.05)
    assert np.corrcoef(mean, variance)[0, 1] > 0.999
    # In the dark only read noise (and rounding, 1/12) is left.
    dark_mean, dark_variance = pair(PLAIN, 0.0)
    assert dark_variance == pytest.approx((PLAIN.read_noise * PLAIN.gain) ** 2 + 1 / 12, rel=0.2)
    assert dark_mean == pytest.approx(PLAIN.offset, abs=10)


def test_offset_and_mean() -> None:
    frame = expose(FLAT, PLAIN, np.random.default_rng(0))
    assert frame.dtype == np.uint16
    assert frame.mean() == pytest.approx(PLAIN.offset + PLAIN.gain * 5_000, rel=0.002)
    quiet = replace(PLAIN, read_noise=0)
    assert (expose(FLAT * 0, quiet, np.random.default_rng(0)) == 100).all()


@pytest.mark.parametrize("bits", [12, 14, 16])
@pytest.mark.parametrize("stretched", [False, True])
def test_codes_stay_within_the_bits(bits: int, stretched: bool) -> None:
    camera = replace(PLAIN, bit_depth=bits, stretched=stretched)
    frame = expose(FLAT * 20, camera, np.random.default_rng(0))
    assert frame.max() == (65535 if stretched else 2**bits - 1)
    assert expose(FLAT * 0, camera, np.random.default_rng(0)).min() >= 0
    if stretched and bits == 12:
        # A stretched 12-bit file still holds 4096 values only: codes lie 16 apart.
        codes = np.unique(expose(FLAT, camera, np.random.default_rng(0)))
        assert np.diff(codes.astype(int)).min() >= 16


def test_same_seed_same_bytes() -> None:
    camera = draw_camera(np.random.default_rng(7))
    assert camera == draw_camera(np.random.default_rng(7))
    assert camera != draw_camera(np.random.default_rng(8))
    a, b, c = (expose(FLAT, camera, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != c.tobytes()


def test_drawn_cameras_cover_the_measured_range() -> None:
    means = []
    for seed in range(150):
        camera = draw_camera(np.random.default_rng(seed))
        assert camera.background_electrons >= 2_499
        means.append(float(expose(FLAT[:48, :48], camera, np.random.default_rng(0)).mean()))
        assert 0.0299 <= np.hypot(*camera.tilt) + camera.vignetting <= 0.2001
        assert all(5 <= grain.radius_px <= 50 and 0.01 <= grain.depth <= 0.1 for grain in camera.dust)
    assert min(means) > MEAN_CODE_RANGE[0] and max(means) < MEAN_CODE_RANGE[1]
    assert min(means) < 700 and max(means) > 25_000


def test_dust_and_gradient_are_fixed_and_only_in_transmitted_light() -> None:
    dust = Dust(y=0.5, x=0.5, radius_px=12, depth=0.1, ringing=0.0)
    camera = replace(PLAIN, dust=(dust,), tilt=(0.0, 0.05), prnu=0.0)
    frames = np.mean([expose(FLAT, camera, np.random.default_rng(s)) for s in range(12)], axis=0) - 100
    clean = frames[10:40, 60:100].mean()
    assert frames[78:82, 78:82].mean() / clean == pytest.approx(0.9, abs=0.01)
    assert frames[:, -10:].mean() / frames[:, :10].mean() == pytest.approx(1.1, abs=0.02)
    glow = expose_fluorescence(FLAT, camera, np.random.default_rng(0), 2_000, 50)
    assert glow[:, -10:].mean() == pytest.approx(glow[:, :10].mean(), rel=0.01)
    assert glow[70:90, 70:90].mean() == pytest.approx(glow.mean(), rel=0.01)


def test_ring_shaped_dust_is_brighter_in_its_middle() -> None:
    camera = replace(PLAIN, dust=(Dust(0.5, 0.5, 30, 0.1, 1.0),), prnu=0.0)
    frames = np.mean([expose(FLAT, camera, np.random.default_rng(s)) for s in range(12)], axis=0)
    assert frames[77:83, 77:83].mean() > 1.03 * frames[77:83, 80 + 23 : 80 + 29].mean()


def test_fluorescence_signal_and_background() -> None:
    density = np.zeros((160, 160), np.float32)
    density[40:80, 40:80] = 3.7
    frame = expose_fluorescence(density, PLAIN, np.random.default_rng(0), 1_000, 40).astype(float)
    electrons = (frame - PLAIN.offset) / PLAIN.gain
    assert electrons[45:75, 45:75].mean() == pytest.approx(1_040, rel=0.01)
    assert electrons[100:, 100:].mean() == pytest.approx(40, rel=0.02)
    empty = expose_fluorescence(density * 0, PLAIN, np.random.default_rng(0), 1_000, 40).astype(float)
    assert empty.mean() == pytest.approx(PLAIN.offset + 40 * PLAIN.gain, rel=0.01)


def test_impossible_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match="bits"):
        replace(PLAIN, bit_depth=10)
    with pytest.raises(ValueError, match="offset"):
        replace(PLAIN, offset=-1)
    with pytest.raises(ValueError, match="shape"):
        expose(np.ones((2, 8, 8), np.float32), PLAIN, np.random.default_rng(0))


def test_exports_stretch_and_round_what_the_camera_saw() -> None:
    ramp = np.tile(np.linspace(0.5, 1.5, 160, dtype=np.float32), (160, 1))
    raw = expose(ramp, PLAIN, np.random.default_rng(0))
    eight = expose(ramp, replace(PLAIN, export_bits=8), np.random.default_rng(0))
    assert eight.max() <= 255
    np.testing.assert_allclose(eight * 257.0, raw, atol=130)
    stretched = expose(ramp, replace(PLAIN, autoscaled=True), np.random.default_rng(0))
    assert stretched.min() == 0 and stretched.max() == 65535
    assert np.corrcoef(raw.ravel(), stretched.ravel())[0, 1] > 0.9999


def test_flare_takes_contrast_away_and_leaves_the_background() -> None:
    image = FLAT.copy()
    image[:, 80:] = 1.4
    clear, hazy = (expose(image, replace(PLAIN, flare=flare, prnu=0), np.random.default_rng(0)) for flare in (0.0, 1.0))
    assert hazy[:, :70].mean() == pytest.approx(clear[:, :70].mean(), rel=0.005)
    rise = [float(frame[:, 90:].mean() - frame[:, :70].mean()) for frame in (clear, hazy)]
    assert rise[1] == pytest.approx(rise[0] / 2, rel=0.05)


def test_a_field_stop_darkens_what_lies_outside_and_scratches_mark_a_line() -> None:
    stop = FieldStop(y=0.5, x=0.5, radius=0.4, softness=0.01, leak=0.05)
    frame = expose(FLAT, replace(PLAIN, field_stop=stop), np.random.default_rng(0)).astype(float) - PLAIN.offset
    assert frame[:10, :10].mean() < 0.1 * frame[70:90, 70:90].mean()
    scratch = Scratch(y=0.5, x=0.5, direction=0.0, bend=0.0, length=3.0, width_px=3.0, depth=0.2)
    marked = expose(FLAT, replace(PLAIN, scratches=(scratch,)), np.random.default_rng(0)).astype(float)
    rows = marked.mean(axis=1) / np.median(marked) - 1
    assert rows.max() == pytest.approx(0.2, abs=0.04) and rows.min() == pytest.approx(-0.2, abs=0.04)
    assert abs(rows[:50]).max() < 0.02
