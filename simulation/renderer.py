"""Draw the microscope while training: planes and targets from stored specimens, on the network's own grid.

Each plane meets a microscope, focus and camera of its own. Waves are propagated on the specimen's pixels (0.25 µm) and
the image is brought to the network's grid in one Fourier interpolation, so a plane costs the same whatever the camera's
pixel. What is approximated, against simulate.py:

- High apertures: light scattered beyond the grid's own frequencies (2 cycles/µm) is left out (see `transmitted`).
- A camera finer than the network's grid is not exposed pixel by pixel: the image is averaged as resampling would (the
  camera's pixel, then a triangle two network pixels wide), and noise is that of as many pixels as the triangle weighs
  equally, 2.25 (network pixel / camera pixel)². It is white, where resampled noise is correlated between neighbours.
- Targets are blurred mixtures of two stored images instead of images through the study's own aperture, and noiseless.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft as sizes
from torch import Tensor

from model.errors import UserError
from model.labels import Modality
from model.normalization import TARGET_PERCENTILES, TARGET_RANGE
from model.resampling import resample_image
from simulation.camera import Camera, expose
from simulation.optics import interpolate, transmitted
from simulation.specimen_store import FLUORESCENCE_NA, PIXEL_UM, SpecimenStore
from simulation.study import Study, draw_foci, draw_study, taper

MARGIN_PX = 16  # rendered around a plane and cut away, since Fourier optics wraps around
MOST_SOURCES = 16
OWN_MICROSCOPE = 0.6  # share of planes whose microscope is that of the specimen's setting; the others' is ordinary
DIM = 0.3  # of an organelle's typical brightness: a plane that spans less is not stretched to the full range
TRIANGLE_WEIGHT = 2.25  # a triangle two pixels wide averages as much noise as (3 / 2)² pixels, weighted equally


@dataclass(frozen=True)
class RenderedPlane:
    """A simulated plane on the network's grid, with its targets.

    pixels: (Y, X) float32, codes of the camera from 0 to 65535, as a resampled file; targets: (C, Y, X) float32 in the
    order of `Organelle`, normalized as `TargetNormalization.PERCENTILE` does, but an organelle that is absent or dim
    here is left dark (-0.75) instead of stretched.
    """

    pixels: NDArray[np.float32]
    targets: NDArray[np.float32]
    modality: Modality
    pixel_size_um: float


class SpecimenRenderer:
    """Images the specimens of a folder; safe across threads. ``device``: where waves are propagated."""

    def __init__(self, folder: Path, modalities: Sequence[Modality] = tuple(Modality), device: str = "cpu") -> None:
        self.store = SpecimenStore(folder)
        self.modalities = tuple(modalities)
        self.device = torch.device(device)

    def draw(self, rng: np.random.Generator, side: int, pixel_size_um: tuple[float, float]) -> RenderedPlane:
        """Draw specimen, window, microscope, focus and camera, and image them.

        side: of the plane in pixels of the network's grid; pixel_size_um: smallest and largest pixel the network sees.
        Everything follows from the generator's state. Raises UserError where specimens are too small for the side.
        """
        specimen = self.store.specimens[int(rng.integers(len(self.store)))]
        modality = self.modalities[int(rng.integers(len(self.modalities)))]
        setting = specimen.setting if rng.random() < OWN_MICROSCOPE else "ordinary"
        study = draw_study(rng, modality, setting)
        grids = _Grids.choose(side, study.pixel_size_um, pixel_size_um)
        if grids.window > min(specimen.shape):
            raise UserError(
                f"{specimen.path}: is {min(specimen.shape)} pixels of {PIXEL_UM} µm a side, but planes of {side} "
                f"pixels of {grids.network_um:.3f} µm need {grids.window}; grow larger specimens or take smaller planes"
            )
        top, left = (int(rng.integers(size - grids.window + 1)) for size in specimen.shape)
        path, fluorescence = specimen.read((slice(top, top + grids.window), slice(left, left + grids.window)))
        offsets = draw_foci(rng, 3, study.focus_range_um)
        focus = specimen.nuclear_height_um + float(offsets[int(rng.integers(3))])
        intensity = self._transmitted(path, specimen.heights_um, focus, study, grids)
        codes = expose(intensity, grids.camera(study.camera), rng)
        images = self._fluorescence(fluorescence, study, grids)
        return RenderedPlane(
            pixels=resample_image(codes, (side, side)),
            targets=_normalized(images, self.store.typical_brightness),
            modality=modality,
            pixel_size_um=grids.network_um,
        )

    def _transmitted(
        self, path: NDArray[np.float32], heights_um: Sequence[float], focus_um: float, study: Study, grids: "_Grids"
    ) -> NDArray[np.float32]:
        path *= taper((grids.window, grids.window), MARGIN_PX) * np.float32(study.path_factor)
        opd_KYX = torch.from_numpy(path).to(self.device)
        image = transmitted(
            opd_KYX, heights_um, [focus_um], study.microscope, pixel_um=PIXEL_UM, most_sources=MOST_SOURCES
        )[0]
        return grids.sample(image, grids.image, grids.image_shown).clamp_min(0).cpu().numpy()

    def _fluorescence(self, stored_ACYX: NDArray[np.float32], study: Study, grids: "_Grids") -> NDArray[np.float32]:
        """Images (C, Y, X) on the network's grid, between the stored apertures, with the study's blur and haze."""
        low, high = np.log(FLUORESCENCE_NA)
        part = float(np.clip((np.log(study.microscope.fluorescence_na) - low) / (high - low), 0, 1))
        images_CYX = torch.from_numpy(stored_ACYX).to(self.device)
        images_CYX = torch.lerp(images_CYX[0], images_CYX[1], part)
        stain, cycles = study.stain, torch.fft.fftfreq(grids.window, PIXEL_UM, device=self.device)
        squared = cycles[:, None] ** 2 + cycles[: grids.window // 2 + 1] ** 2
        blur = (1 - stain.haze) * torch.exp(-2 * (torch.pi * stain.blur_um) ** 2 * squared)
        blur += stain.haze * torch.exp(-2 * (torch.pi * np.hypot(stain.haze_um, stain.blur_um)) ** 2 * squared)
        blurred = torch.fft.irfft2(torch.fft.rfft2(images_CYX) * blur, s=(grids.window, grids.window))
        return grids.sample(blurred, grids.target, grids.side).clamp_min(0).cpu().numpy()


@dataclass(frozen=True)
class _Grids:
    """The samplings of one square window of a specimen, all of the same area.

    window: the specimen's own pixels of PIXEL_UM a side. image, target: pixels a side over the whole window, on which
    the camera is exposed and targets are wanted; of these the middle image_shown, and side, are kept. camera_um: the
    camera's pixel, network_um: the network's.
    """

    side: int
    window: int
    image: int
    image_shown: int
    target: int
    camera_um: float
    network_um: float

    @classmethod
    def choose(cls, side: int, camera_um: float, network_range_um: tuple[float, float]) -> "_Grids":
        network_um = min(max(camera_um, network_range_um[0]), network_range_um[1])
        exposed_um = max(camera_um, network_um)
        shown = max(1, round(side * network_um / exposed_um))
        window = 2 * int(sizes.next_fast_len(int(np.ceil(side * network_um / PIXEL_UM / 2)) + MARGIN_PX))

        def whole(kept: int, pixel_um: float) -> int:
            # An even number beyond the middle part, so that all middles are the same place.
            return kept + 2 * round((window * PIXEL_UM / pixel_um - kept) / 2)

        return cls(side, window, whole(shown, exposed_um), shown, whole(side, network_um), camera_um, network_um)

    def sample(self, images: Tensor, count: int, kept: int) -> Tensor:
        """Images (..., y, x) of the whole window's area to ``count`` pixels a side, of which the middle are kept."""
        pixel = self.window * PIXEL_UM / count
        averaged = max(self.network_um / self.camera_um, 1) > 1  # resampled to a coarser grid
        factors = []
        for cycles in (torch.fft.fftfreq(count, pixel), torch.fft.rfftfreq(count, pixel)):
            response = torch.sinc(cycles * self.camera_um)
            if averaged:
                response = response * torch.sinc(cycles * self.network_um) ** 2
            # Samples lie in the middles of pixels, those of the specimen half a pixel of its own from the border.
            shift = (pixel - PIXEL_UM) / 2
            factors.append((response * torch.exp(2j * torch.pi * cycles * shift)).to(images.device))
        first = (count - kept) // 2
        whole = interpolate(images, (count, count), (factors[0], factors[1]))
        return whole[..., first : first + kept, first : first + kept]

    def camera(self, camera: Camera) -> Camera:
        """The camera as the exposed grid sees it: one pixel collects what resampling averages."""
        ratio = self.network_um / self.camera_um
        if ratio <= 1:
            return camera
        pixels = TRIANGLE_WEIGHT * ratio**2
        return replace(
            camera,
            full_well=camera.full_well * pixels,
            background_electrons=camera.background_electrons * pixels,
            dark=camera.dark * pixels,
            read_noise=camera.read_noise * float(np.sqrt(pixels)),
            prnu=camera.prnu / float(np.sqrt(pixels)),
            dust=tuple(replace(grain, radius_px=grain.radius_px / ratio) for grain in camera.dust),
            scratches=tuple(replace(scratch, width_px=scratch.width_px / ratio) for scratch in camera.scratches),
        )


def _normalized(images_CYX: NDArray[np.float32], typical: NDArray[np.float64]) -> NDArray[np.float32]:
    """Targets in [-1, 1]: percentiles at -0.75 and 0.25, unless they span less than DIM of the typical brightness."""
    sparse = images_CYX[:, ::2, ::2].reshape(len(images_CYX), -1)
    low, high = np.percentile(sparse, TARGET_PERCENTILES, axis=1)
    span = np.maximum(high - low, DIM * typical)
    relative = (images_CYX - low[:, None, None]) / span[:, None, None]
    scaled: NDArray[np.float32] = np.clip(relative, *TARGET_RANGE).astype(np.float32) - np.float32(0.75)
    return scaled


class PlaneStream:
    """The planes of each batch, for a loader that cuts one crop from each: a pure function of (seed, number, sample).

    A plane is rendered larger than a crop, as images are, so that it is normalized as an image and the cut margin costs
    little; it then serves ``reuse`` batches in a row. The planes of a batch are renewed in turn: every batch meets
    about one in ``reuse`` new ones. Safe across threads. ``count``: samples of a batch that are asked for here.
    """

    def __init__(
        self,
        renderer: SpecimenRenderer,
        seed: int,
        count: int,
        side: int,
        pixel_size_um: tuple[float, float],
        reuse: int = 4,
    ) -> None:
        self._renderer, self._seed, self._count, self._reuse = renderer, seed, count, reuse
        self._side, self._pixel_size_um = side, pixel_size_um
        self._held: OrderedDict[tuple[int, int], Future[RenderedPlane]] = OrderedDict()
        self._lock = threading.Lock()

    def plane(self, number: int, sample: int) -> RenderedPlane:
        """The plane of one sample of batch ``number``."""
        generation = (number + sample) // self._reuse
        with self._lock:
            future = self._held.get((sample, generation))
            mine = future is None
            if future is None:
                future = self._held[sample, generation] = Future()
                while len(self._held) > 3 * self._count:  # batches that are prepared at the same time are near
                    self._held.popitem(last=False)
        if mine:
            try:
                rng = np.random.default_rng([self._seed, sample, generation])
                future.set_result(self._renderer.draw(rng, self._side, self._pixel_size_um))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()
