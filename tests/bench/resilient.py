"""The proxies that are compared while endpoints fail, each with the settings that are known for it to get over failures."""

import pathlib
import textwrap
from dataclasses import dataclass, field

from contestants import HAPROXY_CONNECTIONS, find, root_user, temporary


@dataclass
class Setting:
    """Where a contestant runs, and its endpoints: by address, or by the name app.test where there is a DNS server."""

    directory: pathlib.Path
    port: int
    addresses: list
    origin_port: int
    dns_port: int
    options: object

    def write(self, name, text):
        file = self.directory / name
        file.write_text(textwrap.dedent(text))
        return str(file)

    def endpoints(self, form):
        return [form.format(f"{address}:{self.origin_port}", n=nth) for nth, address in enumerate(self.addresses)]


@dataclass(eq=False)
class Contestant:
    name: str
    command: callable
    program: str
    environment: dict = field(default_factory=dict)

    def is_here(self, options):
        return options.portolan.exists() if self.program == "portolan" else bool(program(self.program, options))


def program(name, options):
    return find(name) or next((str(path) for path in [options.binaries / name] if path.exists()), None)


def portolan(tuned):
    def command(setting):
        endpoints = [f'"{address}"' for address in setting.endpoints("{}")]
        if setting.dns_port:
            endpoints = [f'"app.test:{setting.origin_port}"']
        tuning = """
    balance: least_requests
    health: { http: { path: / }, interval: 1s, timeout: 1s, unhealthy_after: 2, healthy_after: 1 }
    outlier: { consecutive_failures: 3, failure_ratio: 30%, latency: 300%, eject_for: 1s }
    retry: { retries: 3, when: [connect_failure, reset, timeout, 503], per_try_timeout: 1s }
    timeouts: { connect: 1s }
""" if tuned else ""
        resolvers = f'resolvers: ["127.0.0.1:{setting.dns_port}"]' if setting.dns_port else ""
        file = setting.write("portolan.yaml", f"""
process: {{ threads: 1 }}
admin: {{ bind: "unix:admin.sock" }}
access_log: false
{resolvers}
listeners: {{ http: {{ bind: "127.0.0.1:{setting.port}", limits: {{ requests_per_connection: 1000000000 }} }} }}
upstreams:
  app:
    endpoints: [{", ".join(endpoints)}]
{tuning}
hosts: {{ all: {{ names: ["*"], routes: {{ all: {{ path: "/**", proxy: {{ upstream: app }} }} }} }} }}
""")
        return [str(setting.options.portolan), "run", file]

    return command


def haproxy(setting):
    check = "check inter 1s fall 2 rise 1 observe layer7 error-limit 10 on-error mark-down"
    servers = setting.endpoints(f"server s{{n}} {{}} {check}")
    resolvers = ""
    if setting.dns_port:
        resolvers = f"""
        resolvers dns
          nameserver d 127.0.0.1:{setting.dns_port}
          hold valid 1s
          hold obsolete 1s
          timeout resolve 1s
        """
        servers = [f"server-template s 8 app.test:{setting.origin_port} {check} resolvers dns init-addr none"]
    lines = "\n          ".join(servers)
    file = setting.write("haproxy.cfg", f"""
        global
          nbthread 1
          maxconn {HAPROXY_CONNECTIONS}
        {resolvers}
        defaults
          mode http
          timeout connect 1s
          timeout client 60s
          timeout server 1s
          http-reuse always
          retries 3
          option redispatch 1
          retry-on conn-failure empty-response junk-response response-timeout 503
        frontend all
          bind 127.0.0.1:{setting.port}
          default_backend app
        backend app
          balance leastconn
          option httpchk GET /
          {lines}
    """)
    return [find("haproxy"), "-db", "-q", "-f", file]


def nginx(setting):
    servers = " ".join(setting.endpoints("server {} max_fails=3 fail_timeout=1s;"))
    to = "set $app app.test; proxy_pass http://$app:%d;" % setting.origin_port if setting.dns_port else "proxy_pass http://app;"
    resolver = f"resolver 127.0.0.1:{setting.dns_port} valid=1s ipv6=off;" if setting.dns_port else ""
    place = setting
    file = setting.write("nginx.conf", f"""
        daemon off; worker_processes 1; pid {setting.directory}/nginx.pid; error_log {setting.directory}/nginx.log crit;
        {root_user()}
        events {{ worker_connections 16384; }}
        http {{
          access_log off; keepalive_requests 1000000000; {temporary(place, "nginx")} {resolver}
          upstream app {{ least_conn; {servers} keepalive 512; keepalive_requests 1000000000; }}
          server {{
            listen 127.0.0.1:{setting.port} backlog=4096;
            location / {{
              {to} proxy_http_version 1.1; proxy_set_header Connection "";
              proxy_connect_timeout 1s; proxy_read_timeout 1s; proxy_send_timeout 1s;
              proxy_next_upstream error timeout invalid_header http_502 http_503 http_504; proxy_next_upstream_tries 4;
            }}
          }}
        }}
    """)
    return [find("nginx"), "-p", str(setting.directory), "-c", file]


def envoy(setting):
    addresses = ["app.test"] if setting.dns_port else setting.addresses
    endpoints = "\n".join(
        f"              - endpoint: {{ address: {{ socket_address: {{ address: {address}, port_value: {setting.origin_port} }} }} }}"
        for address in addresses
    )
    dns = f"""
      type: STRICT_DNS
      dns_lookup_family: V4_ONLY
      dns_refresh_rate: 1s
      typed_dns_resolver_config:
        name: envoy.network.dns_resolver.cares
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
          resolvers: [{{ socket_address: {{ address: 127.0.0.1, port_value: {setting.dns_port} }} }}]
          dns_resolver_options: {{ use_tcp_for_dns_lookups: false, no_default_search_domain: true }}
""" if setting.dns_port else "\n      type: STATIC\n"
    file = setting.write("envoy.yaml", f"""
static_resources:
  listeners:
    - name: http
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {setting.port} }} }}
      filter_chains:
        - filters:
          - name: envoy.filters.network.http_connection_manager
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
              stat_prefix: all
              generate_request_id: false
              route_config:
                virtual_hosts:
                  - name: all
                    domains: ["*"]
                    routes:
                      - match: {{ prefix: / }}
                        route:
                          cluster: app
                          retry_policy:
                            retry_on: "connect-failure,refused-stream,reset,retriable-status-codes"
                            retriable_status_codes: [503, 504]
                            num_retries: 3
                            per_try_timeout: 1s
                            retry_host_predicate:
                              - name: envoy.retry_host_predicates.previous_hosts
                                typed_config:
                                  "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                            host_selection_retry_max_attempts: 5
              http_filters:
                - name: envoy.filters.http.router
                  typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
    - name: app
      connect_timeout: 1s
      lb_policy: LEAST_REQUEST{dns}
      circuit_breakers: {{ thresholds: [{{ max_connections: 10000, max_pending_requests: 10000, max_requests: 10000, max_retries: 1000 }}] }}
      outlier_detection: {{ consecutive_5xx: 3, interval: 1s, base_ejection_time: 1s, max_ejection_percent: 50 }}
      health_checks:
        - timeout: 1s
          interval: 1s
          unhealthy_threshold: 2
          healthy_threshold: 1
          http_health_check: {{ path: / }}
      load_assignment:
        cluster_name: app
        endpoints:
          - lb_endpoints:
{endpoints}
""")
    return [program("envoy", setting.options), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id", "-c", file]


def caddy(setting):
    to = " ".join(setting.endpoints("{}"))
    dynamic = f"""
            dynamic a {{
              name app.test
              port {setting.origin_port}
              refresh 1s
              resolvers 127.0.0.1:{setting.dns_port}
            }}""" if setting.dns_port else f"""
            to {to}
            health_uri /
            health_interval 1s
            health_timeout 1s"""
    file = setting.write("Caddyfile", f"""
        {{
          admin off
          auto_https off
          log {{
            level ERROR
          }}
        }}
        http://:{setting.port} {{
          bind 127.0.0.1
          reverse_proxy {{
            {dynamic}
            lb_policy least_conn
            lb_retries 3
            lb_try_interval 10ms
            fail_duration 1s
            max_fails 3
            transport http {{
              dial_timeout 1s
              response_header_timeout 1s
            }}
          }}
        }}
    """)
    return [program("caddy", setting.options), "run", "--adapter", "caddyfile", "--config", file]


CONTESTANTS = [
    Contestant("Portolan", portolan(True), "portolan"),
    Contestant("Portolan, defaults", portolan(False), "portolan"),
    Contestant("HAProxy", haproxy, "haproxy"),
    Contestant("nginx", nginx, "nginx"),
    Contestant("Envoy", envoy, "envoy"),
    Contestant("Caddy", caddy, "caddy", environment={"GOMAXPROCS": "1"}),
]
