"""Put trained checkpoints into a resources folder, with the routing the paper ends on (section 3.1).

    python -m training.release --bf RUN/best.safetensors --pc … --dic … --unified … --output resources

Three separate pix2pix predict their own modality; actin on DIC, which nobody labelled, comes from the unified
network, and so does everything where the modality is unknown. Three more may predict images of low magnification
(--low-bf, --low-pc, --low-dic), where pixels are 0.2 µm or more.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from model import checkpoint
from model.checkpoint import CheckpointMetadata
from model.commands import DONE, NOT_BEGUN, log_to_standard_streams, one_sentence
from model.errors import UserError
from model.files import file_sha256, prepare_folder, write_text
from model.labels import Modality, Organelle
from model.networks.build import Network, rebuild
from model.networks.generator import ResnetGenerator

log = logging.getLogger(f"{__package__}.release")  # __name__ is __main__ when this is the command

UNIFIED = "unetplusplus"
LOW = "-low-magnification"
LOW_FROM_UM = 0.2
"""Between the coarsest pixels of 40x (0.16 µm with usual cameras) and those of 20x (0.3 µm)."""


def routes(suffix: str = "", actin_on_dic: str = UNIFIED) -> dict[str, dict[str, str]]:
    """Modality (or "unknown") and organelle to "checkpoint/head", as ``routing.json`` holds it."""
    table = {str(m): {str(o): f"pix2pix-{m.lower()}{suffix}/{o}" for o in Organelle} for m in Modality}
    table[Modality.DIC][Organelle.ACTIN] = f"{actin_on_dic}/{Organelle.ACTIN}"
    table["unknown"] = {str(o): f"{UNIFIED}/{o}" for o in Organelle}
    return table


def filtered(network: Network, metadata: CheckpointMetadata) -> tuple[Network, CheckpointMetadata]:
    """Filter the checkerboard of plain transposed convolutions out; the weights, and other networks, stay."""
    if not isinstance(network, ResnetGenerator) or network.architecture.upsampling != "transposed":
        return network, metadata
    new = rebuild(network, upsampling="filtered")
    return new, replace(metadata, architecture=new.architecture)


def release(sources: Mapping[str, Path], output: Path, *, filter_checkerboard: bool = False) -> None:
    """Store checkpoints in 8 bits a weight, and write routing.json with the files' hashes.

    Parameters
    ----------
    sources : mapping of str to Path
        Checkpoint files by name: ``pix2pix-bf``, ``pix2pix-pc``, ``pix2pix-dic`` and `UNIFIED`; the first three also
        with `LOW` behind it.
    output : Path
        Resources folder; files of the same names are replaced.
    filter_checkerboard : bool
        Whether networks with plain transposed convolutions are stored as `filtered`.

    Raises
    ------
    UserError
        Where a source cannot be loaded or never saw the modality it is meant for.
    """
    prepare_folder(output)
    files = {}
    actin_on_dic = UNIFIED  # at low magnification: the network of DIC itself, if it had labels of actin
    for name, source in sources.items():
        network, metadata = checkpoint.load(source)
        needed = (
            set(Modality) if name == UNIFIED else {Modality(name.removesuffix(LOW).removeprefix("pix2pix-").upper())}
        )
        if not needed <= set(metadata.modalities):
            raise UserError(
                f"{source}: found a network that saw {', '.join(metadata.modalities)}, "
                f"expected {', '.join(sorted(needed))} for {name}."
            )
        if filter_checkerboard:
            network, metadata = filtered(network, metadata)
        target = output / f"{name.replace('-', '_')}.safetensors"
        checkpoint.save(target, network, metadata, compact=True)
        if name == f"pix2pix-dic{LOW}" and Organelle.ACTIN in metadata.labels[Modality.DIC]:
            actin_on_dic = name
        files[name] = {"file": target.name, "sha256": file_sha256(target)}
        size = target.stat().st_size / 1e6
        log.info("%s: %.1f MB, %s, trained on %s", target, size, metadata.recipe, metadata.trained_on)
    document: dict[str, object] = {"format": 1, "checkpoints": files, "routes": routes()}
    if any(name.endswith(LOW) for name in files):
        document["low_magnification"] = {"from_um": LOW_FROM_UM, "routes": routes(LOW, actin_on_dic)}
    write_text(output / "routing.json", json.dumps(document, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    for modality in Modality:
        parser.add_argument(f"--{modality.lower()}", type=Path, required=True, help=f"pix2pix for {modality}")
    for modality in Modality:
        parser.add_argument(f"--low-{modality.lower()}", type=Path, help=f"pix2pix for {modality} at low magnification")
    parser.add_argument("--unified", type=Path, required=True, help="UNet++ checkpoint trained on all modalities")
    parser.add_argument(
        "--filter-checkerboard", action="store_true", help="store pix2pix with --upsampling transposed as filtered"
    )
    parser.add_argument("--output", type=Path, required=True, help="resources folder")
    options = parser.parse_args(arguments)
    log_to_standard_streams("training")
    sources = {f"pix2pix-{m.lower()}": getattr(options, m.lower()) for m in Modality} | {UNIFIED: options.unified}
    low = {f"pix2pix-{m.lower()}{LOW}": getattr(options, f"low_{m.lower()}") for m in Modality}
    given = {name: path for name, path in low.items() if path is not None}
    if given and given.keys() != low.keys():
        parser.error("--low-bf, --low-pc and --low-dic: expected all three or none")
    sources |= given
    try:
        release(sources, options.output, filter_checkerboard=options.filter_checkerboard)
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())
