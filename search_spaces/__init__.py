"""What is varied: the named ablations, each a list of cells."""
