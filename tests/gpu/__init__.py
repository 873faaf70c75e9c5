"""The acceptance run for a GPU, ``make gpu-check``: what a CPU, and the pretended accelerator, cannot show."""

import pytest
import torch

GPU = "cuda"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
