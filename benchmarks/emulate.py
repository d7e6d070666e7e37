"""Runs a sprintnet command, or a script, as on an older processor: AVX2 only, AVX-512 without bf16, or bf16 without AMX.

    python benchmarks/emulate.py avx2 train sprint94
    python benchmarks/emulate.py avx512 benchmarks/kernel_choices.py fp32
    python benchmarks/emulate.py avx2 benchmarks/ablation.py pytorch
    python benchmarks/emulate.py avx512_bf16 benchmark --phases

PyTorch's libraries are held to the instruction set by their environment variables, our kernels by hiding the processor's
newer features. Clock rates and caches stay those of this machine. Only for what runs in one process:
not for `benchmark` with a training, nor for scripts that start others, except ablation.py.
"""

import os
import runpy
import sys

ENVIRONMENTS = {
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "avx512_bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "ATEN_CPU_CAPABILITY": "avx512"},
}
HIDDEN = {
    "avx2": ("avx512", "amx", "avx_vnni"),
    "avx512": ("avx512_bf16", "avx512_fp16", "amx"),
    "avx512_bf16": ("amx", "avx512_fp16"),
}


def main() -> None:
    """Hides what the processor has more, then runs the command in this process."""
    kind, *command = sys.argv[1:]
    os.environ.update(ENVIRONMENTS[kind], SPRINTNET_EMULATED=kind)  # ablation.py measures in processes of its own

    from sprintnet.runs import environment

    flags, name = environment.cpu_flags(), environment.cpu_name()
    shown = frozenset(flag for flag in flags if not flag.startswith(HIDDEN[kind]))
    environment.cpu_flags = lambda: shown
    environment.cpu_name = lambda: f"{name}, as {kind} only"

    if command[0].endswith(".py"):
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")
    else:
        from sprintnet.cli.main import main

        sys.exit(main(command))


if __name__ == "__main__":
    main()
