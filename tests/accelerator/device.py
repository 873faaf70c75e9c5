"""The pretended accelerator: built once, and from then on a device of the process that asks for it.

Registering a backend changes the whole process, so only a process of its own does: see :mod:`tests.accelerator.child`.
"""

import contextlib
import os
import shutil
import sysconfig
from pathlib import Path
from types import ModuleType

import torch

DEVICE = "pretended"
SOURCE = Path(__file__).with_name("pretended.cpp")
BUILDS = Path(__file__).parents[2] / "build" / "accelerator"


def lacking() -> str | None:
    """What this machine lacks to build it, or None."""
    compiler = os.environ.get("CXX", "c++")
    for tool in (compiler, "ninja"):
        if shutil.which(tool, path=search_path()) is None:
            return f"the pretended accelerator needs {tool} to be built"
    return None


def search_path() -> str:
    """Where programs are looked for: pip's ninja lies next to the interpreter, which need not be on the path."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def register() -> None:
    """Make ``torch.device("pretended")`` a device of this process; build it first if that is not done yet."""
    from torch.utils.cpp_extension import load

    os.environ["PATH"] = search_path()
    # A build is for one release of PyTorch. PyTorch itself locks the folder, so that one process builds.
    folder = BUILDS / torch.__version__
    folder.mkdir(parents=True, exist_ok=True)
    load(
        "pretended_accelerator",
        [str(SOURCE)],
        extra_cflags=["-O0"],
        build_directory=str(folder),
        is_python_module=False,
    )
    torch.utils.rename_privateuse1_backend(DEVICE)
    torch._register_device_module(DEVICE, _module())
    torch.utils.generate_methods_for_privateuse1_backend()


def _module() -> ModuleType:
    """What PyTorch's Python side asks of a backend; other questions fail, and so show what is missing."""
    module = ModuleType(f"torch.{DEVICE}")
    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda index: contextlib.nullcontext(),
        "manual_seed_all": lambda seed: None,
        "_is_in_bad_fork": lambda: False,
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    return module
