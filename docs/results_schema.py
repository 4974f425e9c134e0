"""Writes docs/results.schema.json, the JSON Schema of results.json, from the dataclasses of `results`.

python docs/results_schema.py
"""

import json
from pathlib import Path

from kernelgan import records, results

FILE = Path(__file__).with_name("results.schema.json")


def text() -> str:
    """The file's content."""
    schema = records.json_schema(results.Run, "results.json of a kernelgan run; null is missing.")
    run = schema["$defs"]["Run"]
    run["properties"]["schema"] = {"const": results.SCHEMA}
    run["required"] = sorted([*run["required"], "schema"])
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
