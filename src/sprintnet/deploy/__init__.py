"""Deployment: exported ONNX files, predictions without PyTorch, a server and a page."""
