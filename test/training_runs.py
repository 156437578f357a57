"""Runs of train.py on a tiny data set."""

import shlex
from pathlib import Path

import numpy as np

from model.commands import DONE
from model.images import write_plane
from model.labels import Modality, Organelle
from training.command_line import main

SMALL = shlex.split(
    "--width 2 --blocks 1 --discriminator-width 2 --crop 32 --window 32 --schedule steps --steps 4 --decay-steps 4 "
    "--steps-per-epoch 4 --validation-planes 2 --threads 1 --validation-fraction 0.3 --device cpu"
)
NO_GAN = ("--lambda-gan", "0")
ONE_STEP = ("--steps", "1", "--decay-steps", "0")


def write_pairs(root: Path) -> Path:
    """Three fields a modality, two planes each; DIC has no actin, one field has one label only."""
    rng = np.random.default_rng(0)
    for number, modality in enumerate(3 * list(Modality)):
        folder = root / f"Study_{1 + number // 3}"
        folder.mkdir(exist_ok=True)
        plane = rng.integers(1000, 40000, (48, 40)).astype(np.uint16)
        for z in range(2):
            name = f"image_{number}_{modality}_z{z}.ome.tiff"
            write_plane(folder / name, plane + np.uint16(z), channel=modality.value, pixel_size_um=(0.1, 0.11))
        for organelle in Organelle:
            if number == 0 and organelle is not Organelle.NUCLEUS:
                continue
            if (modality, organelle) != (Modality.DIC, Organelle.ACTIN):
                name = f"image_{number}_{organelle.label}.ome.tiff"
                write_plane(folder / name, plane // 2, channel=organelle.label, pixel_size_um=(0.1, 0.11))
    return root


def arguments(data: Path, output: Path, *extra: str, modality: str = "BF") -> list[str]:
    return ["--data", str(data), "--output", str(output), "--modality", modality, *SMALL, *extra]


def run(data: Path, output: Path, *extra: str, modality: str = "BF", code: int = DONE) -> None:
    assert main(arguments(data, output, *extra, modality=modality)) == code
