"""Converts records to Parquet and ORC with boto3 alone: a table in the catalog, a
delivery stream for each format, records, and the objects that come of them.

usage: formats.py FOLDER

FOLDER gets records.json, schema.json and the objects, for readers to compare.
ENDPOINT says where the service is.
"""

import base64
import json
import os
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

folder = sys.argv[1]
account = os.environ["ACCOUNT"]
role = f"arn:aws:iam::{account}:role/delivery"
s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], config=Config(s3={"addressing_style": "path"}))
glue = boto3.client("glue", endpoint_url=os.environ["ENDPOINT"])
firehose = boto3.client("firehose", endpoint_url=os.environ["ENDPOINT"])


def expect(what, got, want):
    if got != want:
        sys.exit(f"{what}: got {got!r}, want {want!r}")


def refused(what, code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as e:
        expect(what, e.response["Error"]["Code"], code)
        return e.response["Error"]["Message"]
    sys.exit(f"{what}: not refused")


def until(what, check, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    sys.exit(f"{what}: not within {seconds} s")


COLUMNS = [
    ("id", "bigint"), ("name", "string"), ("price", "decimal(10,2)"), ("ratio", "double"), ("ok", "boolean"),
    ("at", "timestamp"), ("day", "date"), ("tags", "array<string>"), ("attributes", "map<string,int>"), ("place", "struct<x:int,y:string>"),
]


def table(columns):
    return {
        "Name": "Orders",
        "StorageDescriptor": {"Columns": [{"Name": n, "Type": t} for n, t in columns], "Location": "s3://lake/orders/"},
        "PartitionKeys": [{"Name": "dt", "Type": "string"}],
        "Parameters": {"classification": "parquet"},
    }


def catalog():
    refused("no database", "EntityNotFoundException", glue.create_table, DatabaseName="shop", TableInput=table(COLUMNS))
    glue.create_database(DatabaseInput={"Name": "Shop", "Description": "orders and such"})
    refused("the same database", "AlreadyExistsException", glue.create_database, DatabaseInput={"Name": "shop"})
    glue.create_table(DatabaseName="shop", TableInput=table(COLUMNS[:-1]))
    refused("the same table", "AlreadyExistsException", glue.create_table, DatabaseName="SHOP", TableInput=table(COLUMNS))
    glue.update_table(DatabaseName="shop", TableInput=table(COLUMNS))
    got = glue.get_table(DatabaseName="shop", Name="ORDERS")["Table"]
    expect("version", got["VersionId"], "1")
    expect("columns", [(c["Name"], c["Type"]) for c in got["StorageDescriptor"]["Columns"]], COLUMNS)
    expect("partition keys", got["PartitionKeys"], [{"Name": "dt", "Type": "string"}])
    versions = glue.get_paginator("get_table_versions").paginate(DatabaseName="shop", TableName="orders", PaginationConfig={"PageSize": 1})
    expect("versions", [v["VersionId"] for page in versions for v in page["TableVersions"]], ["1", "0"])
    expect("first version", len(glue.get_table_version(DatabaseName="shop", TableName="orders", VersionId="0")["TableVersion"]["Table"]["StorageDescriptor"]["Columns"]), len(COLUMNS) - 1)
    refused("no version", "EntityNotFoundException", glue.get_table_version, DatabaseName="shop", TableName="orders", VersionId="9")
    refused("an old version", "ConcurrentModificationException", glue.update_table, DatabaseName="shop", TableInput=table(COLUMNS), VersionId="0")
    expect("tables", [t["Name"] for page in glue.get_paginator("get_tables").paginate(DatabaseName="shop", Expression="ord*") for t in page["TableList"]], ["orders"])
    expect("databases", [d["Name"] for page in glue.get_paginator("get_databases").paginate() for d in page["DatabaseList"]], ["shop"])
    glue.batch_create_partition(DatabaseName="shop", TableName="orders", PartitionInputList=[{"Values": [f"2026-01-0{i}"]} for i in range(1, 6)])
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName="shop", TableName="orders", Expression="dt > '2026-01-03'", PaginationConfig={"PageSize": 1})
    expect("partitions", [p["Values"] for page in pages for p in page["Partitions"]], [["2026-01-04"], ["2026-01-05"]])


def record(i):
    if i % 10 == 7:
        return {"id": i}
    return {
        "id": i, "name": f"order {i} äöü", "price": f"{i}.25", "ratio": i / 7, "ok": i % 2 == 0,
        "at": f"2026-07-{i % 28 + 1:02d} 12:00:{i % 60:02d}.{i:06d}", "day": f"2026-01-{i % 28 + 1:02d}",
        "tags": [f"t{j}" for j in range(i % 4)], "attributes": {"a": i, "b": None}, "place": {"x": i, "y": "here"},
    }


def stream(name, table, serializer):
    return dict(
        DeliveryStreamName=name,
        ExtendedS3DestinationConfiguration={
            "RoleARN": role, "BucketARN": "arn:aws:s3:::lake", "Prefix": f"{name}/",
            "ErrorOutputPrefix": f"failed/{name}/!{{firehose:error-output-type}}/",
            "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 1},
            "DataFormatConversionConfiguration": {
                "SchemaConfiguration": {"RoleARN": role, "DatabaseName": "shop", "TableName": table},
                "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
                "OutputFormatConfiguration": {"Serializer": serializer},
            },
        },
    )


def objects(prefix):
    return [o["Key"] for o in s3.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])]


def main():
    catalog()
    s3.create_bucket(Bucket="lake")
    records = [record(i) for i in range(400)]
    with open(os.path.join(folder, "records.json"), "w") as f:
        f.write("\n".join(json.dumps(r) for r in records))
    with open(os.path.join(folder, "schema.json"), "w") as f:
        json.dump(COLUMNS, f)
    message = refused("no table", "InvalidArgumentException", firehose.create_delivery_stream, **stream("none", "none", {"ParquetSerDe": {}}))
    if "EntityNotFoundException" not in message:
        sys.exit(f"no table: {message}")
    for name, serializer, encoding in (
        ("parquet", {"ParquetSerDe": {}}, "hadoop-snappy"),
        ("orc", {"OrcSerDe": {"Compression": "ZLIB", "DictionaryKeyThreshold": 0.8, "BloomFilterColumns": ["name"]}}, None),
    ):
        firehose.create_delivery_stream(**stream(name, "Orders", serializer))
        until("ACTIVE", lambda: firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE")
        data = [{"Data": json.dumps(r).encode()} for r in records] + [{"Data": b'{"id":"oops"}'}, {"Data": b"not json"}]
        expect("refused puts", firehose.put_record_batch(DeliveryStreamName=name, Records=data)["FailedPutCount"], 0)
        key = until("the object", lambda: objects(name + "/"))
        expect("objects", len(key), 1)
        expect("extension", key[0].endswith("." + name), True)
        got = s3.get_object(Bucket="lake", Key=key[0])
        expect("Content-Encoding", got.get("ContentEncoding"), encoding)
        expect("Content-Type", got["ContentType"], "application/octet-stream")
        with open(os.path.join(folder, "converted." + name), "wb") as f:
            f.write(got["Body"].read())
        prefix = f"failed/{name}/format-conversion-failed/"
        key = until("the error output", lambda: objects(prefix))
        lines = [json.loads(l) for l in s3.get_object(Bucket="lake", Key=key[0])["Body"].read().splitlines()]
        expect("failures", [(l["lastErrorCode"], l["lastErrorMessage"], base64.b64decode(l["rawData"])) for l in lines], [
            ("DataFormatConversion.MalformedData", 'Data does not match the schema. For input string: "oops"', b'{"id":"oops"}'),
            ("DataFormatConversion.ParseError", "Encountered malformed JSON. Unexpected character ('o' (code 111)) at offset 1", b"not json"),
        ])
        expect("members", list(lines[0]), [
            "attemptsMade", "arrivalTimestamp", "lastErrorCode", "lastErrorMessage", "attemptEndingTimestamp", "rawData", "sequenceNumber",
            "subSequenceNumber", "dataCatalogTable",
        ])
        expect("table", {k: lines[0]["dataCatalogTable"][k] for k in ("databaseName", "tableName", "versionId", "roleArn")},
               {"databaseName": "shop", "tableName": "Orders", "versionId": "LATEST", "roleArn": role})
    glue.delete_table(DatabaseName="shop", Name="orders")
    glue.delete_database(Name="shop")
    refused("gone", "EntityNotFoundException", glue.get_database, Name="shop")


main()
