"""Reads lines of JSON from a file and writes them as another engine does it.

    columnar.py ENGINE INPUT OUTPUT NAME:TYPE...

Prints the processor seconds, user and system, that the work took; starting the
interpreter and loading the library do not count.
"""

import resource
import shutil
import sys


def processor():
    r = resource.getrusage(resource.RUSAGE_SELF)
    return r.ru_utime + r.ru_stime


def arrow(source, target, columns):
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "boolean": pa.bool_(), "timestamp": pa.timestamp("ms")}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns])
    start = processor()
    # Blocks of the size of a delivery's buffer, one after the other.
    reader = pj.open_json(source, read_options=pj.ReadOptions(block_size=8 << 20), parse_options=pj.ParseOptions(explicit_schema=schema))
    with pq.ParquetWriter(target, schema, compression="snappy") as writer:
        for batch in reader:
            writer.write_batch(batch)
    return start


def duck(source, target, columns):
    import duckdb

    kinds = {"string": "VARCHAR", "int": "INTEGER", "bigint": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN", "timestamp": "TIMESTAMP"}
    wanted = ", ".join(f"{name}: '{kinds[kind]}'" for name, kind in columns)
    connection = duckdb.connect()
    start = processor()
    connection.execute(
        f"COPY (SELECT * FROM read_json('{source}', format='newline_delimited', columns={{{wanted}}})) TO '{target}' (FORMAT parquet, COMPRESSION snappy)"
    )
    return start


def zlib(level):
    def run(source, target, columns):
        import gzip

        start = processor()
        with open(source, "rb") as lines, gzip.open(target, "wb", compresslevel=level) as out:
            shutil.copyfileobj(lines, out, 1 << 20)
        return start

    return run


engines = {"pyarrow": arrow, "duckdb": duck, "zlib-1": zlib(1), "zlib-6": zlib(6)}

if __name__ == "__main__":
    engine, source, target, *columns = sys.argv[1:]
    start = engines[engine](source, target, [c.split(":") for c in columns])
    print(processor() - start)
