"""Put trained checkpoints into a resources folder, with the routing the paper ends on (section 3.1).

    python -m training.release --bf RUN/best.safetensors --pc … --dic … --unified … --output resources

Three separate pix2pix predict their own modality; actin on DIC, which nobody labelled, comes from the unified
network, and so does everything where the modality is unknown.
"""

import argparse
import json
import sys
from pathlib import Path

from model import checkpoint
from model.errors import UserError
from model.files import file_sha256, write_text
from model.labels import Modality, Organelle

UNIFIED = "unetplusplus"


def routes() -> dict[str, dict[str, str]]:
    """Modality (or "unknown") and organelle to "checkpoint/head", as ``routing.json`` holds it."""
    table = {str(modality): {str(o): f"pix2pix-{modality.lower()}/{o}" for o in Organelle} for modality in Modality}
    table[Modality.DIC][Organelle.ACTIN] = f"{UNIFIED}/{Organelle.ACTIN}"
    table["unknown"] = {str(o): f"{UNIFIED}/{o}" for o in Organelle}
    return table


def release(sources: dict[str, Path], output: Path) -> None:
    """Store each source in 8 bits a weight and write routing.json with the files' hashes.

    Raises UserError where a source cannot be loaded or never saw the modality it is meant for.
    """
    output.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, source in sources.items():
        network, metadata = checkpoint.load(source)
        needed = set(Modality) if name == UNIFIED else {Modality(name.removeprefix("pix2pix-").upper())}
        if not needed <= set(metadata.modalities):
            raise UserError(
                f"{source}: found a network that saw {', '.join(metadata.modalities)}, "
                f"expected {', '.join(sorted(needed))} for {name}."
            )
        target = output / f"{name.replace('-', '_')}.safetensors"
        checkpoint.save(target, network, metadata, compact=True)
        files[name] = {"file": target.name, "sha256": file_sha256(target)}
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {metadata.recipe}, trained on {metadata.trained_on}")
    document = {"format": 1, "checkpoints": files, "routes": routes()}
    write_text(output / "routing.json", json.dumps(document, indent=2) + "\n")


def run() -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for modality in Modality:
        parser.add_argument(f"--{modality.lower()}", type=Path, required=True, help=f"pix2pix for {modality}")
    parser.add_argument("--unified", type=Path, required=True, help="UNet++ checkpoint trained on all modalities")
    parser.add_argument("--output", type=Path, required=True, help="resources folder")
    arguments = parser.parse_args()
    sources = {f"pix2pix-{m.lower()}": getattr(arguments, m.lower()) for m in Modality} | {UNIFIED: arguments.unified}
    try:
        release(sources, arguments.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
