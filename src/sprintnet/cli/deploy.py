"""The commands about deployment: export, predict, serve. Each imports what it needs when it runs."""

import io
import sys
from argparse import Namespace
from pathlib import Path

from sprintnet.errors import DataError, SettingsError
from sprintnet.runs.folder import RunFolder, find_run

MODEL = "model.onnx"


def export(options: Namespace) -> None:
    """Exports a run to ONNX, verified against the network."""
    run = RunFolder(find_run(*options.names))
    if options.web:
        from sprintnet.deploy.serve.web import check_destination, fetch_runtime, write_web

        check_destination(Path(options.web))
        runtime = fetch_runtime()
    print(f"starting: export of {run.path}", flush=True)
    from sprintnet.deploy.export.export import export

    table = export(run.path, options.quantize, tuple(options.outputs.split(",")), options.license, options.tta)

    from sprintnet.reporting.text.export import parity_lines

    print(*parity_lines(table), f"files in {run.export}", sep="\n")
    if options.web:
        write_web(run.export / MODEL, Path(options.web), runtime)
        print(f"static web page: {options.web}; to try it: python3 -m http.server --directory {options.web}")


def predict(options: Namespace) -> None:
    """Classifies image files with an exported model or a run."""
    from sprintnet.deploy.predict_files import find_files, predict_files, write_csv, write_json, write_table

    model = _find_model(options.names[0])
    if model.is_dir():
        from sprintnet.deploy.run_predictor import RunPredictor as Predictor
    else:
        from sprintnet.deploy.predictor import Predictor  # type: ignore[assignment]

    predictor = Predictor(model, tta=options.tta)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # file names need not be valid text
    files = list(find_files(options.names[1:], sys.stdin))
    if not files:
        raise SettingsError("IMAGE: no image files; name files, folders or patterns, or - for a list on standard input")
    from sprintnet.progress import track

    mistakes: list[str] = []
    top = min(options.top, len(predictor.classes))
    if top < options.top:
        print(f"--top {options.top}: the model has {top} classes; all are listed", file=sys.stderr)
    rows = predict_files(predictor, files, top, options.abstain_below, options.batch, mistakes)
    rows = track(rows, len(files), "predicting")
    if sys.stdout.isatty():
        rows = iter(list(rows))  # a progress bar and a table would overwrite each other
    if options.format == "csv":
        write_csv(rows, top, sys.stdout)
    elif options.format == "json":
        write_json(rows, sys.stdout)
    else:
        write_table(rows, predictor, sys.stdout)
    if mistakes:
        raise DataError(f"{len(mistakes)} of {len(files)} files could not be read:\n  " + "\n  ".join(mistakes))


def serve(options: Namespace) -> None:
    """Serves predictions over HTTP, with a page to try it."""
    model = _find_model(*options.names)
    if model.is_dir():
        raise SettingsError(f"{model}: has no export to serve; create one first: sprintnet export {model}")
    from sprintnet.deploy.serve.server import serve

    serve(model, options.host, options.port, options.allow_host, options.allow_origin)


def _find_model(word: str) -> Path:
    """Returns the exported file that is named, or that the named folder has, or else the folder of the run."""
    if word.endswith(".onnx") or Path(word).is_file():
        return Path(word)
    folder = Path(word) if (Path(word) / MODEL).is_file() else find_run(word)
    exported = [file for file in (folder / MODEL, RunFolder(folder).export / MODEL) if file.is_file()]
    return exported[0] if exported else folder
