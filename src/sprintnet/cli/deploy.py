"""What the verbs of shipping do; each imports what it needs when it runs."""

import argparse
import io
import sys
from pathlib import Path

from sprintnet.cli.args import refuse
from sprintnet.errors import DataError, SettingsError


def export(options: argparse.Namespace, words: list[str]) -> None:
    """Exports a run: ONNX files that match the trained model, weights, a model card."""
    refuse(words)
    outputs = tuple(options.outputs.split(","))
    if options.web:
        from sprintnet.deploy.serve.web import check_destination, fetch_runtime, write_web

        check_destination(Path(options.web))
        runtime = fetch_runtime()
    from sprintnet.deploy.export.export import FP32_FILE, export

    table = export(options.folder, options.quantize, outputs, options.license)

    from sprintnet.reporting.text.export import parity_lines

    print(*parity_lines(table), f"files in {Path(options.folder) / 'export'}", sep="\n")
    if options.web:
        write_web(Path(options.folder) / "export" / FP32_FILE, Path(options.web), runtime)
        print(f"page for any static web server: {options.web}; try it: python3 -m http.server --directory {options.web}")


def predict(options: argparse.Namespace, words: list[str]) -> None:
    """Classifies image files with an exported ONNX file, without PyTorch."""
    refuse([word for word in words if word.startswith("--")])
    if options.top < 1 or options.batch < 1 or not 0 <= options.abstain_below <= 1:
        raise SettingsError("--top and --batch must be at least 1, --abstain-below a probability from 0 to 1")
    from sprintnet.deploy.predict_files import find_files, predict_files, write_csv, write_json, write_table
    from sprintnet.deploy.predictor import Predictor

    predictor = Predictor(options.model)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a file's name need not be text
    files = list(find_files(words, sys.stdin))
    if not files:
        raise SettingsError("no image files: name files, folders or patterns, or - for a list on standard input")
    from sprintnet.progress import track

    mistakes: list[str] = []
    top = min(options.top, len(predictor.classes))
    if top < options.top:
        print(f"--top {options.top}: the model has {top} classes; all are listed", file=sys.stderr)
    rows = predict_files(predictor, files, top, options.abstain_below, options.batch, mistakes)
    rows = track(rows, len(files), "predicting")
    if sys.stdout.isatty():
        rows = iter(list(rows))  # a bar and a table would write over each other
    if options.format == "csv":
        write_csv(rows, top, sys.stdout)
    elif options.format == "json":
        write_json(rows, sys.stdout)
    else:
        write_table(rows, predictor, sys.stdout)
    if mistakes:
        raise DataError(f"{len(mistakes)} of {len(files)} files could not be read:\n  " + "\n  ".join(mistakes))


def serve(options: argparse.Namespace, words: list[str]) -> None:
    """Serves predictions of an exported ONNX file over HTTP, with a page to try it."""
    refuse(words)
    if not 0 <= options.port < 2**16:
        raise SettingsError(f"--port {options.port}: must be from 0 (any free port) to 65535, such as 8000")
    from sprintnet.deploy.serve.server import serve

    serve(Path(options.model), options.host, options.port, options.allow_host, options.allow_origin)
