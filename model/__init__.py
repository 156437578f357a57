"""What prediction needs, and nothing else: an unlabelled plane in, four organelles out."""

__version__ = "0.1.0"
