"""The commands about deployment: export, predict, serve. Each imports what it needs when it runs."""

import contextlib
import hashlib
import io
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sprintnet.cli.args import NO_FILES
from sprintnet.errors import DataError, SettingsError, SprintNetError
from sprintnet.runs.folder import RunFolder, find_run, open_run
from sprintnet.runs.shards import parse_shard, shard

if TYPE_CHECKING:
    from sprintnet.deploy.predict_files import Listing
    from sprintnet.deploy.predictor import Predictor

MODEL = "model.onnx"
OUTPUTS = "probabilities,logits,activation_maps,embeddings,novelty"
SETS = ("threshold", "adaptive")
FEW_HELD_OUT = 100  # below this, what --coverage and --unknown promise varies widely


def export(options: Namespace) -> None:
    """Exports a run to ONNX, verified against the network."""
    run = RunFolder(find_run(*options.names))
    if options.web:
        from sprintnet.deploy.serve.web import check_destination, fetch_runtime, write_web

        check_destination(Path(options.web))
        runtime = fetch_runtime()
    print(f"starting: export of {run.path}", flush=True)
    from sprintnet.deploy.export.export import export
    from sprintnet.evaluation.thresholds import ThresholdRule

    rule = ThresholdRule(options.min_precision or None, dict(map(_read_cost, options.cost)))
    table = export(run.path, options.quantize, tuple(options.outputs.split(",")), options.license, options.tta, rule=rule)

    from sprintnet.reporting.text.export import parity_lines, threshold_lines

    print(*parity_lines(table), *threshold_lines(table["files"][MODEL]["metrics"]), f"files in {run.export}", sep="\n")
    if options.web:
        write_web(run.export / MODEL, Path(options.web), runtime)
        print(f"static web page: {options.web}; to try it: python3 -m http.server --directory {options.web}")


def _read_cost(word: str) -> tuple[str, float]:
    """Returns class and cost of a word COST or CLASS=COST; of all classes, an empty text."""
    name, _, cost = word.rpartition("=")
    try:
        return name, float(cost)
    except ValueError:
        raise SettingsError(f"--cost {word}: must be a number, such as 5, or CLASS=NUMBER, such as cat=5") from None


def predict(options: Namespace) -> None:
    """Classifies image files with an exported model or a run."""
    from sprintnet.deploy.predict_files import Listing
    from sprintnet.deploy.prediction_table import require_format

    output = Path(options.output)
    if (options.by_class or options.sets != SETS[0]) and not options.coverage:
        raise SettingsError("--sets and --by-class: say how sets are made; add --coverage, such as --coverage 0.9")
    part, parts = parse_shard(options.shard)
    if options.shards and not options.on:
        raise SettingsError(f"--shards {options.shards}: is for --on; here, predict one: --shard 1/{options.shards}")
    if options.embeddings:
        _check_embeddings(Path(options.embeddings), options.output)
    if options.on:
        _predict_on_cluster(options, output)
        return
    if options.output:
        require_format(output)
        if options.format != "table":
            raise SettingsError(f"--format {options.format}: is for standard output; the ending of --output names the file's")
    model = _find_model(options.names[0])
    if model.is_dir():
        from sprintnet.deploy.run_predictor import RunPredictor as Predictor
    else:
        from sprintnet.deploy.predictor import Predictor  # type: ignore[assignment]

    predictor = Predictor(model, tta=options.tta)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # file names need not be valid text
    top = min(options.top, len(predictor.classes))
    if top < options.top:
        print(f"--top {options.top}: the model has {top} classes; all are listed", file=sys.stderr)
    listing = Listing(
        top, options.abstain_below, options.coverage, options.sets, options.by_class, options.unknown, bool(options.embeddings)
    )
    if listing.coverage:
        _check_sets(predictor, *listing[2:5])
    if listing.false_alarms:
        predictor.require_unknown(listing.false_alarms)
        _say_draw("--unknown", listing.false_alarms, len(predictor.preprocessing.novelty_scores))
    if listing.embeddings and "embeddings" not in predictor.outputs:
        raise SettingsError(
            f"--embeddings {options.embeddings}: the model has no output embeddings; export it again, with that output"
        )
    if options.output:
        _predict_to_file(predictor, options, model, listing, (part, parts))
    else:
        _predict_to_terminal(predictor, options, listing, (part, parts))


def _check_embeddings(file: Path, output: str) -> None:
    """Raises SettingsError for a file that embeddings cannot be written to, or with a table beside it."""
    if output:
        raise SettingsError(f"--embeddings {file}: cannot be combined with --output; leave one of them out")
    if file.suffix != ".npz" or not file.absolute().parent.is_dir():
        raise SettingsError(f"--embeddings {file}: must be a .npz file in a folder that exists")


def _check_sets(predictor: "Predictor", coverage: float, method: str, by_class: bool) -> None:
    """Raises ArgumentError where there can be no sets; names classes that by-class sets always contain."""
    from sprintnet.data.conformal import images_needed
    from sprintnet.reporting.text.names import plain

    predictor.require_sets(coverage, method, by_class)
    scores = predictor.preprocessing.held_out_scores
    if scores and not by_class:
        _say_draw("--coverage", coverage, scores.images)
    if by_class and scores and (rare := [predictor.classes[label] for label in scores.rare(coverage)]):
        needed = f"fewer than the {images_needed(coverage)} held-out images that a coverage of {coverage:g} needs"
        print(f"--by-class: in every set, with {needed}: {', '.join(map(plain, rare))}", file=sys.stderr)


def _say_draw(option: str, share: float, images: int) -> None:
    """Says how far a promise may be off for the held-out images of this model, where these are few."""
    from sprintnet.reporting.text.held_out import draw_text

    if images < FEW_HELD_OUT:
        found = draw_text(share, images)
        print(f"{option} {share:g}: holds on average over draws of held-out images; {found}", file=sys.stderr)


def _predict_on_cluster(options: Namespace, output: Path) -> None:
    """Predicts all shards on a cluster, each into a table of its own beside `output`."""
    from sprintnet.cluster import Call, call_all, connected
    from sprintnet.deploy.prediction_table import require_format
    from sprintnet.progress import track

    if not (options.output and options.shards) or "-" in options.names[1:] or options.shard != "1/1":
        raise SettingsError(f"--on {options.on}: needs --output and --shards N, files or folders by name, and no --shard")
    require_format(output)
    words = ["predict", *options.names, "--top", str(options.top), "--abstain-below", str(options.abstain_below)]
    words += ["--batch", str(options.batch), *["--tta"] * options.tta]
    if options.unknown:
        words += ["--unknown", str(options.unknown)]
    if options.coverage:
        words += ["--coverage", str(options.coverage), "--sets", options.sets, *["--by-class"] * options.by_class]
    parts = options.shards
    tables = [
        output.with_name(f"{output.stem}-{part:0{len(str(parts))}}-of-{parts}{output.suffix}") for part in range(1, parts + 1)
    ]
    if kept := sum(table.exists() for table in tables):
        print(f"{kept} of {parts} tables are there, and kept if this command has written them", flush=True)
    calls = [
        Call(str(table), (*words, "--output", str(table), "--shard", f"{part}/{parts}")) for part, table in enumerate(tables, 1)
    ]
    with connected(options.on), contextlib.closing(call_all(predict_shard, calls, options.on)) as outcomes:
        messages = list(track(outcomes, parts, "predicting", 0))
    if missing := [str(table) for table in tables if not table.exists()]:
        raise SprintNetError(f"{missing[0]}: was written on a node, and is not here; name a folder that all nodes share")
    print(f"{parts} tables: {tables[0]} to {tables[-1].name}")
    if unreadable := [message for message in messages if message]:
        raise DataError("\n  ".join(["some files could not be read:", *unreadable]))


def predict_shard(*words: str) -> tuple[int, str]:
    """Runs the command for one shard in this process; returns its exit code and message. Unreadable files have rows: code 0."""
    from sprintnet.cli.main import main

    with contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(words)
    message = errors.getvalue().strip().removeprefix("sprintnet: ")
    return (0, message) if code == DataError.exit_code else (code, message if code else "")


def _predict_to_terminal(predictor: "Predictor", options: Namespace, listing: "Listing", part: tuple[int, int]) -> None:
    from sprintnet.deploy.predict_files import Row, find_files, predict_files, write_csv, write_json, write_table
    from sprintnet.progress import track

    files = list(shard(find_files(options.names[1:], sys.stdin), *part))
    if not files:
        raise SettingsError(NO_FILES)
    mistakes: list[str] = []
    embedded: list[tuple[str, Any]] = []

    def predicted() -> Iterator[Row]:
        for row in track(predict_files(predictor, files, listing, options.batch), len(files), "predicting"):
            if "error" in row:
                mistakes.append(row["error"])
                if options.format == "table":
                    continue
            elif listing.embeddings:
                embedded.append((row["file"], row.pop("embedding")))
            yield row

    rows = predicted()
    if sys.stdout.isatty():
        rows = iter(list(rows))  # a progress bar and a table would overwrite each other
    if options.format == "csv":
        write_csv(rows, listing, sys.stdout)
    elif options.format == "json":
        write_json(rows, sys.stdout)
    else:
        write_table(rows, predictor, sys.stdout)
    if listing.embeddings:
        from sprintnet.runs.io import write_arrays

        names, embeddings = zip(*embedded, strict=True) if embedded else ((), ())
        write_arrays(Path(options.embeddings), files=names, embeddings=embeddings)
    if mistakes:
        raise DataError(f"{len(mistakes)} of {len(files)} files could not be read:\n  " + "\n  ".join(mistakes))


def _predict_to_file(
    predictor: "Predictor", options: Namespace, model: Path, listing: "Listing", part: tuple[int, int]
) -> None:
    from sprintnet.deploy.predict_files import STDIN, find_files
    from sprintnet.deploy.prediction_table import write_table

    words, output = options.names[1:], Path(options.output)
    listed = [line for line in sys.stdin if line.strip()] if STDIN in words else []

    def all_files() -> Iterator[Path]:
        return find_files(words, io.StringIO("".join(listed)))

    def files() -> Iterator[Path]:
        return shard(all_files(), *part)

    if next(all_files(), None) is None:
        raise SettingsError(NO_FILES)
    weights = RunFolder(model).weights if model.is_dir() else model
    identity = [hashlib.sha256(weights.read_bytes()).hexdigest(), options.tta, part]
    total, unreadable = write_table(predictor, files, output, identity, listing, options.batch)
    print(f"{output}: {total:,} files")
    if unreadable:
        raise DataError(f"{unreadable:,} of {total:,} files could not be read; the column error of {output} says why")


def serve(options: Namespace) -> None:
    """Serves predictions over HTTP, with a page to try it."""
    for name in options.allow_host:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", name):
            rule = "must be a name or an address, without scheme, port and brackets, such as photos.example.org"
            raise SettingsError(f"--allow-host {name}: {rule}")
    for origin in options.allow_origin:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9_.:\[\]-]+", origin):
            rule = "must be a scheme and a name in lower case, such as https://example.org"
            raise SettingsError(f"--allow-origin {origin}: {rule}")
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
    return exported[0] if exported else open_run(folder).path  # says what is missing, before PyTorch is
