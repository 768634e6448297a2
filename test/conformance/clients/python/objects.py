"""Stores and reads objects through boto3, as its users do: by the transfer
manager, by pages, by presigned addresses. Ends with status 0 if all is well."""

import io
import os
import urllib.error
import urllib.request

import boto3
import botocore.exceptions
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

s3 = boto3.client(
    "s3",
    endpoint_url=os.environ["ENDPOINT"],
    verify=os.environ.get("CA"),
    config=Config(signature_version="s3v4", s3={"addressing_style": os.environ.get("STYLE", "path")}, retries={"max_attempts": 1}),
)
bucket = os.environ["BUCKET"]
s3.create_bucket(Bucket=bucket)
assert bucket in [b["Name"] for b in s3.list_buckets()["Buckets"]]
assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None

# In parts, up and down, by the transfer manager.
data = os.urandom(21 << 20)
parts = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20)
s3.upload_fileobj(io.BytesIO(data), bucket, "large/ü 1.bin", Config=parts, ExtraArgs={"Metadata": {"who": "boto3"}, "ContentType": "application/x-test"})
back = io.BytesIO()
s3.download_fileobj(bucket, "large/ü 1.bin", back, Config=parts)
assert back.getvalue() == data
head = s3.head_object(Bucket=bucket, Key="large/ü 1.bin")
assert head["ContentLength"] == len(data) and head["Metadata"] == {"who": "boto3"} and head["ContentType"] == "application/x-test", head
assert head["ETag"].endswith('-3"'), head["ETag"]
s3.copy({"Bucket": bucket, "Key": "large/ü 1.bin"}, bucket, "large/copy", Config=parts)
assert s3.get_object(Bucket=bucket, Key="large/copy", Range="bytes=1000000-1000009")["Body"].read() == data[1000000:1000010]

# Every checksum that the SDK computes.
for algorithm in ["CRC32", "SHA1", "SHA256"]:
    s3.put_object(Bucket=bucket, Key="sum/" + algorithm, Body=b"summed", ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="sum/" + algorithm, ChecksumMode="ENABLED")
    assert got["Body"].read() == b"summed" and got["Checksum" + algorithm]
s3.put_object(Bucket=bucket, Key="empty", Body=b"")
assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""

# Pages and prefixes.
for i in range(25):
    s3.put_object(Bucket=bucket, Key="many/%d/%02d" % (i % 3, i), Body=b"x")
pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="many/", PaginationConfig={"PageSize": 4})
assert sum(len(p.get("Contents", [])) for p in pages) == 25
roots = s3.list_objects(Bucket=bucket, Prefix="many/", Delimiter="/")
assert [p["Prefix"] for p in roots["CommonPrefixes"]] == ["many/0/", "many/1/", "many/2/"]

# Errors as exceptions of their own, and conditions.
for call, code in [
    (lambda: s3.get_object(Bucket=bucket, Key="none"), "NoSuchKey"),
    (lambda: s3.list_objects_v2(Bucket=bucket + "-none"), "NoSuchBucket"),
    (lambda: s3.head_object(Bucket=bucket, Key="none"), "404"),
    (lambda: s3.put_object(Bucket=bucket, Key="empty", Body=b"", IfNoneMatch="*"), "PreconditionFailed"),
    (lambda: s3.get_object(Bucket=bucket, Key="empty", IfMatch='"x"'), "PreconditionFailed"),
    (lambda: s3.get_object(Bucket=bucket, Key="empty", Range="bytes=5-"), "InvalidRange"),
    (lambda: s3.delete_bucket(Bucket=bucket), "BucketNotEmpty"),
    (lambda: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}), "NotImplemented"),
]:
    try:
        call()
        raise AssertionError("no " + code)
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] == code, e.response
try:
    s3.get_object(Bucket=bucket, Key="none")
except s3.exceptions.NoSuchKey:
    pass

# Tags, and addresses for those without credentials.
s3.put_object_tagging(Bucket=bucket, Key="empty", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
assert s3.get_object_tagging(Bucket=bucket, Key="empty")["TagSet"] == [{"Key": "a", "Value": "b"}]
put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "signed & sealed"}, ExpiresIn=60)
get = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "signed & sealed", "ResponseContentType": "text/x"}, ExpiresIn=60)
if "CA" not in os.environ:
    urllib.request.urlopen(urllib.request.Request(put, data=b"by address", method="PUT", headers={"Content-Type": ""})).close()
    with urllib.request.urlopen(get) as r:
        assert r.read() == b"by address" and r.headers["Content-Type"] == "text/x"
    try:
        urllib.request.urlopen(get.replace("sealed", "sealee"))
        raise AssertionError("another key")
    except urllib.error.HTTPError as e:
        assert e.code == 403 and b"SignatureDoesNotMatch" in e.read()

keys = [o["Key"] for p in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket) for o in p.get("Contents", [])]
gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys]})
assert len(gone["Deleted"]) == len(keys) and "Errors" not in gone, gone
s3.delete_bucket(Bucket=bucket)
