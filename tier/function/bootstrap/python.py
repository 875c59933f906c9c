"""Runs a handler of Lambda for Python: asks the Runtime API for events and answers them.

Without dependencies. Python 3.9 and later.
"""

import http.client
import importlib
import json
import os
import sys
import threading
import time
import traceback

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
BASE = "/2018-06-01/runtime/"


class Line:
    """A connection of one thread."""

    def __init__(self):
        self.conn = None

    def ask(self, method, where, body=None, headers=None):
        if self.conn is None:
            self.conn = http.client.HTTPConnection(API)
        try:
            self.conn.request(method, BASE + where, body=body, headers=headers or {})
            res = self.conn.getresponse()
            return res.status, res.headers, res.read()
        except (http.client.HTTPException, OSError):
            self.conn.close()
            self.conn = None
            raise


class Identity:
    def __init__(self, said):
        said = said or {}
        self.cognito_identity_id = said.get("cognitoIdentityId")
        self.cognito_identity_pool_id = said.get("cognitoIdentityPoolId")


class ClientContext:
    def __init__(self, said):
        self.custom = said.get("custom")
        self.env = said.get("env")
        self.client = said.get("client")


class Context:
    def __init__(self, headers):
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        client = headers.get("Lambda-Runtime-Client-Context")
        self.client_context = ClientContext(json.loads(client)) if client else None
        identity = headers.get("Lambda-Runtime-Cognito-Identity")
        self.identity = Identity(json.loads(identity) if identity else None)

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline - int(time.time() * 1000))


class Bad(Exception):
    """An error with a name of the Runtime API."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


def load():
    said = os.environ.get("_HANDLER", "")
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "."))
    module, dot, name = said.rpartition(".")
    if not dot:
        raise Bad("Runtime.MalformedHandlerName", "Bad handler '%s': write file.function" % said)
    try:
        found = importlib.import_module(module.replace("/", "."))
    except ImportError as e:
        raise Bad("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module, e)) from e
    except SyntaxError as e:
        raise Bad("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module, e)) from e
    if not hasattr(found, name):
        raise Bad("Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (name, module))
    return getattr(found, name)


def fail(line, where, error, request=None):
    kind = getattr(error, "kind", None) or type(error).__name__
    trace = traceback.format_exception(type(error), error, error.__traceback__)
    sys.stderr.write("".join(trace))
    sys.stderr.flush()
    said = {"errorMessage": str(error), "errorType": kind, "stackTrace": traceback.format_tb(error.__traceback__)[1:]}
    if request:
        said["requestId"] = request
    line.ask("POST", where, json.dumps(said), {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": kind})


def loop(handler):
    line = Line()
    while True:
        status, headers, body = line.ask("GET", "invocation/next")
        if status != 200:
            return
        request = headers["Lambda-Runtime-Aws-Request-Id"]
        trace = headers.get("Lambda-Runtime-Trace-Id")
        if trace:
            os.environ["_X_AMZN_TRACE_ID"] = trace
        try:
            value = handler(json.loads(body), Context(headers))
            try:
                out = json.dumps(value, ensure_ascii=False).encode("utf-8")
            except (TypeError, ValueError) as e:
                raise Bad("Runtime.MarshalError", "Unable to marshal response: %s" % e) from e
        except Exception as e:  # noqa: BLE001 (whatever a handler raises is its answer)
            sys.stdout.flush()
            fail(line, "invocation/%s/error" % request, e, request)
            continue
        sys.stdout.flush()
        line.ask("POST", "invocation/%s/response" % request, out, {"Content-Type": "application/json"})


def main():
    try:
        handler = load()
    except BaseException as e:  # noqa: BLE001 (SystemExit of a module is an error, too)
        fail(Line(), "init/error", e)
        sys.exit(1)
    threads = int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1"))
    for _ in range(threads - 1):
        threading.Thread(target=loop, args=(handler,), daemon=True).start()
    loop(handler)


main()
