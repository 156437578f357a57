"""Releasing checkpoints: the routing the paper ends on, a quarter of the bytes, and no network in the wrong place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_METADATA, write_resources

from model import checkpoint
from model.checkpoint import CheckpointMetadata
from model.commands import DONE, NOT_BEGUN
from model.errors import UserError
from model.files import file_sha256
from model.labels import Modality, Organelle
from model.networks.layers import without_checkerboard
from model.normalization import TargetNormalization
from model.precision import Precision
from model.predictor import Predictor
from model.routing import CheckpointFile, Route, Routing, routes_to
from model.settings import InferenceSettings
from training.release import LOW, UNIFIED, Average, main, release

M, N, T, A = Organelle


def sources(folder: Path) -> dict[str, Path]:
    names = {f"pix2pix-{m.lower()}": f"pix2pix-{m.lower()}" for m in Modality} | {UNIFIED: "unified"}
    return {name: folder / f"{file}.safetensors" for name, file in names.items()}


def labelled(*organelles: Organelle) -> CheckpointMetadata:
    return replace(TINY_METADATA, labels={m: organelles for m in Modality})


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As in the challenge: nobody labelled actin in DIC."""
    return write_resources(tmp_path_factory.mktemp("resources"), {"pix2pix-dic": labelled(M, N, T)})


def test_what_is_released_predicts_as_before(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path)
    image = np.random.default_rng(0).integers(0, 65535, (40, 48)).astype(np.uint16)
    settings = InferenceSettings(rotations=1, precision=Precision.FP32)
    with Predictor.open(resources, settings=settings) as before, Predictor.open(tmp_path, settings=settings) as after:
        for modality in (*Modality, None):
            old, new = before.predict(image, modality), after.predict(image, modality)
            for organelle in Organelle:  # 8 bits a weight are stored, and little is lost by it
                assert np.corrcoef(old[organelle].ravel(), new[organelle].ravel())[0, 1] > 0.999
        origin = after.plan(Modality.DIC, (8, 8), None).provenance
    assert origin[Organelle.ACTIN]["checkpoint"] == UNIFIED
    assert origin[Organelle.NUCLEUS]["checkpoint"] == "pix2pix-dic"


def test_low_magnification_has_networks_of_its_own(resources: Path, tmp_path: Path) -> None:
    all_labels = write_resources(tmp_path)
    for dic, actin_on_dic in ((sources(all_labels), f"pix2pix-dic{LOW}"), (sources(resources), UNIFIED)):
        low = {f"{name}{LOW}": path for name, path in sources(resources).items() if name != UNIFIED}
        release(sources(resources) | low | {f"pix2pix-dic{LOW}": dic["pix2pix-dic"]}, tmp_path / "out")
        routing = Routing.read(tmp_path / "out")
        assert routing.choose(Modality.PC, (0.1, 0.3))[Organelle.NUCLEUS] == (Route("pix2pix-pc", N),)
        assert routing.choose(Modality.PC, (0.2, 0.3))[Organelle.NUCLEUS] == (Route(f"pix2pix-pc{LOW}", N),)
        assert routing.choose(Modality.PC, None)[Organelle.ACTIN] == (Route(f"pix2pix-pc{LOW}", A),)
        assert routing.choose(Modality.DIC, None)[Organelle.ACTIN] == (Route(actin_on_dic, A),)
        assert routing.choose(None, None)[Organelle.ACTIN] == (Route(UNIFIED, A),)
    with Predictor.open(tmp_path / "out", settings=InferenceSettings(rotations=1)) as predictor:
        plan = predictor.plan(Modality.BF, (64, 64), (0.3, 0.3))
        assert {step.checkpoint for step in plan.steps} == {f"pix2pix-bf{LOW}"}
        assert plan.provenance[Organelle.NUCLEUS]["checkpoint"] == f"pix2pix-bf{LOW}"


def test_the_checkerboard_is_filtered_where_it_is_asked_for(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path / "plain")
    release(sources(resources), tmp_path / "filtered", filter_checkerboard=True)
    x_B1YX = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for file in ("pix2pix_bf", "unetplusplus"):
        (plain, _), (new, metadata) = (
            checkpoint.load(tmp_path / name / f"{file}.safetensors") for name in ("plain", "filtered")
        )
        expected = plain(x_B1YX)
        if file == "pix2pix_bf":
            assert metadata.architecture.upsampling == "filtered"
            expected = torch.cat([without_checkerboard(plane[None, None]) for plane in expected[0]], 1)
        torch.testing.assert_close(new(x_B1YX), expected)


def test_one_network_of_low_magnification_leaves_the_others(resources: Path, tmp_path: Path) -> None:
    release(sources(resources) | {f"pix2pix-pc{LOW}": resources / "pix2pix-pc.safetensors"}, tmp_path)
    routing = Routing.read(tmp_path)
    assert routing.choose(Modality.PC, (0.3, 0.3)) == {o: (Route(f"pix2pix-pc{LOW}", o),) for o in Organelle}
    for modality in (Modality.BF, Modality.DIC, None):
        assert routing.choose(modality, (0.3, 0.3)) == routing.choose(modality, (0.1, 0.1))


def test_ones_own_network_predicts_what_it_had_labels_of(resources: Path, tmp_path: Path) -> None:
    mine = write_resources(tmp_path / "mine", {"pix2pix-bf": labelled(N), "pix2pix-pc": labelled(M)})
    out = tmp_path / "out"
    assert main(["--from", str(resources), "--bf", str(mine / "pix2pix-bf.safetensors"), "--output", str(out)]) == 0
    routing = Routing.read(out)
    before = Routing.read(resources).routes
    assert routing.routes[Modality.BF] == before[Modality.BF] | {N: (Route("pix2pix-bf-custom", N),)}
    assert {key: ways for key, ways in routing.routes.items() if key != Modality.BF} == {
        key: ways for key, ways in before.items() if key != Modality.BF
    }
    assert routing.low_magnification is None
    for name in ("pix2pix-bf", "unified"):  # left as they are
        assert (out / f"{name}.safetensors").read_bytes() == (resources / f"{name}.safetensors").read_bytes()
    # Another one for mitochondria at low magnification, into the same folder; then a second one for nuclei.
    for option in ("--low-bf", "--bf"):
        file = mine / ("pix2pix-pc.safetensors" if option == "--low-bf" else "pix2pix-bf.safetensors")
        assert main(["--from", str(out), option, str(file), "--output", str(out)]) == 0
    routing = Routing.read(out)
    high, low = (routing.choose(Modality.BF, size) for size in ((0.1, 0.1), (0.3, 0.3)))
    assert high[N] == (Route("pix2pix-bf-custom-2", N),) and high[M] == (Route("pix2pix-bf", M),)
    assert low[N] == (Route("pix2pix-bf-custom", N),) and low[M] == (Route(f"pix2pix-bf{LOW}-custom", M),)
    with Predictor.open(out, device="cpu", settings=InferenceSettings(rotations=1)) as predictor:
        plan = predictor.plan(Modality.BF, (64, 64), (0.1, 0.1))
        assert {step.checkpoint: set(step.heads) for step in plan.steps} == {
            "pix2pix-bf": {M, T, A},
            "pix2pix-bf-custom-2": {N},
        }


def test_a_file_of_the_base_is_never_replaced(resources: Path, tmp_path: Path) -> None:
    base = Routing.read(resources)
    taken = tmp_path / "pix2pix_bf_custom.safetensors"
    taken.write_bytes(base.checkpoints["pix2pix-bf"].path.read_bytes())
    for file in base.checkpoints.values():
        (tmp_path / file.path.name).write_bytes(file.path.read_bytes())
    by_hand = replace(base, checkpoints=base.checkpoints | {"pix2pix-bf": CheckpointFile.of(taken)})
    by_hand.write(tmp_path)
    release({"pix2pix-bf": resources / "pix2pix-pc.safetensors"}, tmp_path, base=tmp_path)
    assert "pix2pix-bf-custom-2" in Routing.read(tmp_path).checkpoints
    assert file_sha256(taken) == by_hand.checkpoints["pix2pix-bf"].sha256


def test_a_custom_unified_network_takes_what_the_unified_one_had(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path / "base")
    release({UNIFIED: resources / "unified.safetensors"}, tmp_path / "out", base=tmp_path / "base")
    routing = Routing.read(tmp_path / "out")
    assert routing.routes[None] == routes_to("unetplusplus-custom")[None]
    assert routing.routes[Modality.DIC][A] == (Route("unetplusplus-custom", A),)
    assert routing.routes[Modality.DIC][N] == (Route("pix2pix-dic", N),)
    assert UNIFIED not in routing.checkpoints and not (tmp_path / "out" / "unetplusplus.safetensors").exists()


def test_named_networks_are_averaged(resources: Path, tmp_path: Path) -> None:
    all_labels = write_resources(tmp_path / "labels")
    low = {f"{name}{LOW}": path for name, path in sources(all_labels).items()}
    before, after = tmp_path / "before", tmp_path / "after"
    release(sources(resources) | low, before)
    dic = (UNIFIED, f"pix2pix-dic{LOW}", "pix2pix-dic")
    bf = (f"pix2pix-bf{LOW}", UNIFIED + LOW)
    command = ["--from", str(before), "--output", str(after), "--average", "DIC", *dic, "--average-low", "BF", *bf]
    assert main(command) == DONE
    old, new = Routing.read(before), Routing.read(after)
    high_size, low_size = (0.1, 0.1), (0.3, 0.3)
    changed = {(Modality.DIC, high_size): dic, (Modality.BF, low_size): bf}
    for modality in (*Modality, None):
        for size in (high_size, low_size):
            for organelle, members in new.choose(modality, size).items():
                if names := changed.get((modality, size)):
                    # Nobody labelled actin in DIC for the pix2pix of 40x to 100x.
                    expected = [name for name in names if (name, organelle) != ("pix2pix-dic", A)]
                    assert members == tuple(Route(name, organelle) for name in expected)
                else:
                    assert members == old.choose(modality, size)[organelle]
    one = ["--from", str(after), "--average", "DIC/actin", UNIFIED, f"pix2pix-dic{LOW}", "--output", str(after)]
    assert main(one) == DONE
    actin = {A: tuple(Route(name, A) for name in dic[:2])}
    assert Routing.read(after).routes[Modality.DIC] == {**new.routes[Modality.DIC], **actin}
    assert {file.path.name for file in new.checkpoints.values()} == {p.name for p in after.glob("*.safetensors")}
    # New unified networks of both magnifications take the places of the old ones, in ensembles too.
    own = {UNIFIED: resources / "unified.safetensors", UNIFIED + LOW: all_labels / "unified.safetensors"}
    release(own, tmp_path / "own", base=after)
    routing = Routing.read(tmp_path / "own")
    names = [[route.checkpoint for route in routing.choose(m, size)[N]] for m, size in changed]
    assert names[0] == [f"{UNIFIED}-custom", f"pix2pix-dic{LOW}", "pix2pix-dic"]
    assert names[1] == [f"pix2pix-bf{LOW}", f"{UNIFIED}{LOW}-custom"]


def test_ones_own_network_is_averaged_with_those_that_are_there(resources: Path, tmp_path: Path) -> None:
    mine = write_resources(tmp_path / "mine", {"pix2pix-bf": labelled(N)}) / "pix2pix-bf.safetensors"
    names = ("pix2pix-bf-custom", "pix2pix-bf")
    release({"pix2pix-bf": mine}, tmp_path / "named", base=resources, averages=[Average(Modality.BF, names)])
    joined = ["--from", str(resources), "--bf", str(mine), "--join", "--output", str(tmp_path / "joined")]
    assert main(joined) == DONE
    for folder in ("named", "joined"):
        bf = Routing.read(tmp_path / folder).routes[Modality.BF]
        assert bf == {o: (Route("pix2pix-bf", o),) for o in (M, T, A)} | {N: tuple(Route(name, N) for name in names)}
    release({"pix2pix-bf": mine}, tmp_path / "joined", base=tmp_path / "joined", join=True)
    ways = Routing.read(tmp_path / "joined").routes
    assert [route.checkpoint for route in ways[Modality.BF][N]] == ["pix2pix-bf-custom-2", *names]


def test_a_network_that_learned_other_targets_does_not_join(
    resources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(labelled(N), target_normalization=TargetNormalization.PERCENTILE)
    mine = write_resources(tmp_path / "mine", {"pix2pix-bf": other}) / "pix2pix-bf.safetensors"
    out = tmp_path / "out"
    assert main(["--from", str(resources), "--bf", str(mine), "--join", "--output", str(out)]) == NOT_BEGUN
    assert "targets, expected the same, as routing.json averages them for nucleus of BF" in capsys.readouterr().err
    assert not (out / "routing.json").exists()


def test_ones_own_unified_network_joins_the_other_wherever_that_predicts(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path / "base")
    release({UNIFIED: resources / "unified.safetensors"}, tmp_path / "both", base=tmp_path / "base", join=True)
    ways = Routing.read(tmp_path / "both").routes
    assert [route.checkpoint for route in ways[None][N]] == [f"{UNIFIED}-custom", UNIFIED]
    assert ways[Modality.BF] == Routing.read(tmp_path / "base").routes[Modality.BF]


@pytest.mark.parametrize(
    ("option", "words", "said"),
    [
        ("--average", ("BF", "pix2pix"), "resources: found no network 'pix2pix' to average, expected pix2pix-bf, "),
        ("--average-low", ("BF", "pix2pix-dic"), "found a network with labels of DIC, expected BF for pix2pix-dic"),
        ("--average", ("DIC/actin", "pix2pix-dic"), "had no labels of actin, expected some for pix2pix-dic"),
    ],
)
def test_networks_that_cannot_be_averaged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, words: tuple[str, ...], said: str
) -> None:
    dic = replace(TINY_METADATA, modalities=(Modality.DIC,), labels={Modality.DIC: (M, N, T)})
    resources = write_resources(tmp_path / "resources", {"pix2pix-dic": dic})
    out = tmp_path / "out"
    assert main(["--from", str(resources), option, *words, "--output", str(out)]) == NOT_BEGUN
    assert said in capsys.readouterr().err
    assert not (out / "routing.json").exists()


@pytest.mark.parametrize("option", ["--average", "--average-low"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("BF",), "expected names of networks, each once"),
        (("BF", "a", "a"), "expected names of networks, each once"),
        (("bright", "a"), "'bright' is not a valid Modality"),
        (("BF/cell", "a"), "'cell' is not a valid Organelle"),
    ],
)
def test_average_needs_a_modality_and_names(
    option: str, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--from", "x", option, *words, "--output", "nowhere"])
    assert f"error: {option} {' '.join(words)}: {said}" in capsys.readouterr().err


def test_joining_needs_networks_to_join(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("bf", "pc", "dic", "unified")
    with pytest.raises(SystemExit):
        main([*(word for name in names for word in (f"--{name}", "x")), "--join", "--output", "nowhere"])
    assert "--join needs --from" in capsys.readouterr().err


def test_too_few_checkpoints_are_refused(resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bf = str(resources / "pix2pix-bf.safetensors")
    for words, said in ((["--bf", bf], "or --from a folder"), (["--from", str(resources)], "no checkpoint is given")):
        with pytest.raises(SystemExit):
            main([*words, "--output", "nowhere"])
        assert said in capsys.readouterr().err


def test_what_nothing_learned_from_labels_is_warned_of(tmp_path: Path) -> None:
    resources = write_resources(tmp_path, {"pix2pix-bf": labelled(N, T, A)})
    with Predictor.open(resources, device="cpu") as predictor:
        (warning,) = predictor.plan(Modality.BF, (64, 64), (0.1, 0.1)).warnings
        assert warning.startswith("pix2pix-bf never had a label of mitochondria")
        assert not predictor.plan(Modality.PC, (64, 64), (0.1, 0.1)).warnings


def test_stored_at_a_quarter_of_the_size(resources: Path, tmp_path: Path) -> None:
    release(sources(resources), tmp_path)
    before = checkpoint.load(resources / "unified.safetensors")[0].state_dict().values()
    weights = sum(tensor.numel() for tensor in before)
    assert (tmp_path / "unetplusplus.safetensors").stat().st_size < 1.1 * weights + 20_000


def test_a_network_of_another_modality_is_refused(tmp_path: Path) -> None:
    blind = replace(TINY_METADATA, modalities=(Modality.BF,), labels={Modality.BF: tuple(Organelle)})
    folder = write_resources(tmp_path, {"pix2pix-pc": blind})
    with pytest.raises(UserError, match=r"labels of BF, expected PC for pix2pix-pc"):
        release(sources(folder), tmp_path / "out")
    assert not (tmp_path / "out" / "routing.json").exists()
