"""A model as a file that other programs read: ONNX and torch.export, logits and maps as two outputs."""
