"""Compiles the kernels in C for a wheel, once per instruction set; without gcc the wheel has none and PyTorch does their work.
The wheel also has the commit that it is built from, where git knows it.

An editable install has none: its kernels are compiled at first use, from the sources as they are then.
"""

import platform
import runpy
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelBuildHook(BuildHookInterface):
    """Puts the compiled libraries into `sprintnet/kernels/compiled`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles what can be compiled; one warning names the rest."""
        self.folder = tempfile.TemporaryDirectory()
        if version != "editable" and (commit := self.commit()):
            file = Path(self.folder.name) / "commit.txt"
            file.write_text(commit, "ascii")
            build_data["force_include"][str(file)] = "sprintnet/commit.txt"
        if version == "editable" or (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return
        kernels = Path(self.root) / "src" / "sprintnet" / "kernels"
        compiler = SimpleNamespace(**runpy.run_path(str(kernels / "compiler.py")))

        def compile_kernel(source: Path, instructions: Any) -> str:
            """Returns why it failed, else an empty text."""
            try:
                compiler.compile_library(source, instructions, Path(self.folder.name) / f"{source.stem}-{instructions.name}.so")
            except compiler.UnavailableError as error:
                return str(error)
            return ""

        jobs = [
            (source, instructions)
            for source in sorted((kernels / "csrc").glob("*.c"))
            for instructions in compiler.instruction_sets(source.stem)
        ]
        with ThreadPoolExecutor() as compilers:
            failures = list(filter(None, compilers.map(compile_kernel, *zip(*jobs, strict=True))))
        if failures:
            reasons = "; ".join(sorted(set(failures)))
            self.app.display_warning(f"{len(failures)} of {len(jobs)} kernels not compiled, PyTorch does their work: {reasons}")
        for library in sorted(Path(self.folder.name).glob("*.so")):
            build_data["force_include"][str(library)] = f"sprintnet/kernels/compiled/{library.name}"
            build_data.update(pure_python=False, tag="py3-none-linux_x86_64")  # no Python ABI: ctypes loads them

    def commit(self) -> str:
        """Returns the commit of the source tree, with `+` where the package has uncommitted changes, or an empty text."""
        words = (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "src"])
        try:
            head, changes = (subprocess.check_output(["git", "-C", self.root, *each], text=True).strip() for each in words)
        except (OSError, subprocess.SubprocessError):
            return ""
        return head + "+" * bool(changes)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the libraries, which the wheel has now."""
        self.folder.cleanup()
