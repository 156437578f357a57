"""Several networks that predict an organelle together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY_METADATA, write_resources
from identity import Identity, random_image

from model.checkpoint import CheckpointMetadata
from model.errors import UserError
from model.labels import Modality, Organelle
from model.normalization import TargetNormalization
from model.precision import Precision
from model.predictor import Predictor
from model.routing import Route, Routing, routes_to
from model.settings import InferenceSettings

M, N, T, A = Organelle


def ensemble_for_nuclei(folder: Path, metadata: dict[str, CheckpointMetadata] | None = None) -> Path:
    """Resources whose nuclei in BF are predicted by the pix2pix and by the actin head of the unified network."""
    routing = Routing.read(write_resources(folder, metadata or {}))
    bf = routing.routes[Modality.BF] | {N: (Route("pix2pix-bf", N), Route("unified", A))}
    replace(routing, routes=routing.routes | {Modality.BF: bf}).write(folder)
    return folder


def test_an_ensemble_is_the_mean_of_its_networks(tmp_path: Path) -> None:
    image, settings = random_image(64, 96), InferenceSettings(0.25, 2, precision=Precision.FP32)
    folder = ensemble_for_nuclei(tmp_path)
    with Predictor.open(folder, device="cpu", settings=settings) as predictor:
        plan = predictor.plan(Modality.BF, (64, 96), (0.1, 0.1))
        assert {step.checkpoint: dict(step.heads) for step in plan.steps} == {
            "pix2pix-bf": {o: o for o in Organelle},
            "unified": {N: A},
        }
        outputs = predictor.forward(predictor.preprocess(image, plan))
        ones = {}
        for name, turns in (("pix2pix-bf", (0, 2)), ("unified", (1,))):
            routes = {key: routes_to(name)[key] for key in (Modality.BF, None)}
            alone = Predictor(Routing(predictor._routing.checkpoints, routes), predictor.device, settings, True)
            whole = alone.plan(Modality.BF, (64, 96), (0.1, 0.1))
            turned = replace(whole, steps=tuple(replace(step, turns=turns) for step in whole.steps))
            ones[name] = alone.forward(alone.preprocess(image, turned))
    (first, second) = (ones["pix2pix-bf"], N), (ones["unified"], A)
    torch.testing.assert_close(outputs.mean[N], (first[0].mean[N] + second[0].mean[A]) / 2)
    torch.testing.assert_close(outputs.mean[A], first[0].mean[A])
    between = (first[0].mean[N] - second[0].mean[A]).abs() / 2
    torch.testing.assert_close(outputs.std[N], torch.hypot(between, first[0].std[N]))
    assert plan.provenance[N]["checkpoint"] == "pix2pix-bf, unified"
    assert plan.provenance[N]["head"] == "nucleus, actin" and plan.provenance[N]["trained_on"] == "nothing at all"
    assert [len(sha256) for sha256 in plan.provenance[N]["checkpoint_sha256"].split(", ")] == [64, 64]
    assert plan.provenance[M]["checkpoint"] == "pix2pix-bf"


def test_the_networks_of_an_ensemble_share_the_rotations(tmp_path: Path, identity: Identity) -> None:
    folder = ensemble_for_nuclei(tmp_path)
    with Predictor.open(folder, device="cpu", settings=InferenceSettings(rotations=4, overlap=0)) as predictor:
        plan = predictor.plan(Modality.BF, (32, 32), None)
        # The pix2pix predicts the other organelles alone, so all of its heads get all rotations.
        assert {step.checkpoint: step.turns for step in plan.steps} == {"pix2pix-bf": (0, 1, 2, 3), "unified": (1, 3)}
        predictor.forward(predictor.preprocess(random_image(32, 32), plan))
    assert [name for name, _ in identity.asked] == ["pix2pix-bf"] * 4 + ["unified"] * 2


def test_no_more_networks_than_rotations(tmp_path: Path) -> None:
    folder = ensemble_for_nuclei(tmp_path)
    with Predictor.open(folder, device="cpu", settings=InferenceSettings(rotations=1)) as predictor:
        plan = predictor.plan(Modality.BF, (32, 32), None)
    assert {step.checkpoint: step.turns for step in plan.steps} == {"pix2pix-bf": (0,)}
    assert plan.provenance[N]["checkpoint"] == "pix2pix-bf"


def test_networks_that_learned_other_targets_are_not_averaged(tmp_path: Path) -> None:
    other = replace(TINY_METADATA, target_normalization=TargetNormalization.PERCENTILE)
    folder = ensemble_for_nuclei(tmp_path, {"pix2pix-bf": other})
    with pytest.raises(UserError, match=r"pix2pix-bf.* and .*unified.* targets, expected the same, .*nucleus of BF"):
        Predictor.open(folder, device="cpu")
