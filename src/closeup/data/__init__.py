"""Data sets in: readers that yield one record type, and writers that turn records back into files."""
