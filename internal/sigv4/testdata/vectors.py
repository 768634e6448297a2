#!/usr/bin/env python3
"""Writes vectors.json: requests signed by botocore, which the tests verify.

Run it with botocore installed: python3 vectors.py > vectors.json
"""
import datetime
import json
import sys
from unittest import mock

import botocore.auth
import botocore.awsrequest
import botocore.credentials

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7)
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

CASES = [
    ("put records", "POST", "http://127.0.0.1:4567/", '{"a":1}', {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.PutRecords"}, None),
    ("with a token", "POST", "http://127.0.0.1:4567/", "{}", {"X-Amz-Target": "Kinesis_20131202.ListStreams"}, "token/+=with signs"),
    ("encoded path", "GET", "https://example.com/v1/a%20b/%C3%BC/arn%3Aaws%3Akinesis", "", {}, None),
    ("plain sub delimiters", "GET", "https://example.com/a:b@c,d;e=f$g", "", {}, None),
    ("query in order", "GET", "https://example.com/?b=2&a=1&a=0&c", "", {}, None),
    ("query with escapes", "GET", "https://example.com/?Action=x%20y&z=%2F%2B%3D&%C3%A4=1", "", {}, None),
    ("inner spaces", "POST", "https://example.com/", "x", {"X-Amz-Meta": "  a   b  c "}, None),
    ("presigned with a token", "GET", "https://example.com/", "", {}, "token/+=with signs"),
    ("form", "POST", "https://sts.amazonaws.com/", "Action=GetCallerIdentity&Version=2011-06-15", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, None),
    ("binary body", "POST", "https://example.com:8443/x", "\x00\x01\xff", {"Content-Type": "application/x-amz-cbor-1.1"}, None),
]


def frozen(*_args, **_kwargs):
    return NOW


def main():
    out = []
    for name, method, url, body, headers, token in CASES:
        for form in ("header", "query"):
            # botocore moves a presigned request's body into its query.
            if form == "query" and body:
                continue
            raw = body.encode("latin-1")
            request = botocore.awsrequest.AWSRequest(method=method, url=url, data=raw, headers=dict(headers))
            credentials = botocore.credentials.Credentials(KEY, SECRET, token)
            kind = botocore.auth.SigV4Auth if form == "header" else botocore.auth.SigV4QueryAuth
            with mock.patch("botocore.auth.get_current_datetime", frozen, create=True), mock.patch(
                "botocore.compat.get_current_datetime", frozen, create=True
            ):
                kind(credentials, "kinesis", "eu-west-1").add_auth(request)
            prepared = request.prepare()
            out.append({
                "name": name + ", " + form,
                "method": method,
                "url": prepared.url,
                "body": raw.hex(),
                "headers": {k: (v.decode() if isinstance(v, bytes) else v) for k, v in prepared.headers.items() if k.lower() != "content-length"},
                "token": token or "",
            })
    json.dump(out, sys.stdout, indent=1)
    print()


main()
