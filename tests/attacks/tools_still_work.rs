//! The other side of a tight profile: the tools of the image work in it, offline.

use crate::common::Workspace;
use crate::inside::{assert_lines, attack};

/// Each prints one line when all of it worked.
const WORK: &str = r#"
    cd "$(mktemp -d)" && try() { name=$1; shift; if "$@" > log 2>&1; then echo "$name works"; else
        echo "$name FAILS"; tail -5 log; fi; }
    git_() { git init -q . && echo a > a && git add a && git commit -qm one && git gc -q &&
        git worktree add -q ../tree-$$ -b side && git clone -q . ../clone-$$ && git fsck && git log -1; }
    c_() { printf '#include <pthread.h>\n#include <stdio.h>\nstatic void *f(void *p) { return p; }\n
            int main(void) { pthread_t t; if (pthread_create(&t, 0, f, 0)) return 1;
            pthread_join(t, 0); puts("ran"); }' > t.c && gcc -O2 -pthread -o t t.c && ./t; }
    cpp_() { printf '#include <thread>\n#include <filesystem>\nint main() { std::thread([] {}).join();
            std::filesystem::create_directories("d/e"); std::filesystem::copy("d", "f"); }' > t.cc &&
        g++ -std=c++17 -pthread -o u t.cc && ./u && test -d f; }
    make_() { printf 'all: one two\none two:\n\t@echo $@ > $@.out\n' > Makefile && make -j4 && test -s two.out; }
    node_() { node -e 'const { Worker } = require("worker_threads"), fs = require("fs"), net = require("net");
        fs.cpSync("a", "a2"); fs.watch(".").close(); require("child_process").execFileSync("true");
        new Worker("1", { eval: true }).on("exit", () => { const s = net.createServer(c => c.end("x"));
        s.listen(0, "127.0.0.1", () => net.connect(s.address().port).on("data", () => process.exit(0))); })'; }
    npm_() { mkdir -p n/dep && printf '{"name":"dep","version":"1.0.0"}' > n/dep/package.json &&
        printf '{"name":"n","version":"1.0.0","scripts":{"test":"node -e 1"},"dependencies":{"dep":"file:./dep"}}' > n/package.json &&
        (cd n && npm install --offline --no-audit --no-fund && npm test && npm pack); }
    python_() { python -c '
import asyncio, multiprocessing, os, shutil, socket, sqlite3, subprocess, tempfile, threading
assert subprocess.run(["true"]).returncode == 0
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
async def talk():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
asyncio.run(talk())
db = sqlite3.connect("x.db"); db.execute("pragma journal_mode=wal"); db.execute("create table t (a)")
shutil.copy2("a", "b"); os.mkfifo("fifo"); tempfile.TemporaryFile().write(b"x")
'; }
    pip_() { python -m venv v && v/bin/pip --version && mkdir -p p && printf 'from setuptools import setup\nsetup(name="p", version="1", py_modules=["p"])\n' > p/setup.py &&
        echo 'x = 1' > p/p.py && v/bin/pip install --no-index --no-build-isolation ./p && v/bin/python -c 'import p'; }
    archives_() { tar czf t.tgz t.c && tar xzf t.tgz && zip -q t.zip t.c && unzip -oq t.zip && xz -k t.c && patch --version; }
    text_() { rg -q pthread t.c && jq -n 1 && file t.c && find . -name t.c | xargs grep -l pthread && sort -o a a && sed -i s/a/b/ a; }
    rights_() { chmod 755 a && chmod u+x,g-w a && chmod -R a+rX . && install -m 700 a i && cp -a a j && umask 022 && mktemp && mkdir -m 1777 s; }
    limits_() { ulimit -n 100 && nice -n 5 true && timeout 5 true && nohup true && setsid true && taskset -c 0 true; }
    perl_() { perl -MSocket -e 'socketpair my $a, my $b, AF_UNIX, SOCK_STREAM, 0 or die; fork // die; exit 0'; }
    socat_() { socat -T2 - EXEC:cat < a; }
    curl_() { python -m http.server 8099 --bind 127.0.0.1 & server=$!; for i in 1 2 3 4 5 6 7 8 9 10; do
        curl -sf http://127.0.0.1:8099/t.c -o got && break; sleep 0.3; done; kill $server; cmp got t.c; }
    for tool in git c cpp make node npm python pip archives text rights limits perl socat curl; do try $tool "${tool}_"; done
    ps aux > /dev/null && echo "ps works"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn under_the_profile() {
    let seen = attack(&Workspace::new(), WORK).await;
    assert_lines(
        &seen.told,
        "git works\n c works\n cpp works\n make works\n node works\n npm works\n python works\n
         pip works\n archives works\n text works\n rights works\n limits works\n perl works\n
         socat works\n curl works\n ps works\n",
    );
}
