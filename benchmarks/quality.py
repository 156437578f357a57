"""How well the shipped checkpoints predict simulated cells they have never seen, as the challenge scores it.

    python -m benchmarks.quality --output runs/quality
    python -m benchmarks.quality --output runs/quality_ordinary --setting ordinary --preset fast

Renders fields from a seed that no training used and nothing was chosen by, predicts and scores them with the project's
own commands. Setting challenge: for contrast once more with actin on DIC from the pix2pix of DIC, which had no such
label. Prints a Markdown table and writes benchmarks/results/quality_SETTING.json.
"""

import argparse
import json
import shutil
from pathlib import Path

from experiments.project_commands import ROOT, run_command
from model import PRESETS
from model.labels import Modality, Organelle

RESULTS = Path(__file__).with_name("results")
UNSEEN_SEED = 261126


def with_actin_by_pix2pix(resources: Path, folder: Path) -> Path:
    """Copy the resources and send actin on DIC to the network that never saw such a label."""
    shutil.copytree(resources, folder, dirs_exist_ok=True)
    routing = json.loads((folder / "routing.json").read_text())
    routing["routes"][Modality.DIC][Organelle.ACTIN] = "pix2pix-dic/actin"
    (folder / "routing.json").write_text(json.dumps(routing))
    return folder


def score(data: Path, resources: Path, output: Path, preset: str) -> dict[str, dict[str, dict[str, float]]]:
    """Predict and score a data set: modality -> organelle -> metric."""
    predictions = output / "predictions"
    how = ("--resources", resources, "--preset", preset)
    run_command("inference.py", "--input", data, "--output", predictions, *how)
    run_command("evaluate.py", "--predictions", predictions, "--ground-truth", data, "--output", output / "scores")
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
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    options = parser.parse_args()
    data = options.output / "data"
    unseen = ("--fields", options.fields, "--seed", UNSEEN_SEED, "--setting", options.setting)
    run_command("simulate.py", "--output", data, *unseen)
    shipped = score(data, options.resources, options.output / "shipped", options.preset)
    document: dict[str, object] = {
        "fields": options.fields,
        "seed": UNSEEN_SEED,
        "preset": options.preset,
        "shipped": shipped,
    }

    print("\n| | " + " | ".join(f"{m} PCC | {m} SSIM" for m in Modality) + " |\n|" + "---|" * 7)
    for organelle in Organelle:
        cells = [f"{shipped[m][organelle][metric]:.3f}" for m in Modality for metric in ("PCC", "SSIM")]
        print(f"| {organelle} | " + " | ".join(cells) + " |")
    if options.setting == "challenge":
        only_dic = options.output / "data-dic"
        run_command("simulate.py", "--output", only_dic, *unseen, "--modalities", Modality.DIC)  # the same fields again
        other = with_actin_by_pix2pix(options.resources, options.output / "resources-actin-by-pix2pix")
        by_modality = score(only_dic, other, options.output / "actin-by-pix2pix", options.preset)
        contrast = by_modality[Modality.DIC][Organelle.ACTIN]
        print(f"\nActin on DIC by the pix2pix head: PCC {contrast['PCC']:.3f}, SSIM {contrast['SSIM']:.3f}.")
        document["actin_on_dic_by_pix2pix"] = contrast
    (RESULTS / f"quality_{options.setting}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
