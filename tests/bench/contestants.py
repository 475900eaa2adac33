"""The proxies that are compared: how each is configured to one thread, and how it is started."""

import os
import pathlib
import resource
import shutil
import subprocess
import textwrap
from dataclasses import dataclass, field

SIZES = {"1k": 1024, "100k": 100 * 1024}
# It wants two files for each and does not start without them.
HAPROXY_CONNECTIONS = min(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 200)
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


@dataclass
class Place:
    """Where a contestant runs: its directory, its two ports, the origin, the certificate."""

    directory: pathlib.Path
    http: int
    https: int
    origin: int
    certificate: pathlib.Path
    key: pathlib.Path
    binaries: pathlib.Path

    def write(self, name, text):
        file = self.directory / name
        file.write_text(textwrap.dedent(text))
        return str(file)


@dataclass
class Contestant:
    name: str
    command: callable
    stop: str = "TERM"
    environment: dict = field(default_factory=dict)


def find(program):
    return shutil.which(program, path=PATH)


def origin_command(place):
    """nginx serving the two bodies from memory, as fast as an origin gets."""
    # In a directory of their own: one that holds configuration is watched, and each file opened in it seen.
    bodies = place.directory / "bodies"
    bodies.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        (bodies / name).write_bytes(b"x" * size)
    configuration = place.write("origin.conf", f"""
        daemon off; worker_processes 1; pid {place.directory}/origin.pid; error_log {place.directory}/origin.log;
        {root_user()}
        events {{ worker_connections 4096; }}
        http {{
          access_log off; open_file_cache max=16; sendfile on; tcp_nopush on;
          keepalive_requests 1000000000; keepalive_timeout 1h; {temporary(place, "origin")}
          server {{ listen 127.0.0.1:{place.origin} backlog=4096; root {bodies}; }}
        }}
    """)
    return [find("nginx"), "-p", str(place.directory), "-c", configuration]


def host_names(hosts):
    return [f"h{n}.example" for n in range(hosts)]


def nginx_command(place, workers="daemon off; worker_processes 1;", hosts=0, access_log="off"):
    """One server that takes every name; with `hosts`, one with that many names beside it."""
    location = 'location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }'
    # A server for each name would start in minutes under valgrind; a request looks its name up in the same table.
    listen = f"listen 127.0.0.1:{place.http}; listen 127.0.0.1:{place.https} ssl http2;"
    named = f"server {{ {listen} server_name {' '.join(host_names(hosts))}; {location} }}" if hosts else ""
    configuration = place.write("nginx.conf", f"""
        {workers} pid {place.directory}/nginx.pid; error_log {place.directory}/nginx.log;
        {root_user()}
        events {{ worker_connections 16384; }}
        http {{
          access_log {access_log}; server_names_hash_max_size {4 * hosts + 512};
          keepalive_requests 1000000000; proxy_max_temp_file_size 0; {temporary(place, "nginx")}
          ssl_certificate {place.certificate}; ssl_certificate_key {place.key}; ssl_protocols TLSv1.2 TLSv1.3;
          upstream origin {{ server 127.0.0.1:{place.origin}; keepalive 512; keepalive_requests 1000000000; }}
          server {{
            listen 127.0.0.1:{place.http} backlog=4096; listen 127.0.0.1:{place.https} ssl http2 backlog=4096;
            {location}
          }}
          {named}
        }}
    """)
    return [find("nginx"), "-p", str(place.directory), "-c", configuration]


def haproxy_command(place, hosts=0, access_log=False):
    """One backend for every name; with `hosts`, a map from that many names to it. The log goes to the standard output."""
    pem = place.directory / "haproxy.pem"
    pem.write_text(place.certificate.read_text() + place.key.read_text())
    names = place.write("haproxy.map", "".join(f"{name} origin\n" for name in host_names(hosts)))
    route = f"use_backend %[req.hdr(host),lower,map({names},unknown)]" if hosts else "default_backend origin"
    log = "log stdout format raw local0" if access_log else ""
    configuration = place.write("haproxy.cfg", f"""
        global
          {log}
          nbthread 1
          maxconn {HAPROXY_CONNECTIONS}
          ssl-default-bind-options ssl-min-ver TLSv1.2
        defaults
          mode http
          {"log global" if access_log else ""}
          {"option httplog" if access_log else ""}
          timeout connect 5s
          timeout client 60s
          timeout server 60s
          http-reuse always
        frontend all
          bind 127.0.0.1:{place.http}
          bind 127.0.0.1:{place.https} ssl crt {pem} alpn h2,http/1.1
          {route}
        backend origin
          server origin 127.0.0.1:{place.origin} pool-max-conn 512
    """)
    # Quiet, it closes its standard output.
    return [find("haproxy"), "-db", *([] if access_log else ["-q"]), "-f", configuration]


def caddy_command(place):
    configuration = place.write("Caddyfile", f"""
        {{
          admin off
          auto_https off
          log {{
            level ERROR
          }}
        }}
        http://:{place.http} {{
          bind 127.0.0.1
          reverse_proxy 127.0.0.1:{place.origin}
        }}
        https://:{place.https} {{
          bind 127.0.0.1
          tls {place.certificate} {place.key}
          reverse_proxy 127.0.0.1:{place.origin}
        }}
    """)
    return [find("caddy") or str(place.binaries / "caddy"), "run", "--adapter", "caddyfile", "--config", configuration]


def envoy_command(place):
    manager = """
                  codec_type: CODEC
                  stat_prefix: all
                  generate_request_id: false
                  route_config:
                    virtual_hosts:
                      - { name: all, domains: ["*"], routes: [{ match: { prefix: / }, route: { cluster: origin } }] }
                  http_filters:
                    - name: envoy.filters.http.router
                      typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
    """

    def listener(name, port, tls="", protocol="TCP", codec="AUTO"):
        return f"""
          - name: {name}
            address: {{ socket_address: {{ protocol: {protocol}, address: 127.0.0.1, port_value: {port} }} }}
            filter_chains:
              - filters:
                - name: envoy.filters.network.http_connection_manager
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
{textwrap.indent(textwrap.dedent(manager).replace("CODEC", codec), " " * 20)}{tls}"""

    tls = f"""
                transport_socket:
                  name: envoy.transport_sockets.tls
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
                    common_tls_context:
                      alpn_protocols: [h2, http/1.1]
                      tls_certificates: [{{ certificate_chain: {{ filename: {place.certificate} }}, private_key: {{ filename: {place.key} }} }}]
"""
    quic = f"""
                transport_socket:
                  name: envoy.transport_sockets.quic
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport
                    downstream_tls_context:
                      common_tls_context:
                        tls_certificates: [{{ certificate_chain: {{ filename: {place.certificate} }}, private_key: {{ filename: {place.key} }} }}]
            udp_listener_config: {{ quic_options: {{}}, downstream_socket_config: {{ prefer_gro: true }} }}
"""
    file = place.directory / "envoy.yaml"
    file.write_text(textwrap.dedent(f"""
        static_resources:
          listeners:{listener("http", place.http)}{listener("https", place.https, tls)}{listener("quic", place.https, quic, "UDP", "HTTP3")}
          clusters:
            - name: origin
              type: STATIC
              connect_timeout: 5s
              load_assignment:
                cluster_name: origin
                endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {place.origin} }} }} }} }}] }}]
    """))
    binary = find("envoy") or str(place.binaries / "envoy")
    return [binary, "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c", str(file)]


def bare_command(place):
    arguments = [f"127.0.0.1:{place.http}", f"127.0.0.1:{place.https}", place.certificate, place.key]
    return [str(place.binaries / "bare"), *map(str, arguments), f"127.0.0.1:{place.origin}"]


def portolan_command(hosts, protocols="h1, h2", access_log="false"):
    def command(place):
        names = "\n".join(
            f'  {name.partition(".")[0]}: {{ names: [{name}], routes: {{ all: {{ path: "/**", proxy: {{ upstream: origin }} }} }} }}'
            for name in host_names(hosts)
        )
        file = place.directory / f"portolan-{place.https}.yaml"
        file.write_text(textwrap.dedent(f"""
            process: {{ threads: 1 }}
            admin: {{ bind: "unix:admin-{place.https}.sock" }}
            access_log: {access_log}
            log: {{ level: warn }}
            defaults:
              middleware:
                - request_id: {{}}
                - response_headers: {{ set: {{ X-Served-By: portolan }} }}
            certificates: {{ wildcard: {{ cert: {place.certificate}, key: {place.key} }} }}
            listeners:
              http: {{ bind: "127.0.0.1:{place.http}", limits: {{ requests_per_connection: 1000000000 }} }}
              https:
                bind: "127.0.0.1:{place.https}"
                protocols: [{protocols}]
                tls: {{ certificates: [wildcard] }}
                limits: {{ requests_per_connection: 1000000000 }}
            upstreams: {{ origin: {{ endpoints: ["127.0.0.1:{place.origin}"] }} }}
            hosts:
        """) + names + "\n")
        return [str(place.binaries / "portolan"), "run", str(file)]

    return command


def contestants(binaries):
    """Those that are here, nginx and the bare proxy first: the others are measured by them."""
    every = [
        (find("nginx"), Contestant("nginx", nginx_command)),
        ((binaries / "bare").exists(), Contestant("bare Pingora", bare_command, stop="INT")),
        ((binaries / "portolan").exists(), Contestant("Portolan, 10 hosts", portolan_command(10))),
        ((binaries / "portolan").exists(), Contestant("Portolan, 10,000 hosts", portolan_command(10_000))),
        (find("haproxy"), Contestant("HAProxy", haproxy_command)),
        (find("envoy") or (binaries / "envoy").exists(), Contestant("Envoy", envoy_command)),
        (
            find("caddy") or (binaries / "caddy").exists(),
            Contestant("Caddy", caddy_command, environment={"GOMAXPROCS": "1"}),
        ),
    ]
    return [contestant for present, contestant in every if present]


def speaking_http3(binaries):
    """Those that speak HTTP/3 as well."""
    every = {contestant.name: contestant for contestant in contestants(binaries)}
    ours = Contestant("Portolan", portolan_command(10, "h1, h2, h3"))
    return [ours, *(every[name] for name in ("Envoy", "Caddy") if name in every)]


def versions(binaries):
    """One line for each program that ran."""
    commands = {
        "nginx": ["nginx", "-v"],
        "HAProxy": ["haproxy", "-v"],
        "Envoy": [find("envoy") or str(binaries / "envoy"), "--version"],
        "Caddy": [find("caddy") or str(binaries / "caddy"), "version"],
    }
    for name, command in commands.items():
        try:
            run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
            lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
            yield f"{name}: {lines[0].removeprefix(command[0]).strip()}"
        except (OSError, IndexError):
            continue


def root_user():
    return "user root;" if os.getuid() == 0 else ""


def temporary(place, name):
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    return " ".join(f"{kind}_temp_path {place.directory}/{name}-{kind};" for kind in kinds)
