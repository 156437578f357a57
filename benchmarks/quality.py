"""How well the shipped checkpoints predict simulated cells they have never seen, as the challenge scores it.

    python -m benchmarks.quality --output runs/quality
    python -m benchmarks.quality --output runs/quality_ordinary --setting ordinary

Renders fields from a seed that no training used, predicts and scores them with the project's own commands, once with
the shipped routing and, for contrast, once with actin on DIC from the pix2pix of DIC. Prints a Markdown table and
writes benchmarks/results/quality_SETTING.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from model.labels import Modality, Organelle

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")
UNSEEN_SEED = 90210


def command(script: str, *options: object) -> None:
    """Run one of the project's commands; its failure is ours."""
    subprocess.run([sys.executable, str(ROOT / script), *map(str, options)], check=True)


def with_actin_by_pix2pix(resources: Path, folder: Path) -> Path:
    """Copy the resources and send actin on DIC to the network that never saw such a label."""
    shutil.copytree(resources, folder, dirs_exist_ok=True)
    routing = json.loads((folder / "routing.json").read_text())
    routing["routes"][Modality.DIC][Organelle.ACTIN] = "pix2pix-dic/actin"
    (folder / "routing.json").write_text(json.dumps(routing))
    return folder


def score(data: Path, resources: Path, output: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Predict and score a data set: modality -> organelle -> metric."""
    command("inference.py", "--input", data, "--output", output / "predictions", "--resources", resources)
    command(
        "evaluate.py", "--predictions", output / "predictions", "--ground-truth", data, "--output", output / "scores"
    )
    metrics: dict[str, dict[str, dict[str, float]]] = json.loads((output / "scores" / "metrics.json").read_text())[
        "transmitted_light"
    ]
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="new folder for data, predictions and reports")
    parser.add_argument("--resources", type=Path, default=ROOT / "resources")
    parser.add_argument("--fields", type=int, default=36, help="fields for each modality")
    parser.add_argument("--setting", choices=("challenge", "ordinary"), default="challenge", help="of simulate.py")
    options = parser.parse_args()
    data, only_dic = options.output / "data", options.output / "data-dic"
    unseen = ("--fields", options.fields, "--seed", UNSEEN_SEED, "--setting", options.setting)
    command("simulate.py", "--output", data, *unseen)
    command("simulate.py", "--output", only_dic, *unseen, "--modalities", Modality.DIC)  # the same fields again
    shipped = score(data, options.resources, options.output / "shipped")
    other = with_actin_by_pix2pix(options.resources, options.output / "resources-actin-by-pix2pix")
    contrast = score(only_dic, other, options.output / "actin-by-pix2pix")[Modality.DIC][Organelle.ACTIN]

    print("\n| | " + " | ".join(f"{m} PCC | {m} SSIM" for m in Modality) + " |\n|" + "---|" * 7)
    for organelle in Organelle:
        cells = [f"{shipped[m][organelle][metric]:.3f}" for m in Modality for metric in ("PCC", "SSIM")]
        print(f"| {organelle} | " + " | ".join(cells) + " |")
    print(f"\nActin on DIC by the pix2pix head: PCC {contrast['PCC']:.3f}, SSIM {contrast['SSIM']:.3f}.")
    document = {"fields": options.fields, "seed": UNSEEN_SEED, "shipped": shipped, "actin_on_dic_by_pix2pix": contrast}
    (RESULTS / f"quality_{options.setting}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
