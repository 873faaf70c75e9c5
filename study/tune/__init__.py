"""All that knows Ray."""

import os

# Before Ray is imported, which reads both then. Stages run through its second version, whatever the environment
# says for other programs. Processes that Ray starts inherit it.
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
# Started by `uv run`, Ray would start its processes by that, too, in a copy of the current folder, which has no
# environment: no stage would ever begin. They take the Python of this process.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
