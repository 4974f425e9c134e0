"""What to compare a generator with: nulls, merges, readouts, and networks trained by gradient."""
