"""All that is decided about one case before its pixels are processed: channel, planes, modality, plan, files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from .batch_options import BatchOptions
from .case import Case
from .commands import one_line
from .discovery import is_prediction
from .errors import UserError
from .files import content_sha256, shared_sha256
from .images.ome_writer import xml_text
from .images.reader import reconcile_modality
from .images.stack import Stack, StackInfo
from .labels import Modality, Organelle
from .naming import modality_token
from .outputs import Content, OutputFile, OutputGeometry, OutputOptions, is_written, output_files
from .plan import Plan
from .plane_store import PlanesInMemory, PlanesOnDisk, PlaneStore
from .predictor import Predictor
from .selection import SelectedPlanes, channel_title, choose_channel, select_planes

NOT_COMPARED = {"device"}
"""Provenance that may differ: a batch that was begun on a CPU may be finished on a GPU."""


@dataclass
class CaseJob:
    """One case on its way from the open file to the written outputs.

    Attributes
    ----------
    case : Case
    selected : SelectedPlanes
    plan : Plan
        Of every plane; its provenance says which channel and planes of a stack were taken.
    files : list of OutputFile
    geometry : OutputGeometry
    contents : tuple of Content
        What is predicted of each plane.
    store : PlaneStore
    message : str
        Shape, modality and planes, for the log.
    warnings : tuple of str
        One clause each, without the file's name.
    error : Exception or None
        What went wrong since; its further planes are not read.
    """

    case: Case
    selected: SelectedPlanes
    plan: Plan
    files: list[OutputFile]
    geometry: OutputGeometry
    contents: tuple[Content, ...]
    store: PlaneStore
    message: str
    warnings: tuple[str, ...]
    error: Exception | None = None
    _warned: dict[str, None] = field(default_factory=dict)  # in order

    @property
    def planes(self) -> int:
        """How many planes are predicted."""
        return len(self.selected.positions)

    def plane_plan(self, number: int) -> Plan:
        """Return the plan of a plane, whose provenance says which one it is."""
        if self.planes == 1:
            return self.plan
        t, z = self.selected.positions[number]
        return self.plan.with_provenance(plane=f"t {t}, z {z}")

    def output_position(self, number: int) -> tuple[int, int]:
        """Compute the indices (t, z) of a plane in the output."""
        t, z = divmod(number, self.geometry.focal_planes)
        return t, z

    def missing_planes(self) -> list[int]:
        """Numbers of the planes that no earlier run has kept."""
        return [
            number
            for number in range(self.planes)
            if not self.store.holds(*self.output_position(number), self.contents, self.plane_plan(number).provenance)
        ]

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Warnings of the case and of its planes that were predicted in this run, without repetitions."""
        return tuple(dict.fromkeys((*self.warnings, *self._warned)))

    def new_warnings(self, of_plane: tuple[str, ...]) -> list[str]:
        """Return those of the case and of a plane that were not given before: planes of a stack are much alike."""
        new = [warning for warning in (*self.warnings, *of_plane) if warning not in self._warned]
        self._warned |= dict.fromkeys(new)
        return new

    def is_written(self) -> bool:
        """Whether all files are there, and say of themselves what they would say if they were made now."""
        return all(is_written(file, self.geometry, self.provenance(file.contents), NOT_COMPARED) for file in self.files)

    def provenance(self, contents: tuple[Content, ...]) -> dict[str, str]:
        """Return what a file of these contents says of itself before anything is predicted."""
        made = {c.organelle: self.plan.provenance[c.organelle] for c in contents if c.organelle}
        if contents[0].disagreement:
            return {**_merged(made), "shows": "standard deviation over what was averaged, 65535 the largest"}
        return _merged(made)

    def disagreement(self) -> dict[Organelle, float]:
        """Mean disagreement over the planes, by organelle; empty where nothing was averaged."""
        summaries = {organelle: self._measured(organelle) for organelle in Organelle}
        return {o: float(found["disagreement"]) for o, found in summaries.items() if "disagreement" in found}

    def measured_provenance(self, contents: tuple[Content, ...]) -> dict[str, str]:
        """Say also what was found while it was predicted: the mean disagreement, and that planes were left blank."""
        recorded = {c.organelle: self._measured(c.organelle) for c in contents if c.organelle}
        return {**self.provenance(contents), **_merged(recorded)}

    def _measured(self, organelle: Organelle) -> dict[str, str]:
        positions = (self.output_position(number) for number in range(self.planes))
        return _summary([self.store.provenance(t, z, organelle) for t, z in positions])


def open_job(case: Case, stack: Stack, predictor: Predictor, options: BatchOptions) -> CaseJob | None:
    """Decide about a case; None where the file is itself a prediction.

    Raises
    ------
    UserError
        Where the channel, the planes or the modality cannot be told.
    """
    info = stack.info
    if is_prediction(info.provenance):
        return None
    channel = choose_channel(info, options.selection.channel)
    modality, warnings = _choose_modality(case, info, channel, options, predictor.predicts_unknown_modality)
    selected = select_planes(stack, channel, options.selection, modality)
    plan = predictor.plan(modality, info.shape, info.pixel_size_um)
    digest = content_sha256(case.source) if case.scene is None else shared_sha256(case.source)
    plan = plan.with_provenance(input_sha256=digest)
    message = f"{info.shape[0]} x {info.shape[1]} px, {modality or 'unknown modality'}"
    if case.scene is not None:
        name = one_line(xml_text(info.scene_name or ""))
        plan = plan.with_provenance(scene=f"{case.scene} ({name})" if name else str(case.scene))
        message = f"{name}, {message}" if name else message
    if len(info.channels) * info.times * info.focal_planes > 1:
        plan = plan.with_provenance(channel=channel_title(info, channel), planes=selected.title)
        message += f", channel {channel_title(info, channel)}, {selected.title}"
    if info.channels[channel].transmitted is False:
        warnings = (*warnings, f"its channel {channel_title(info, channel)} is fluorescence by its metadata")
    geometry = OutputGeometry(
        selected.times,
        selected.focal_planes,
        info.shape,
        info.pixel_size_um,
        info.z_step_um and selected.z_step and info.z_step_um * selected.z_step,
        info.time_increment_s and selected.time_step and info.time_increment_s * selected.time_step,
    )
    return CaseJob(
        case,
        selected,
        plan,
        output_files(case, options.outputs),
        geometry,
        _contents(options.outputs),
        PlanesInMemory() if len(selected.positions) == 1 else PlanesOnDisk(case),
        message,
        tuple(dict.fromkeys((*warnings, *info.warnings, *selected.warnings, *plan.warnings))),
    )


def _contents(options: OutputOptions) -> tuple[Content, ...]:
    kinds = (False, True) if options.disagreement else (False,)
    return tuple(Content(organelle, disagreement) for disagreement in kinds for organelle in Organelle)


def _choose_modality(
    case: Case, info: StackInfo, channel: int, options: BatchOptions, unknown_allowed: bool
) -> tuple[Modality | None, tuple[str, ...]]:
    """Take the modality from the file, its name at upload or the option, in this order unless overridden."""
    option, source = options.modality, "the file"
    stated, contradiction = reconcile_modality(info.path, info.channels[channel])
    if stated is None and case.original_name:
        stated, source = modality_token(case.original_name), "its name at upload"
    if stated is None:
        stated = option
    if stated is not None and option in (stated, None):
        return stated, contradiction
    if stated is not None and options.override_modality:
        return option, (*contradiction, f"--modality {option} is followed, although {source} says {stated}")
    if stated is not None:
        ignored = f"{source} says {stated}, --modality {option} is not followed; --override-modality follows it"
        return stated, (*contradiction, ignored)
    unknown = "nothing tells whether this is BF, PC or DIC"
    if options.strict or not unknown_allowed:
        raise UserError(f"{case.title}: {unknown}, expected its channel name, its file name or --modality to say so.")
    return None, (f"{unknown}, so the unified network predicts all organelles",)


def _merged(made: Mapping[Organelle, Mapping[str, str]]) -> dict[str, str]:
    """Provenance of a file of one or more organelles; what differs among them is said of each."""
    merged: dict[str, str] = {}
    for key in dict.fromkeys(key for entries in made.values() for key in entries):
        values = {organelle: entries[key] for organelle, entries in made.items() if key in entries}
        if len(values) == len(made) and len(set(values.values())) == 1:
            merged[key] = next(iter(values.values()))
        else:
            merged |= {f"{key} of {organelle}": value for organelle, value in values.items()}
    return merged


def _summary(planes: list[Mapping[str, str]]) -> dict[str, str]:
    numbers = [float(entries["disagreement"]) for entries in planes if "disagreement" in entries]
    summary = {"disagreement": f"{fmean(numbers):.3f}"} if numbers else {}
    blank = [entries["contrast"] for entries in planes if "contrast" in entries]
    if blank:
        summary["contrast"] = blank[0] if len(planes) == 1 else f"{len(blank)} planes are left blank: {blank[0]}"
    return summary
