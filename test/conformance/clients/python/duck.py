"""Writes and reads Parquet through DuckDB's client of object stores. Ends with
status 0 if all is well."""

import glob
import os
import sys
from urllib.parse import urlparse

import duckdb

extension = glob.glob(os.path.join(sys.prefix, "lib", "python3*", "site-packages", "duckdb_extension_httpfs", "extensions", "*", "httpfs.duckdb_extension"))[0]
db = duckdb.connect()
db.execute("load '%s'" % extension)
db.execute(
    "create secret (type s3, key_id '%s', secret '%s', endpoint '%s', url_style 'path', use_ssl false, region '%s')"
    % (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], urlparse(os.environ["ENDPOINT"]).netloc, os.environ["AWS_REGION"])
)
root = "s3://" + os.environ["BUCKET"]
db.execute("copy (select i, i * 2 as j, 'x' || i as s from range(1000000) t(i)) to '%s/a b/t.parquet'" % root)
assert db.execute("select count(*), sum(j) from '%s/a b/t.parquet'" % root).fetchall() == [(1000000, 999999000000)]
db.execute("copy (select i, i %% 7 as p from range(10000) t(i)) to '%s/part' (format parquet, partition_by (p))" % root)
rows = db.execute("select p, count(*) from read_parquet('%s/part/*/*.parquet', hive_partitioning = true) group by p order by p" % root).fetchall()
assert len(rows) == 7 and sum(n for _, n in rows) == 10000, rows
assert db.execute("select count(*) from glob('%s/**')" % root).fetchall() == [(8,)]
