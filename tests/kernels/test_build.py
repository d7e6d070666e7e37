"""Kernels in C: built once, cached; where they cannot be built the reason is given. Needs gcc, no special processor."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sprintnet.kernels import build, compiler
from sprintnet.kernels.compiler import InstructionSet
from sprintnet.runs.io import cache_folder

PLAIN = InstructionSet("plain", (), frozenset())
KERNEL = "#include <stdint.h>\nvoid twice(int64_t count, float *x) { for (int64_t i = 0; i < count; i++) x[i] *= 2; }\n"
pytestmark = pytest.mark.usefixtures("gcc")


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one kernel, and a cache of its own; nothing of it is remembered afterwards."""
    monkeypatch.setenv("SPRINTNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "SOURCES", tmp_path / "kernels")
    monkeypatch.setattr(build, "instruction_sets", lambda name: (PLAIN,))
    build.SOURCES.mkdir()
    (build.SOURCES / "numbers.c").write_text(KERNEL, "utf-8")
    yield build.SOURCES
    build._library.cache_clear()


def twice(numbers: torch.Tensor) -> list[float]:
    build._library.cache_clear()
    build.call("numbers", "twice", len(numbers), numbers)
    return numbers.tolist()


def libraries() -> list[Path]:
    return sorted((cache_folder() / "compiled").glob("*.so"))


def test_a_kernel_is_made_once_and_called_with_tensors(sources: Path) -> None:
    assert twice(torch.arange(3.0)) == [0, 2, 4]
    (library,) = libraries()
    made = library.stat()
    assert twice(torch.arange(3.0)) == [0, 2, 4]
    assert libraries() == [library]
    assert library.stat().st_mtime_ns == made.st_mtime_ns
    assert build.unavailable_reason("bf16") == ""
    (sources / "numbers.c").write_text(KERNEL.replace("*= 2", "*= 3"), "utf-8")
    assert twice(torch.arange(3.0)) == [0, 3, 6]  # of another source, another library
    assert len(libraries()) == 2
    (sources / "shared.h").write_text("/* what a kernel may include */\n", "utf-8")
    assert twice(torch.arange(3.0)) == [0, 3, 6]
    assert len(libraries()) == 3


def test_a_kernel_is_compiled_for_the_newest_instruction_set_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = InstructionSet("newer", ("-DNEWER",), frozenset({"avx9"}))
    monkeypatch.setattr(build, "instruction_sets", lambda name: (newer, PLAIN))
    for flags in ({"sse2"}, {"sse2", "avx9"}):
        monkeypatch.setattr(build, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert twice(torch.arange(3.0)) == [0, 2, 4]
    assert [path.name.split("-")[1] for path in libraries()] == ["newer", "plain"]


def test_its_threads_are_pytorchs_whatever_else_has_openmp(sources: Path) -> None:
    (sources / "numbers.c").write_text(
        "#include <omp.h>\nvoid threads(int *found) { *found = omp_get_max_threads(); }\n", "utf-8"
    )
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom sprintnet.kernels import build\nimport sklearn.cluster\n"
        "build.SOURCES = Path(sys.argv[1])\n"
        "build.instruction_sets = lambda name: (build.InstructionSet('plain', (), frozenset()),)\n"
        "torch.set_num_threads(3)\nfound = torch.zeros(1, dtype=torch.int32)\n"
        "before = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}\n"
        "build.call('numbers', 'threads', found)\n"
        "after = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}\n"
        "print(found.item(), len(before), after == before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(sources)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "2", "True"]  # scikit-learn's is the second


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        ("compiler", "no-such-compiler is not installed"),
        ("source", "error: no such instructions|compilation terminated|gcc: "),
        ("cache", "Not a directory|File exists"),
        ("rights", "can be written by other users; remove it"),
        ("threads", "PyTorch does not use GNU OpenMP"),
        ("processor", "the processor has no avx512_bf16"),
        ("time", "gcc took longer than 0 s"),
    ],
)
def test_what_cannot_be_made_is_done_without_and_said(
    sources: Path, obstacle: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "compiler":
        monkeypatch.setattr(compiler, "COMPILER", "no-such-compiler")
    elif obstacle == "source":
        (sources / "numbers.c").write_text("#error no such instructions\n", "utf-8")
    elif obstacle == "cache":
        (tmp_path / "cache").write_text("a file, not a folder", "utf-8")
    elif obstacle == "rights":
        (tmp_path / "cache" / "compiled").mkdir(parents=True)
        (tmp_path / "cache" / "compiled").chmod(0o777)
    elif obstacle == "threads":
        monkeypatch.setattr(build.importlib.util, "find_spec", lambda _: None)
    elif obstacle == "processor":
        monkeypatch.setattr(build, "instruction_sets", compiler.instruction_sets)
        monkeypatch.setattr(build, "cpu_flags", lambda: frozenset({"avx2"}))
    else:
        monkeypatch.setattr(compiler, "COMPILE_SECONDS", 1e-9)
    assert build.load_library("numbers") is None
    with pytest.raises(AssertionError, match=reason):
        assert not build.unavailable_reason("bf16"), build.unavailable_reason("bf16")


RUN = (
    "import sys, torch\nfrom pathlib import Path\nfrom sprintnet.kernels import build\n"
    "build.SOURCES = Path(sys.argv[1])\n"
    "build.instruction_sets = lambda name: (build.InstructionSet('plain', (), frozenset()),)\n"
    "print(flush=True)\nsys.stdin.readline()\nprint(build.unavailable_reason('bf16') or 'built')\n"
)
"""Builds what is missing, once a line has been read, and says what came of it."""


def start_run(sources: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(sources)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "\n"  # ready
    return process


def test_a_damaged_library_is_rebuilt_by_the_next_run(sources: Path) -> None:
    def another_run() -> str:
        return start_run(sources).communicate("\n")[0]

    assert another_run() == "built\n"
    (library,) = libraries()
    library.write_bytes(library.read_bytes()[:100])
    assert str(library) in another_run()
    assert another_run() == "built\n"


def test_processes_that_build_at_the_same_time_all_have_kernels(sources: Path) -> None:
    for name in ("second", "third"):
        (sources / f"{name}.c").write_text(KERNEL, "utf-8")
    runs = [start_run(sources) for _ in range(3)]
    for process in runs:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in runs] == ["built\n"] * 3
    assert len(libraries()) == 3
    assert {path.suffix for path in libraries()[0].parent.iterdir()} == {".so", ".lock"}  # no temporary files
