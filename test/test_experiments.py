"""The paper's claims as files: they fit together, and verdicts say what the scores say."""

import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w

from experiments import command_line, definitions, training
from experiments.data import labels_of_fields, real_studies
from experiments.definitions import Check, Claim, Method, Side, claim_names, read_claim, read_networks, read_scale
from experiments.project_commands import run_command
from experiments.report import claims_table, judge, spread, table, write_summary
from experiments.results import Scores, add_seed
from experiments.scoring import MeanScore, Row, mean, means
from experiments.training import options_of
from model.commands import NOT_BEGUN
from model.errors import UserError
from model.labels import Modality, Organelle
from training.exclusive import one_at_a_time
from training.options import parse

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT.parent / "shared" / "lmc-filelists"
RESULTS = ROOT / "experiments" / "results"
M, N, T, A = Organelle
SCALES = ["small", "medium", "full", "tiny"]


@pytest.mark.parametrize("name", claim_names())
def test_each_claim_can_be_read(name: str) -> None:
    claim = read_claim(name)
    assert claim.claim.endswith(".") and claim.checks and claim.figure
    modalities = {str(modality) for method in claim.methods for modality in method.networks}
    assert {entry.split("/")[0] for entry in claim.figure} <= modalities


def test_each_network_is_asked_for_by_a_claim() -> None:
    asked = {used for name in claim_names() for method in read_claim(name).methods for used in method.used}
    assert asked == set(read_networks())


@pytest.mark.parametrize("scale", SCALES)
def test_train_accepts_each_network_at_each_scale(scale: str, tmp_path: Path) -> None:
    for network in read_networks():
        options = options_of(network, 1, read_scale(scale), tmp_path)
        options.pop("init", None)  # is not there yet
        (tmp_path / "config.toml").write_text(tomli_w.dumps({**options, "data": ["data"]}))
        config, _ = parse(["--config", str(tmp_path / "config.toml")])
        assert config.seed == 1 and config.architecture.dynamic == ("dynamic" in network)


def test_a_scale_lies_over_its_base() -> None:
    small, medium = read_scale("small"), read_scale("medium")
    assert medium.width == small.width and medium.simulation is not None and small.simulation is not None
    assert (medium.simulation.fields_per_study, medium.simulation.size) == (48, small.simulation.size)
    assert medium.training["schedule"] == {"unit": "steps", "steps": 3600, "decay_steps": 3600}
    assert small.training["schedule"]["steps"] == 1200


@pytest.mark.parametrize("scale", SCALES)
def test_networks_of_a_claim_differ_in_what_it_is_about(scale: str, tmp_path: Path) -> None:
    about = {"gan": {"lambda_gan"}, "sampling": {"sampling"}, "pixel-weights": {"outside_weight"},
             "partial-labels": {"partial_labels"}, "normalization": {"input_normalization"}}  # fmt: skip
    for name, allowed in about.items():
        used = [network for method in read_claim(name).methods for network in method.used]
        flat = [options_of(network, 1, read_scale(scale), tmp_path) for network in dict.fromkeys(used)]
        differing = {key for key in set().union(*flat) if len({str(options.get(key)) for options in flat}) > 1}
        assert differing - {"output"} <= allowed


def test_the_table_of_labels_has_the_fields_of_the_real_data() -> None:
    counts: Counter[tuple[Modality, str]] = Counter()
    for modality, studies in real_studies().items():
        for labels, fields in (entry for study in studies for entry in study):
            counts[modality, "fields"] += fields
            counts.update({(modality, str(organelle)): fields for organelle in labels})
    expected = {"BF": (1987, 1371, 1987, 24, 7), "PC": (301, 233, 293, 48, 20), "DIC": (286, 212, 253, 151, 0)}
    for name, numbers in expected.items():
        assert tuple(counts[Modality(name), key] for key in ("fields", *map(str, Organelle))) == numbers


@pytest.mark.skipif(not LISTS.is_dir(), reason="needs the file lists of the real data set")
def test_the_table_of_labels_is_that_of_the_file_lists() -> None:
    found: Counter[tuple[Modality, frozenset[Organelle]]] = Counter()
    for path in LISTS.glob("Study*.tsv"):
        fields: dict[str, set[str]] = {}
        for image, kind in re.findall(r"^image_(\d+)_([A-Za-z]+)", path.read_text(), flags=re.MULTILINE):
            fields.setdefault(image, set()).add(kind)
        for kinds in fields.values():
            (modality,) = kinds & {str(m) for m in Modality}
            found[Modality(modality), frozenset(o for o in Organelle if o.label in kinds)] += 1
    stated: Counter[tuple[Modality, frozenset[Organelle]]] = Counter()
    for modality, studies in real_studies().items():
        for labels, count in (entry for study in studies for entry in study):
            stated[modality, labels] += count
    assert stated == found


def test_fields_take_their_labels_in_the_proportions_of_the_study() -> None:
    study = [(frozenset({N, M, A}), 7), (frozenset({N}), 1)]
    assert Counter(labels_of_fields(study, 8)) == {frozenset({N, M, A}): 7, frozenset({N}): 1}
    assert labels_of_fields(study, 4) == [frozenset({N, M, A})] * 4
    assert labels_of_fields([(frozenset({M}), 8), (frozenset({M, N}), 8)], 4).count(frozenset({M})) == 2


def found(values: dict[Organelle, float], modality: Modality = Modality.PC, z: int | None = None) -> list[MeanScore]:
    return [MeanScore(organelle, modality, z, {"PCC": value}) for organelle, value in values.items()]


def claim(*checks: Check) -> Claim:
    methods = tuple(Method(name=name, networks={Modality.PC: "pix2pix-pc"}) for name in "ab")
    return Claim(claim="a is better than b.", source="here", methods=methods, checks=checks, metrics=("PCC",))


def test_a_mean_counts_each_organelle_once() -> None:
    scores = found({N: 0.3, M: 0.9}) + found({M: 0.0}, Modality.BF) + found({N: math.nan}, Modality.BF)
    assert mean(scores, "PCC", Side(method="a", modality=Modality.PC)) == pytest.approx((0.3 + 0.9) / 2)
    assert mean(scores, "PCC", Side(method="a", organelle=M)) == pytest.approx(0.45)
    assert mean(scores, "PCC", Side(method="a")) == pytest.approx((0.3 + 0.45) / 2)
    assert mean(found({N: 0.5}, z=3) + found({N: 0.1}, z=0), "PCC", Side(method="a", z_deviation=3)) == 0.5
    assert math.isnan(mean(scores, "PCC", Side(method="a", organelle=T)))


def test_predictions_are_averaged_by_modality_or_by_distance_from_focus() -> None:
    measured = [(Modality.BF, 0, 0.2), (Modality.BF, 1, 0.4), (Modality.PC, 0, math.nan), (Modality.PC, 1, 0.8)]
    rows = [Row("image", modality, N, z, {"PCC": value, "SSIM": 1.0}) for modality, z, value in measured]
    of_modality = means(rows, claim())
    assert [(s.modality, s.z_deviation, s.metrics) for s in of_modality] == [
        (Modality.BF, None, {"PCC": pytest.approx(0.3)}), (Modality.PC, None, {"PCC": 0.8})]  # fmt: skip
    of_distance = means(rows, replace(claim(), group_by="z_deviation"))
    assert [(s.modality, s.z_deviation, s.metrics) for s in of_distance] == [
        (None, 0, {"PCC": 0.2}), (None, 1, {"PCC": pytest.approx(0.6)})]  # fmt: skip


def test_verdicts() -> None:
    better = Check(metric="PCC", better=Side(method="a"), than=Side(method="b"))
    bound = Check(metric="PCC", of=Side(method="a", organelle=N), at_most=0.15)
    absent = Check(metric="PCC", better=Side(method="a", organelle=T), than=Side(method="b", organelle=T))

    def held(a: tuple[float, float], b: tuple[float, float]) -> list[bool | None]:
        scores: Scores = {
            name: {seed: found({N: value}) for seed, value in enumerate(values)}
            for name, values in (("a", a), ("b", b))
        }
        return [verdict.held for verdict in judge(claim(better, bound, absent), scores)]

    assert held((0.1, 0.14), (0.0, 0.1)) == [True, True, None]
    assert held((0.2, 0.3), (0.4, 0.5)) == [False, False, None]
    assert held((0.1, 0.3), (0.2, 0.2)) == [None, None, None]


def test_the_table_shows_the_spread_over_the_seeds() -> None:
    scores: Scores = {
        "a": {1: found({N: 0.4, M: 0.2}), 2: found({N: 0.6, M: 0.2})},
        "b": {1: found({N: 0.1, M: 0.2}), 2: found({N: 0.1, M: 0.2})},
    }
    lines = table(claim(), scores).splitlines()
    assert lines[2] == "| PCC | PC | a | 0.200 ± 0.000 | 0.500 ± 0.141 | – | – | 0.350 ± 0.071 |"
    assert spread((0.5,)) == "0.500"


def test_the_table_of_focus_ends_where_the_challenge_does() -> None:
    planes = [score for z in range(9) for score in found({N: 1 - z / 10}, z=z)]
    lines = table(replace(claim(), group_by="z_deviation"), {"a": {1: planes}, "b": {1: planes}}).splitlines()
    assert lines[0].startswith("| metric | planes from focus | method |")
    assert [line.split(" | ")[1] for line in lines[2::2]] == ["0", "1", "2", "3", "4", "5"]


def test_the_summary_of_a_folder_says_what_held(tmp_path: Path) -> None:
    # Seeds come one by one, in any order, and one is measured again.
    for seed, of_balanced in ((2, 0.4), (1, 0.9), (1, 0.6)):
        balanced, plain = found({A: of_balanced, T: 0.5}), found({A: 0.5, T: 0.4})
        for scores in (balanced, plain):
            for score in scores:
                score.metrics["SSIM"] = 0.5
        add_seed(tmp_path / "sampling.json", "tiny", seed, {"balanced": balanced, "plain": plain})
    write_summary(tmp_path)
    text = (tmp_path / "README.md").read_text()
    checks = "PCC of balanced over plain: actin +0.000 ± 0.141 ?, tubulin +0.100 ± 0.000 ✓"
    assert f"| [sampling](#sampling): {read_claim('sampling').claim} | {checks} | 1 of 2 |\n" in text
    assert "`python experiment.py sampling --scale tiny --seeds 1 2`:" in text
    assert "- PCC of balanced over plain, actin: +0.000 ± 0.141, undecided" in text
    assert "- PCC of balanced over plain, tubulin: +0.100 ± 0.000, held" in text
    assert "| PCC | PC | balanced | – | – | 0.500 ± 0.000 | 0.500 ± 0.141 |" in text


def test_what_is_said_of_the_claims_is_what_was_measured(tmp_path: Path) -> None:
    results = sorted(RESULTS.glob("*.json"))
    assert [path.stem for path in results] == claim_names()
    for path in results:
        shutil.copyfile(path, tmp_path / path.name)
        assert path.with_suffix(".jpg").is_file()
    write_summary(tmp_path)
    assert (tmp_path / "README.md").read_text() == (RESULTS / "README.md").read_text()
    page = (ROOT / "docs" / "experiments.md").read_text()
    assert claims_table(RESULTS, "../experiments/results/README.md") in page


def test_results_of_other_methods_or_scales_are_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "gan.json"
    add_seed(path, "tiny", 1, {"a": found({N: 0.1})})
    with pytest.raises(UserError, match=r"gan\.json: has scores of a, expected those of a, b; remove it\."):
        add_seed(path, "tiny", 2, {"a": found({N: 0.1}), "b": []})
    with pytest.raises(UserError, match=r"gan\.json: has scores at scale tiny, expected small; remove it\."):
        add_seed(path, "small", 2, {"a": found({N: 0.1})})
    path.write_text('{"claim": "of another version"}')
    with pytest.raises(UserError, match=r"gan\.json: "):
        add_seed(path, "tiny", 2, {"a": []})


def test_a_failed_training_stops_those_that_have_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def fail(command: list[str], **_: object) -> SimpleNamespace:
        begun.append(command)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(training.subprocess, "run", fail)
    networks = ["unetplusplus-pc-fine-tuned", *(name for name in read_networks() if name.startswith("pix2pix"))]
    with pytest.raises(UserError, match="its training ended with exit code 1"):
        training.train(networks, 1, read_scale("tiny"), tmp_path / "data", tmp_path, 1)
    assert 0 < len(begun) < len(networks)
    assert (tmp_path / "pix2pix-pc-seed1.toml").is_file() == any("pix2pix-pc-seed1" in str(c) for c in begun)
    assert not (tmp_path / "unetplusplus-pc-fine-tuned-seed1.toml").exists()  # waits for the one that it starts from


def test_a_command_that_fails_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"simulate\.py ended with exit code 2, expected 0"):
        run_command("simulate.py", "--nonsense")
    assert "simulate.py: error" in capfd.readouterr().err
    run_command("simulate.py", "--help", quiet=True)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense: there is no such file in claims, expected one of dic-actin, "),
        (
            ["gan", "--scale", "huge"],
            "huge: there is no such file in scales, expected one of full, medium, small, tiny.",
        ),
        (["gan", "--scale", "full"], "--scale full is given without --data and --test"),
        (["focus", "--scale", "full", "--data", "data", "--test", "data"], "data: has no focus.csv, expected one"),
        (["gan", "--scale", "full", "--data", "data", "--test", "none"], "none: no such folder, expected a data set"),
        (["gan", "--scale", "full", "--data", "bare", "--test", "data"], "bare: found no image with a label"),
    ],
)
def test_wrong_calls(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("data/image_1_BF_z0.ome.tiff", "data/image_1_Nucleus.ome.tiff", "bare/image_1_BF_z0.ome.tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert command_line.main([*arguments, "--output", str(tmp_path)]) == NOT_BEGUN
    assert message in capsys.readouterr().err


def test_one_experiment_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with one_at_a_time(tmp_path / "tiny", "experiment"):
        assert command_line.main(["gan", "--scale", "tiny", "--output", str(tmp_path)]) == NOT_BEGUN
    assert "tiny: found another experiment in this folder, expected one at a time." in capsys.readouterr().err
    assert not (tmp_path / "tiny/data").exists()


def test_a_claim_of_an_unknown_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (definitions.FOLDER / "claims/gan.toml").read_text().replace("pix2pix-pc-no-gan", "pix3pix")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims/gan.toml").write_text(text)
    (tmp_path / "networks.toml").write_text((definitions.FOLDER / "networks.toml").read_text())
    monkeypatch.setattr(definitions, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"gan: names the network pix3pix, expected one of networks\.toml"):
        read_claim("gan")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text.encode("utf-16"), "gan.toml: it is no TOML file in UTF-8"),
        (lambda text: re.sub(r"(?s)\[\[.*", "methods = []\nchecks = []", text).encode(), "gan.toml: methods: "),
        (lambda text: re.sub("source = .*", "", text).encode(), "gan.toml: source: Field required."),
        (lambda text: text.replace("better =", "at_least = 0\nof =").replace("\nthan =", "\n# than =").encode(), ""),
    ],
)
def test_a_claims_file_that_is_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, found: str
) -> None:
    (tmp_path / "claims").mkdir()
    content = change((definitions.FOLDER / "claims/gan.toml").read_text())
    (tmp_path / "claims/gan.toml").write_bytes(content)
    (tmp_path / "networks.toml").write_text((definitions.FOLDER / "networks.toml").read_text())
    monkeypatch.setattr(definitions, "FOLDER", tmp_path)
    if not found:
        read_claim("gan")
        return
    with pytest.raises(UserError) as error:
        read_claim("gan")
    assert found in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_a_claim_from_nothing_to_its_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["gan", "--scale", "tiny", "--output", str(tmp_path), "--jobs", "2", "--device", "cpu"]
    assert command_line.main(call) == 0
    out = capsys.readouterr().out
    assert "| PCC | PC | with GAN |" in out and "sharpness of with GAN over without GAN" in out
    results = tmp_path / "tiny/results"
    assert "--seeds 1 2`" in (results / "README.md").read_text()
    assert (results / "gan.jpg").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("tiny/pix2pix*/last.safetensors")}
    assert len(before) == 4
    assert command_line.main(call) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}  # nothing is trained twice


@pytest.mark.slow
def test_each_kind_of_method_is_scored(tmp_path: Path) -> None:
    claims = ["dic-actin", "focus", "strategies-pix2pix"]  # a head of another network, many planes, a dynamic network
    call = [*claims, "--scale", "tiny", "--seeds", "1", "--output", str(tmp_path), "--jobs", "2", "--device", "cpu"]
    assert command_line.main(call) == 0
    assert sorted(path.stem for path in tmp_path.glob("tiny/results/*.json")) == claims
