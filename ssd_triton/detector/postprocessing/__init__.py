"""Raw predictions to detections: the NumPy reference, and the ONNX and TorchScript forms that are served."""
