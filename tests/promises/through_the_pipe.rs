//! Connections from inside go through the pipe: whole in both directions, with their ends, and none
//! in the way of another one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::common::{Model, Product, Reply, Script, Workspace};

/// A server that says back what it hears, and then "END" when the other side has said all.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || say_back(stream));
        }
    });
    port
}

fn say_back(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = stream.read(&mut buffer) {
        // The client may be gone.
        if read == 0 || stream.write_all(&buffer[..read]).is_err() {
            let _ = stream.write_all(b"END");
            return;
        }
    }
}

const CLIENT: &str = r#"
import hashlib, os, socket, sys, threading
ports = [int(port) for port in sys.argv[1:]]

def connect(port):
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(30)
    return client

def read(client, most=1 << 30):
    parts, size = [], 0
    while size < most and (part := client.recv(min(1 << 16, most - size))):
        parts.append(part)
        size += len(part)
    return b"".join(parts)

# One that says more than all buffers take, and does not read.
stalled, data = connect(ports[0]), os.urandom(24 << 20)
def say():
    stalled.sendall(data)
    stalled.shutdown(socket.SHUT_WR)
talk = threading.Thread(target=say)
talk.start()
talk.join(2)
print("stalled:", talk.is_alive())

other = connect(ports[1])
for n in range(100):
    other.sendall(b"%04d" % n)
    assert read(other, 4) == b"%04d" % n
print("another one: heard")
other.shutdown(socket.SHUT_WR)
print("its end:", read(other))

back = read(stalled)
talk.join()
print("whole:", back == data + b"END", len(back))

# Many at once in both directions: none is cut where the queue is full.
def much(n):
    mine, client = os.urandom(4 << 20), connect(ports[n % 3])
    def say():
        client.sendall(mine)
        client.shutdown(socket.SHUT_WR)
    threading.Thread(target=say).start()
    whole.append(read(client) == mine + b"END")
whole = []
at_once = [threading.Thread(target=much, args=(n,)) for n in range(12)]
for one in at_once: one.start()
for one in at_once: one.join()
print("at once:", whole.count(True))

# Reset in the middle, again and again.
for n in range(200):
    gone = connect(ports[n % 2])
    gone.sendall(b"x" * n)
    if n % 3:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gone.close()

# More than are let in at once: the others wait, and come when some have gone.
def one(n):
    client = connect(ports[n % 3])
    client.sendall(b"%d" % n)
    client.shutdown(socket.SHUT_WR)
    return read(client) == b"%dEND" % n
held = [connect(ports[n % 2]) for n in range(64)]
for client in held:
    client.sendall(b"held")
some = [read(client, 4) == b"held" for client in held[:60]]
done = []
more = [threading.Thread(target=lambda n=n: done.append(one(n))) for n in range(40)]
for thread in more: thread.start()
more[0].join(1)
print("waiting:", len(done) == 0)
for client in held: client.close()
for thread in more: thread.join()
print("all:", done.count(True), all(some))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn as_if_there_were_no_sandbox_between() {
    let ports = [echo(), echo(), echo()];
    let [a, b, c] = ports;
    let script = Script::bash(&format!("python client.py {a} {b} {c}")).then(Reply::say("Done."));
    let model = Model::start(script).await;
    let config = format!("[egress]\nhost_ports = [{a}, {b}, {c}]\n");
    let product = Product::with_model(&model).await.config(&config);
    let workspace = Workspace::new();
    workspace.write("client.py", CLIENT);
    product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let seen = model.step(2).await.said_by("tool");
    let size = (24 << 20) + 3;
    for line in [
        "stalled: True",
        "another one: heard",
        "its end: b'END'",
        &format!("whole: True {size}"),
        "at once: 12",
        "waiting: True",
        "all: 40 True",
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    product.check_nothing_left().await;
}
