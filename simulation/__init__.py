"""A simulated microscope: cells, optics and camera with paired truth."""
