"""The instrument of one study: a value that fixes every optical parameter, and its random drawing.

Ranges follow objectives and condensers in common use for live cells: 20x/0.3-0.5 ("low"), and 40x-100x with
numerical apertures 0.6 to 1.43 ("challenge", as in the light-my-cells data). Phase rings: the ring radius in
units of numerical aperture is 0.11 (Ph1) to 0.4 (Ph3), its width 0.11-0.16 of the radius. DIC: shear of
0.1-0.3 µm, bias 20-90 degrees (Mehta & Sheppard, Opt. Express 16, 2008). Condenser diaphragms are usually
stopped down for contrast, hence the low coherence ratios of bright field.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.labels import Modality, Organelle

Setting = Literal["challenge", "low", "ordinary", "empty"]

_NA_RANGE: dict[str, tuple[float, float]] = {"challenge": (0.6, 1.43), "low": (0.3, 0.5)}
_PIXEL_RANGE_UM: dict[str, tuple[float, float]] = {"challenge": (0.06, 0.16), "low": (0.25, 0.35)}

# Emission maxima (µm): Hoechst/DAPI, MitoTracker orange to red, GFP to Alexa 532, and TRITC to far-red
# phalloidin.
_EMISSION_RANGE_UM: dict[Organelle, tuple[float, float]] = {
    Organelle.MITOCHONDRIA: (0.57, 0.63),
    Organelle.NUCLEUS: (0.45, 0.47),
    Organelle.TUBULIN: (0.51, 0.55),
    Organelle.ACTIN: (0.58, 0.67),
}


@dataclass(frozen=True)
class Microscope:
    """One study's instrument. Lengths in µm, angles in radians, pairs as (y, x); apertures are n sin(theta).

    ring_na, ring_width_ratio (width / radius), ring_transmission (of intensity), ring_phase_rad (-π/2: positive
    contrast, dense cells are dark; +π/2: negative) and ring_decentre_na (of the phase ring against the image of the
    annulus) act in phase contrast only, shear_um and bias_rad in DIC
    only; in phase contrast the annulus replaces the condenser's disk. Aberrations are coefficients in waves
    of 6 r^4 - 6 r^2 + 1 and of r^2 cos 2t, r^2 sin 2t over the pupil. emission_um is in the order of
    `Organelle`. Raises ValueError where the values do not make an instrument, or where the camera would not
    sample the whole band of frequencies (pixel > wavelength / (4 NA)).
    """

    modality: Modality
    numerical_aperture: float
    condenser_na: float
    wavelength_um: float
    medium_index: float
    pixel_size_um: float
    ring_na: float = 0.3
    ring_width_ratio: float = 0.12
    ring_transmission: float = 0.2
    ring_phase_rad: float = -np.pi / 2
    ring_decentre_na: tuple[float, float] = (0.0, 0.0)
    shear_um: tuple[float, float] = (0.0, 0.2)
    bias_rad: float = 0.8
    source_offset_na: tuple[float, float] = (0.0, 0.0)
    spherical_waves: float = 0.0
    astigmatism_waves: tuple[float, float] = (0.0, 0.0)
    fluorescence_na: float = 0.8
    emission_um: tuple[float, float, float, float] = (0.6, 0.46, 0.52, 0.62)

    def __post_init__(self) -> None:
        if min(self.numerical_aperture, self.wavelength_um, self.medium_index, self.pixel_size_um) <= 0:
            raise ValueError("Aperture, wavelength, refractive index and pixel size must be positive.")
        if not sampled(self.pixel_size_um, self.pupil_na, self.wavelength_um):
            raise ValueError(
                f"A pixel of {self.pixel_size_um:.3f} µm undersamples NA {self.numerical_aperture:.2f} at "
                f"{self.wavelength_um:.3f} µm; at most wavelength / (4 NA) is expected."
            )
        if self.source_edge_na >= self.pupil_na:
            raise ValueError(
                f"The illumination reaches NA {self.source_edge_na:.2f}, outside the pupil of {self.pupil_na:.2f}."
            )
        if self.modality is Modality.DIC and abs(np.sin(self.bias_rad / 2)) < 1e-3:
            raise ValueError("DIC needs a bias: at extinction the background cannot be normalised to 1.")

    @property
    def pupil_na(self) -> float:
        """Aperture of the light that reaches the pupil: beyond the medium's index waves are evanescent."""
        return min(self.numerical_aperture, self.medium_index)

    @property
    def source_edge_na(self) -> float:
        """Largest aperture of any illuminating wave."""
        if self.modality is Modality.PC:
            return self.ring_na * (1 + self.ring_width_ratio / 2)
        return self.condenser_na + float(np.hypot(*self.source_offset_na))

    def emission(self, organelle: Organelle) -> float:
        """Emission wavelength of the organelle's stain, µm."""
        return self.emission_um[list(Organelle).index(organelle)]


def sampled(pixel_size_um: float, numerical_aperture: float, wavelength_um: float) -> bool:
    """Whether pixels sample an intensity image, whose band ends at 2 NA / wavelength, without aliasing."""
    return 4 * pixel_size_um * numerical_aperture <= wavelength_um * (1 + 1e-6)


def _direction(rng: np.random.Generator, length: float) -> tuple[float, float]:
    """A vector (y, x) of the given length in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return (float(length * np.sin(angle)), float(length * np.cos(angle)))


def _coherence_ratio(rng: np.random.Generator, modality: Modality) -> float:
    """Condenser NA over objective NA: bright field is mostly stopped down, since contrast comes from coherence."""
    if modality is Modality.BF and rng.random() < 0.85:
        return float(rng.uniform(0.15, 0.6))
    return float(rng.uniform(0.1 if modality is Modality.BF else 0.25, 0.8))


def draw_microscope(
    rng: np.random.Generator,
    modality: Modality,
    pixel_size_um: float | None = None,
    setting: Literal["challenge", "low"] = "challenge",
    na_range: tuple[float, float] | None = None,
) -> Microscope:
    """Draw one study's instrument within the documented ranges; the same generator state gives the same instrument.

    pixel_size_um fixes the pixel (µm), else it is log-uniform within the setting's range. The objective's NA
    lies within the setting's range (or na_range) and at most at wavelength / (4 pixel). Raises ValueError where a given
    pixel is too coarse for the setting's lowest NA.
    """
    lowest, highest = na_range or _NA_RANGE[setting]
    wavelength = float(rng.uniform(0.45, 0.70))
    drawn_pixel = float(np.exp(rng.uniform(*np.log(_PIXEL_RANGE_UM[setting]))))
    pixel = drawn_pixel if pixel_size_um is None else float(pixel_size_um)
    highest = min(highest, wavelength / (4 * pixel))
    if highest < lowest:
        raise ValueError(
            f"A pixel of {pixel:.3f} µm cannot sample the setting {setting!r}, whose lowest NA is {lowest}; "
            f"at most {wavelength / (4 * lowest):.3f} µm is expected."
        )
    aperture = float(rng.uniform(lowest, highest))
    index = float(rng.uniform(1.335, 1.338))
    pupil = min(aperture, index)
    # A dry condenser ends at about NA 0.9.
    coherence = _coherence_ratio(rng, modality)
    if setting == "low" and modality is Modality.BF:
        coherence = 0.1 + 0.5 * (coherence - 0.1)  # 20x assays are run nearly coherent, or contrast would be lost
    condenser = min(coherence * pupil, 0.9)
    # Off-centre by up to 0.3 of the condenser's aperture, but always inside the pupil.
    offset = min(float(rng.uniform(0, 0.3)) * condenser, 0.9 * (pupil - condenser))
    # Half of the microscopes are well aligned.
    offset *= float(rng.random() < 0.5)
    ring_na = float(rng.uniform(0.11, min(0.4, 0.7 * pupil)))
    ring_width_ratio = float(rng.uniform(0.10, 0.17))
    is_ring = modality is Modality.PC
    source_offset = _direction(rng, offset)
    return Microscope(
        modality=modality,
        numerical_aperture=aperture,
        condenser_na=ring_na * (1 + ring_width_ratio / 2) if is_ring else condenser,
        wavelength_um=wavelength,
        medium_index=index,
        pixel_size_um=pixel,
        ring_na=ring_na,
        ring_width_ratio=ring_width_ratio,
        ring_transmission=float(rng.uniform(0.15, 0.25)),
        ring_decentre_na=_direction(rng, float(rng.uniform(0, 0.3)) * ring_na * ring_width_ratio),
        shear_um=_direction(rng, float(rng.uniform(0.1, 0.3))),
        bias_rad=float(np.deg2rad(rng.uniform(20, 90))),
        source_offset_na=(0.0, 0.0) if is_ring else source_offset,
        spherical_waves=float(rng.uniform(-0.1, 0.1)),
        astigmatism_waves=_direction(rng, float(rng.uniform(0, 0.05))),
        fluorescence_na=aperture * float(rng.uniform(0.85, 1.0)),
        emission_um=(
            float(rng.uniform(*_EMISSION_RANGE_UM[Organelle.MITOCHONDRIA])),
            float(rng.uniform(*_EMISSION_RANGE_UM[Organelle.NUCLEUS])),
            float(rng.uniform(*_EMISSION_RANGE_UM[Organelle.TUBULIN])),
            float(rng.uniform(*_EMISSION_RANGE_UM[Organelle.ACTIN])),
        ),
    )
