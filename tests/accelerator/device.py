"""The pretended accelerator: how it is built, and registered in a process.

Registering a backend changes the whole process, so tests use one of its own: see :mod:`tests.accelerator.child`.
"""

import os
import shlex
import shutil
import sysconfig
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import torch

DEVICE = "pretended"
SOURCE = Path(__file__).with_name("pretended.cpp")
BUILDS = Path(__file__).parents[2] / "build" / "accelerator"


def lacking() -> str | None:
    """What this machine lacks to build it; None if nothing."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    for tool in (compiler, "ninja"):
        if shutil.which(tool, path=search_path()) is None:
            return f"the pretended accelerator needs {tool} to be built"
    return None


def search_path() -> str:
    """The path to look for programs on; pip's ninja is next to the interpreter, which may not be on it."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])


def register() -> None:
    """Make ``torch.device("pretended")`` a device of this process. The first call on a machine builds it."""
    from torch.utils.cpp_extension import load

    os.environ["PATH"] = search_path()
    # A build is for one release of PyTorch, which locks the folder, so that only one process builds.
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
    """What PyTorch's Python side asks of a backend. Any other question fails, and so shows what is missing."""
    module = ModuleType(f"torch.{DEVICE}")
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda index: nullcontext(),
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    return module
