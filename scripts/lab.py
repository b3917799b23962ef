"""Servers, networks and the fleet, for the measurements (`scripts/measure`, `scripts/neighbours`).

As root everything is measured between two network namespaces joined by a veth pair, where each side pays for its own
half of TCP: the receive path of each end is steered (RPS) to the CPU of who owns it, the server's CPU 0 and the
fleet's CPU 1. On loopback, all that is left without root, the sender pays for the receiver's half as well.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PEERS = TARGET / "peers"
SERVER_CPU, FLEET_CPU = 0, 1
# The package that carries the sources of uWebSockets and uSockets.
UWS_PACKAGE = ("libuwebsockets-sys", "0.0.10")


def run(*command, check=True, **options):
    """The output of a command."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=check, **options)
    return done.stdout.decode()


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"measure: {what} did not happen within {seconds} s")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Networks


class Loopback:
    """Both sides on 127.0.0.0/8 of the host."""

    name, server_address = "loopback", "127.0.0.1"

    def on_server(self, command):
        return command

    on_fleet = on_server

    def remove(self):
        pass


class Veth:
    """Two namespaces and the pair between them; gone with `remove`, and what a killed run left with the next."""

    name, server_address, fleet_address = "veth", "198.18.0.1", "198.18.0.2"
    made = 0

    def __init__(self):
        self.remove_stale()
        Veth.made += 1
        self.server, self.fleet = (f"uproar-{os.getpid()}-{Veth.made}-{side}" for side in ("server", "fleet"))
        for namespace in (self.server, self.fleet):
            run("ip", "netns", "add", namespace)
        run("ip", "link", "add", "name", "pair", "netns", self.server, "type", "veth", "peer", "name", "pair",
            "netns", self.fleet)
        for namespace, address, cpu in ((self.server, self.server_address, SERVER_CPU),
                                        (self.fleet, self.fleet_address, FLEET_CPU)):
            run("ip", "-n", namespace, "address", "add", f"{address}/30", "dev", "pair")
            for link in ("lo", "pair"):
                run("ip", "-n", namespace, "link", "set", link, "up")
            run("ip", "netns", "exec", namespace, "sh", "-c",
                f"echo {1 << cpu:x} > /sys/class/net/pair/queues/rx-0/rps_cpus")
        # The fleet binds to addresses of 10.0.0.0/8, so that 50,000 connections find ports.
        run("ip", "-n", self.fleet, "route", "add", "local", "10.0.0.0/8", "dev", "lo")
        run("ip", "-n", self.server, "route", "add", "10.0.0.0/8", "via", self.fleet_address)

    @staticmethod
    def remove_stale():
        for namespace in run("ip", "netns", "list").split():
            owner = re.fullmatch(r"uproar-(\d+)-\d+-(?:server|fleet)", namespace)
            if owner and not pathlib.Path(f"/proc/{owner[1]}").exists():
                run("ip", "netns", "delete", namespace, check=False)

    def on_server(self, command):
        return ["ip", "netns", "exec", self.server, *command]

    def on_fleet(self, command):
        return ["ip", "netns", "exec", self.fleet, *command]

    def remove(self):
        for namespace in (self.server, self.fleet):
            run("ip", "netns", "delete", namespace, check=False)


def default_network():
    return Veth if os.geteuid() == 0 else Loopback


# Servers


class Server:
    """A server process pinned to CPU 0, in a network of its own; both end with the `with` block."""

    def __init__(self, command, name, folder, network, environment=None):
        """`command`: a function of the address and the port to listen on."""
        self.name, self.network, self.port = name, network(), free_port()
        self.log = open(folder / f"{name}.log", "ab")
        argv = ["taskset", "-c", SERVER_CPU, *command(self.network.server_address, self.port)]
        self.process = subprocess.Popen(
            [str(part) for part in self.network.on_server(argv)], stdout=self.log, stderr=self.log,
            stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
        try:
            wait_for(lambda: self.process.poll() is not None or self.listens(), 20, f"the start of {name}")
            if self.process.poll() is not None:
                raise SystemExit(f"measure: {name} ended at once; see {self.log.name}")
        except BaseException:
            self.__exit__()
            raise

    def listens(self):
        command = ["ss", "-Hltn", f"sport = :{self.port}"]
        return bool(run(*self.network.on_server(command)).strip())

    @property
    def address(self):
        return f"{self.network.server_address}:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()
        self.network.remove()


class Uproar(Server):
    """A node of one shard, without caps on posts."""

    def __init__(self, binary, folder, network, *flags):
        self.admin = free_port()
        super().__init__(
            lambda address, port: [binary, "serve", "--shards", 1, "--cpus", SERVER_CPU,
                                   "--listen", f"{address}:{port}", "--admin", f"127.0.0.1:{self.admin}",
                                   "--posts-per-sec-connection", 0, "--posts-per-sec-event", 0, *flags],
            "uproar", folder, network)

    def fetch(self, path):
        """What the admin port answers."""
        return run(*self.network.on_server(["curl", "-sf", "-m", 5, f"http://127.0.0.1:{self.admin}{path}"]))

    def metric(self, name):
        """The sum of a metric over its labels."""
        lines = self.fetch("/metrics").splitlines()
        values = [float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(values) if values else None


def uws_sources():
    """The folder of the sources, which a package of the registry carries."""
    name, version = UWS_PACKAGE
    crate = PEERS / "sources"
    (crate / "src").mkdir(parents=True, exist_ok=True)
    (crate / "src" / "lib.rs").touch()
    (crate / "Cargo.toml").write_text(
        f'[package]\nname = "sources"\nversion = "0.0.0"\n[dependencies]\n{name} = "={version}"\n[workspace]\n')
    metadata = json.loads(run("cargo", "metadata", "--format-version", 1, "--manifest-path", crate / "Cargo.toml"))
    manifest = next(each["manifest_path"] for each in metadata["packages"] if each["name"] == name)
    return pathlib.Path(manifest).parent / "uWebSockets"


def uws_binary():
    """uWebSockets' broadcast server, built natively: C++ over epoll, -O3, without TLS and compression."""
    source, binary = ROOT / "benches" / "peers" / "uws.cpp", PEERS / "uws"
    if binary.exists() and binary.stat().st_mtime > source.stat().st_mtime:
        return binary
    uws = uws_sources()
    sockets = uws / "uSockets" / "src"
    flags = ["-O3", "-march=native", "-DLIBUS_NO_SSL", "-DUWS_NO_ZLIB", f"-I{sockets}"]
    objects = []
    for file in sorted([*sockets.glob("*.c"), *(sockets / "eventing").glob("*.c")]):
        objects.append(PEERS / f"{file.stem}.o")
        run("gcc", *flags, "-c", file, "-o", objects[-1])
    run("g++", *flags, "-std=c++20", f"-I{uws / 'src'}", source, *objects, "-o", binary)
    return binary


class Uws(Server):
    """The peer."""

    def __init__(self, folder, network):
        super().__init__(lambda address, port: [uws_binary(), address, port], "uws", folder, network)


class Plain(Server):
    """A server that only accepts and holds sockets."""

    def __init__(self, field, folder, network):
        super().__init__(lambda address, port: [field, "plain-server", "--listen", f"{address}:{port}"],
                         "plain", folder, network)


# What happened beside a run


def strangers_cpu_seconds(ours):
    """CPU time so far of all processes but `ours`, their descendants and the kernel's threads, which may work for our
    sockets. That of children that have ended is in their parents'."""
    tick, parents, seconds = os.sysconf("SC_CLK_TCK"), {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2:].split()
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = sum(int(field) for field in fields[11:15]) / tick

    def is_strange(pid):
        while pid > 2 and pid not in ours:
            pid = parents.get(pid, 1)
        return pid <= 1

    return sum(used for pid, used in seconds.items() if is_strange(pid))


class Beside:
    """The share of a core that other processes took during a `with` block."""

    def __init__(self, *ours):
        self.ours = {os.getpid(), *ours}

    def __enter__(self):
        self.before, self.began = strangers_cpu_seconds(self.ours), time.monotonic()
        return self

    def __exit__(self, *_):
        used = strangers_cpu_seconds(self.ours) - self.before
        self.share = max(used, 0) / max(time.monotonic() - self.began, 1e-9)
