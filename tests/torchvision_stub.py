"""Stands for torchvision while timm is imported, which names parts of it that no network needs.

torchvision cannot be imported beside the CPU build of PyTorch that the tests have.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class _AnyClass(type):
    def __getattr__(cls, name: str) -> str:
        return "" if name.startswith("__") else name


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        is_part = fullname.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if is_part else None

    def exec_module(self, module: ModuleType) -> None:
        def part(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return _AnyClass(name, (), {})

        module.__getattr__ = part  # type: ignore[method-assign]


@contextmanager
def without_torchvision() -> Iterator[None]:
    """Within, every name can be imported from torchvision; afterwards none of it is left."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
