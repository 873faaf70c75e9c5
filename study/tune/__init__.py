"""All that knows Ray."""

import os

# Ray reads both when it is imported. Stages run through Ray Train's second version, whatever the environment has for
# other programs. Processes that Ray starts inherit it.
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
# If `uv run` started the command, Ray would start its processes by `uv run`, too, in a copy of the current folder that
# has no environment: no stage would ever begin. Now they take the Python of this process.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
