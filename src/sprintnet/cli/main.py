"""The command line: what can be typed, and the exit code and message of whatever goes wrong."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

from PIL import Image

from sprintnet import __version__
from sprintnet.cli import data, deploy, evaluate, experiments, train
from sprintnet.cli.args import DEFAULT_RECIPE
from sprintnet.errors import SettingsError, SprintNetError

EXTRA_OF_MODULE = {
    "torch": "train",
    "cleanlab": "labels",
    "safetensors": "train",
    "scipy": "study",
    "datasets": "datasets",
    "pyarrow": "datasets",
    "matplotlib": "train",
    "jinja2": "train",
    "tensorboardX": "track",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "predict",
    "python_multipart": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code, which the README documents; a user's mistake is one message, no traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # images.py refuses such pictures itself
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # and reads others as far as they can be
    options, words = _parser().parse_known_args(arguments)
    try:
        options.run(options, words)
        sys.stdout.flush()
    except SprintNetError as error:
        return _fail(getattr(error, "flag_message", str(error)), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF_MODULE:
            raise
        remedy = f'pip install "sprintnet[{EXTRA_OF_MODULE[error.name]}]"'
        return _fail(f"`sprintnet {options.verb}` needs {error.name}: {remedy}", SettingsError.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; finished files are kept", 130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        remedy = "mend the cause and repeat the command; an unfinished training goes on with --resume"
        return _fail(f"{cause}; {remedy}", SprintNetError.exit_code)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sprintnet", description="Train, explain, prove and ship small-image classifiers.")
    parser.add_argument("--version", action="version", version=f"sprintnet {__version__}")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(verb: str, run: object, usage: str, help: bool = True) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").splitlines()[0]
        # what a verb does not know is left over: overrides for some, a mistake for the others
        added = commands.add_parser(verb, help=text, description=text, usage=usage, add_help=help, allow_abbrev=False)
        added.set_defaults(run=run, parser=added)
        return added

    overrides = "[RECIPE] [KEY=VALUE | --KEY VALUE]..."
    switches = "[--name NAME] [--resume] [--tensorboard] [--no-report]"
    usage = f"sprintnet train {overrides} {switches}   (default: {DEFAULT_RECIPE})"
    verb = add("train", train.train, usage, help=False)
    verb.add_argument("-h", "--help", action="store_true", help="show this and every setting of the recipe")
    verb.add_argument("--name", default="", help="name of the run folder under runs/train (default: the recipe's)")
    verb.add_argument("--resume", action="store_true", help="go on with the run of that name from its last checkpoint")
    verb.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's event files into the run folder")
    verb.add_argument("--data", default="", metavar="DATA", help="the same as data.name=DATA")
    verb.add_argument("--dedupe", action="store_true", help="the same as data.dedupe=true")
    verb.add_argument("--no-report", action="store_true", help="leave out Grad-CAM, figures and report.html at the end")
    verb = add("val", evaluate.val, "sprintnet val RUN [--split test|val|train] [--output FILE] [KEY=VALUE | --KEY VALUE]...")
    verb.add_argument("folder", metavar="RUN", help="a run folder, such as runs/train/davidnet")
    verb.add_argument("--split", choices=("test", "val", "train"), help="which images (default: those that judge the run)")
    verb.add_argument("--output", default="", metavar="FILE", help="also write a row an image to a CSV file")
    verb = add("study", experiments.study, f"sprintnet study {overrides} [--seeds N] [--name NAME] [--resume]")
    verb.add_argument("--seeds", type=int, default=10, help="number of runs, from the recipe's seed upwards (default: 10)")
    verb.add_argument("--name", default="", help="name of the folder under runs/study (default: the recipe's)")
    verb.add_argument("--resume", action="store_true", help="go on with the study of that name, or add seeds to it")
    verb = add("compare", experiments.compare, "sprintnet compare A B")
    verb.add_argument("a", metavar="A", help="a folder of runs, such as runs/study/sprint94")
    verb.add_argument("b", metavar="B", help="another one")
    verb = add(
        "explain", evaluate.explain, "sprintnet explain RUN [IMAGE...] [--wrong N] [--target-class CLASS] [--layer NAME]"
    )
    verb.add_argument("folder", metavar="RUN", help="a run folder, such as runs/train/sprint94")
    verb.add_argument("--wrong", type=int, help="without files: how many of the surest wrong answers (default: 16)")
    verb.add_argument("--target-class", default="predicted", help="the class of the maps: predicted (default), true or a name")
    verb.add_argument(
        "--layer", default="", help="one layer by its name (default: the last feature layer, and the mean of all)"
    )
    verb = add("label-errors", experiments.label_errors, "sprintnet label-errors RUN [--folds K] [--resume]")
    verb.add_argument("folder", metavar="RUN", help="a run folder, such as runs/train/sprint94")
    verb.add_argument("--folds", type=int, default=5, metavar="K", help="trainings, each without one K-th (default: 5)")
    verb.add_argument("--resume", action="store_true", help="go on with the folds of that run")
    verb = add("report", evaluate.report, "sprintnet report RUN [RUN...] [--output FILE]")
    verb.add_argument("folders", metavar="RUN", nargs="+", help="run folders; of several: one page, side by side")
    verb.add_argument(
        "--output", default="", metavar="FILE", help="the page (default: RUN/report.html; of several: comparison.html)"
    )
    verb = add(
        "export",
        deploy.export,
        "sprintnet export RUN [--quantize int8|fp16]... [--outputs NAMES] [--license NAME] [--web DIR]",
    )
    verb.add_argument("folder", metavar="RUN", help="a run folder, such as runs/train/sprint94; the files go to RUN/export")
    verb.add_argument(
        "--quantize", action="append", default=[], choices=("int8", "fp16"), help="also a smaller file; may be given twice"
    )
    every = "probabilities,logits,activation_maps"
    verb.add_argument("--outputs", default=every, help=f"what the file answers, probabilities at least (default: {every})")
    verb.add_argument("--license", default="unknown", help="the weights' licence, as the hub spells it (default: unknown)")
    verb.add_argument("--web", default="", metavar="DIR", help="also a folder with a page that classifies in the browser")
    verb = add(
        "predict",
        deploy.predict,
        "sprintnet predict MODEL IMAGE... [--top K] [--abstain-below P] [--format table|csv|json] [--batch N]",
    )
    verb.add_argument("model", metavar="MODEL", help="an exported file, such as runs/train/sprint94/export/model.onnx")
    verb.add_argument("--top", type=int, default=3, metavar="K", help="classes to name for each image (default: 3)")
    verb.add_argument(
        "--abstain-below",
        type=float,
        default=0.0,
        metavar="P",
        help="not sure (?) below this probability (default: 0)",
    )
    verb.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    verb.add_argument("--batch", type=int, default=64, metavar="N", help="images at once (default: 64)")
    verb = add(
        "serve",
        deploy.serve,
        "sprintnet serve MODEL [--host ADDRESS] [--port PORT] [--allow-host NAME]... [--allow-origin ORIGIN]...",
    )
    verb.add_argument("model", metavar="MODEL", help="an exported file, such as runs/train/sprint94/export/model.onnx")
    verb.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen at (default: 127.0.0.1, this machine)")
    verb.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any free one")
    verb.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name under which clients reach the server"
    )
    verb.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a site whose pages may ask, as https://example.org",
    )
    verb = add("lr-find", train.lr_find, f"sprintnet lr-find {overrides} [--seeds N] [--lowest LR] [--highest LR] [--rates N]")
    verb.add_argument("--seeds", type=int, default=1, help="sweeps, from the recipe's seed upwards (default: 1)")
    verb.add_argument("--lowest", type=float, default=1e-7, help="the first rate (default: 1e-7)")
    verb.add_argument("--highest", type=float, default=10.0, help="the last rate (default: 10)")
    verb.add_argument("--rates", type=int, default=100, help="steps of the sweep (default: 100)")
    verb = add(
        "benchmark", experiments.benchmark, f"sprintnet benchmark {overrides} [--phases] [--target ACCURACY] [--output FILE]"
    )
    verb.add_argument("--phases", action="store_true", help="measure single steps alone, without a whole training")
    verb.add_argument("--target", type=float, default=0.94, help="accuracy to which seconds are counted (default: 0.94)")
    results = "benchmarks/results/benchmark.jsonl"
    verb.add_argument("--output", default=results, help=f"file that a row is appended to (default: {results})")
    add("summary", train.summary, f"sprintnet summary {overrides}")
    verb = add("data", data.data, "sprintnet data list | sprintnet data fetch DATASET [--source PATH]")
    verb.add_argument("action", choices=("list", "fetch"), help="list the named data sets, or put one into the cache")
    verb.add_argument("dataset", nargs="?", default="", help="the data set's name")
    verb.add_argument("--source", default="", help="a local folder or archive to take it from (default: the network)")
    verb = add("check", data.check, "sprintnet check DATA [KEY=VALUE | --KEY VALUE]... [--output FILE]")
    verb.add_argument("data", metavar="DATA", help="a folder or table of pictures, or a named data set")
    verb.add_argument("--output", default="", metavar="FILE", help="also write a row a problem to a CSV file")
    add("recipes", train.recipes, "sprintnet recipes")
    return parser


def _fail(message: str, exit_code: int) -> int:
    """Prints a message, in which names that users gave may hold anything, and returns the exit code."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in message)
    print(f"sprintnet: {shown}", file=sys.stderr)
    return exit_code
