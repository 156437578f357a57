"""placeholder"""


def best_plane(planes, modality):
    raise NotImplementedError
