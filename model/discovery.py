"""Find the images of an input folder that are predicted, and where their outputs go.

On the Grand Challenge platform these are the images of the input socket. Any other folder is a batch: every image in
it and below, except fluorescent targets and what this program predicted earlier.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePath

from .case import Case
from .errors import SelectionError, UserError
from .grand_challenge import OUTPUT_FOLDERS, input_folder, original_names, output_folder
from .images.ome_zarr_collection import GROUP_FILES, images_within
from .images.open_stack import open_stack
from .labels import Organelle
from .naming import (
    IMAGE_SUFFIXES,
    OTHER_IMAGE_SUFFIXES,
    STACK_SUFFIXES,
    TargetName,
    is_input,
    near_miss,
    parse,
    prediction_filename,
    stem,
)

log = logging.getLogger(__name__)


def discover(input: Path, output: Path) -> list[Case]:
    """List the cases of an input folder in the order of their paths, without opening an image.

    Skipped, with a logged line: former predictions in folders of this program's outputs, in a batch fluorescent
    targets by the challenge's names, folders that cannot be read, and what is no regular file. Hidden files and other
    files are ignored. A former prediction elsewhere is a case until it is read; see `is_prediction`.

    Parameters
    ----------
    input : Path
        A folder of the platform's layout (it has ``images/<INPUT_SLUG>``), else a batch folder.
    output : Path
        The folder to predict into; a batch's sub-folders are kept below its organelle folders.

    Returns
    -------
    list of Case
        One at least.

    Raises
    ------
    UserError
        Where the folder is missing or holds no image to predict, ``inputs.json`` is malformed, a link leads out of
        the folder, two images would be predicted into one file, or an image would be overwritten.
    """
    folder, on_platform = base_folder(input)
    walk = _Walk(folder, input)
    found = walk.images() if on_platform else _without_targets(walk.images(), input)
    if not found:
        suffixes = ", ".join(IMAGE_SUFFIXES + STACK_SUFFIXES)
        others = f" but {walk.listed_other_formats()}" if walk.other_formats else ""
        raise UserError(f"{folder}: found no image to predict{others}, expected {suffixes} files.")
    sources = {relative: Path(os.path.join(folder, relative)) for relative in found}
    names = original_names(input / "inputs.json", list(sources.values())) if on_platform else {}
    cases = [Case(source, case_name(relative), output, names.get(source)) for relative, source in sources.items()]
    _refuse_overwriting(cases, walk.real_paths(found), output)
    return _one_per_output(cases)


def base_folder(input: Path) -> tuple[Path, bool]:
    """Return the folder that holds the images, and whether it is the platform's; UserError where there is none."""
    if not input.is_dir():
        raise UserError(f"{input}: found {'a file' if input.exists() else 'nothing'}, expected the input folder.")
    folder = input_folder(input)
    on_platform = folder.is_dir()
    return (folder if on_platform else input), on_platform


def is_prediction(provenance: Mapping[str, str]) -> bool:
    """Whether an image was predicted by this program, by what it recorded."""
    return any(key == "checkpoint" or key.startswith("checkpoint of ") for key in provenance)


class _Walk:
    """Collects the images of a folder and below by `os.scandir`: of files only links cost a call."""

    def __init__(self, folder: Path, input: Path) -> None:
        self.folder = folder
        self.input = input
        self.inside = os.path.realpath(input)
        self.found: list[str] = []
        self.links: dict[str, str] = {}  # to what they lead
        self.named: list[str] = []  # folders with the name of an image
        self.former: list[str] = []
        self.other_formats: Counter[str] = Counter()

    def images(self) -> list[str]:
        """Relative paths of all images, in the order of `Path`; links to folders are not followed."""
        folders = [""]
        while folders:
            folders += self._visit(folders.pop())
        self._take_empty()
        if self.former:
            log.info("Skipped %d folders of predictions, such as %s.", len(self.former), min(self.former))
        if self.found and self.other_formats:
            log.info("Skipped %s, which are not read.", self.listed_other_formats())
        return sorted(self.found, key=lambda path: path.split(os.sep))

    def listed_other_formats(self) -> str:
        """Say how many files of formats that are not read there are."""
        return ", ".join(
            f"{count} {suffix} file{'s' * (count > 1)}" for suffix, count in self.other_formats.most_common()
        )

    def real_paths(self, found: Sequence[str]) -> set[str]:
        """Return the images' paths with all links resolved."""
        inside = os.path.realpath(self.folder)
        return {self.links.get(relative) or os.path.join(inside, relative) for relative in found}

    def _visit(self, folder: str) -> Iterator[str]:
        """Take the images of one folder and yield its sub-folders."""
        path = os.path.join(self.folder, folder) if folder else str(self.folder)
        try:
            with os.scandir(path) as entries:
                everything = list(entries)
        except OSError as error:
            if not folder:
                raise UserError(f"{path}: the folder cannot be read ({error.strerror}).") from error
            log.warning("%s: skipped, the folder cannot be read (%s).", path, error.strerror)
            return
        if not GROUP_FILES.isdisjoint(entry.name for entry in everything) and self._take_zarr(folder):
            return
        for entry in everything:
            if entry.name.startswith("."):
                continue
            relative = os.path.join(folder, entry.name)
            if entry.is_symlink():
                self._take_link(entry, relative)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name in OUTPUT_FOLDERS:
                    self.former.append(entry.path)
                    continue
                if is_input(entry.name):
                    self.named.append(relative)
                yield relative
            elif is_input(entry.name):
                if entry.is_file(follow_symlinks=False):
                    self.found.append(relative)
                else:  # reading a pipe would wait for ever
                    log.warning("%s: skipped, it is not a regular file.", entry.path)
            elif entry.name.lower().endswith(OTHER_IMAGE_SUFFIXES):
                self.other_formats[os.path.splitext(entry.name)[1].lower()] += 1

    def _take_empty(self) -> None:
        """Take folders that are called as images and hold none: the reader will say what is wrong with them."""
        above = {str(parent) for path in self.found for parent in PurePath(path).parents} if self.named else set()
        self.found += [folder for folder in self.named if folder not in above and folder not in self.links]

    def _take_zarr(self, folder: str) -> bool:
        """Take the images of a Zarr group, if it is OME-Zarr; what else is in it are no images of their own."""
        path = self.folder / folder
        images = images_within(path)
        for image in images:
            relative = os.path.join(folder, image) if image else folder
            if not relative:
                raise UserError(f"{path}: found an OME-Zarr image, expected the folder that holds it.")
            target = os.path.realpath(path / image)
            if not _is_within(target, self.inside):
                raise UserError(
                    f"{path / image}: found a link that leads out of {self.input}, expected a folder in it."
                )
            self.found.append(relative)
            self.links[relative] = target
        return bool(images)

    def _take_link(self, entry: os.DirEntry[str], relative: str) -> None:
        to_folder = _leads_to_folder(entry)
        if not (to_folder or is_input(entry.name)):
            return
        target = os.path.realpath(entry.path)
        if not _is_within(target, self.inside):
            raise UserError(f"{entry.path}: found a link that leads out of {self.input}, expected a file within it.")
        if not to_folder:
            self.found.append(relative)
            self.links[relative] = target
        elif is_input(entry.name):
            self.links[relative] = target
            if not self._take_zarr(relative):
                self.found.append(relative)


def _leads_to_folder(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_dir()
    except OSError:  # a link to itself
        return False


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _without_targets(paths: Sequence[str], input: Path) -> list[str]:
    """Images that are not named as fluorescent targets; says what is skipped, and which names are doubtful."""
    sources = [path for path in paths if not isinstance(parse(path), TargetName)]
    if len(sources) < len(paths):
        log.info("Skipped %d fluorescent targets (by name) in %s.", len(paths) - len(sources), input)
    doubtful = [path for path in sources if _ORGANELLE.search(os.path.basename(path)) and near_miss(path)]
    if doubtful:
        log.warning(
            "%s%s: the name resembles that of a fluorescent target (image_1_Nucleus.ome.tiff) but is none, "
            "so the image is predicted.",
            doubtful[0], f" and {len(doubtful) - 1} more" if len(doubtful) > 1 else "",
        )  # fmt: skip
    return sources


_ORGANELLE = re.compile("nucle|mito|tubulin|actin", re.IGNORECASE)


def case_name(relative: str) -> str:
    """Name of the case of an image, from its path in the input folder.

    Of a field of a plate, the plate's folder loses its suffix: outputs below it are no OME-Zarr.
    """
    parent, _, name = relative.rpartition(os.sep)
    if ".zarr" in parent.lower():
        parent = os.sep.join(stem(part) if part.lower().endswith(".zarr") else part for part in parent.split(os.sep))
    return os.path.join(parent, prediction_filename(name))


def refuse_equal_outputs(scenes: Sequence[Case]) -> None:
    """Refuse scenes of a file if another image beside it is predicted into the same output. Raises SelectionError."""
    outputs = {os.path.basename(case.output_name) for case in scenes}
    beside = os.listdir(scenes[0].source.parent) if scenes else []
    for name in sorted(name for name in beside if is_input(name) and prediction_filename(name) in outputs):
        if _is_other_image(scenes[0].source.parent / name):
            raise SelectionError(
                f"{scenes[0].source}: found {name} beside it, which is predicted into the same file as one of its "
                f"{scenes[0].scenes} scenes, expected another name."
            )


def _one_per_output(cases: Sequence[Case]) -> list[Case]:
    """Refuse two images that would be predicted into one file; a prediction beside its input is no second image."""
    taken: dict[str, Case] = {}
    for case in cases:
        other = taken.setdefault(case.name, case)
        if other is case or _is_prediction_file(case.source):
            continue
        if not _is_prediction_file(other.source):
            raise UserError(
                f"{case.source}: found {other.source.name} beside it, which is predicted into the same file "
                f"{os.path.basename(case.name)}, expected names that differ in more than the suffix."
            )
        taken[case.name] = case
    if len(taken) < len(cases):
        log.info("Skipped %d predictions beside the images of their name.", len(cases) - len(taken))
    return list(taken.values())


def _is_other_image(path: Path) -> bool:
    """Whether an image is predicted into a file of its name: no prediction, and none of several scenes."""
    try:
        with open_stack(path) as stack:
            return not is_prediction(stack.info.provenance) and stack.info.scenes == 1
    except UserError:
        return False


def _is_prediction_file(path: Path) -> bool:
    try:
        with open_stack(path) as stack:
            return is_prediction(stack.info.provenance)
    except UserError:
        return False


def _refuse_overwriting(cases: Sequence[Case], inputs: Set[str], output: Path) -> None:
    """No output may replace an input, by whatever links; each output folder is resolved once."""
    for organelle in Organelle:
        root = output_folder(output, organelle)
        resolved: dict[str, str] = {}
        for case in cases:
            parent, _, name = case.name.rpartition(os.sep)
            if parent not in resolved:
                resolved[parent] = os.path.realpath(root / parent) + os.sep
            if resolved[parent] + name in inputs:
                raise UserError(
                    f"{root / case.name}: found an input where an output goes, expected another output folder."
                )
