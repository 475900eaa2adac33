"""A gRPC server with the health service of grpcio-health-checking. Prints its port and that of its control: /SERVICE/STATUS
sets the status of a service, where "-" is the whole server. With a certificate and its key it speaks TLS."""

import concurrent.futures
import http.server
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

servicer = health.HealthServicer()


class Control(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        service, status = self.path.strip("/").split("/")
        servicer.set("" if service == "-" else service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
if len(sys.argv) > 2:
    certificate, key = (open(name, "rb").read() for name in sys.argv[1:3])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
control = http.server.HTTPServer(("127.0.0.1", 0), Control)
print(port)
print(control.server_port)
control.serve_forever()
