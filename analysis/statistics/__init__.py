"""The statistics of studies: numbers in, numbers out."""
