"""Files of pixels: one reader for prediction, training and evaluation, and the writer."""

from .ome_writer import write_plane
from .reader import Image, ImageInfo, inspect, read_image

__all__ = ["Image", "ImageInfo", "inspect", "read_image", "write_plane"]
