"""Studies: programs beside the library, such as one that repeats the work of others."""
