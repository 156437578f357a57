"""The configuration is declared once: command line, TOML files, recipes and RUN/config.toml agree."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import TINY_METADATA

from model import checkpoint
from model.errors import UserError
from model.networks.build import build
from model.normalization import InputNormalization, TargetNormalization
from training.appearance import AppearanceConfig
from training.config import RECIPES, RunConfig, Schedule, TrainingConfig
from training.options import CONFIG_FILE, RECIPE_FOLDER, as_table, parse, read_table, write_config

GIVEN = ("--data", "cells", "--modality", "BF", "--output", "run")


def config(*options: str) -> RunConfig:
    return parse([*GIVEN, *options])[0]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_without_options_it_is_the_papers_setting() -> None:
    assert config() == RunConfig(modality="BF", data=(Path("cells"),), output=Path("run"))
    paper = config()
    assert (paper.width, paper.blocks, paper.crop, paper.window) == (64, 9, 512, 512)
    assert (paper.lambda_l1, paper.lambda_gan, paper.learning_rate) == (100, 1, 2e-4)
    assert (paper.schedule.epochs, paper.schedule.decay_epochs) == (150, 150)
    assert paper.input_normalization is InputNormalization.LINEAR


def test_the_command_line_wins_over_files_and_a_later_file_over_an_earlier(tmp_path: Path) -> None:
    first = write(tmp_path / "a.toml", 'width = 8\nseed = 1\ncrop = 64\n[schedule]\nunit = "steps"\nsteps = 5\n')
    second = write(tmp_path / "b.toml", "seed = 2\n[schedule]\ndecay_steps = 7\n")
    found = config("--config", first, second, "--crop", "96", "--schedule.steps", "6")
    assert (found.width, found.seed, found.crop) == (8, 2, 96)
    assert found.schedule == Schedule(unit="steps", steps=6, decay_steps=7)


def test_a_file_may_hold_every_option(tmp_path: Path) -> None:
    text = 'data = ["a", "b"]\nmodality = "all"\noutput = "run"\nrecipe = "dynamic"\npixel_size_um = [0.2, 0.3]\n'
    found, resume = parse(["--config", write(tmp_path / "a.toml", text)])
    assert not resume and found.data == (Path("a"), Path("b")) and found.pixel_size_um == (0.2, 0.3)
    assert (found.recipe, found.width, found.lambda_gan) == ("dynamic", 32, 0)  # named in the file, it has its layer


def test_short_and_long_names_of_nested_options_are_the_same() -> None:
    short = config("--schedule", "steps", "--steps", "4", "--decay-steps", "2", "--max-minutes", "3")
    prefix = "--schedule."
    assert short == config(
        f"{prefix}unit", "steps", f"{prefix}steps", "4", f"{prefix}decay-steps", "2", f"{prefix}max-minutes", "3"
    )
    assert config("--pixel-size", "0.2", "0.3").pixel_size_um == (0.2, 0.3)
    assert config("--input-normalization", "flatfield", "--appearance.blur-px", "0", "1").appearance.blur_px == (0, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("widht = 3", "a.toml: widht is no option, see train.py --help."),
        ("[schedule]\nstep = 3", "a.toml: schedule.step is no option"),
        ('width = "3"', "a.toml: width is '3': expected a valid integer."),
        ("width = 2.5", "a.toml: width is 2.5: expected a valid integer"),
        ("width = 0", "a.toml: width is 0: expected greater than or equal to 1."),
        ("schedule = 5", "a.toml: schedule is 5: expected"),
        ('recipe = "pix3pix"', "a.toml: recipe is 'pix3pix': expected 'pix2pix', 'unetplusplus' or 'dynamic'."),
        ("pixel_size_um = [0.3, 0.2]", "a.toml: pixel_size_um is [0.3, 0.2]: expected the smaller one first."),
        ("[appearance]\nblur = 2", "a.toml: appearance.blur is 2: expected less than or equal to 1."),
        ("seed = 2024-01-01", "a.toml: seed is '2024-01-01': expected a valid integer."),
        ("resume = true", "a.toml: resume is no option"),
        ("width =", "a.toml: it is no TOML file in UTF-8"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_file_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        config("--config", write(tmp_path / "a.toml", text))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_another_encoding_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: it cannot be read"):
        config("--config", str(tmp_path / "none.toml"))
    (tmp_path / "a.toml").write_bytes("# schärfste Ebene\n".encode("cp1252"))
    with pytest.raises(UserError, match="no TOML file in UTF-8"):
        config("--config", str(tmp_path / "a.toml"))


def test_a_date_is_a_text_and_a_byte_order_mark_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("\ufefftrained_on = 2024-05-01", encoding="utf-8")
    assert config("--config", str(tmp_path / "a.toml")).trained_on == "2024-05-01"


def test_a_run_whose_configuration_is_lost_is_named(tmp_path: Path) -> None:
    path = Path(write(tmp_path / CONFIG_FILE, ""))
    with pytest.raises(
        UserError, match=r"config\.toml: lacks modality and data and output, expected the configuration"
    ):
        parse(["--resume", "--output", str(path.parent)])


@pytest.mark.parametrize("options", [(), ("--widht", "3"), ("--modality", "XY")])
def test_a_wrong_command_line_ends_with_code_2(options: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*GIVEN, *options] if options else [])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert all(word in told for word in (options or ("--data", "--modality", "--output")))


def test_help_names_every_option_and_what_must_be_given(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for owner, prefix in ((RunConfig, ""), (Schedule, "schedule."), (AppearanceConfig, "appearance.")):
        for field in fields(owner):
            if field.name not in ("schedule", "appearance"):
                assert f"--{prefix}{field.name}".replace("_", "-") in told
                assert field.name in (owner.__doc__ or "") + (TrainingConfig.__doc__ or "")
    assert told.count("(required)") == 3
    assert not re.findall(r"(?:INT|FLOAT|PATH|STR|[}\]]) \((?:default|required)", told)  # each says what it does


def test_what_a_run_writes_is_what_it_was_given(tmp_path: Path) -> None:
    options = ("--pixel-size", "0.2", "0.3", "--input-normalization", "flatfield", "--appearance.blur", "1")
    given = config(*options, "--schedule", "time", "--max-minutes", "5", "--init", _checkpoint(tmp_path))
    write_config(given, tmp_path)
    assert tomllib.loads((tmp_path / CONFIG_FILE).read_text()) == as_table(given)
    assert parse(["--config", str(tmp_path / CONFIG_FILE)])[0] == given
    found, resume = parse(["--resume", "--output", str(tmp_path)])
    assert resume and found == replace(given, output=tmp_path)


def _checkpoint(folder: Path) -> str:
    described = replace(
        TINY_METADATA,
        input_normalization=InputNormalization.FLATFIELD,
        target_normalization=TargetNormalization.PERCENTILE,
        pixel_size_um=(0.25, 0.35),
        window=96,
        architecture=replace(TINY_METADATA.architecture, upsampling="resize"),
    )
    checkpoint.save(folder / "a.safetensors", build(described.architecture), described)
    return str(folder / "a.safetensors")


def test_a_checkpoint_brings_its_preprocessing_unless_it_is_named(tmp_path: Path) -> None:
    first = _checkpoint(tmp_path)
    taken = config("--init", first)
    assert (taken.width, taken.blocks, taken.upsampling, taken.window) == (4, 1, "resize", 96)
    assert (taken.input_normalization, taken.target_normalization) == ("flatfield", "percentile")
    assert taken.pixel_size_um == (0.25, 0.35) and taken.crop == 512
    named = config("--init", first, "--pixel-size", "0.2", "0.3", "--upsampling", "transposed", "--window", "64")
    assert (named.pixel_size_um, named.upsampling, named.window, named.width) == ((0.2, 0.3), "transposed", 64, 4)
    in_file = write(tmp_path / "a.toml", f'init = "{first}"\ntarget_normalization = "linear"\n')
    mixed = config("--config", in_file)
    assert (mixed.target_normalization, mixed.input_normalization) == ("linear", "flatfield")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_its_file(recipe: str) -> None:
    table = read_table(RECIPE_FOLDER / f"{recipe}.toml")
    assert table["recipe"] == recipe
    assert config("--recipe", recipe) == config("--config", str(RECIPE_FOLDER / f"{recipe}.toml"))
    network = config("--recipe", recipe).architecture
    assert (network.network, network.dynamic) == (
        ("resnet", False) if recipe == "pix2pix" else ("unetplusplus", recipe == "dynamic")
    )


def test_a_recipe_of_the_papers_setting_holds_its_values() -> None:
    table = read_table(RECIPE_FOLDER / "pix2pix.toml")
    paper = as_table(config())
    assert table == {
        key: {name: paper[key][name] for name in value} if isinstance(value, dict) else paper[key]
        for key, value in table.items()
    }


SHIPPED = sorted((RECIPE_FOLDER / "shipped").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_recipes_of_the_shipped_checkpoints_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The checkpoints that they start from are not there, but were of the same architecture.
    monkeypatch.setattr("training.options._checkpoint_table", lambda _: {})
    found, _ = parse(["--config", str(path)])
    width = 12 if found.recipe == "unetplusplus" else 32 if path.stem in {"8_bf", "8_dic", "12_bf", "12_dic"} else 24
    assert found.schedule.unit == "time" and found.width == width


def test_softened_inputs_are_an_appearance(tmp_path: Path) -> None:
    found = config("--config", str(RECIPE_FOLDER / "shipped" / "7_bf.toml"), "--init", _checkpoint(tmp_path))
    assert found.appearance.changes == ("blur",) and found.appearance.blur_px == (0, 1)
    every = config("--config", str(RECIPE_FOLDER / "appearance.toml"), "--input-normalization", "flatfield")
    assert len(every.appearance.changes) == 9
