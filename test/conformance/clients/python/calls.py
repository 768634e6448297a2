"""Calls a service through boto3 or the AWS CLI, as told line by line.

usage: calls.py boto3|cli SERVICE

Each line of standard input is {"op": name, "in": {...}}; each line of standard
output answers one. Bytes are {"$blob": base64}, times {"$time": milliseconds}.
"""

import base64
import contextlib
import datetime
import io
import json
import os
import sys
import tempfile

import botocore.exceptions
import botocore.response
import botocore.session
from botocore import xform_name

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def decode(value):
    if isinstance(value, dict):
        if "$blob" in value:
            return base64.b64decode(value["$blob"])
        if "$time" in value:
            return EPOCH + datetime.timedelta(milliseconds=value["$time"])
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(v) for v in value]
    return value


def encode(value):
    if isinstance(value, botocore.response.StreamingBody):
        value = value.read()
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"$time": round((value - EPOCH).total_seconds() * 1000)}
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items() if k != "ResponseMetadata"}
    if isinstance(value, list):
        return [encode(v) for v in value]
    return value


def failure(error):
    text = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return {"code": text.get("Code", ""), "message": text.get("Message", ""), "status": status}


class Boto3:
    """The SDK's client."""

    def __init__(self, service):
        import boto3
        from botocore.config import Config

        self.client = boto3.client(
            service,
            endpoint_url=os.environ["ENDPOINT"],
            verify=os.environ.get("CA") or None,
            config=Config(
                parameter_validation=False,
                retries={"total_max_attempts": 1},
                read_timeout=60,
            ),
        )

    def call(self, request):
        method = getattr(self.client, xform_name(request["op"]), None)
        if method is None:
            return {"unknown": True}
        try:
            out = method(**decode(request["in"]))
            if request["op"] != "SubscribeToShard":
                return {"out": encode(out)}
            return {"out": self.events(out["EventStream"], request.get("records", 0))}
        except botocore.exceptions.ClientError as error:
            return {"error": failure(error)}

    def events(self, stream, wanted):
        events, records = [], 0
        try:
            for event in stream:
                body = event["SubscribeToShardEvent"]
                events.append(encode(body))
                records += len(body["Records"])
                if wanted and records >= wanted:
                    stream.close()
                    return {"Events": events, "Ended": False}
        except botocore.exceptions.EventStreamError as error:
            return {"Events": events, "Ended": True, "Failure": failure(error)}
        return {"Events": events, "Ended": True}


class CommandLine:
    """The AWS CLI, run inside this process once per call."""

    def __init__(self, service):
        import awscli.botocore.session as session
        from awscli.clidriver import create_clidriver

        self.create = create_clidriver
        self.service = service
        self.model = session.get_session().get_service_model(service)
        self.driver = create_clidriver()

    # The CLI takes bytes in JSON input as text, and times as text. Bytes that
    # are no text go through a file, which only a parameter of its own can.
    def argument(self, value):
        if isinstance(value, dict):
            if "$blob" in value:
                return base64.b64decode(value["$blob"]).decode()
            if "$time" in value:
                return decode(value).isoformat()
            return {k: self.argument(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.argument(v) for v in value]
        return value

    # The CLI prints bytes as base64 and times as text or seconds; the model
    # tells which is which.
    def result(self, value, shape):
        if shape is None:
            return value
        kind = shape.type_name
        if kind == "structure":
            return {k: self.result(v, shape.members.get(k)) for k, v in value.items()}
        if kind == "list":
            return [self.result(v, shape.member) for v in value]
        if kind == "blob":
            return {"$blob": value}
        if kind == "timestamp":
            if isinstance(value, str):
                value = datetime.datetime.fromisoformat(value).timestamp()
            return {"$time": round(value * 1000)}
        return value

    def call(self, request):
        op = request["op"]
        if op not in self.model.operation_names or op == "SubscribeToShard":
            return {"unknown": True}
        given = dict(request["in"])
        data = []
        if op == "PutRecord" and "Data" in given:
            with tempfile.NamedTemporaryFile(delete=False) as file:
                file.write(base64.b64decode(given.pop("Data")["$blob"]))
            data = ["--data", "fileb://" + file.name]
        arguments = [
            self.service,
            xform_name(op, "-"),
            "--endpoint-url",
            os.environ["ENDPOINT"],
            "--output",
            "json",
            "--no-paginate",
            "--cli-input-json",
            json.dumps(self.argument(given)),
        ] + data
        operation = self.model.operation_model(op)
        pageable = {"DescribeStream", "ListShards", "ListStreams", "ListStreamConsumers", "ListChannels", "ListQueues", "ListApplications"}
        if op not in pageable:
            arguments.remove("--no-paginate")
        if os.environ.get("CA"):
            arguments += ["--ca-bundle", os.environ["CA"]]
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = self.driver.main(arguments)
        except SystemExit as end:
            status = end.code
        for path in data[1:]:
            os.unlink(path.removeprefix("fileb://"))
        if status == 0:
            text = out.getvalue().strip()
            return {"out": self.result(json.loads(text) if text else {}, operation.output_shape)}
        text = err.getvalue().strip()
        if "An error occurred (" in text:
            text = text[text.index("An error occurred (") + len("An error occurred (") :]
            code, rest = text.split(")", 1)
            message = rest.split("operation: ", 1)[-1]
            return {"error": {"code": code, "message": message, "status": 0}}
        return {"error": {"code": "ClientSide", "message": text, "status": 0}}


def main():
    client = {"boto3": Boto3, "cli": CommandLine}[sys.argv[1]](sys.argv[2])
    answers = sys.stdout
    for line in sys.stdin:
        try:
            answer = client.call(json.loads(line))
        except Exception as error:  # reported to the test, which fails on it
            answer = {"error": {"code": "ClientSide", "message": repr(error), "status": 0}}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()
