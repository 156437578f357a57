"""Files of pixels: one reader for prediction, training and evaluation, and the writer."""
