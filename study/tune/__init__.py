"""All that knows Ray."""

import os

# Before Ray Train is imported, which reads it then: stages run through its second version, whatever the environment
# says for other programs. Processes that Ray starts inherit it.
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
