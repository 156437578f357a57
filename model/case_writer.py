"""What becomes of a case once the networks are done with a plane, or with all of them, or it has failed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .case import Case
from .case_job import CaseJob
from .disagreement import disagreement, disagreement_map
from .images.open_stack import open_stack
from .images.stack import Stack
from .outputs import (
    Content,
    OutputFile,
    OutputOptions,
    files_of_other_scenes,
    former_outputs,
    output_files,
    remove_output,
    write_output,
)
from .plan import NetworkInputs, NetworkOutputs
from .predictor import Predictor

log = logging.getLogger(__name__)


def keep_plane(job: CaseJob, number: int, inputs: NetworkInputs, outputs: NetworkOutputs) -> None:
    """Postprocess the plane `number` of a case and keep it until all are there."""
    plan = inputs.plan
    predicted = Predictor.postprocess(outputs, plan)
    pixels = {Content(organelle): predicted[organelle] for organelle in predicted}
    provenance = {organelle: dict(entries) for organelle, entries in plan.provenance.items()}
    for organelle, std_YX in outputs.std.items():
        provenance[organelle]["disagreement"] = f"{disagreement(outputs.mean[organelle], std_YX):.3f}"
    for content in job.contents:
        if content.disagreement and content.organelle:
            pixels[content] = disagreement_map(outputs.std.get(content.organelle), plan.shape)
    job.store.add(*job.output_position(number), pixels, provenance)


def write_case(job: CaseJob) -> None:
    """Write the files of a case whose planes are all there; what was predicted of other scenes of its file goes."""
    with open_stack(job.case.source, job.case.scene) as stack:
        planes = _PlanesOfCase(job, stack)
        for file in job.files:
            write_output(file, planes, job.geometry, job.measured_provenance(file.contents))
    if found := job.disagreement():
        numbers = ", ".join(f"{organelle} {value:.2f}" for organelle, value in found.items())
        job.message += f", disagreement: {numbers}"
    job.store.remove()
    _remove(files_of_other_scenes(job.case))


def remove_outputs(case: Case, options: OutputOptions) -> None:
    """Remove the outputs of a failed case, also of an earlier run: they could be taken for its result."""
    _remove([*output_files(case, options), *former_outputs(case, options)])


@dataclass(frozen=True)
class _PlanesOfCase:
    """The planes of a case's files: what was predicted, and the input itself."""

    job: CaseJob
    stack: Stack

    def read(self, t: int, z: int, content: Content) -> NDArray[np.uint16]:
        """Read one plane by its indices in the output."""
        if content.organelle is not None:
            return self.job.store.read(t, z, content)
        number = t * self.job.geometry.focal_planes + z
        stored_t, stored_z = self.job.selected.positions[number]
        return self.stack.read_plane(stored_t, self.job.selected.channel, stored_z)


def _remove(files: Sequence[OutputFile]) -> None:
    for file in files:
        try:
            remove_output(file)
        except OSError as error:
            log.warning("%s: this output of an earlier run cannot be removed (%s).", file.path, error.strerror)
