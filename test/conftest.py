"""Fixtures that several topics share: tiny untrained networks behind a routing, and nothing slow."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from containers import Dish
from identity import Identity
from stacks import predicted_stack

import model.predictor
from model import checkpoint
from model.checkpoint import CheckpointMetadata
from model.files import file_sha256
from model.labels import Modality, Organelle
from model.networks.architecture import Architecture
from model.networks.build import build
from model.normalization import InputNormalization, TargetNormalization

PIX2PIX = Architecture("resnet", width=4, blocks=1, dropout=0.5)
UNIFIED = Architecture("unetplusplus", width=4, dropout=0.5)
TINY_METADATA = CheckpointMetadata(
    architecture=PIX2PIX,
    input_normalization=InputNormalization.LINEAR,
    target_normalization=TargetNormalization.LINEAR,
    window=32,
    pixel_size_um=(0.06, 0.16),
    modalities=tuple(Modality),
    labels={modality: tuple(Organelle) for modality in Modality},
    trained_on="nothing at all",
    recipe="untrained",
    notes={},
)


def write_resources(
    folder: Path, changes: Mapping[str, CheckpointMetadata] | None = None, unknown: bool = True
) -> Path:
    """Write the paper's ensemble, untrained, with window 32: three pix2pix and the unified UNet++.

    `changes` replaces the metadata of the named checkpoints; without `unknown` the unknown modality has no routes.
    """
    metadata = {f"pix2pix-{modality.lower()}": TINY_METADATA for modality in Modality}
    metadata["unified"] = replace(TINY_METADATA, architecture=UNIFIED)
    metadata.update(changes or {})
    torch.manual_seed(0)
    for name, described in metadata.items():
        checkpoint.save(folder / f"{name}.safetensors", build(described.architecture), described)
    routes = {m.value: {o.value: f"pix2pix-{m.lower()}/{o}" for o in Organelle} for m in Modality}
    routes["DIC"]["actin"] = "unified/actin"
    if unknown:
        routes["unknown"] = {o.value: f"unified/{o}" for o in Organelle}
    files = {name: f"{name}.safetensors" for name in metadata}
    entries = {n: {"file": f, "sha256": file_sha256(folder / f)} for n, f in files.items()}
    (folder / "routing.json").write_text(json.dumps({"format": 1, "checkpoints": entries, "routes": routes}))
    return folder


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a command run by one test does to the packages' loggers ends with that test."""
    loggers = [logging.getLogger(name) for name in ("model", "training")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to predict from; read it, never change it."""
    return write_resources(tmp_path_factory.mktemp("resources"))


@pytest.fixture(scope="session")
def expected(resources: Path) -> dict[Organelle, np.ndarray]:
    """What becomes of the planes of `stacks.STACK`; read it, never change it."""
    return predicted_stack(resources)


@pytest.fixture
def dish(tmp_path: Path) -> Dish:
    """Folders for a container, which another user than this one can read."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    return Dish(tmp_path)


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Identity:
    """Every network that a predictor loads returns its input."""
    stand_in = Identity()
    monkeypatch.setattr(model.predictor, "load", stand_in.load)
    return stand_in
