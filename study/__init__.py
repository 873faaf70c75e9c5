"""What is run: configuration, stage graph, scheduling on Ray Tune, storage and the command lines."""
