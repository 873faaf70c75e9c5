"""How the files of data sets lie on the disk."""
