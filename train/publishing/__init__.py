"""Checkpoints for others: folders that transformers and ONNX Runtime load without this repository."""
