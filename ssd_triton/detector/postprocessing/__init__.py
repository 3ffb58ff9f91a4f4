"""From raw predictions to detections: the reference, PyTorch, ONNX and TorchScript, and the check of all."""
