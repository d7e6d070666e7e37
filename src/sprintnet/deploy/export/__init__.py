"""A finished run becomes ONNX files, weights and a model card."""
