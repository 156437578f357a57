"""What the TOML files of this folder say: claims, the networks that they compare, and scales of numbers."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

from model.errors import UserError
from model.labels import Modality, Organelle
from training.options import merge

FOLDER = Path(__file__).parent
METRICS = ("PCC", "SSIM", "MAE", "E_dist", "C_dist", "sharpness")

Definition = TypeVar("Definition")
Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Side:
    """Which scores are meant: of one method, of all planes or some.

    Attributes
    ----------
    method : str
    modality, organelle : str or None
        None: the mean over all.
    z_deviation : int or None
        Distance from the best focus in planes; None: of any.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    method: str
    modality: Modality | None = None
    organelle: Organelle | None = None
    z_deviation: int | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """What must be seen for a claim to hold: one side better than another, or one within a bound.

    Attributes
    ----------
    metric : str
    better, than : Side or None
    of : Side or None
    at_least, at_most : float or None
        Bounds of the mean over the seeds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    metric: Literal["PCC", "SSIM", "MAE", "E_dist", "C_dist", "sharpness"]
    better: Side | None = None
    than: Side | None = None
    of: Side | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """Networks that predict, and how.

    Attributes
    ----------
    name : str
    networks : dict of Modality to str
        The network for each modality that is compared; see networks.toml.
    heads : dict of str to str
        Exceptions: the network for "MODALITY/organelle".
    options : tuple of str
        Of ``inference.py``.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    networks: dict[Modality, str]
    heads: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ("--preset", "fast")

    @property
    def used(self) -> list[str]:
        """Every network, once."""
        return list(dict.fromkeys([*self.networks.values(), *self.heads.values()]))


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper.

    Attributes
    ----------
    claim : str
        One sentence.
    source : str
        Where the paper says so.
    methods : tuple of Method
    checks : tuple of Check
    metrics : tuple of str
        Those of the table.
    planes : {"test", "focus"}
        Which planes are scored; focus: fields of many planes.
    group_by : {"modality", "z_deviation"}
        The table's rows.
    figure : tuple of str
        Its rows, each "MODALITY/organelle".
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    claim: str
    source: str
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]
    checks: tuple[Check, ...]
    metrics: tuple[str, ...] = ("PCC", "SSIM")
    planes: Literal["test", "focus"] = "test"
    group_by: Literal["modality", "z_deviation"] = "modality"
    figure: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Simulated data of a scale: studies with the labels of the real ones, and test fields with all labels.

    Attributes
    ----------
    fields_per_study, size, planes : int
        Of the training data.
    test_fields, test_size, test_planes : int
        For each modality.
    focus_fields, focus_planes : int
        Of the fields of many planes.
    training_seed, test_seed, focus_seed : int
        Of the cells; the same for every seed of a training.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    fields_per_study: PositiveInt
    size: PositiveInt
    planes: PositiveInt
    test_fields: PositiveInt
    test_size: PositiveInt
    test_planes: PositiveInt
    focus_fields: PositiveInt
    focus_planes: PositiveInt
    training_seed: PositiveInt
    test_seed: PositiveInt
    focus_seed: PositiveInt


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Numbers: how large, how long, how often.

    Attributes
    ----------
    seeds : tuple of int
    threads : int
        Of each training.
    training : dict
        Options of ``train.py`` for every network.
    width, discriminator_width : dict of str to int
        By recipe.
    simulation : Simulation or None
        None: the real data set is given.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    seeds: tuple[int, ...]
    threads: PositiveInt
    training: dict[str, Any]
    width: dict[str, PositiveInt]
    discriminator_width: dict[str, PositiveInt]
    simulation: Simulation | None = None


def claim_names() -> list[str]:
    """Names of all claims, sorted."""
    return sorted(path.stem for path in (FOLDER / "claims").glob("*.toml"))


def read_claim(name: str) -> Claim:
    """Read a claim; raises UserError where there is none of this name, or it does not fit together."""
    claim = _read(FOLDER / "claims" / f"{name}.toml", Claim)
    networks, methods = read_networks(), {method.name for method in claim.methods}
    for used in {network for method in claim.methods for network in method.used}:
        if used not in networks:
            raise UserError(f"{name}: names the network {used}, expected one of networks.toml.")
    for check in claim.checks:
        sides = [side for side in (check.better, check.than, check.of) if side is not None]
        complete = (check.better and check.than) or (check.of and (check.at_least, check.at_most) != (None, None))
        if not complete or any(side.method not in methods for side in sides):
            raise UserError(f"{name}: has a check of {[side.method for side in sides]}, expected two of its methods.")
    return claim


def read_networks() -> dict[str, dict[str, Any]]:
    """Read the options of each network of networks.toml."""
    return tomllib.loads((FOLDER / "networks.toml").read_text(encoding="utf-8"))


def read_scale(name: str) -> Scale:
    """Read a scale: its file, laid over that of its `base`, where it names one. UserError where there is none."""
    return _read(FOLDER / "scales" / f"{name}.toml", Scale)


def _read(path: Path, kind: type[Definition]) -> Definition:
    try:
        return TypeAdapter(kind).validate_python(_table(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: it is no TOML file in UTF-8 ({error}).") from error


def _table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.toml")))
        raise UserError(f"{path.stem}: there is no such file in {path.parent.name}, expected one of {known}.")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    base = table.pop("base", None)
    return table if base is None else merge([_table(path.with_name(f"{base}.toml")), table])
