"""Checkpoints: safetensors, never a pickle, with typed metadata in the header.

One header entry holds JSON: the format's version, the metadata below, and a sha256 over metadata and tensors,
so that a changed byte is noticed and a checkpoint cannot be given another origin by hand.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from .errors import UserError
from .files import atomic_write
from .input_statistics import InputStatistics
from .labels import Modality, Organelle
from .networks.architecture import Architecture
from .networks.build import Network, build
from .normalization import InputNormalization, TargetNormalization
from .preprocessing import Preprocessing
from .quantization import dequantize, quantize

FORMAT_VERSION = 1
HEADER_KEY = "in_silico_labelling"  # a single key: safetensors keeps several in no fixed order


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint states of itself; ValueError where the statements contradict each other."""

    architecture: Architecture
    input_normalization: InputNormalization
    target_normalization: TargetNormalization
    window: int  # pixels a side of the crops it learned from, and of the tiles it predicts
    pixel_size_um: tuple[float, float] | None  # smallest and largest learned pixel size; None: unknown
    modalities: tuple[Modality, ...]  # which it saw
    labels: dict[Modality, tuple[Organelle, ...]]  # which organelles were labelled in which modality
    trained_on: str  # e.g. "simulated cells"
    recipe: str
    notes: dict[str, str] = field(default_factory=dict)  # seed, command, steps, validation figures ...
    input_statistics: InputStatistics | None = None  # of what it learned from

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window {self.window}, expected a positive number of pixels")
        if self.pixel_size_um and not 0 < self.pixel_size_um[0] <= self.pixel_size_um[1] < float("inf"):
            raise ValueError(f"pixel sizes {self.pixel_size_um}, expected smallest and largest in µm")
        if not self.modalities or set(self.labels) - set(self.modalities):
            raise ValueError(f"labels for {sorted(self.labels)}, expected some of {sorted(self.modalities)}")
        strange = {o for organelles in self.labels.values() for o in organelles}
        if strange := strange - set(self.architecture.organelles):
            raise ValueError(f"labels of {sorted(strange)}, expected only what the network predicts")
        if not self.trained_on.strip():
            raise ValueError("nothing said about what the network was trained on")

    @property
    def preprocessing(self) -> Preprocessing:
        """What is to be done to an image before this network sees it."""
        return Preprocessing(self.input_normalization, self.pixel_size_um)

    @property
    def all_labels(self) -> frozenset[Organelle]:
        """The organelles that were labelled in any modality."""
        return frozenset(organelle for labelled in self.labels.values() for organelle in labelled)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {
            "architecture": self.architecture.to_dict(),
            "input_scaling": str(self.input_normalization),
            "target_scaling": str(self.target_normalization),
            "window": self.window,
            "pixel_size_um": list(self.pixel_size_um) if self.pixel_size_um else None,
            "modalities": [str(modality) for modality in self.modalities],
            "labels": {str(m): [str(o) for o in organelles] for m, organelles in self.labels.items()},
            "trained_on": self.trained_on,
            "recipe": self.recipe,
            "notes": dict(self.notes),
            **({"input_statistics": self.input_statistics.to_dict()} if self.input_statistics else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CheckpointMetadata":
        """Inverse of `to_dict`; raises ValueError, TypeError, KeyError or AttributeError for anything else."""
        sizes, statistics = values["pixel_size_um"], values.get("input_statistics")
        return cls(
            architecture=Architecture.from_dict(values["architecture"]),
            input_normalization=InputNormalization(values["input_scaling"]),
            target_normalization=TargetNormalization(values["target_scaling"]),
            window=int(values["window"]),
            pixel_size_um=None if sizes is None else (float(sizes[0]), float(sizes[1])),
            modalities=tuple(Modality(name) for name in values["modalities"]),
            labels={
                Modality(name): tuple(Organelle(organelle) for organelle in organelles)
                for name, organelles in values["labels"].items()
            },
            trained_on=str(values["trained_on"]),
            recipe=str(values["recipe"]),
            notes={str(key): str(value) for key, value in values["notes"].items()},
            input_statistics=None if statistics is None else InputStatistics.from_dict(statistics),
        )


def save(path: Path, network: Network, metadata: CheckpointMetadata, *, compact: bool = False) -> None:
    """Write network and metadata to `path`, whole or not at all; `compact` in a quarter of the size.

    Raises ValueError where the metadata describes another architecture than the network has.
    """
    if network.architecture != metadata.architecture:
        raise ValueError(f"metadata of {metadata.architecture} for a network of {network.architecture}")
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in network.state_dict().items()
    }
    if compact:
        tensors = quantize(tensors)
    with atomic_write(path) as file:
        file.write(_pack(tensors, metadata.to_dict()))


def replace_metadata(path: Path, metadata: CheckpointMetadata) -> None:
    """Describe a checkpoint anew and leave its weights as they are stored; raises UserError as `load` does."""
    _, tensors = _open(path, with_tensors=True)
    with atomic_write(path) as file:
        file.write(_pack(tensors, metadata.to_dict()))


def load(path: Path, device: str | torch.device = "cpu") -> tuple[Network, CheckpointMetadata]:
    """Build the network of a checkpoint in eval mode, float32, on `device`; torch's random state is untouched.

    Its weights lie channels last, the layout in which convolutions are fastest on CPUs and GPUs alike.

    Raises UserError where the file is missing, damaged, of another format version, altered since it was
    written, or where its tensors are not those of its architecture (naming which are not).
    """
    document, tensors = _open(path, with_tensors=True)
    metadata = _metadata(path, document)
    with torch.device("meta"):  # shapes without memory or random numbers
        network = build(metadata.architecture)
    try:
        weights = dequantize(tensors)
    except ValueError as error:
        raise UserError(f"{path}: found {error}.") from error
    if differences := _differences(network.state_dict(), weights):
        raise UserError(f"{path}: found tensors that are not those of its architecture: {differences}.")
    if document.get("sha256") != _content_hash(tensors, document["metadata"]):
        raise UserError(f"{path}: found contents altered or damaged since it was written, expected its sha256.")
    network.load_state_dict(weights, assign=True)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    return network, metadata


def read_metadata(path: Path) -> CheckpointMetadata:
    """Read the header alone; raises UserError as `load` does, but the hash is for `load` to verify."""
    document, _ = _open(path, with_tensors=False)
    return _metadata(path, document)


def _open(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    expected = f"a checkpoint of format {FORMAT_VERSION}"
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except OSError as error:
        found = "a folder" if path.is_dir() else "no readable file" if path.exists() else "no such file"
        raise UserError(f"{path}: found {found}, expected {expected}.") from error
    except SafetensorError as error:
        raise UserError(f"{path}: found no whole safetensors file ({error}), expected {expected}.") from error
    if header is None:
        raise UserError(f"{path}: found a safetensors file of another program, expected {expected}.")
    try:
        document = json.loads(header)
    except ValueError as error:
        raise UserError(f"{path}: found a header that is no JSON, expected {expected}.") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: found a checkpoint of format {version}, expected format {FORMAT_VERSION}.")
    return document, tensors


def _metadata(path: Path, document: Mapping[str, Any]) -> CheckpointMetadata:
    try:
        return CheckpointMetadata.from_dict(document["metadata"])
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: found metadata that cannot be understood ({reason}).") from error


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Describe how two sets of tensors differ, three names of a kind at most; empty where they do not."""
    missing = sorted(set(wanted) - set(found))
    unexpected = sorted(set(found) - set(wanted))
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(found))
        if wanted[name].shape != found[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    )


def _content_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """sha256 over the metadata and every tensor's name, type, shape and bytes as stored, in order of name."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], version: int = FORMAT_VERSION) -> bytes:
    document = {"format": version, "sha256": _content_hash(tensors, metadata), "metadata": metadata}
    packed: bytes = serialise(dict(tensors), {HEADER_KEY: json.dumps(document)})
    return packed
