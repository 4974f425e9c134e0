"""Writes docs/results.schema.json, the JSON Schema of results.json, from the dataclasses of `results`.

python docs/results_schema.py
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from kernelgan import records, results

FILE = Path(__file__).with_name("results.schema.json")
_PLAIN = {str: "string", bool: "boolean", int: "integer"}


def text() -> str:
    """The content of the file, in draft 2020-12: what `records.from_json` reads for a run."""
    defined: dict[str, Any] = {}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "results.json of a kernelgan run; null is missing.",
    }
    schema = {**head, **_schema(results.Run, defined), "$defs": dict(sorted(defined.items()))}
    run = defined["Run"]
    run["properties"]["schema"] = {"const": results.SCHEMA}
    run["required"] = sorted([*run["required"], "schema"])
    return json.dumps(schema, indent=1) + "\n"


def _schema(kind: Any, defined: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Of one type; a record is added to those defined. The name of a record may be its key instead."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if kind is float:
        return {"type": ["number", "null"]}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if origin is types.UnionType:
        return {"anyOf": [_schema(inner[0], defined), {"type": "null"}]}
    if origin is dict:
        return {"type": ["object", "null"], "additionalProperties": _schema(inner[1], defined)}
    if origin is tuple:
        ends = {} if inner[-1] is ... else {"minItems": len(inner), "maxItems": len(inner)}
        return {"type": ["array", "null"], "items": _schema(inner[0], defined), **ends}
    hints, required = records.fields_of(kind)
    if kind.__name__ not in defined:
        defined[kind.__name__] = {}  # it may hold itself
        stored = [field.name for field in dataclasses.fields(kind) if field.metadata.get("stored", True)]
        defined[kind.__name__] = {
            "description": (kind.__doc__ or "").partition("\n")[0],
            "type": ["object", "null"],
            "properties": {name: _schema(hints[name], defined) for name in stored},
            "required": sorted(required - {"name"}),
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


if __name__ == "__main__":
    FILE.write_text(text())
