"""Reads a converted file and compares it with the records it was made from.

usage: read.py FILE RECORDS SCHEMA

RECORDS has one JSON object a line, SCHEMA is a JSON list of [name, type]. What a
value must be is worked out here, from the record and the type, without anything
of the program that wrote the file.
"""

import base64
import datetime
import decimal
import json
import sys

import pyarrow.parquet
import pyarrow.orc


def parse(text):
    """A type as (kind, arguments)."""
    text = text.strip()
    for kind in ("array", "map", "struct"):
        if text.startswith(kind + "<"):
            inner, parts, depth, at = text[len(kind) + 1 : -1], [], 0, 0
            for i, c in enumerate(inner):
                depth += (c in "<(") - (c in ">)")
                if c == "," and depth == 0:
                    parts.append(inner[at:i])
                    at = i + 1
            parts.append(inner[at:])
            if kind == "struct":
                return kind, [(p.split(":", 1)[0], parse(p.split(":", 1)[1])) for p in parts]
            return kind, [parse(p) for p in parts]
    if "(" in text:
        kind, rest = text.split("(", 1)
        return kind, [int(n) for n in rest[:-1].split(",")]
    return text, []


def want(t, v):
    """What a reader must find for the JSON value v."""
    kind, args = t
    if v is None:
        return None
    if kind in ("array",):
        return [want(args[0], e) for e in v]
    if kind == "map":
        return {want(args[0], k): want(args[1], e) for k, e in v.items()}
    if kind == "struct":
        return {name: want(member, v.get(name)) for name, member in args}
    if kind == "decimal":
        return decimal.Decimal(v).quantize(decimal.Decimal(1).scaleb(-args[1]), decimal.ROUND_HALF_UP)
    if kind in ("varchar", "char"):
        return v[: args[0]]
    if kind == "binary":
        return base64.b64decode(v)
    if kind == "date":
        return datetime.date.fromisoformat(v)
    if kind == "timestamp":
        return datetime.datetime.fromisoformat(v)
    if kind == "float":
        import struct

        return struct.unpack("f", struct.pack("f", float(v)))[0]
    if kind == "double":
        return float(v)
    return v


def found(t, v):
    """A reader's value in the form of want."""
    kind, args = t
    if v is None:
        return None
    if kind == "array":
        return [found(args[0], e) for e in v]
    if kind == "map":
        pairs = v.items() if isinstance(v, dict) else v
        return {found(args[0], k): found(args[1], e) for k, e in pairs}
    if kind == "struct":
        return {name: found(member, v[name]) for name, member in args}
    if kind == "char":
        return v.rstrip(" ")
    if kind == "timestamp":
        return v.to_pydatetime() if hasattr(v, "to_pydatetime") else v
    return v


def compare(reader, columns, rows, records):
    if len(rows) != len(records):
        sys.exit(f"{reader}: {len(rows)} rows of {len(records)}")
    for i, (row, record) in enumerate(zip(rows, records)):
        for name, t in columns:
            w, g = want(t, record.get(name)), found(t, row[name])
            if w != g:
                sys.exit(f"{reader}: row {i}: {name} is {g!r}, want {w!r}")
    print(f"{reader}: {len(rows)} rows of {len(columns)} columns")


def main():
    file, source, schema = sys.argv[1:]
    columns = [(name, parse(text)) for name, text in json.load(open(schema))]
    records = [json.loads(line, parse_float=decimal.Decimal) for line in open(source)]
    if file.endswith(".orc"):
        compare("pyarrow.orc", columns, pyarrow.orc.ORCFile(file).read().to_pylist(), records)
        return
    table = pyarrow.parquet.read_table(file)
    if table.schema.names != [name for name, _ in columns]:
        sys.exit(f"columns {table.schema.names}")
    compare("pyarrow.parquet", columns, table.to_pylist(), records)

    import duckdb

    cursor = duckdb.sql(f"select * from read_parquet('{file}')")
    names = cursor.columns
    rows = [dict(zip(names, row)) for row in cursor.fetchall()]
    compare("DuckDB", columns, rows, records)


main()
