"""SSD300 object detection on NVIDIA's Triton Inference Server.

A room (a subpackage) imports only from those below it::

    commands      the verbs of ssd-triton
    training      from images and boxes to weights with a card
    simulation    scenarios, rendering, judging
    measuring     sweeps, benchmarks, soak, fuzzing
    evaluation    COCO through the server or offline, parity, accuracy of variants
    driving       cameras, tracks, braking, the demo
    serving       the model repository, the embedded server, the container
    client        what a client imports, and nothing of the server
    detector      network, weights, post-processing, export, quantization, engines
    media         video and drawing
    config        typed settings
    common        errors, files, reports, processes
"""

__version__ = "0.2.0"
