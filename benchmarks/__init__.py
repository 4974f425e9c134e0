"""How fast it is, and whether what is fast is also right. See benchmarks/README.md."""
