"""Tries every address that it is given, and every name and way that leads out of a container."""
import errno, json, os, re, socket, struct, threading

targets = json.load(open("targets.json"))
WAIT = 0.3


def attempt(name, way):
    try:
        print(f"{name}: REACHED {way()}")
    except OSError as error:
        print(f"{name}: no {errno.errorcode.get(error.errno, type(error).__name__)}")


def tcp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(WAIT)
        client.connect((address, port))
        client.sendall(targets["word"].encode())
        return client.recv(64)


def udp(address, port, query=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT)
        for _ in range(3):
            client.sendto(query or targets["word"].encode(), (address, port))
        return client.recv(512)


def query(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def abstract(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name)
        return "connected"


def named(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return "connected"


# What must work: the same functions, inside.
server = socket.create_server(("127.0.0.1", 0))
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"own"), daemon=True).start()
threading.Thread(target=lambda: echo.sendto(b"own", echo.recvfrom(64)[1]), daemon=True).start()
attempt("control own tcp", lambda: tcp("127.0.0.1", server.getsockname()[1]))
attempt("control own udp", lambda: udp("127.0.0.1", echo.getsockname()[1]))
own = socket.socket(socket.AF_UNIX)
own.bind("\0own")
own.listen()
attempt("control own abstract", lambda: abstract("own"))
heard = socket.socket(socket.AF_UNIX)
heard.bind("/tmp/own.sock")
heard.listen()
attempt("control own named", lambda: named("/tmp/own.sock"))

for address in targets["addresses"]:
    for port in targets["tcp"]:
        attempt(f"tcp {address} {port}", lambda: tcp(address, port))
    for port in targets["udp"]:
        attempt(f"udp {address} {port}", lambda: udp(address, port))
        attempt(f"dns {address} {port}", lambda: udp(address, port, query(targets["word"] + ".example")))
attempt("engine's resolver by udp", lambda: udp("127.0.0.11", 53, query("example.com")))
attempt("engine's resolver by tcp", lambda: tcp("127.0.0.11", 53))
for name in ("host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.lima.internal",
             "docker.for.mac.localhost", "metadata.google.internal", targets["hostname"],
             targets["word"] + ".example", "example.com", "gateway"):
    attempt(f"name {name}", lambda: socket.getaddrinfo(name, 80))
for name in targets["abstract"]:
    attempt("abstract socket", lambda: abstract(name))
for path in targets["named"]:
    attempt("named socket", lambda: named(path))
for family, kind, protocol in ((2, 3, 1), (2, 3, 255), (2, 3, 17), (10, 3, 58), (17, 3, 0x300), (17, 2, 0x300),
                               (2, 2, 1), (40, 1, 0), (40, 2, 0), (16, 3, 12), (16, 3, 9), (16, 3, 4), (29, 3, 1), (44, 5, 0)):
    attempt(f"socket {family} {kind} {protocol}", lambda: socket.socket(family, kind, protocol))
attempt("broadcast", lambda: udp("255.255.255.255", targets["udp"][0]))
attempt("multicast", lambda: udp("224.0.0.251", targets["udp"][0]))
attempt("multicast 6", lambda: udp("ff02::fb", targets["udp"][0]))

# Where anything could go: the tables themselves. Foreign addresses are looked up in them, never sent to.
routes = open("/proc/net/route").read().splitlines()[1:]
routes6 = [line for line in open("/proc/net/ipv6_route").read().splitlines() if not line.endswith(" lo")] if os.path.exists("/proc/net/ipv6_route") else []
print(f"routes: {routes + routes6}")
links = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
print(f"links: {links}, also {sorted(set(os.listdir('/sys/class/net')) - set(links))}")
locals_ = set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", open("/proc/net/fib_trie").read()))
print(f"addresses: {sorted(locals_)}")
print(f"neighbours: {open('/proc/net/arp').read().splitlines()[1:]}")
