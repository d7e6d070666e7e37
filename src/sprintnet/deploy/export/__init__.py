"""Export of a finished run: ONNX files, weights and a model card."""
