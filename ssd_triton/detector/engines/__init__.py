"""TensorRT engines: built, described, checked and run."""
