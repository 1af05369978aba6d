"""ONNX Runtime sessions, graphs, and the ordered, parallel pipeline."""
