"""How well the shipped checkpoints predict simulated cells they have never seen, as the challenge scores it.

    python -m benchmarks.quality --output runs/quality
    python -m benchmarks.quality --output runs/quality_ordinary --setting ordinary --preset fast

Renders fields from a seed that no training used and nothing was chosen by, predicts and scores them with the project's
own commands. Prints a Markdown table and writes benchmarks/results/quality_SETTING.json.
"""

import argparse
import json
from pathlib import Path

from experiments.project_commands import ROOT, run_command, simulate
from model import PRESETS
from model.labels import Modality, Organelle

RESULTS = Path(__file__).with_name("results")
UNSEEN_SEED = 261126


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
    unseen = ("--fields", options.fields, "--seed", UNSEEN_SEED, "--setting", options.setting)
    data = simulate(options.output / "data", *unseen)
    shipped = score(data, options.resources, options.output / "shipped", options.preset)
    document = {"fields": options.fields, "seed": UNSEEN_SEED, "preset": options.preset, "shipped": shipped}
    print("\n| | " + " | ".join(f"{m} PCC | {m} SSIM" for m in Modality) + " |\n|" + "---|" * 7)
    for organelle in Organelle:
        cells = [f"{shipped[m][organelle][metric]:.3f}" for m in Modality for metric in ("PCC", "SSIM")]
        print(f"| {organelle} | " + " | ".join(cells) + " |")
    (RESULTS / f"quality_{options.setting}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
