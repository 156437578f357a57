"""Where a configuration comes from: defaults, the recipe's file, a checkpoint, TOML files, the command line.

Each wins over those before it. What a run was given in the end stands in ``RUN/config.toml``, from which it is resumed.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
import tyro
from pydantic import TypeAdapter, ValidationError

from model import checkpoint
from model.errors import UserError
from model.files import write_text
from training.config import MAY_CHANGE, Recipe, RunConfig

RECIPE_FOLDER = Path(__file__).parent / "recipes"
CONFIG_FILE = "config.toml"

Table = Mapping[str, Any]
Config = TypeVar("Config", bound=RunConfig)

_PLACEHOLDERS: Table = {"modality": "all", "data": [""], "output": ""}  # for what has no default
_ADAPTER = TypeAdapter(RunConfig)
_PROGRAM = "train.py"
_STYLE = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)


@dataclass(frozen=True, kw_only=True)
class Options(RunConfig):
    """Fit one network on one data set, and leave checkpoints that say what they are.

    Attributes
    ----------
    config : tuple of Path
        TOML files with options, e.g. of training/recipes/; the last one wins, the command line wins over all.
    resume : bool
        Go on with the run in --output, with the options in its config.toml; begin it where it has saved no state.
    """

    config: tuple[Path, ...] = ()
    resume: bool = False


def parse(arguments: Sequence[str] | None = None) -> tuple[RunConfig, bool]:
    """Read command line and files.

    Parameters
    ----------
    arguments : sequence of str or None
        None: those of the process.

    Returns
    -------
    config : RunConfig
        Complete and valid.
    resume : bool
        Whether the run of that configuration is to be resumed, if it has saved a state.

    Raises
    ------
    UserError
        Where a file, or what the options say together, is not valid.
    SystemExit
        Code 2, where the command line is not valid.
    """
    asked = _peek(arguments, {})
    tables = [read_table(path) for path in asked.config]
    stored = asked.output / CONFIG_FILE
    if asked.resume and stored.is_file():
        return _resumed(arguments, stored, tables), True
    # The files or the command line may name recipe and checkpoint, over whose values they win.
    asked = _peek(arguments, merge(tables))
    if asked.resume and asked.data == _options({}).data:
        raise UserError(
            f"{stored}: not found, expected the configuration of the run to resume, in its --output, or the options "
            "of one to begin."
        )
    layers = [recipe_table(asked.recipe)]
    if asked.init is not None:
        layers.append(_checkpoint_table(asked.init))
    config = _run_config(_command_line(arguments, merge([*layers, *tables])))
    _check(as_table(config), "")
    config.validate()
    return config, asked.resume


def read_table(path: Path) -> Table:
    """Read options from a TOML file, which may lack any; raises UserError that names file and key."""
    try:
        # A date without quotes is a text here. Editors of Windows write a byte order mark.
        table: Table = json.loads(json.dumps(tomllib.loads(path.read_text(encoding="utf-8-sig")), default=str))
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}), expected a TOML file.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: it is no TOML file in UTF-8 ({error}).") from error
    _check(table, f"{path}: ")
    return table


def recipe_table(recipe: Recipe) -> Table:
    """Read the options of a recipe, the paper's setting."""
    return read_table(RECIPE_FOLDER / f"{recipe}.toml")


def write_config(config: RunConfig, folder: Path) -> None:
    """Write ``config.toml`` into a run's folder; options that are None are left out, since TOML has no word for it."""
    write_text(folder / CONFIG_FILE, tomli_w.dumps(as_table(config)))


def as_table(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as plain values, without those that are None."""
    table: dict[str, Any] = _ADAPTER.dump_python(config, mode="json", exclude_none=True)
    return table


def require_same(config: RunConfig, stored: Table, path: Path) -> None:
    """Raise UserError for the first option in which a resumed run differs from what it was started with.

    Parameters
    ----------
    config : RunConfig
        Of the run as it is to go on.
    stored : mapping
        What `as_table` gave when it was started.
    path : Path
        Where that was read from.
    """
    before, now = _flat(as_table(_run_config(_options(stored)))), _flat(as_table(config))
    free = set(MAY_CHANGE) - ({"schedule.max_minutes"} if config.schedule.unit == "time" else set())
    for key in sorted((before.keys() | now.keys()) - free):
        if before.get(key) != now.get(key):
            started = f"with {before[key]}" if key in before else "without it"
            raise UserError(
                f"{_option(key)} is {now.get(key, 'none')}, but the run to resume was started {started} ({path}): "
                "leave the option out, or start a new run."
            )


def _command_line(arguments: Sequence[str] | None, table: Table) -> Options:
    """Parse the command line over the values of a table; ends the process where it is not valid."""
    default = replace(_options(table), **{name: tyro.MISSING for name in _PLACEHOLDERS if name not in table})
    return tyro.cli(Options, prog=_PROGRAM, default=default, args=arguments, config=_STYLE)


def _peek(arguments: Sequence[str] | None, table: Table) -> Options:
    """The same, but whatever is missing or unknown is left for `_command_line` to complain of."""
    options, _ = tyro.cli(
        Options,
        prog=_PROGRAM,
        default=_options(table),
        args=arguments,
        config=_STYLE,
        add_help=False,
        return_unknown_args=True,
    )
    return options


def _options(table: Table) -> Options:
    return TypeAdapter(Options).validate_json(json.dumps({**_PLACEHOLDERS, **table}))


def _run_config(options: Options) -> RunConfig:
    return RunConfig(**{field.name: getattr(options, field.name) for field in fields(RunConfig)})


def _checkpoint_table(path: Path) -> Table:
    """What a run takes over from the checkpoint that it starts from."""
    metadata = checkpoint.read_metadata(path)
    table = {
        "width": metadata.architecture.width,
        "blocks": metadata.architecture.blocks,
        "upsampling": metadata.architecture.upsampling,
        "foreground": metadata.architecture.foreground,
        "input_normalization": metadata.input_normalization,
        "target_normalization": metadata.target_normalization,
        "window": metadata.window,
    }
    return table if metadata.pixel_size_um is None else {**table, "pixel_size_um": list(metadata.pixel_size_um)}


def _resumed(arguments: Sequence[str] | None, path: Path, tables: Sequence[Table]) -> RunConfig:
    """The configuration of a stored run; UserError where an option contradicts it."""
    stored = read_table(path)
    if lacking := [key for key in _PLACEHOLDERS if key not in stored]:
        raise UserError(f"{path}: lacks {' and '.join(lacking)}, expected the configuration of the run to resume.")
    config = _run_config(_command_line(arguments, merge([stored, *tables])))
    _check(as_table(config), "")
    config.validate()
    require_same(config, stored, path)
    return replace(config, output=path.parent)


def _check(table: Table, prefix: str) -> None:
    """Raise UserError for the first key that is unknown or has a wrong value; `prefix` names the file."""
    try:
        _ADAPTER.validate_json(json.dumps({**_PLACEHOLDERS, **table}, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(part for part in first["loc"] if isinstance(part, str))
        name = key if prefix else _option(key)
        if first["type"] == "unexpected_keyword_argument":
            raise UserError(f"{prefix}{name} is no option, see train.py --help.") from None
        reason = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        raise UserError(f"{prefix}{name} is {first['input']!r}: {reason[0].lower()}{reason[1:]}.") from None


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def merge(tables: Sequence[Table]) -> dict[str, Any]:
    """Lay tables over each other, the last one uppermost, nested ones key by key."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge([merged[key], value]) if nested else value
    return merged


def _flat(table: Table, prefix: str = "") -> dict[str, Any]:
    """Nested tables as ``table.key``."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
