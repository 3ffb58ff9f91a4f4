"""Files of weights: read, written, downloaded."""
