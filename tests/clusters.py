"""What the tests of Ray clusters share."""

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
"""The keys of a cluster's configuration that hold shell commands."""
