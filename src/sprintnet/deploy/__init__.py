"""Trained networks leave the training stack: ONNX files, and answers from them without PyTorch."""
