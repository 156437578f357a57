"""Collect what the preview shows of a case from its input and its written outputs."""

from ..case_job import CaseJob
from ..images.open_stack import open_stack
from ..labels import Organelle
from . import PreviewImage

_METADATA = {
    "modality": "modality", "trained_on": "trained on", "checkpoint": "checkpoint", "rescaling": "rescaling",
    "channel": "channel", "planes": "planes", "contrast": "contrast", "precision": "precision", "version": "version",
}  # fmt: skip


def preview_image(job: CaseJob) -> PreviewImage:
    """Read one plane of a case and of its outputs: of a stack, the middle one; UserError where that fails."""
    geometry = job.geometry
    number = job.planes // 2
    t, z = job.output_position(number)
    stored_t, stored_z = job.selected.positions[number]
    with open_stack(job.case.source, job.case.scene) as stack:
        pixels = stack.read_plane(stored_t, job.selected.channel, stored_z)
    organelles, disagreement, recorded = {}, {}, dict[str, str]()
    for file in job.files:
        with open_stack(file.path) as stack:
            provenance = stack.info.provenance
            for c, content in enumerate(file.contents):
                if content.organelle is None or content.disagreement:
                    continue
                organelle = content.organelle
                organelles[organelle] = stack.read_plane(t, c, z)
                for key in _METADATA:
                    value = provenance.get(key, provenance.get(f"{key} of {organelle}"))
                    if value is not None and value not in recorded.get(key, "").split(", "):
                        recorded[key] = ", ".join(filter(None, (recorded.get(key), value)))
                value = provenance.get("disagreement", provenance.get(f"disagreement of {organelle}"))
                if value is not None:
                    disagreement[organelle] = float(value)
    size = geometry.pixel_size_um
    metadata = {
        "size": f"{geometry.shape[1]} x {geometry.shape[0]} px",
        "pixel size": f"{size[1]:g} x {size[0]:g} µm" if size else "unknown",
        **{title: recorded[key] for key, title in _METADATA.items() if key in recorded},
    }
    if job.planes > 1:
        metadata["shown plane"] = f"t {stored_t}, z {stored_z}"
    return PreviewImage(
        title=job.case.output_name.removesuffix(".tiff"),
        input=pixels,
        organelles={organelle: organelles[organelle] for organelle in Organelle},
        pixel_size_um=size,
        metadata=metadata,
        warnings=job.all_warnings,
        outputs={"input": job.case.source}
        | {", ".join(content.title for content in file.contents): file.path for file in job.files},
        disagreement=disagreement,
    )
