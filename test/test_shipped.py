"""What a stranger gets with the clone: checkpoints that say what they are and predict test/input."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics import pcc
from model import checkpoint
from model.images import read_image
from model.labels import Modality, Organelle
from model.naming import InputName, TargetName, parse
from model.predictor import Predictor
from model.routing import Route, Routing, routes_to
from model.settings import InferenceSettings
from training.release import LOW

ROOT = Path(__file__).resolve().parents[1]
RESOURCES, INPUTS = ROOT / "resources", ROOT / "test" / "input"
LARGEST_BYTES = 32_000_000


def inputs() -> list[Path]:
    return [path for path in sorted(INPUTS.rglob("*.tiff")) if isinstance(parse(path.name), InputName)]


@pytest.mark.parametrize(("pixel_size_um", "low"), [((0.1, 0.1), ""), ((0.3, 0.3), LOW), (None, LOW)])
def test_each_modality_has_its_pix2pix_averaged_with_the_unified_network(
    pixel_size_um: tuple[float, float] | None, low: str
) -> None:
    routing = Routing.read(RESOURCES)
    for modality in Modality:
        for organelle, ensemble in routing.choose(modality, pixel_size_um).items():
            names = [f"pix2pix-{modality.lower()}{low}", f"unetplusplus{low}"]
            if (modality, low) == (Modality.PC, ""):
                names.append(f"unetplusplus{LOW}")
            assert ensemble == tuple(Route(name, organelle) for name in names)
    assert routing.choose(None, pixel_size_um) == routes_to("unetplusplus" + low)[None]


def test_checkpoints_are_small_and_honest() -> None:
    checkpoints = Routing.read(RESOURCES).checkpoints
    assert sum(path.stat().st_size for path in RESOURCES.iterdir()) <= LARGEST_BYTES
    for name, file in checkpoints.items():
        _, metadata = checkpoint.load(file.path)
        assert metadata.trained_on == "simulated cells"
        assert metadata.input_statistics is not None
        actin_on_dic = Organelle.ACTIN in metadata.labels.get(Modality.DIC, ())
        assert actin_on_dic == (name in ("pix2pix-dic", f"pix2pix-dic{LOW}", f"unetplusplus{LOW}"))
    assert "simulated" in (RESOURCES / "MODEL_CARD.md").read_text().lower()


def test_inputs_of_all_modalities_are_there() -> None:
    assert {read_image(path).info.modality for path in inputs()} == set(Modality)


@pytest.mark.parametrize("path", inputs(), ids=lambda path: path.name)
def test_organelles_are_seen_in_the_shipped_inputs(path: Path) -> None:
    name = parse(path.name)
    assert isinstance(name, InputName)
    plane = read_image(path)
    with Predictor.open(RESOURCES, device="cpu", settings=InferenceSettings(rotations=1)) as predictor:
        predictions = predictor.predict(plane.pixels, plane.info.modality, pixel_size_um=plane.info.pixel_size_um)
    found = {}
    for organelle, prediction in predictions.items():
        truth = read_image(path.with_name(TargetName(name.image, organelle).filename)).pixels
        found[organelle] = pcc(prediction.astype(np.float64), truth.astype(np.float64))
    # A blank, shuffled or mis-routed prediction is near 0; what good ones reach stands in the docs.
    assert np.mean(list(found.values())) > 0.4, found
