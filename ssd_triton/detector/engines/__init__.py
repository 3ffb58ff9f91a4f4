"""TensorRT engines: building, describing, checking and running them."""
