"""SSD300 object detection on NVIDIA's Triton Inference Server.

Data flows one way, and so do the imports::

    network (PyTorch) -> export (ONNX) -> repository (artefacts, configs) -> server -> client -> detections
                                                                                        video, braking, drawing

``tools/`` and ``clients/`` hold the command lines; each parses its arguments and calls one function from here.
"""
