"""Studies: programs beside the library that repeat the work of others."""
