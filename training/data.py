"""What a run learns from and what it is validated on, read and told before it begins."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import UserError
from model.images import inspect
from model.preprocessing import Preprocessing
from simulation.renderer import SpecimenRenderer
from training.batches import BatchSource, FieldBatches, SpecimenBatches
from training.check import check
from training.config import RunConfig
from training.distributed import on_first_rank, world_size
from training.index import Index, hold_out, split
from training.plane_cache import PlaneCache
from training.scan import scan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """Batches to learn from, fields to validate on, and what the images say of their origin."""

    source: BatchSource
    validation: Index
    origin: str
    examples: Index
    """Fields that look like what is learned from."""


def read_data(config: RunConfig) -> Data:
    """Index and check the data, hold fields out, and log what was found and what is left out.

    Rank 0 alone reads all files.

    Parameters
    ----------
    config : RunConfig
        With specimens, all fields are held out.

    Raises
    ------
    UserError
        Where nothing is left to learn from.
    """
    preprocessing = Preprocessing(config.input_normalization, config.pixel_size_um)
    index = on_first_rank(lambda: _read_index(config, preprocessing))
    parts = config.accumulate * world_size()
    if config.specimens is not None:
        renderer = SpecimenRenderer(config.specimens, config.modalities)
        log.info("%d specimens to render, %d fields held out", len(renderer.store), len(index.fields))
        return Data(SpecimenBatches(renderer, config, parts), index, "simulated cells", examples=index)
    training, validation = _split(index, config)
    cache = PlaneCache(preprocessing, config.target_normalization, int(config.cache_gb * 2**30))
    source = FieldBatches(training, cache, config, parts)
    return Data(source, validation, origin(training, config.data), examples=training)


def _split(index: Index, config: RunConfig) -> tuple[Index, Index]:
    if config.validation_studies:
        training, validation = hold_out(index, config.validation_studies)
        option, how = f"--validation-studies {' '.join(config.validation_studies)}", "study"
    else:
        training, validation = split(index, by=config.split_by, fraction=config.validation_fraction, seed=config.seed)
        option, how = f"--validation-fraction {config.validation_fraction}", config.split_by
    if not training.fields:
        raise UserError(f"{option} leaves no {how} to train on.")
    if config.partial_labels == "complete":
        training = training.complete()
        if not training.fields:
            raise UserError("--partial-labels complete is given, but no field has all labels of its modality.")
    studies = f" ({', '.join(validation.studies)})" if how == "study" and validation.fields else ""
    log.info("%d fields to train on, %d held out by %s%s", len(training.fields), len(validation.fields), how, studies)
    return training, validation


def _read_index(config: RunConfig, preprocessing: Preprocessing) -> Index:
    index = scan(config.data)
    if unknown := sorted(set(config.validation_studies) - set(index.studies)):
        raise UserError(f"{config.data[0]}: found no study {unknown[0]}, expected those of --validation-studies.")
    chosen = index.only(config.modalities)
    if not chosen.fields:
        log.info(index.summary())
        present = ", ".join(index.labelled()) or "no labelled field"
        raise UserError(f"{config.data[0]}: holds {present}, expected labelled fields of {config.modality}.")
    chosen = check(chosen, preprocessing)
    log.info(chosen.summary())
    if not chosen.fields:
        raise UserError(f"{config.data[0]}: none of its fields is usable, see the reasons above.")
    return chosen


def origin(index: Index, roots: Sequence[Path]) -> str:
    """Say what a checkpoint is trained on: the origin in the files of ``simulate.py``, else the folder's name."""
    texts = []
    for path in (next(iter(field.planes.values())) for field in index.fields):
        root = next(root for root in roots if path.is_relative_to(root))
        texts.append(inspect(path).provenance.get("origin") or f"data in {root.resolve().name}")
    return " and ".join(dict.fromkeys(texts))
