"""The driver: what a command runs, from a configuration to tables and a report."""
