"""Exports a model to ONNX and torch.export files with two outputs, logits and maps."""
