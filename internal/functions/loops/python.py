# Runs a handler: asks the Runtime API for events, calls the function that
# _HANDLER names, and brings back what it returns.
import http.client
import importlib
import importlib.util
import json
import logging
import os
import runpy
import sys
import time
import traceback


class Context:
    """What a handler finds out about its call."""

    def __init__(self, headers):
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.identity = None
        self.client_context = None
        if headers.get("Lambda-Runtime-Client-Context"):
            self.client_context = ClientContext(json.loads(headers["Lambda-Runtime-Client-Context"]))
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self):
        return max(self._deadline - int(time.time() * 1000), 0)

    def log(self, text):
        sys.stdout.write(str(text))


class ClientContext:
    def __init__(self, data):
        self.custom = data.get("custom")
        self.env = data.get("env")
        self.client = data.get("client")


class Format(logging.Formatter):
    """Lines as Lambda's own loop writes them."""

    request_id = ""

    def format(self, record):
        record.aws_request_id = Format.request_id
        return super().format(record)


def describe(error, request_id=None, skip=0):
    document = {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_list(traceback.extract_tb(error.__traceback__)[skip:]),
    }
    if request_id:
        document["requestId"] = request_id
    return document


class Client:
    def __init__(self):
        self.connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def call(self, method, path, body=None, kind=None):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if kind:
            headers["Lambda-Runtime-Function-Error-Type"] = kind
        self.connection.request(method, "/2018-06-01/runtime" + path, body, headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def fail(self, path, document):
        print("[ERROR] %s: %s" % (document["errorType"], document["errorMessage"]))
        print("".join(document.get("stackTrace", [])), end="")
        sys.stdout.flush()
        self.call("POST", path, json.dumps(document).encode(), document["errorType"])


class StartError(Exception):
    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.document = {"errorMessage": message, "errorType": kind, "requestId": "", "stackTrace": list(trace)}


def load(name):
    module_name, _, function = name.rpartition(".")
    module_name = module_name.replace("/", ".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise StartError("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module_name, error))
    except SyntaxError as error:
        raise StartError(
            "Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module_name, error),
            ['  File "%s" Line %s\n    %s\n' % (error.filename, error.lineno, (error.text or "").rstrip())])
    except Exception as error:  # whatever the module's own code raises
        document = describe(error)
        raise StartError(document["errorType"], document["errorMessage"], document["stackTrace"])
    if not hasattr(module, function):
        raise StartError("Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (function, module_name))
    return getattr(module, function)


def main():
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
    name = os.environ["_HANDLER"]
    if importlib.util.find_spec("awslambdaric"):
        sys.argv = ["awslambdaric", name]
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
        return
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(Format("[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"))
    lines.formatter.converter = time.gmtime
    logging.getLogger().addHandler(lines)
    client = Client()
    try:
        handler = load(name)
    except StartError as error:
        client.fail("/init/error", error.document)
        sys.exit(1)
    while True:
        answer, body = client.call("GET", "/invocation/next")
        if answer.status != 200:
            sys.exit("no event: %d %s" % (answer.status, body.decode(errors="replace")))
        context = Context(answer.headers)
        Format.request_id = context.aws_request_id
        trace = answer.headers.get("Lambda-Runtime-Trace-Id")
        if trace:
            os.environ["_X_AMZN_TRACE_ID"] = trace
        path = "/invocation/" + context.aws_request_id
        try:
            try:
                event = json.loads(body)
            except Exception as error:
                raise StartError("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error)
            result = handler(event, context)
            try:
                result = json.dumps(result, ensure_ascii=False).encode()
            except Exception as error:
                raise StartError("Runtime.MarshalError", "Unable to marshal response: %s" % error)
        except StartError as error:
            error.document["requestId"] = context.aws_request_id
            client.fail(path + "/error", error.document)
            continue
        except Exception as error:
            client.fail(path + "/error", describe(error, context.aws_request_id, 1))
            continue
        sys.stdout.flush()
        client.call("POST", path + "/response", result)


main()
