"""Generated source text as a module on disk: compilers keep machine code by file, and read it."""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from evomerge.cache import cache_folder, say_unusable

__all__ = ["generated_function", "is_kept"]


def generated_function(text: str, helpers: ModuleType, name: str = "merge") -> Callable[..., None]:
    """Run source text as a module and return one of its functions.

    The text is kept in the user's cache (room ``kernels``), in a file named by its content; where
    that is off or cannot be written, it lives in memory only.

    Args:
        text: Source of the module.
        helpers: Module that the text imports; part of the file's name, since compilers do not
            notice changes of functions that were inlined.
        name: Of the function.
    """
    helpers_text = Path(str(helpers.__file__)).read_text()
    title = f"loop_{hashlib.sha256((text + helpers_text).encode()).hexdigest()[:24]}"
    path = _kept(text, title)
    module = _from_memory(text, title) if path is None else _from_file(path, title)
    function: Callable[..., None] = getattr(module, name)
    return function


def is_kept(function: Callable[..., None]) -> bool:
    """Whether a generated function has a file, beside which machine code can be kept."""
    return Path(function.__code__.co_filename).exists()


def _kept(text: str, name: str) -> Path | None:
    folder = None
    try:
        folder = cache_folder("kernels")
        if folder is None:
            return None
        path = folder / f"{name}.py"
        if not path.exists() or path.read_bytes() != text.encode():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                file.write(text.encode())
            Path(file.name).replace(path)
    except (OSError, RuntimeError) as err:  # not writable, or a user without a home
        say_unusable(Path("kernels") if folder is None else folder, err)
        return None
    return path


def _from_file(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # loading kept machine code looks its module up by name
    spec.loader.exec_module(module)
    return module


def _from_memory(text: str, name: str) -> ModuleType:
    file = f"<{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, file, "exec"), vars(module))
    return module
