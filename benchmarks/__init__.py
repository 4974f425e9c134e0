"""How fast each stage is; one script for each question. See benchmarks/README.md."""
