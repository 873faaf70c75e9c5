"""What to set if memory ran out: the words of PyTorch, Python and Ray turned into advice."""

from collections.abc import Mapping

SHARE_LESS = (
    "let fewer stages share the machine, with --slots or more resources.cpus, "
    "or fewer images through at once, with resources.images_a_pass"
)

ON_DEVICE = ("CUDA out of memory", "CUDA error: out of memory")
ON_HOST = ("low on memory", "can't allocate memory", "Cannot allocate memory", "MemoryError", "OutOfMemoryError")
"""Words of Ray's memory monitor, of PyTorch's allocator, of the operating system, of Python and of Ray again."""


NO_GPU = ("no GPUs found", "requires at least one CUDA device")
"""Words of PyTorch, older and newer, if workers that have GPUs by Ray's account are to talk through NCCL."""


def unusable_gpu(text: str) -> str | None:
    """Advice on an error that reports that PyTorch sees no GPU where Ray offers some; None on any other."""
    if not any(words in text for words in NO_GPU):
        return None
    return (
        "PyTorch can use no GPU of a worker's node, though Ray offers them: its driver, or a build for a CUDA version "
        f"that the driver knows, is lacking; or train on CPUs with --set resources.gpus=0\n  {text[:300]}"
    )


def out_of_memory(text: str, now: Mapping[str, object] | None = None) -> str | None:
    """Advice on an error that reports that memory ran out; None on any other.

    Args:
        text: the error's.
        now: what the keys of ``resources`` that the advice may name are set to, if that is known.
    """
    set_to = ", ".join(f"resources.{key}={value}" for key, value in (now or {}).items())
    settings = f" (now {set_to})" if set_to else ""
    line = next((line.strip() for line in text.splitlines() if any(word in line for word in ON_DEVICE)), None)
    if line is not None:
        return (
            f"the GPU's memory ran out{settings}: let fewer images through at once with resources.images_a_pass, which "
            "changes results by rounding only, or let fewer stages share a GPU with more resources.gpus\n  "
            f"{line[:300]}"
        )
    line = next((line.strip() for line in text.splitlines() if any(word in line for word in ON_HOST)), None)
    return f"memory ran out{settings}: {SHARE_LESS}\n  {line[:300]}" if line is not None else None
