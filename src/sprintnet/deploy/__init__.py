"""Deployment: exported ONNX files, predictions without PyTorch, a server and a page."""

import os

# before any module here imports ONNX Runtime, which otherwise writes a device id and events about this machine under ~/.cache
# and looks for its maker's server; what its users classify is nobody else's business
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
