"""Experiments: each file has a `get_config`, its docstring says what it does and what to expect."""
