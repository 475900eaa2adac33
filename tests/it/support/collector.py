"""A collector of traces, by OpenTelemetry's own messages: OTLP/gRPC on one port (grpcio), OTLP/HTTP on another. It
prints both; where they are given as arguments, it takes these. /spans on the second shows what came, with what it came
by; /answer?grpc=UNAVAILABLE&http=503 has it refuse what comes from then on, /answer? has it take it again; /wait?1 has
it take messages and say nothing."""

import concurrent.futures
import http.server
import json
import sys
import threading
import urllib.parse

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

lock = threading.Lock()
spans = []
answer = {}
silent = threading.Event()
KINDS = {trace_pb2.Span.SPAN_KIND_SERVER: "server", trace_pb2.Span.SPAN_KIND_CLIENT: "client",
         trace_pb2.Span.SPAN_KIND_INTERNAL: "internal"}


def values(attributes):
    named = {attribute.key: attribute.value for attribute in attributes}
    assert len(named) == len(attributes), "a key stands twice"
    return {key: getattr(value, value.WhichOneof("value")) for key, value in named.items()}


def take(message, protocol, fields):
    with lock:
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    assert len(span.trace_id) == 16 and len(span.span_id) == 8
                    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
                    spans.append({
                        "protocol": protocol,
                        "fields": fields,
                        "resource": values(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "state": span.trace_state,
                        "flags": span.flags,
                        "name": span.name,
                        "kind": KINDS[span.kind],
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "attributes": values(span.attributes),
                        "failed": span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    })


class Service(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        while silent.is_set() and context.is_active():
            silent.wait(0.01)
        if "grpc" in answer:
            context.abort(grpc.StatusCode[answer["grpc"]], "as it was told")
        take(request, "grpc", {key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        return trace_service_pb2.ExportTraceServiceResponse()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if "http" in answer:
            return self.say(int(answer["http"]), b"")
        assert self.headers["content-type"] == "application/x-protobuf", self.headers
        message = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        take(message, "http", {**{key.lower(): value for key, value in self.headers.items()}, "path": self.path})
        self.say(200, trace_service_pb2.ExportTraceServiceResponse().SerializeToString())

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/answer":
            answer.clear()
            answer.update(urllib.parse.parse_qsl(url.query))
        if url.path == "/wait":
            (silent.set if url.query == "1" else silent.clear)()
        with lock:
            self.say(200, json.dumps(spans).encode())

    def say(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


grpc_port, http_port = [int(argument) for argument in sys.argv[1:]] or [0, 0]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
print(server.add_insecure_port(f"127.0.0.1:{grpc_port}"))
server.start()
web = http.server.ThreadingHTTPServer(("127.0.0.1", http_port), Handler)
print(web.server_port)
web.serve_forever()
