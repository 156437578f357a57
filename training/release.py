"""Put trained checkpoints into a resources folder, with the routing the paper ends on (section 3.1).

    python -m training.release --bf RUN/best.safetensors --pc … --dic … --unified … --output resources
    python -m training.release --from resources --low-bf RUN/last.safetensors --output my_resources

Each pix2pix predicts those organelles of its modality that it had labels of. The others (in the challenge actin on DIC,
which nobody labelled), and all of an unknown modality, come from the unified network, or from where --from has them.
With --join new networks are averaged with those of --from, instead of replacing them.
Networks for low magnification (--low-bf, --low-pc, --low-dic, --low-unified) predict images whose pixels are 0.2 µm or
more. With --average (--average-low at low magnification) several networks predict a modality, or an organelle of it,
and are averaged:

    python -m training.release --from resources --average PC pix2pix-pc unetplusplus --output my_resources
    python -m training.release --from resources --average DIC/actin unetplusplus my_network --output my_resources
"""

import argparse
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from model import checkpoint
from model.checkpoint import CheckpointMetadata
from model.commands import DONE, NOT_BEGUN, log_to_standard_streams, one_sentence
from model.errors import UserError
from model.files import atomic_write, prepare_folder
from model.labels import Modality, Organelle
from model.networks.build import Network, rebuild
from model.networks.generator import ResnetGenerator
from model.routing import CheckpointFile, Ensemble, LowMagnification, Route, Routes, Routing, routes_to
from model.verification import read_verified_metadata

log = logging.getLogger(f"{__package__}.release")  # __name__ is __main__ when this is the command

UNIFIED = "unetplusplus"
LOW = "-low-magnification"
LOW_FROM_UM = 0.2
"""Between the coarsest pixels of 40x (0.16 µm with usual cameras) and those of 20x (0.3 µm)."""
CUSTOM = "-custom"
"""Behind the name of a checkpoint that was put beside those of another folder."""


@dataclass(frozen=True)
class Average:
    """Networks whose predictions are averaged.

    Attributes
    ----------
    modality : Modality
    names : tuple of str
        As in the new routing.json; where a preset has fewer rotations than that, it asks the first ones.
    organelle : Organelle or None
        What they predict; None: each what it had labels of.
    low : bool
        Whether they do at low magnification.
    """

    modality: Modality
    names: tuple[str, ...]
    organelle: Organelle | None = None
    low: bool = False

    @classmethod
    def parse(cls, words: Sequence[str], low: bool) -> "Average":
        """Read ``MODALITY NAME …`` or ``MODALITY/ORGANELLE NAME …``; ValueError for anything else."""
        where, *names = words
        modality, slash, organelle = where.partition("/")
        if not names or len(set(names)) < len(names):
            raise ValueError("expected names of networks, each once")
        return cls(Modality(modality), tuple(names), Organelle(organelle) if slash else None, low)


@dataclass(frozen=True)
class Trained:
    """A new checkpoint: its name in the routing, and what it states of itself."""

    name: str
    metadata: CheckpointMetadata


def filtered(network: Network, metadata: CheckpointMetadata) -> tuple[Network, CheckpointMetadata]:
    """Filter the checkerboard of plain transposed convolutions out; the weights, and other networks, stay."""
    if not isinstance(network, ResnetGenerator) or network.architecture.upsampling != "transposed":
        return network, metadata
    new = rebuild(network, upsampling="filtered")
    return new, replace(metadata, architecture=new.architecture)


def release(
    sources: Mapping[str, Path],
    output: Path,
    *,
    base: Path | None = None,
    filter_checkerboard: bool = False,
    join: bool = False,
    averages: Sequence[Average] = (),
) -> None:
    """Store checkpoints in 8 bits a weight, and write routing.json with the files' hashes.

    Parameters
    ----------
    sources : mapping of str to Path
        Checkpoint files by name: ``pix2pix-bf``, ``pix2pix-pc``, ``pix2pix-dic`` and `UNIFIED`, also with `LOW` behind
        it. `UNIFIED` must be there without `base`.
    output : Path
        Resources folder; files of the same names are replaced.
    base : Path, optional
        Resources folder whose networks predict whatever those of `sources` had no labels of. The names of `sources`
        get `CUSTOM` behind them.
    filter_checkerboard : bool
        Whether networks with plain transposed convolutions are stored as `filtered`.
    join : bool
        Whether networks of `sources` are averaged, as the first ones, with those of `base` that they would replace.
    averages : sequence of Average
        Networks that predict together.

    Raises
    ------
    UserError
        Where `base` or a source cannot be loaded, a network is not there or had no labels of the modality it is meant
        for, or networks that cannot be averaged would be. Then there is no new routing.json.
    """
    start = Routing.read(base) if base else Routing({}, routes_to(UNIFIED))
    stored = {name: _custom_name(name, start) if base else name for name in sources}
    names = {*start.checkpoints, *stored.values()}
    for name in chain(*(average.names for average in averages)):
        if name not in names:
            raise UserError(
                f"{base or output}: found no network {name!r} to average, expected {', '.join(sorted(names))}."
            )
    prepare_folder(output)
    files: dict[str, CheckpointFile] = {}
    new: dict[str, Trained] = {}
    for name, source in sources.items():
        network, metadata = checkpoint.load(source)
        _check_labels(source, metadata, [m for m in Modality if name.removesuffix(LOW) in (UNIFIED, _pix2pix(m))], name)
        if filter_checkerboard:
            network, metadata = filtered(network, metadata)
        target = output / _file_name(stored[name])
        checkpoint.save(target, network, metadata, compact=True)
        files[stored[name]] = CheckpointFile.of(target)
        new[name] = Trained(stored[name], metadata)
        size = target.stat().st_size / 1e6
        log.info("%s: %.1f MB, %s, trained on %s", target, size, metadata.recipe, metadata.trained_on)
    known = {**start.checkpoints, **files}
    high_averages, low_averages = ([each for each in averages if each.low is low] for low in (False, True))
    routes = _averaged(_taken_over(start.routes, new, join), high_averages, known)
    low = start.low_magnification
    if low or low_averages or any(name.endswith(LOW) for name in new):
        from_um, before = (low.from_um, low.routes) if low else (LOW_FROM_UM, routes)
        low = LowMagnification(from_um, _averaged(_taken_over(before, new, join, LOW), low_averages, known))
    routing = Routing(known, routes, low)
    used = {name: file for name, file in known.items() if name in routing.routed}
    copies = {name: _copied(file, output) for name, file in used.items() if name not in files}
    routing = replace(routing, checkpoints=used | copies)
    read_verified_metadata(routing)  # what would be refused at every prediction is refused here
    routing.write(output)


def _check_labels(path: Path, metadata: CheckpointMetadata, needed: Sequence[Modality], name: str) -> None:
    """Raise UserError where a network had no labels of a modality that it is meant for."""
    if not all(metadata.labels.get(modality) for modality in needed):
        found = ", ".join(m for m in metadata.modalities if metadata.labels.get(m)) or "nothing"
        raise UserError(f"{path}: found a network with labels of {found}, expected {', '.join(needed)} for {name}.")


def _pix2pix(modality: Modality, low: str = "") -> str:
    return f"pix2pix-{modality.lower()}{low}"


def _custom_name(name: str, start: Routing) -> str:
    names = chain([name + CUSTOM], (f"{name}{CUSTOM}-{number}" for number in count(2)))
    files = {file.path.name for file in start.checkpoints.values()}
    return next(custom for custom in names if custom not in start.checkpoints and _file_name(custom) not in files)


def _file_name(name: str) -> str:
    return f"{name.replace('-', '_')}.safetensors"


def _copied(file: CheckpointFile, output: Path) -> CheckpointFile:
    target = output / file.path.name
    if not (target.exists() and target.samefile(file.path)):
        with file.path.open("rb") as source, atomic_write(target) as copy:
            shutil.copyfileobj(source, copy)
    return replace(file, path=target)


def _taken_over(routes: Routes, new: Mapping[str, Trained], join: bool, low: str = "") -> Routes:
    """Give new networks what they had labels of: a pix2pix in its modality, the unified one where it was before."""
    unified = new.get(UNIFIED + low)
    successors = {name: new[name] for name in (UNIFIED, UNIFIED + LOW) if name in new}
    if unified:  # also where a low magnification had no unified network of its own
        successors[UNIFIED] = unified
    changed: dict[Modality | None, Mapping[Organelle, Ensemble]] = {}
    for modality, before in routes.items():
        now = {
            organelle: tuple(new_or_old for route in members for new_or_old in _succeeded(route, successors, join))
            for organelle, members in before.items()
        }
        if modality and (own := new.get(_pix2pix(modality, low))):
            for organelle in own.metadata.labels[modality]:
                now[organelle] = (Route(own.name, organelle), *(now[organelle] if join else ()))
        changed[modality] = now
    return changed


def _averaged(routes: Routes, averages: Sequence[Average], known: Mapping[str, CheckpointFile]) -> Routes:
    """Let networks predict together; an organelle that none of them had labels of stays with what predicted it."""
    changed = dict(routes)
    for average in averages:
        learned = {name: checkpoint.read_metadata(known[name].path) for name in average.names}
        ways = dict(changed[average.modality])
        for name, metadata in learned.items():
            _check_labels(known[name].path, metadata, [average.modality], name)
            if average.organelle and average.organelle not in metadata.all_labels:
                raise UserError(f"{known[name].path}: had no labels of {average.organelle}, expected some for {name}.")
        for organelle in [average.organelle] if average.organelle else Organelle:
            members = [name for name in average.names if organelle in learned[name].all_labels]
            ways[organelle] = tuple(Route(name, organelle) for name in members) or ways[organelle]
        changed[average.modality] = ways
    return changed


def _succeeded(route: Route, successors: Mapping[str, Trained], join: bool) -> Ensemble:
    one = successors.get(route.checkpoint)
    if one is None or route.head not in one.metadata.all_labels:
        return (route,)
    return (Route(one.name, route.head), *([route] if join else []))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--from", type=Path, dest="base", help="resources folder that has all that is not given")
    for modality in Modality:
        parser.add_argument(f"--{modality.lower()}", type=Path, help=f"pix2pix for {modality}")
    for modality in Modality:
        parser.add_argument(f"--low-{modality.lower()}", type=Path, help=f"pix2pix for {modality} at low magnification")
    parser.add_argument("--unified", type=Path, help="UNet++ checkpoint trained on all modalities")
    parser.add_argument("--low-unified", type=Path, help="the same for low magnification")
    parser.add_argument("--join", action="store_true", help="average new networks with those that they would replace")
    for option, where in (("--average", ""), ("--average-low", " at low magnification")):
        parser.add_argument(
            option,
            nargs="+",
            action="append",
            default=[],
            metavar=("MODALITY[/ORGANELLE]", "NAME"),
            help=f"networks, by their names in routing.json, that predict together{where}",
        )
    parser.add_argument(
        "--filter-checkerboard", action="store_true", help="store pix2pix with --upsampling transposed as filtered"
    )
    parser.add_argument("--output", type=Path, required=True, help="resources folder")
    options = parser.parse_args(arguments)
    asked = {_pix2pix(m): getattr(options, m.lower()) for m in Modality} | {UNIFIED: options.unified}
    if options.base is None and None in asked.values():
        parser.error("expected --bf, --pc, --dic and --unified, or --from a folder that has what is not given")
    asked |= {_pix2pix(m, LOW): getattr(options, f"low_{m.lower()}") for m in Modality}
    asked |= {UNIFIED + LOW: options.low_unified}
    sources = {name: path for name, path in asked.items() if path is not None}
    if options.join and not options.base:
        parser.error("--join needs --from, whose networks the new ones join")
    averages = []
    for option, given in (("--average", options.average), ("--average-low", options.average_low)):
        for words in given:
            try:
                averages.append(Average.parse(words, low=option == "--average-low"))
            except ValueError as error:
                parser.error(f"{option} {' '.join(words)}: {error}")
    if not sources and not averages:
        parser.error("no checkpoint is given")
    log_to_standard_streams("training")
    try:
        release(
            sources,
            options.output,
            base=options.base,
            filter_checkerboard=options.filter_checkerboard,
            join=options.join,
            averages=averages,
        )
    except UserError as error:
        log.error(one_sentence(error))
        return NOT_BEGUN
    return DONE


if __name__ == "__main__":
    raise SystemExit(main())
