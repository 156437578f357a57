"""Check, before anything is predicted, that the checkpoints are those of the routing and have its heads."""

from .checkpoint import CheckpointMetadata, read_metadata
from .errors import UserError
from .files import file_sha256
from .networks.build import NETWORKS
from .routing import Routing


def read_verified_metadata(routing: Routing) -> dict[str, CheckpointMetadata]:
    """Read each checkpoint's metadata by name; UserError where a file is not the routed one or lacks a routed head."""
    checkpoints: dict[str, CheckpointMetadata] = {}
    for name, file in routing.checkpoints.items():
        found = file_sha256(file.path)
        if found != file.sha256:
            raise UserError(
                f"{file.path} has SHA-256 {found[:12]}…, but routing.json expects {file.sha256[:12]}…: "
                "the file is not the one that was routed."
            )
        metadata = checkpoints[name] = read_metadata(file.path)
        stride = NETWORKS[metadata.architecture.network].stride
        if metadata.window % stride or metadata.window < 2 * stride:
            raise UserError(
                f"{file.path} states a window of {metadata.window} px, "
                f"expected a multiple of {stride} from {2 * stride} on."
            )
    for modality, organelle, ensemble in routing.ensembles:
        of = f"{organelle} of {modality or 'unknown modality'}"
        for route in ensemble:
            path, metadata = routing.checkpoints[route.checkpoint].path, checkpoints[route.checkpoint]
            where = f"routing.json sends {of} there"
            if route.head not in metadata.architecture.organelles:
                heads = ", ".join(metadata.architecture.organelles)
                raise UserError(f"{path} has heads for {heads}, expected {route.head} too, as {where}.")
            if metadata.architecture.dynamic and modality not in metadata.modalities:
                known = ", ".join(metadata.modalities)
                raise UserError(f"{path} is dynamic and knows only the modality codes of {known}, but {where}.")
        learned = {checkpoints[route.checkpoint].target_normalization for route in ensemble}
        if len(learned) > 1:
            names = " and ".join(str(routing.checkpoints[route.checkpoint].path) for route in ensemble)
            found = " and ".join(sorted(learned))
            raise UserError(
                f"{names} learned {found} targets, expected the same, as routing.json averages them for {of}."
            )
    return checkpoints
